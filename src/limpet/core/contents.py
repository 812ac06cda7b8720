"""Contents: what is installed in an image, as its own files say, with sizes, licences and reasons.

Nothing here trusts an image: whoever shows these values escapes them (`report.text.safe`).
"""

from __future__ import annotations

from typing import Literal

import msgspec

Manager = Literal["pip", "conda", "base", "system", "other"]
MANAGERS: dict[Manager, str] = {
    "pip": "installed with pip",
    "conda": "installed with conda",
    "base": "Python packages of the base",
    "system": "system packages",
    "other": "files of no package",
}


class Software(msgspec.Struct, frozen=True, kw_only=True):
    """One installed package, or (`other`) the files below one folder that belong to none.

    `name` is normalised (PEP 503) for Python's packages. `provides` are further names by which it
    is required: that of the Python package in a conda package. `requires` are the lines as its
    metadata have them; `modules` what can be imported by name. `folder` is where it is installed:
    site-packages or conda's prefix. `size_bytes` is unpacked; `useless_bytes` of it are tests and
    static libraries. `trouble` says why its name and version are only guessed.
    """

    name: str
    version: str = ""
    manager: Manager
    size_bytes: int = 0
    files: int = 0
    useless_bytes: int = 0
    folder: str = ""
    license: str = ""
    summary: str = ""
    provides: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    trouble: str = ""


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One file system of the image. `packed_bytes` in the image, `size_bytes` and `files` inside.

    What a later layer hides is counted in the layer that has it.
    """

    name: str
    packed_bytes: int
    size_bytes: int
    files: int


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """All that is in an image.

    `requested` are the requirements of the recipe, empty where none is known. `unreadable` says
    what could not be read and why. `markers` are those of PEP 508 for the image's Python.
    """

    software: tuple[Software, ...] = ()
    layers: tuple[Layer, ...] = ()
    requested: tuple[str, ...] = ()
    markers: dict[str, str] = msgspec.field(default_factory=dict)
    unreadable: tuple[str, ...] = ()

    @property
    def packages(self) -> tuple[Software, ...]:
        """The environment's: what pip and conda installed, and Python packages of the base."""
        return tuple(one for one in self.software if one.manager in ("pip", "conda", "base"))
