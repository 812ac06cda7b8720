"""What a code of findings is; the tables are in `codes_machine` and `codes_image`."""

from __future__ import annotations

import msgspec


class Code(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of finding. `fix` is what `--fix` does about it; empty where that is for people."""

    code: str
    title: str
    meaning: str
    remedy: str
    fix: str = ""

    @property
    def command(self) -> str:
        """Which command finds it."""
        return "limpet doctor" if self.code < "LMP5" else "limpet check"


def code(code: str, title: str, meaning: str, remedy: str, fix: str = "") -> Code:
    return Code(code=code, title=title, meaning=meaning, remedy=remedy, fix=fix)
