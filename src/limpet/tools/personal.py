"""limpet's pip for the inside of images, and personal packages as they lie on the disk."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import time
from pathlib import Path
from zlib import crc32

from limpet.core.personal import PipSeen
from limpet.tools.files import written_beside

_UNUSED_AGE_S = 30 * 86400
_SCRIPT = Path(__file__).parents[1] / "base_scripts" / "personal_pip.py"
_CA_VARIABLES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")

# Whatever environment is active, personal packages are the image's: its Python is asked.
_PIP = """#!/bin/sh
# Written by limpet: pip for this image's personal packages.
for python in /opt/env/bin/python python3 python; do
    found=$(command -v "$python") && exec "$found" {kit}/personal_pip.py "$@"
done
echo 'limpet: This image has no Python.' >&2
exit 127
"""
_MODULE = """import os, sys
os.execv("{kit}/bin/pip", ["pip"] + sys.argv[1:])
"""


def probe_pip(state: Path, home: Path) -> PipSeen:
    """Where limpet's pip is or will be, and what the session says of indexes and certificates."""
    return PipSeen(
        kit=str(_kit_folder(state) or ""),
        config=_first_file(
            os.environ.get("PIP_CONFIG_FILE", ""),
            str(Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config", "pip/pip.conf")),
            str(home / ".pip/pip.conf"),
            "/etc/pip.conf",
        ),
        certificates=_first_file(*(os.environ.get(name, "") for name in _CA_VARIABLES)),
    )


def _first_file(*places: str) -> str:
    for place in places:
        if place and place != os.devnull and Path(place).is_file():
            return os.path.realpath(place)
    return ""


def _kit_folder(state: Path) -> Path | None:
    """Named by what goes into it: another limpet or pip makes another one."""
    found = importlib.util.find_spec("pip")
    if found is None or not found.origin:
        return None
    stamps = [f"{path}:{Path(path).stat().st_mtime_ns}" for path in (found.origin, str(_SCRIPT))]
    return state / ".pip" / f"{crc32(os.fsencode(' '.join(stamps))):08x}"


def make_kit(folder: Path, *, inside: str) -> None:
    """limpet's pip, where it is not there yet; `inside` is where images see it."""
    if (folder / "pip.zip").exists():
        return
    import importlib.metadata
    import shutil

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    needed = importlib.metadata.metadata("pip")["Requires-Python"]
    texts = {
        "bin/pip": _PIP.replace("{kit}", inside),
        "bin/pip3": _PIP.replace("{kit}", inside),
        "module/pip/__main__.py": _MODULE.replace("{kit}", inside),
        "personal_pip.py": _SCRIPT.read_text("utf-8"),
        "python": needed,
    }
    for name, text in texts.items():
        _place(folder / name, text.encode(), executable=name.startswith("bin/"))
    # Last: it says that the rest is there.
    _place(folder / "pip.zip", _zipped_pip())
    for other in folder.parent.iterdir():
        with contextlib.suppress(OSError):  # another first start may just have removed it
            if time.time() - other.stat().st_mtime > _UNUSED_AGE_S:
                shutil.rmtree(other, ignore_errors=True)


def _place(path: Path, data: bytes, *, executable: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_beside(path) as file:
        file.write(data)
        if executable:
            os.fchmod(file.fileno(), 0o700)


def _zipped_pip() -> bytes:
    """One file in place of hundreds, which a shared file system would have to carry."""
    import zipfile

    found = importlib.util.find_spec("pip")
    assert found is not None and found.origin is not None
    root = Path(found.origin).parent
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(root.rglob("*")):
            if path.is_file() and path.suffix not in (".pyc", ".exe"):
                archive.write(path, f"pip/{path.relative_to(root).as_posix()}")
        # pip starts itself anew from here to build packages.
        start = "import sys\nfrom pip._internal.cli.main import main\n"
        archive.writestr(
            "__main__.py", start + 'if __name__ == "__main__":\n    sys.exit(main())\n'
        )
    return buffer.getvalue()
