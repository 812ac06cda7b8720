"""Login: what a registry is told about its user."""

from __future__ import annotations

import msgspec


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """Name and password, or an identity token that is exchanged for access. Never printed."""

    user: str = ""
    password: str = ""
    identity_token: str = ""

    def __repr__(self) -> str:
        return f"Login(user={self.user!r})"
