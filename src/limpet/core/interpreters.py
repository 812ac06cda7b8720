"""Which of a base's Pythons is meant."""

from __future__ import annotations

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version

from limpet.core.errors import BaseError, RecipeError
from limpet.core.facts import BaseFacts, Interpreter

OLDEST = Version("3.8")


def choose_interpreter(facts: BaseFacts, wanted: str) -> Interpreter:
    """The first Python of the base (in the order of its PATH) that is what the recipe asks for.

    `wanted` is empty, a version (`3.13`, `3.13.2`) or a specifier (`>=3.11,<3.14`).
    """
    specifier = _parse_wanted(wanted)
    for interpreter in facts.interpreters:
        version = Version(interpreter.version)
        if version >= OLDEST and specifier.contains(version, prereleases=True):
            return interpreter
    raise _none_fits(facts, wanted)


def fits_wanted(version: str, wanted: str) -> bool:
    """Whether a Python is what a recipe asks for; anything is where it asks for nothing."""
    return _parse_wanted(wanted).contains(Version(version), prereleases=True)


def _parse_wanted(wanted: str) -> SpecifierSet:
    text = wanted.strip()
    if text[:1].isdigit():
        text = f"=={text}" if text.endswith("*") or text.count(".") >= 2 else f"=={text}.*"
    try:
        return SpecifierSet(text)
    except InvalidSpecifier as error:
        raise RecipeError(
            f"The Python version {wanted!r} cannot be read.",
            now="Write 3.13, or a specifier such as >=3.11.",
        ) from error


def _none_fits(facts: BaseFacts, wanted: str) -> BaseError:
    has = ", ".join(f"{i.version} ({i.path})" for i in facts.interpreters)
    name = facts.os_name or "it"
    would = wanted if wanted[:1].isdigit() else "3.13"
    minor = ".".join(would.split(".")[:2])
    now = f"Bases that would do: docker://python:{minor}-slim"
    suites = {"3.11": "bookworm", "3.13": "trixie"}
    if minor in suites:
        now += f", debian:{suites[minor]}"
    if "apt-get" in facts.programs and not has:
        now += '; or add one to this base: apt = ["python3", "python3-venv"]'
    what = f"The base has no Python {wanted}".rstrip() + "."
    why = f"It is {name} and has {has}." if has else f"It is {name} and has none at all."
    return BaseError(what, why=why, now=f"{now}.")
