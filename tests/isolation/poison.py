"""A home and a session that have everything in them which commonly leaks into containers."""

from __future__ import annotations

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
    for name, text in FILES.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for program in (home / "miniconda3/bin").iterdir():
        program.chmod(0o755)
    for base, version in ((".local", "0.0.0"), ("userbase", "0.0.1")):
        for minor in PYTHON_MINORS:
            add_numpy(home / base / f"lib/python{minor}/site-packages", version)


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
