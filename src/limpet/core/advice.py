"""Advice: which way to install is right, by a table that anybody can read and a site can change."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from limpet.core.errors import UsageError

Kind = Literal["environment", "recipe", "image", "nothing"]
Manager = Literal["", "conda", "venv", "user", "spack", "easybuild"]
Verdict = Literal["recommended", "possible", "discouraged"]

_COMPARED = re.compile(r"(?P<fact>\w+) *(?P<sign><=|>=|<|>|=) *(?P<number>\d+)")
_NAMED = re.compile(r"(?P<fact>\w+) is (?P<word>\S+)")
_SIGNS = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "=": lambda a, b: a == b,
}


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen of a case. Empty, 0 and false mean that it is not so, or was not found.

    `operations` are metadata operations of one start, `modules` what that start imports;
    `operations_how` says whether they were counted or estimated, and from what.
    """

    kind: Kind = "nothing"
    path: str = ""
    recipe: str = ""
    manager: Manager = ""
    packages: int = 0
    all_packages: bool = False
    files: int = 0
    folders: int = 0
    operations: int = 0
    operations_how: str = ""
    modules: int = 0
    shared: bool = False
    filesystem: str = ""
    conda: bool = False
    gpu: bool = False
    gpu_of: str = ""
    mpi: bool = False
    mpi_of: str = ""
    host_commands: str = ""
    vendor: bool = False
    base: str = ""
    locked: bool = False
    limpet_image: bool = False
    existing_image: str = ""
    module_python: str = ""
    site_stack: str = ""
    os_python: str = ""


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One row of the table."""

    code: str
    title: str
    verdict: Verdict
    why: str
    when: tuple[str, ...] = ()
    do: tuple[str, ...] = ()


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rows, in the order in which they are read."""

    answers: tuple[Rule, ...]
    replace: bool = False


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A row that holds, with what was measured put in."""

    code: str
    title: str
    verdict: Verdict
    why: str
    do: tuple[str, ...] = ()


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """The answers, the best first, and what they rest on."""

    facts: Facts
    answers: tuple[Answer, ...]


def parse_table(raw: dict[str, Any], source: str) -> Table:
    """A table from its TOML; UsageError that names the row where something is wrong."""
    try:
        table = msgspec.convert(raw, Table)
    except msgspec.ValidationError as error:
        raise UsageError(f"The table of advice {source} is wrong.", why=f"{error}.") from error
    for rule in table.answers:
        for words in rule.when:
            _holds(words, Facts(), f"{source}, {rule.code}")
        for text in (rule.why, *rule.do):
            _filled(text, Facts(), f"{source}, {rule.code}")
    return table


def join_tables(own: Table, sites: Iterable[Table]) -> Table:
    """A site's rows before limpet's, and in the place of those with the same code."""
    for site in sites:
        codes = {rule.code for rule in site.answers}
        rest = () if site.replace else (rule for rule in own.answers if rule.code not in codes)
        own = Table(answers=(*site.answers, *rest))
    return own


def advise(facts: Facts, table: Table) -> Advice:
    """The rows that hold: of each code the first one, sorted by verdict and then as they stand."""
    answers: dict[str, Answer] = {}
    for rule in table.answers:
        if rule.code in answers or not all(_holds(words, facts, rule.code) for words in rule.when):
            continue
        answers[rule.code] = Answer(
            code=rule.code,
            title=rule.title,
            verdict=rule.verdict,
            why=_filled(rule.why, facts, rule.code),
            do=tuple(_filled(line, facts, rule.code, quoted=True) for line in rule.do),
        )
    order: Sequence[Verdict] = ("recommended", "possible", "discouraged")
    found = sorted(answers.values(), key=lambda answer: order.index(answer.verdict))
    return Advice(facts=facts, answers=tuple(found))


def _holds(words: str, facts: Facts, where: str) -> bool:
    text = words.strip()
    if text.startswith("not "):
        return not _holds(text.removeprefix("not "), facts, where)
    if compared := _COMPARED.fullmatch(text):
        value = _value(compared["fact"], facts, where)
        if isinstance(value, str):
            raise UsageError(f"{where}: {compared['fact']} is no number.", why=f"In {words!r}.")
        return bool(_SIGNS[compared["sign"]](int(value), int(compared["number"])))
    if named := _NAMED.fullmatch(text):
        return str(_value(named["fact"], facts, where)) == named["word"]
    if not re.fullmatch(r"\w+", text):
        raise UsageError(
            f"{where}: {words!r} is no condition.",
            now="Write FACT, not FACT, FACT is WORD, or FACT < NUMBER.",
        )
    return bool(_value(text, facts, where))


def _value(fact: str, facts: Facts, where: str) -> str | int | bool:
    if fact not in Facts.__struct_fields__:
        near = difflib.get_close_matches(fact, Facts.__struct_fields__, n=1)
        raise UsageError(
            f"{where}: there is no fact {fact!r}.", now=f"Did you mean {near[0]}?" if near else ""
        )
    value: str | int | bool = getattr(facts, fact)
    return value


def _filled(text: str, facts: Facts, where: str, *, quoted: bool = False) -> str:
    def put_in(found: re.Match[str]) -> str:
        value = _value(found[1], facts, where)
        if isinstance(value, int) and not isinstance(value, bool):
            return f"{value:,}"
        return shlex.quote(str(value)) if quoted else str(value)

    return re.sub(r"\{(\w+)\}", put_in, text)
