"""Text that is safe and easy to read on a terminal."""

from __future__ import annotations

import re

# Control characters, and those that are not seen or turn the direction of others.
_CONTROL = re.compile(
    r"[\x00-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


def safe(text: str, *, lines: bool = False) -> str:
    """The text with control characters written out: a name cannot move the cursor or hide.

    With `lines` ends of lines stay.
    """
    if lines:
        return "\n".join(safe(line) for line in text.split("\n"))
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def quote(word: str) -> str:
    """The word as bash reads it back; control characters written out."""
    if re.fullmatch(r"[A-Za-z0-9_@%+=:,./-]+", word):
        return word
    if _CONTROL.search(word):
        plain = word.replace("\\", "\\\\").replace("'", "\\'")
        return f"$'{_CONTROL.sub(_escape, plain)}'"
    return "'" + word.replace("'", "'\"'\"'") + "'"


def _escape(found: re.Match[str]) -> str:
    # surrogateescape: bytes of a path that are no UTF-8 come back as those bytes
    return "".join(f"\\x{byte:02x}" for byte in found[0].encode("utf-8", "surrogateescape"))


def format_size(size_bytes: float) -> str:
    """`12.3 MB`."""
    for unit in ("B", "kB", "MB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.2f} GB"
