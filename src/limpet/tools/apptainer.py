"""Apptainer and SingularityCE: which is here, and how a command is run in an image at build time.

The user's own starts (`run`, `shell`) are planned in `core.launch`; what is here serves builds,
which must not see anything of the user's session.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from limpet.core.errors import HostError, LimpetError
from limpet.tools import files, process

OLDEST = {"apptainer": (1, 1), "singularity-ce": (3, 10)}


class Bind(msgspec.Struct, frozen=True, kw_only=True):
    """A host path seen at a container path; with `inside`, that path of a squashfs file."""

    source: Path
    target: str
    writable: bool = False
    inside: str = ""


class Runtime(msgspec.Struct, frozen=True, kw_only=True):
    """A container runtime found on this machine.

    `binds` come first in whatever is run with it: a base may have its system on the host.
    """

    path: Path
    kind: Literal["apptainer", "singularity-ce"]
    version: str
    binds: tuple[Bind, ...] = ()


def find_runtime() -> Path:
    """The runtime's program: $LIMPET_RUNTIME, else apptainer, else singularity, from PATH."""
    named = os.environ.get("LIMPET_RUNTIME", "")
    names = (named,) if named else ("apptainer", "singularity")
    for name in names:
        found = process.find_program(name)
        if found:
            return found
    raise HostError(
        f"No container runtime is here: {' or '.join(names)} is not in PATH.",
        now="Load your site's module for it (often `module load apptainer`), "
        "or ask for Apptainer to be installed.",
    )


def probe_runtime(cache: Path | None = None) -> Runtime:
    """The runtime and its version; HostError where there is none or it is too old.

    Asking takes a fifth of a start, so the answer is kept in `cache` where one is given.
    """
    path = find_runtime()
    said = ask_version(path, cache / "runtime-version" if cache else None)
    found = re.search(r"(apptainer|singularity-ce|singularity)\D*(\d+(?:\.\d+)+)", said)
    if not found:
        raise HostError(f"{path} does not say which version it is.", why=said.strip()[:200])
    kind: Literal["apptainer", "singularity-ce"] = (
        "apptainer" if found[1] == "apptainer" else "singularity-ce"
    )
    runtime = Runtime(path=path, kind=kind, version=found[2])
    oldest = OLDEST[kind]
    if tuple(int(part) for part in runtime.version.split(".")[:2]) < oldest:
        raise HostError(
            f"{path} is {kind} {runtime.version}: too old.",
            why=f"limpet needs {kind} {oldest[0]}.{oldest[1]} or newer.",
            now="Load a newer module, or set LIMPET_RUNTIME to a newer one.",
        )
    return runtime


def sharing(runtime: Runtime, folders: Sequence[str]) -> Runtime:
    """The runtime with these folders of the host mounted at their own place, to be read only."""
    binds = tuple(Bind(source=Path(folder), target=folder) for folder in folders)
    return msgspec.structs.replace(runtime, binds=binds)


def ask_version(path: Path, kept: Path | None) -> str:
    """What the runtime says to `--version`, or said when it was this very file."""
    if kept is None:
        return process.run([path, "--version"], timeout_s=30).text
    key = _file_key(path)
    try:
        before, _, said = kept.read_text("utf-8").partition("\n")
        if key and before == key:
            return said
    except (OSError, UnicodeDecodeError):
        pass
    said = process.run([path, "--version"], timeout_s=30).text
    # Kept only where it can be: a home that is full or read-only is no reason not to start.
    with contextlib.suppress(OSError, LimpetError):
        if key and files.make_folder(kept.parent):
            with files.written_beside(kept) as out:
                out.write(f"{key}\n{said}".encode())
    return said


def _file_key(path: Path) -> str:
    """What changes with the file; empty for a script, which may start another one tomorrow."""
    try:
        with path.open("rb") as file:
            if file.read(4) != b"\x7fELF":
                return ""
            status = os.fstat(file.fileno())
    except OSError:
        return ""
    return f"{os.path.realpath(path)!r} {status.st_mtime_ns} {status.st_size} {status.st_ino}"


