"""Write what limpet itself knows best: reference and man pages; `make docs` runs this."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import click

from limpet.cli.main import group
from limpet.core.caches import CACHES, Cache
from limpet.core.code import Code
from limpet.core.failure_tables import FAILURES
from limpet.core.finding_codes import CODES
from limpet.core.homes import PERSONAL
from limpet.core.variable_groups import FOREIGN, WANTED, Group

FOLDER = Path(__file__).parent.parent / "docs" / "reference"
MAN = Path(__file__).parent.parent / "man"
WRITTEN = "<!-- Written by `make docs` from limpet itself: change the code, not this page. -->"


def render_option(option: click.Option, context: click.Context) -> str:
    """One line of a list: the words to type and what they do."""
    record = option.get_help_record(context)
    if record is None:
        return ""
    words, text = record
    one_line = re.sub(r"\s+", " ", text)
    return f"- `{words}`: {one_line}\n" if text else f"- `{words}`\n"


def render_command(command: click.Command, above: click.Context | None = None) -> Iterator[str]:
    """A command's paragraphs, then those of the commands below it."""
    settings = command.context_settings
    context = click.Context(command, above, info_name=command.name, **settings)
    name = context.command_path
    yield f"## {name}\n"
    yield f"`{name} {' '.join(command.collect_usage_pieces(context))}`\n"
    text = re.sub(r"(?m)^[ \t]+", "", (command.help or "").replace("\b", "")).strip()
    if text:
        yield f"{text}\n"
    options = [param for param in command.get_params(context) if isinstance(param, click.Option)]
    yield "".join(render_option(option, context) for option in options)
    if isinstance(command, click.Group):
        for below_name in command.list_commands(context):
            below = command.get_command(context, below_name)
            if below is not None and not below.hidden:
                yield from render_command(below, context)


def render_command_line() -> str:
    """The page on the command line."""
    group.name = "limpet"
    body = "\n".join(render_command(group))
    return f"# Command line\n\n{WRITTEN}\n\n{body.rstrip()}\n"


def render_group(group: Group) -> str:
    """One row: what it is, its variables, why."""
    patterns = ", ".join(f"`{pattern}`" for pattern in group.patterns)
    return f"| {group.name} | {patterns} | {group.reason} |\n"


def render_cache(cache: Cache) -> str:
    """One row: who writes what, and where that is sent."""
    place = cache.reason or ("node-local in a job, else kept" if cache.local else "kept")
    source = f"[source]({cache.source})"
    return f"| {cache.package} | `{cache.variable}` | {cache.writes} | {place} | {source} |\n"


def render_variables() -> str:
    """The page on what passes into an image and what does not."""
    head = "| | variables | why |\n| --- | --- | --- |\n"
    moved = ", ".join(f"`{name}`" for personal in PERSONAL for name in personal.variables)
    return f"""# Environment variables

{WRITTEN}

Which of the host's variables reach the program in an image. `limpet run --explain` tells for yours.
limpet's own are on the page on [configuration](configuration.md#variables).

## Pass with `--variables clean`

The default. What no row names stays outside, unless the recipe (`pass_variables`) or `--env NAME`
asks for it. `--env NAME=VALUE` sets one. `TMPDIR` passes, and its folder is
mounted; one that does not exist is dropped.

{head}{"".join(map(render_group, WANTED))}
## Never pass unasked

`--variables host` passes everything but these; `--variables strict` passes nothing.

{head}{"".join(map(render_group, FOREIGN))}
## Set inside

Every image: `PATH` begins with `/opt/env/bin`, `VIRTUAL_ENV=/opt/env`, `PYTHONNOUSERSITE=1`, and
what `[env]` names. limpet's starts: `LIMPET_PACKAGES` and `LIMPET_MODULES`, by which the image's
Python sees personal packages and [the module
archive](../how-to/start-fast.md#imports-from-one-file). With `--home isolated`, where the home has
no such folder to lay this image's own over:
{moved}.

## Caches

What packages write at import or first use. Unless you or the image set the variable, or with
`--home host`, it names a folder of this image's own; what is marked so is on the node's own disk
in a job that has one. Where an image's maker named a place that cannot be written here,
[that does not count](../explanation/isolation.md#good-to-know).

| package | variable | writes | place | |
| --- | --- | --- | --- | --- |
{"".join(map(render_cache, CACHES))}"""


