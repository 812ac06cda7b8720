"""What the program inside sees, per policy: the table of docs/explanation/isolation.md."""

from __future__ import annotations

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

OWN_NUMPY = "2.9.9"


def home_seen(image: str, policy: str) -> dict[str, bool]:
    """What is seen of the home, look by look."""
    seen = SEEN[policy] - (NEVER_IN_OWN if image == "own" else set())
    return {look: look in seen for look in HOME_LOOKS}


def numpy_seen(image: str, policy: str) -> str:
    """Which numpy is imported: the image's own, the one in the home, or none."""
    if image == "own":
        return OWN_NUMPY
    return "0.0.0" if policy == "host" else "none"


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