def build_environment(runtime: Runtime, variables: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without what would reach into a build container.

    APPTAINER_BIND and its like, set for a site's users, must not change what a build gives.
    `variables` are what the program inside is to see: by prefix, because `--env` splits its value
    at commas. Without `--no-eval` (below) the runtime expands `$` and backquotes in them.
    """
    reaching = re.compile(r"^(APPTAINER|SINGULARITY)(ENV)?_")
    keep = re.compile(r"^(APPTAINER|SINGULARITY)_(CACHEDIR|TMPDIR|CONFIGDIR|DOCKER_|NOHTTPS)")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not reaching.match(name) or keep.match(name)
    }
    prefix = "APPTAINERENV_" if runtime.kind == "apptainer" else "SINGULARITYENV_"
    return kept | {prefix + name: value for name, value in variables.items()}


def exec_argv(
    runtime: Runtime,
    image: Path,
    command: Sequence[str],
    *,
    binds: Sequence[Bind] = (),
    options: Sequence[str] = (),
) -> list[str]:
    """The command line that runs `command` in `image`, cut off from the user's home and session.

    `--mount` rather than `--bind`, since a path may hold `:` or `,` (quoted as CSV there).
    """
    argv = [
        str(runtime.path),
        "--silent",
        "exec",
        "--no-eval",
        "--cleanenv",
        "--contain",
        "--no-home",
    ]
    for bind in (*runtime.binds, *binds):
        mode = "" if bind.writable else ",ro"
        mode += f',"image-src={bind.inside}"' if bind.inside else ""
        argv += ["--mount", f'type=bind,"source={_csv(bind.source)}","target={bind.target}"{mode}']
    return [*argv, *options, "--pwd", "/", str(image), *command]


def _csv(path: Path) -> str:
    return str(path).replace('"', '""')


def run_inside(
    runtime: Runtime,
    image: Path,
    command: Sequence[str],
    *,
    binds: Sequence[Bind] = (),
    variables: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
    input_bytes: bytes | None = None,
    timeout_s: float | None = None,
    cwd: Path | None = None,
) -> process.Finished:
    """Run `command` in `image` to its end; see `exec_argv`. Options' paths may start at `cwd`."""
    argv = exec_argv(runtime, image, command, binds=binds, options=options)
    env = build_environment(runtime, variables or {})
    return process.run(argv, env=env, input_bytes=input_bytes, timeout_s=timeout_s, cwd=cwd)


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the runtime says of a SIF's signature: `unknown` where it has no key for it."""

    kind: Literal["good", "unknown", "bad"]
    text: str


def verify_signature(runtime: Runtime, image: Path, key: str = "") -> Verdict:
    """Check a signed SIF against a PEM key, or the local keyring; no key server is asked."""
    argv = [str(runtime.path), "verify", *(["--key", key] if key else ["--local"]), str(image)]
    done = process.run(argv, env=build_environment(runtime, {}))
    said = done.text + done.stderr
    if done.code == 0:
        found = re.search(r"Signing entity: *(.+?) *$\n.*Fingerprint: *(\w+)", said, re.MULTILINE)
        return Verdict(kind="good", text=f"{found[1]} {found[2]}" if found else f"key {key}")
    why = re.sub(r".*Failed to verify container: (integrity: )?", "", said.strip().splitlines()[-1])
    # apptainer/sif's words where the keyring lacks the key, or the signature wants a PEM key.
    lacking = not key and re.search(r"unknown entity|key material not provided", said)
    return Verdict(kind="unknown" if lacking else "bad", text=why)


def run_limited(
    runtime: Runtime,
    image: Path,
    command: Sequence[str],
    *,
    timeout_s: float,
    binds: Sequence[Bind] = (),
    variables: Mapping[str, str] | None = None,
) -> process.Finished | None:
    """As `run_inside`, but None where the command had to be stopped after `timeout_s`."""
    argv = exec_argv(runtime, image, command, binds=binds, options=("--pid",))
    env = build_environment(runtime, variables or {})
    return process.run_limited(argv, env=env, timeout_s=timeout_s)