# ---- man pages -----------------------------------------------------------------------------------

ROOT_PAGE = "limpet"


def roff(text: str) -> str:
    """Text that roff shows as it is: nothing in it is a request, an escape or a ligature."""
    plain = (
        text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    )
    plain = plain.replace("…", "\\&...").replace("“", "\\(lq").replace("”", "\\(rq")
    plain = plain.replace("→", "\\(->").replace("×", "\\(mu").replace("–", "\\(en")
    return re.sub(r"(?m)^([. ])", r"\\&\1", plain)


def roff_paragraphs(text: str) -> Iterator[str]:
    """A help text: paragraphs are filled, those behind a `\\b` keep their lines."""
    kept = False
    for paragraph in re.split(r"\n[ \t]*\n", text.strip()):
        lines = [line.strip() for line in paragraph.splitlines()]
        kept = lines[:1] == ["\b"]
        lines = [line for line in lines if line != "\b"]
        yield ".PP"
        if kept:
            yield ".nf"
        yield from map(roff, lines if kept else [" ".join(lines)])
        if kept:
            yield ".fi"


def man_options(command: click.Command, context: click.Context) -> Iterator[str]:
    """A tagged paragraph for each option that is shown."""
    for param in command.get_params(context):
        record = param.get_help_record(context) if isinstance(param, click.Option) else None
        if record:
            yield ".TP"
            yield f"\\fB{roff(record[0])}\\fR"
            yield roff(re.sub(r"\s+", " ", record[1])) or "\\&"


def man_body(command: click.Command, context: click.Context) -> Iterator[str]:
    """Synopsis, description and options; a group's commands follow, or have pages of their own."""
    pieces = roff(" ".join(command.collect_usage_pieces(context)))
    yield ".SH SYNOPSIS"
    yield f"\\fB{roff(context.command_path)}\\fR {pieces}"
    yield ".SH DESCRIPTION"
    yield from roff_paragraphs(command.help or "")
    options = [*man_options(command, context)]
    if options:
        yield ".SH OPTIONS"
        yield from options
    for name, below in commands_below(command, context):
        if context.parent is None:
            continue
        inner = click.Context(below, context, info_name=name, **below.context_settings)
        words = roff(" ".join(below.collect_usage_pieces(inner)))
        yield f".SH {roff(inner.command_path.upper())}"
        yield f"\\fB{roff(inner.command_path)}\\fR {words}"
        yield from roff_paragraphs(below.help or "")
        yield from man_options(below, inner)


def commands_below(
    command: click.Command, context: click.Context
) -> Iterator[tuple[str, click.Command]]:
    """The commands of a group that are not hidden."""
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                yield name, below


def man_page(command: click.Command, context: click.Context) -> str:
    """One page of section 1; without a date, so that it changes only with the command."""
    title = context.command_path.replace(" ", "-")
    about = roff(command.get_short_help_str(200))
    lines = [f'.TH {roff(title.upper())} 1 "" "limpet" "limpet"', ".SH NAME"]
    lines += [f"{roff(title)} \\- {about}", *man_body(command, context)]
    if context.parent is None:
        lines.append(".SH COMMANDS")
        for name, below in commands_below(command, context):
            words = roff(below.get_short_help_str(200))
            lines += [".TP", f"\\fBlimpet\\-{roff(name)}\\fR(1)", words]
        lines += [".SH FILES", ".TP", roff("~/.config/limpet/config.toml, /etc/limpet/config.toml")]
        lines += ["Settings of the user and of the site.", ".SH EXIT STATUS"]
        lines += [
            roff("0 on success. run, shell and pip pass on the program's own and use 125 for")
        ]
        lines += [roff("limpet's failures; other commands have a code for each kind of failure.")]
    else:
        lines += [".SH SEE ALSO", "\\fBlimpet\\fR(1)"]
    return "\n".join(lines) + "\n"


