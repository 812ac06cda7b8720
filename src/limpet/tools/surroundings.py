"""What lies around a case: recipes in a folder, scripts that call the host, modules, images."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

RECIPES = (
    *("limpet.toml", "pyproject.toml", "requirements.in", "requirements.txt", "environment.yml"),
    *("environment.yaml", "pixi.toml", "uv.lock", "pylock.toml"),
)
MOST_SCRIPTS = 200
MOST_IMAGES = 200
SCRIPT_BYTES = 1 << 20
# Programs that only the host has: a batch system's, a launcher of its MPI, its modules.
HOST_COMMANDS = re.compile(
    rb"\b(srun|sbatch|squeue|scancel|salloc|sacct|qsub|qstat|bsub|mpirun|mpiexec|aprun|jsrun"
    rb"|module load|ml load|git|rsync|ssh|scp)\b"
)
# A script's words count where they are run, not where they are written about.
_RUN = re.compile(
    rb"""(?x)(?:subprocess\.\w+|os\.system|os\.exec\w+|Popen|check_call|check_output|run)
    \s*\(\s*[\[(]?\s*[frb]?["']([^"']*)"""
)
_PYTHON_MODULE = re.compile(r"(?i)^(cray-python|.*-python3?|python3?|python-data|anaconda3?)$")


def find_recipe(folder: Path) -> Path | None:
    """The description of a folder's environment, the most telling first."""
    return next((folder / name for name in RECIPES if (folder / name).is_file()), None)


def find_host_commands(folder: Path) -> tuple[str, ...]:
    """Commands of the host that Python and shell scripts beside a recipe start."""
    found: set[str] = set()
    for path in _scripts(folder):
        try:
            with path.open("rb") as file:
                text = file.read(SCRIPT_BYTES)
        except OSError:
            continue
        if path.suffix == ".py":
            text = b"\n".join(_RUN.findall(text))
        else:
            text = re.sub(rb"(?m)^\s*#.*$", b"", text)
        found |= {match.decode().split()[0] for match in HOST_COMMANDS.findall(text)}
    return tuple(sorted(found))


def _scripts(folder: Path) -> Iterator[Path]:
    """Scripts in the folder and in those right below it, as many as one looks at."""
    count = 0
    for pattern in ("*.py", "*.sh", "*.slurm", "*/*.py", "*/*.sh"):
        for path in sorted(folder.glob(pattern)):
            if count >= MOST_SCRIPTS:
                return
            if path.is_file() and "site-packages" not in path.parts:
                count += 1
                yield path


def find_modules(modulepath: str) -> tuple[str, str]:
    """A Python module of the site, and whose stack its modules are: by names in MODULEPATH."""
    python, stack = "", ""
    for place in filter(None, modulepath.split(":")):
        lower = place.lower()
        named = next((word for word in ("easybuild", "spack") if word in lower), "")
        stack = stack or ({"easybuild": "EasyBuild", "spack": "Spack"}.get(named, ""))
        try:
            names = sorted(path.name for path in Path(place).iterdir())
        except OSError:
            continue
        bare = (name.removesuffix(".lua") for name in names)
        python = python or next((name for name in bare if _PYTHON_MODULE.match(name)), "")
    return python, stack


def find_images(folders: list[Path]) -> list[Path]:
    """The SIFs that lie in these folders."""
    found: list[Path] = []
    for folder in folders:
        found += sorted(folder.glob("*.sif"))
    return found[:MOST_IMAGES]
