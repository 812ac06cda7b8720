"""Wheels made by hand, of packages that write at import or break in it."""

from __future__ import annotations

import zipfile
from pathlib import Path

# The package of a page that many find: it wants its settings beside itself and a cache in /tmp.
GPU_LIB = """
import pathlib
settings = pathlib.Path(__file__).with_name("config.ini")
if not settings.exists():
    settings.write_text("[settings]\\ngpu_enabled = made at import\\n")
enabled = settings.read_text().split("=")[1].strip()
"""

# Its kernels go to a folder outside of the package, anew at each import.
KERNELS = """
import os, pathlib
folder = pathlib.Path("/opt/hypothetical_gpu_cache")
folder.mkdir(exist_ok=True)
(folder / "kernels").write_text("compiled by %d" % os.getpid())
"""

QUIET = """
try:
    open(__file__ + ".cache", "w").write("x")
except OSError:
    pass
"""

MODULES = {
    "hypothetical_gpu_lib": GPU_LIB,
    "hypothetical_kernels": KERNELS,
    "hypothetical_quiet_writer": QUIET,
    "hypothetical_crashes": "import os\nprint('about to die', flush=True)\nos.abort()\n",
    "hypothetical_hangs": "import time\nprint('waiting', flush=True)\ntime.sleep(600)\n",
    "hypothetical_fails": "import no_such_thing\n",
    "hypothetical_home_writer": "import pathlib\n"
    "(pathlib.Path.home() / '.home_writer').write_text('x')\n",
    "hypothetical_fine": "",
}


def make_wheels(folder: Path, *names: str) -> Path:
    """A folder of wheels, each of one package of one module file."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        info = f"{name}-1.0.dist-info"
        members = {
            f"{name}/__init__.py": MODULES[name],
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\n"
            "Tag: py3-none-any\n",
        }
        record = "".join(f"{path},,\n" for path in (*members, f"{info}/RECORD"))
        with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
            for path, text in members.items():
                wheel.writestr(path, text)
            wheel.writestr(f"{info}/RECORD", record)
    return folder