def man_pages() -> dict[str, str]:
    """File name → text, one page for limpet and one for each command."""
    settings = group.context_settings
    context = click.Context(group, None, info_name=ROOT_PAGE, **settings)
    pages = {f"{ROOT_PAGE}.1": man_page(group, context)}
    for name, below in commands_below(group, context):
        inner = click.Context(below, context, info_name=name, **below.context_settings)
        pages[f"{ROOT_PAGE}-{name}.1"] = man_page(below, inner)
    return pages


def write_man_pages() -> None:
    """Replace what is in man/."""
    pages = man_pages()
    MAN.mkdir(exist_ok=True)
    for old in MAN.glob("*.1"):
        if old.name not in pages:
            old.unlink()
    for name, text in pages.items():
        (MAN / name).write_text(text, encoding="utf-8")


# ---- findings ----------------------------------------------------------------------------------

GROUPS = {
    "LMP0": "Looking",
    "LMP1": "Containers",
    "LMP2": "Disks",
    "LMP3": "Account",
    "LMP4": "GPUs, MPI, Slurm",
    "LMP5": "Packages",
    "LMP6": "Libraries",
    "LMP7": "Image",
    "LMP8": "Imports",
}


def render_findings() -> str:
    """The page that lists all codes."""
    parts = [f"# Findings\n\n{WRITTEN}\n\nWhat `limpet doctor` and `limpet check` may find.\n"]
    for start, name in GROUPS.items():
        rows = [one for one in CODES.values() if one.code.startswith(start)]
        table = "".join(f"| [{one.code}]({one.code}.md) | {one.title} |\n" for one in rows)
        parts.append(f"## {name}\n\n| code | |\n| --- | --- |\n{table}")
    return "\n".join(parts)


def render_code(code: Code) -> str:
    """The page of one code."""
    fix = f"\n## What --fix does\n\n{code.fix}\n" if code.fix else ""
    return (
        f"# {code.code}: {code.title}\n\n{WRITTEN}\n\nFound by `{code.command}`.\n\n"
        f"## What it means\n\n{code.meaning}\n\n## What to do\n\n{code.remedy}\n{fix}"
    )


def render_failures() -> str:
    """The page on messages of failed programs."""
    rows = "".join(
        f"| `{_cell(one.example)}` | {_cell(one.answer)} | [source]({one.source}) |\n"
        for one in FAILURES
    )
    return (
        f"# Messages of failed programs\n\n{WRITTEN}\n\n"
        "Where a program that `limpet run` started ends with an error, and the last message that "
        "limpet knows is one of these, limpet adds a line behind the program's own output.\n\n"
        f"| message | answer | |\n| --- | --- | --- |\n{rows}"
    )


def _cell(text: str) -> str:
    """Text for a table: one line; a backquote would end the code, a bar the cell."""
    return re.sub(r"\s+", " ", text).replace("`", "'").replace("|", "\\|")


PAGES: dict[str, Callable[[], str]] = {
    "command-line.md": render_command_line,
    "variables.md": render_variables,
    "failures.md": render_failures,
    "findings/index.md": render_findings,
    **{f"findings/{name}.md": partial(render_code, one) for name, one in CODES.items()},
}

if __name__ == "__main__":
    (FOLDER / "findings").mkdir(exist_ok=True)
    for name, render in PAGES.items():
        (FOLDER / name).write_text(render(), encoding="utf-8")
    write_man_pages()
