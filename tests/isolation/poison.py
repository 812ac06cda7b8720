"""A home and a session that have everything in them which commonly leaks into containers."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PYTHON_MINORS = ("3.11", "3.12", "3.13", "3.14")

# Files of the home, and what they do when something reads them.
CONDA_HOOK = """\
# >>> conda initialize >>>
__conda_setup="$("$HOME/miniconda3/bin/conda" 'shell.bash' 'hook' 2> /dev/null)"
eval "$__conda_setup"
# <<< conda initialize <<<
"""
CONDA = """\
#!/bin/sh
echo "export CONDA_SHLVL=1 CONDA_PREFIX=$HOME/miniconda3 PATH=$HOME/miniconda3/bin:\\$PATH"
"""
FILES = {
    ".config/matplotlib/matplotlibrc": "backend: poison\n",
    ".ipython/profile_default/startup/00-poison.py": "print('poison')\n",
    ".jupyter/jupyter_config.py": "raise SystemExit('poison')\n",
    ".keras/keras.json": '{"backend": "poison"}\n',
    ".conda/environments.txt": "/poison\n",
    ".condarc": "channels: [poison]\n",
    ".pip/pip.conf": "[global]\nindex-url = https://poison.invalid/\n",
    ".config/pip/pip.conf": "[global]\nindex-url = https://poison.invalid/\n",
    ".bashrc": CONDA_HOOK,
    ".profile": CONDA_HOOK,
    "startup.py": "print('poison: PYTHONSTARTUP')\n",
    "bash_env.sh": "echo 'poison: BASH_ENV'\n",
    "path/poison_path.py": "",
    "notes.txt": "mine\n",
    "miniconda3/bin/python3": "#!/bin/sh\necho poison\n",
    "miniconda3/bin/conda": CONDA,
}


def fill_home(home: Path) -> None:
    """Write all of it below `home`."""
    _write(home, FILES)
    for base in NUMPY:
        _add_base(home, base)


def _write(home: Path, names: Iterable[str]) -> None:
    for name in names:
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(FILES[name])
        if "bin" in path.parts:
            path.chmod(0o755)


NUMPY = {".local": "0.0.0", "userbase": "0.0.1"}


def _add_base(home: Path, base: str) -> None:
    for minor in PYTHON_MINORS:
        add_numpy(home / base / f"lib/python{minor}/site-packages", NUMPY[base])


def add_numpy(site: Path, version: str) -> None:
    """A package that calls itself numpy, with metadata, and a file that runs at each start."""
    metadata = site / f"numpy-{version}.dist-info/METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text(f"Metadata-Version: 2.1\nName: numpy\nVersion: {version}\n")
    (site / "numpy").mkdir()
    (site / "numpy/__init__.py").write_text(f"__version__ = {version!r}\n")
    (site / "poison.pth").write_text("import sys; sys.poisoned_by_pth = True\n")


def poisoned_variables(home: Path) -> dict[str, str]:
    """The session's: each one alone would change or break a Python that sees it."""
    return {
        "PYTHONPATH": f"{home}/path",
        "PYTHONHOME": "/no/such/python",
        "PYTHONSTARTUP": f"{home}/startup.py",
        "PYTHONUSERBASE": f"{home}/userbase",
        "PYTHONINSPECT": "",
        "CONDA_PREFIX": f"{home}/miniconda3",
        "CONDA_DEFAULT_ENV": "base",
        "CONDA_EXE": f"{home}/miniconda3/bin/conda",
        "CONDA_SHLVL": "1",
        "_CE_CONDA": "",
        "CONDARC": f"{home}/.condarc",
        "VIRTUAL_ENV": f"{home}/venv",
        "LD_LIBRARY_PATH": "/no/such/libraries",
        "LD_PRELOAD": "",
        "MPLCONFIGDIR": f"{home}/.config/matplotlib",
        "IPYTHONDIR": f"{home}/.ipython",
        "JUPYTER_CONFIG_DIR": f"{home}/.jupyter",
        "KERAS_HOME": f"{home}/.keras",
        "XDG_CONFIG_HOME": f"{home}/.config",
        "PIP_CONFIG_FILE": f"{home}/.pip/pip.conf",
        "BASH_ENV": f"{home}/bash_env.sh",
        "BASH_FUNC_python3%%": "() { echo poison; }",
        "PROMPT_COMMAND": "echo poison",
    }


@dataclass(frozen=True)
class Poison:
    """One thing that leaks: the session's variables, and what lies in the home.

    `personal` is what a launch notices of it in the home.
    """

    variables: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    personal: str = ""


CONDA_VARIABLES = ("CONDA_PREFIX", "CONDA_DEFAULT_ENV", "CONDA_EXE", "CONDA_SHLVL", "_CE_CONDA")
_PROGRAMS = ("miniconda3/bin/python3", "miniconda3/bin/conda")
POISONS = {
    "PYTHONPATH": Poison(variables=("PYTHONPATH",), files=("path/poison_path.py",)),
    "PYTHONHOME": Poison(variables=("PYTHONHOME",)),
    "PYTHONSTARTUP": Poison(variables=("PYTHONSTARTUP",), files=("startup.py",)),
    "PYTHONUSERBASE": Poison(variables=("PYTHONUSERBASE",), files=("userbase",)),
    "CONDA_*": Poison(variables=CONDA_VARIABLES, files=_PROGRAMS),
    "VIRTUAL_ENV": Poison(variables=("VIRTUAL_ENV",)),
    "LD_LIBRARY_PATH": Poison(variables=("LD_LIBRARY_PATH",)),
    "LD_PRELOAD": Poison(variables=("LD_PRELOAD",)),
    "~/.local": Poison(files=(".local",), personal=".local"),
    "~/.config/matplotlib": Poison(files=(".config/matplotlib/matplotlibrc",), personal=".config"),
    "~/.ipython": Poison(
        files=(".ipython/profile_default/startup/00-poison.py",), personal=".ipython"
    ),
    "~/.jupyter": Poison(files=(".jupyter/jupyter_config.py",), personal=".jupyter"),
    "~/.keras": Poison(files=(".keras/keras.json",), personal=".keras"),
    "~/.conda": Poison(files=(".conda/environments.txt",), personal=".conda"),
    "~/.condarc": Poison(files=(".condarc",), personal=".condarc"),
    "~/.bashrc": Poison(files=(".bashrc", *_PROGRAMS), personal=".bashrc"),
}


def apply_poisons(home: Path, names: Iterable[str], passing: Path) -> dict[str, str]:
    """Write what these have in the home; the variables that they set.

    `passing` is a folder below /tmp, which every container sees, with no space in its path.
    """
    library = passing / "poison.so"
    shutil.copy(harmless_library(), library)
    variables = poisoned_variables(home) | {"LD_PRELOAD": str(library)}
    session: dict[str, str] = {}
    for name in names:
        poison = POISONS[name]
        _write(home, [file for file in poison.files if file in FILES])
        for base in set(poison.files) & set(NUMPY):
            _add_base(home, base)
        session |= {variable: variables[variable] for variable in poison.variables}
    return session


def harmless_library() -> Path:
    """A library that can be loaded into every program of this machine."""
    above = ("lib64", "usr/lib64", "lib/*-gnu")
    return next(path for folder in above for path in Path("/").glob(f"{folder}/libm.so.6"))
