"""What the numbers were measured with and on."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence

from contenders import Shop


def _first_line(argv: Sequence[str], env: Mapping[str, str] | None = None) -> str:
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, env=None if env is None else dict(env)
        )
    except OSError as error:
        return f"not here ({error.strerror})"
    lines = (done.stdout or done.stderr).strip().splitlines()
    return lines[0] if lines else "says nothing"


def _memory_gib() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)


def probe_versions(shop: Shop, env: Mapping[str, str]) -> dict[str, str]:
    """Name → version, of everything that has a part in the result."""
    inside = ["apptainer", "--silent", "exec", str(shop.base_sif)]
    cotainr = [str(shop.cotainr_python), "-c", "import cotainr; print(cotainr.__version__)"]
    found = {
        "machine": f"{os.cpu_count()} cores, {_memory_gib()} GiB, {platform.machine()}",
        "load at start": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "kernel": platform.release(),
        "apptainer": _first_line(["apptainer", "--version"]),
        "mksquashfs": _first_line(["mksquashfs", "-version"]),
        "python (host)": platform.python_version(),
        "python (base)": _first_line([*inside, "python3", "--version"], env),
        "pip (base)": _first_line([*inside, "python3", "-m", "pip", "--version"], env),
        "base image": f"{shop.base_sif.stat().st_size / 1e6:.1f} MB as a SIF with zstd",
    }
    if shop.cotainr_python:
        found["cotainr"] = _first_line(cotainr)
    if shop.uv:
        found["uv"] = _first_line([str(shop.uv), "--version"])
    if shop.limpet:
        found["limpet"] = _first_line([*shop.limpet, "--version"])
    return found
