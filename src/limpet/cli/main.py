"""`main`: parse, do, and turn every failure into words and an exit code."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from limpet import __version__
from limpet.cli.session import STARTERS, Session
from limpet.core.errors import LimpetError, UsageError, gone_error, space_error

INTERNAL_CODE = 70  # EX_SOFTWARE of sysexits.h
INTERRUPTED_CODE = 130
BROKEN_PIPE_CODE = 141
# limpet's values hold no cycles, and trees of many files are many values: looking for cycles after
# each 700 of them, as Python does, took a tenth of a build's time.
VALUES_BETWEEN_COLLECTIONS = 200_000
LONGEST_SENTENCE = 400
COMMANDS = {
    "build": "limpet.cli.build",
    "lock": "limpet.cli.build",
    "run": "limpet.cli.launch",
    "shell": "limpet.cli.launch",
    "pip": "limpet.cli.pip",
    "state": "limpet.cli.state",
    "kept": "limpet.cli.kept",
    "cache": "limpet.cli.cache",
    "bench": "limpet.cli.bench",
    "inspect": "limpet.cli.inspect",
    "diff": "limpet.cli.inspect",
    "wrap": "limpet.cli.wrap",
    "update": "limpet.cli.update",
    "pack": "limpet.cli.pack",
    "overlay": "limpet.cli.overlay",
    "doctor": "limpet.cli.doctor",
    "check": "limpet.cli.check",
    "advise": "limpet.cli.advise",
    "export": "limpet.cli.export",
    "report": "limpet.cli.report",
    "completion": "limpet.cli.completion",
    "mpi": "limpet.cli.mpi",
    "stage": "limpet.cli.stage",
    "sbatch": "limpet.cli.sbatch",
    "push": "limpet.cli.transfer",
    "pull": "limpet.cli.transfer",
}


def session_options(*, hidden: bool = False) -> list[click.Option]:
    """What the group takes before its command and each command after it: people type both."""
    own: dict[str, Any] = {"hidden": hidden, "callback": _take, "expose_value": False}
    return [
        click.Option(["--debug"], is_flag=True, help="Show a traceback with an error.", **own),
        click.Option(["--config", "config_file"], metavar="FILE", help="Read this too.", **own),
        click.Option(["--cache-dir"], metavar="DIR", help="Keep downloads and pieces here.", **own),
        click.Option(["-v", "--verbose"], count=True, help="Show what the runtime says.", **own),
        click.Option(["-q", "--quiet"], count=True, help="Say nothing but errors.", **own),
    ]


def _take(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value and not ctx.resilient_parsing:
        ctx.ensure_object(Session).take(str(param.name), value)


def take_session_options(command: click.Command) -> None:
    """Let the command, and those below it, take the session's options as well."""
    known = {word for param in command.params for word in param.opts}
    command.params += [o for o in session_options(hidden=True) if not known & set(o.opts)]
    for below in command.commands.values() if isinstance(command, click.Group) else ():
        take_session_options(below)


class Group(click.Group):
    """Lists its commands with their first sentences whole; click cuts them off at a line's end."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        found = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        rows = [(name, one.get_short_help_str(LONGEST_SENTENCE)) for name, one in found if one]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class LazyGroup(Group):
    """Imports a command's module only when that command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(COMMANDS[cmd_name]), cmd_name)
        assert isinstance(command, click.Command)
        take_session_options(command)
        if ctx.resilient_parsing:
            from limpet.cli.completion import prepare

            prepare(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=1, cutoff=0.7)
            raise UsageError(
                f"There is no command {args[0]!r}.",
                now=f"Did you mean {near[0]}?" if near else "limpet --help lists them.",
            )
        return super().resolve_command(ctx, args)


@click.group(
    cls=LazyGroup,
    params=session_options(),
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="limpet completion bash|zsh|fish prints what completes these words in a shell.",
)
@click.version_option(__version__, message="limpet %(version)s")
@click.pass_context
def group(ctx: click.Context) -> None:
    """A Python environment as one locked file that runs on any cluster."""
    session = ctx.ensure_object(Session)
    session.command = ctx.invoked_subcommand or ""
    if session.command not in STARTERS:  # these become their program, whose signals they are
        _clear_up_when_told()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; the exit code is the result."""
    gc.set_threshold(VALUES_BETWEEN_COLLECTIONS, 10, 100)
    session = Session(debug="--debug" in (sys.argv[1:2] if argv is None else argv[:1]))
    words = None if argv is None else list(argv)
    _open_closed_streams()
    try:
        done = group.main(words, prog_name="limpet", standalone_mode=False, obj=session)
        sys.stdout.flush()
        return done if isinstance(done, int) else 0
    except LimpetError as error:
        return _failed(session, error)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else f"limpet {session.command}".strip()
        now = f"{where} --help shows what there is."
        what = " ".join(error.format_message().split())
        return _failed(session, UsageError(what, now=now))
    except click.ClickException as error:
        return _failed(session, UsageError(error.format_message()))
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED_CODE
    except BrokenPipeError:
        _drop_output()
        return BROKEN_PIPE_CODE
    except OSError as error:
        known = space_error(error) or (gone_error() if _is_gone() else None)
        code = _failed(session, known) if known else _broken(session, error)
        _drop_output()
        return code
    except Exception as error:
        return _broken(session, error)
    finally:
        if argv is None:  # the process ends: its last search for cycles would go through all of it
            gc.freeze()


def _clear_up_when_told() -> None:
    """SIGTERM and SIGHUP end what limpet has started, too, as Ctrl-C does."""
    import signal

    def leave(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup has the second ignored
            signal.signal(number, leave)


def _open_closed_streams() -> None:
    """Of a stream that is closed (`>&-`) Python makes None, which cannot be written to."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))


def _drop_output() -> None:
    """Python flushes once more at its end, and would complain of what cannot be written."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_gone() -> bool:
    try:
        return not os.getcwd()  # noqa: PTH109
    except OSError:
        return True


def _failed(session: Session, error: LimpetError) -> int:
    from limpet.report.errors import render_error

    if session.shows_traceback:
        import traceback

        traceback.print_exc()
    colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    sys.stderr.write(render_error(error, colour=colour))
    return session.exit_code(error.code)


def _broken(session: Session, error: Exception) -> int:
    if session.shows_traceback:
        import traceback

        traceback.print_exc()
    else:
        from limpet.report.text import safe

        said = safe(f"{type(error).__name__}: {error}")
        sys.stderr.write(
            f"limpet: This is a mistake in limpet ({said}). Please report it; --debug shows more.\n"
        )
    return session.exit_code(INTERNAL_CODE)
