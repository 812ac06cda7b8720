"""Activation: what a conda environment's scripts set, seen once, said as plain exports."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

# Of the shell, the runtime, or conda's own bookkeeping, which limpet writes itself.
_PASSED_OVER = frozenset(
    (
        *("_", "PWD", "OLDPWD", "SHLVL", "PS1", "HOME", "USER", "LOGNAME", "TMPDIR", "HOSTNAME"),
        *("CONDA_PREFIX", "CONDA_DEFAULT_ENV", "CONDA_SHLVL", "PROMPT_COMMAND"),
    )
)
# Where scripts put a variable's former value aside, to undo themselves later.
_BACKUPS = ("CONDA_BACKUP_", "_CONDA_BACKUP_")
# A value that nobody has, to see what scripts do with one that is there already.
MARK = "/limpet/was/here"


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One variable: set to `before + value + after`, where `way` says what stands around."""

    name: str
    value: str
    way: Literal["set", "default", "prepend", "append"] = "set"


class Activation(msgspec.Struct, frozen=True, kw_only=True):
    """What activation sets everywhere alike, and the variables that depend on where it is done."""

    settings: tuple[Setting, ...] = ()
    host_dependent: tuple[str, ...] = ()


class Capture(msgspec.Struct, frozen=True, kw_only=True):
    """The environment before and after the scripts were sourced."""

    before: dict[str, str]
    after: dict[str, str]

    def changes(self) -> dict[str, str]:
        return {
            name: value
            for name, value in self.after.items()
            if name not in _PASSED_OVER and self.before.get(name) != value
        }


def plan_activation(one: Capture, other: Capture, marked: Capture) -> Activation:
    """What three captures say: on one host, on another, and with each variable set before."""
    here, there = one.changes(), other.changes()
    settings, dependent = [], []
    for name in sorted(here.keys() | there.keys()):
        if here.get(name) != there.get(name):
            dependent.append(name)
        elif not name.startswith(_BACKUPS):
            settings.append(_setting(name, here[name], one, marked))
    return Activation(settings=tuple(settings), host_dependent=tuple(dependent))


def marked_variables(one: Capture) -> dict[str, str]:
    """What the third capture starts with: a mark in each variable that the first one set anew."""
    return {name: MARK for name in one.changes() if name not in one.before}


def _setting(name: str, value: str, one: Capture, marked: Capture) -> Setting:
    before = one.before.get(name) or MARK
    after = value if name in one.before else marked.after.get(name, value)
    if after == before:
        return Setting(name=name, value=value, way="default")
    if after.endswith(f":{before}"):
        return Setting(name=name, value=after.removesuffix(f":{before}"), way="prepend")
    if after.startswith(f"{before}:"):
        return Setting(name=name, value=after.removeprefix(f"{before}:"), way="append")
    return Setting(name=name, value=value)


def render_settings(settings: Iterable[Setting]) -> list[str]:
    """Lines of a shell script; what was set before stays where the scripts left it."""
    lines = []
    for setting in settings:
        name, value = setting.name, shlex.quote(setting.value)
        text = {
            "set": value,
            "default": f'"${{{name}:-{_inside_quotes(setting.value)}}}"',
            "prepend": f'{value}"${{{name}:+:${name}}}"',
            "append": f'"${{{name}:+${name}:}}"{value}',
        }[setting.way]
        lines.append(f"export {name}={text}")
    return lines


def _inside_quotes(value: str) -> str:
    for letter in '\\"$`}':
        value = value.replace(letter, f"\\{letter}")
    return value


def parse_environment(data: bytes) -> Mapping[str, str]:
    """NUL-separated `NAME=value`."""
    pairs = (line.partition("=") for line in data.decode("utf-8", "surrogateescape").split("\0"))
    return {name: value for name, given, value in pairs if given and name}
