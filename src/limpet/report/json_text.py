"""Values as JSON that may be printed on a terminal, whatever an image put into them."""

from __future__ import annotations

import json
import re

import msgspec

# What JSON leaves as it is and terminals do not: C1 controls, line and direction marks.
_MARKS = re.compile(r"[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_BYTES = re.compile(r"[\udc80-\udcff]")  # bytes of names that are no UTF-8
_HALVES = re.compile(r"[\ud800-\udfff]")


def to_json(value: object) -> str:
    """Indented JSON in UTF-8; control characters escaped, bytes outside UTF-8 as `\\xff`."""
    text = json.dumps(msgspec.to_builtins(value), ensure_ascii=False, indent=2)
    text = _BYTES.sub(lambda found: f"\\\\x{ord(found[0]) - 0xDC00:02x}", text)
    text = _MARKS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    return _HALVES.sub("�", text) + "\n"
