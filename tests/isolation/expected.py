"""What the program inside sees, per policy: the table of docs/explanation/isolation.md."""

from __future__ import annotations

from collections.abc import Collection

# What the probe looks at, in the words of the documentation; True: the host's is seen.
HOME_LOOKS = {
    "other files": "your other files",
    "matplotlib": "`~/.config/matplotlib`",
    "IPython": "`~/.ipython`",
    "Jupyter": "`~/.jupyter`",
    "Keras": "`~/.keras`",
    "conda's list": "`~/.conda`",
    ".condarc": "`~/.condarc`",
    "pip": "`~/.config/pip`, `~/.pip`",
    "conda's hook": "`~/.bashrc` with conda's hook, in `bash -i`",
    "user site": "packages in `~/.local`",
}
# `~/.local` under `--home host` is seen by a Python that looks there: a limpet image's does not.
SEEN = {
    "isolated": {"other files"},
    "private": set[str](),
    "none": set[str](),
    "host": set(HOME_LOOKS),
}
NEVER_IN_OWN = {"user site"}

VARIABLE_LOOKS = {
    "PYTHONPATH": "`PYTHONPATH`, `PYTHONHOME`, `PYTHONUSERBASE`",
    "PYTHONSTARTUP": "`PYTHONSTARTUP`",
    "BASH_ENV": "`BASH_ENV`, exported functions",
    "CONDA": "`CONDA_*`, `VIRTUAL_ENV`",
    "LD": "`LD_LIBRARY_PATH`, `LD_PRELOAD`",
    "SLURM_JOB_ID": "scheduler, MPI, GPU, proxy, language, terminal",
    "MY_SETTING": "any other",
}
PASSES = {
    "clean": {"SLURM_JOB_ID"},
    "host": {"SLURM_JOB_ID", "MY_SETTING"},
    "strict": set[str](),
}

# Of each single thing that leaks: what the probe calls it, and its row in the tables.
LOOKS = {
    "PYTHONPATH": ("PYTHONPATH", "PYTHONPATH"),
    "PYTHONHOME": ("PYTHONHOME", "PYTHONPATH"),
    "PYTHONUSERBASE": ("PYTHONUSERBASE", "PYTHONPATH"),
    "PYTHONSTARTUP": ("PYTHONSTARTUP", "PYTHONSTARTUP"),
    "CONDA_*": ("CONDA", "CONDA"),
    "VIRTUAL_ENV": ("VIRTUAL_ENV", "CONDA"),
    "LD_LIBRARY_PATH": ("LD_LIBRARY_PATH", "LD"),
    "LD_PRELOAD": ("LD_PRELOAD", "LD"),
    "~/.local": ("user site", "user site"),
    "~/.config/matplotlib": ("matplotlib", "matplotlib"),
    "~/.ipython": ("IPython", "IPython"),
    "~/.jupyter": ("Jupyter", "Jupyter"),
    "~/.keras": ("Keras", "Keras"),
    "~/.conda": ("conda's list", "conda's list"),
    "~/.condarc": (".condarc", ".condarc"),
    "~/.bashrc": ("conda's hook", "conda's hook"),
}

OWN_NUMPY = "2.9.9"


def home_seen(image: str, policy: str) -> dict[str, bool]:
    """What is seen of the home, look by look."""
    seen = SEEN[policy] - (NEVER_IN_OWN if image == "own" else set())
    return {look: look in seen for look in HOME_LOOKS}


def numpy_seen(image: str, policy: str, *, in_home: bool = True) -> str:
    """Which numpy is imported: the image's own, the one in the home, or none."""
    if image == "own":
        return OWN_NUMPY
    return "0.0.0" if policy == "host" and in_home else "none"


def looks_seen(poisons: Collection[str], image: str, variables: str, home: str) -> dict[str, bool]:
    """What the probe says of each single thing, where only `poisons` are there."""
    of_home = home_seen(image, home)
    return {
        look: poison in poisons and (of_home[row] if row in of_home else row in PASSES[variables])
        for poison, (look, row) in LOOKS.items()
    }


def _row(words: str, cells: list[str]) -> str:
    return f"| {words} | {' | '.join(cells)} |\n"


def _mark(seen: bool) -> str:
    return "seen" if seen else "–"


def render_tables() -> str:
    """The two tables, as they stand in the documentation."""
    text = _row("", [f"`--variables {policy}`" for policy in PASSES]) + _row("---", ["---"] * 3)
    for look, words in VARIABLE_LOOKS.items():
        text += _row(words, [_mark(look in PASSES[policy]) for policy in PASSES])
    text += "\n" + _row("", [f"`--home {policy}`" for policy in SEEN]) + _row("---", ["---"] * 4)
    for look, words in HOME_LOOKS.items():
        cells = []
        for policy in SEEN:
            own, foreign = (home_seen(image, policy)[look] for image in ("own", "foreign"))
            cells.append(_mark(own) if own == foreign else "by foreign images only")
        text += _row(words, cells)
    return text
