"""Files of other tools that people have, and that limpet does not read: what to do with them."""

from __future__ import annotations

from fnmatch import fnmatchcase

_LIMPET_TOML = "Write what it installs as a limpet.toml: base, apt, packages, files, env, post."
_ADVICE = (
    ("poetry.lock", "Export it: poetry export -o requirements.txt (poetry-plugin-export)."),
    ("pipfile*", "Export it: pipenv requirements --hash > requirements.txt."),
    ("pdm.lock", "Export it: pdm export -o requirements.txt."),
    ("setup.py", "Give its pyproject.toml, or build it as a package: --pip ."),
    ("setup.cfg", "Give its pyproject.toml, or build it as a package: --pip ."),
    ("*.def", _LIMPET_TOML),
    ("dockerfile*", _LIMPET_TOML),
    ("*.dockerfile", _LIMPET_TOML),
    ("containerfile*", _LIMPET_TOML),
    ("*.ipynb", "Name its packages: --pip NAME for each, or a requirements.in."),
)
# However they begin, files that end so are people's own descriptions: dockerfile-requirements.txt.
_DESCRIPTIONS = (".txt", ".in", ".toml", ".yml", ".yaml")


def advise(name: str) -> str:
    """What to do with a file of this name, as a sentence; empty where it may be a description."""
    lower = name.lower()
    if lower.endswith(_DESCRIPTIONS):
        return ""
    return next((advice for pattern, advice in _ADVICE if fnmatchcase(lower, pattern)), "")
