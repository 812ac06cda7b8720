"""What conda packages want to run: post-link scripts once, activation once to see what it sets."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol

import msgspec

from limpet.actions.assemble import Parts, assemble, own_entries
from limpet.actions.conda import CondaShelf
from limpet.actions.prepare import Prepared
from limpet.actions.warm import LAST_LINES, Layer, Written
from limpet.core.activation import (
    Activation,
    Capture,
    Setting,
    marked_variables,
    parse_environment,
    plan_activation,
)
from limpet.core.conda import CondaPackage
from limpet.core.errors import BuildError
from limpet.core.events import Event, Notify
from limpet.core.facts import PREFIX
from limpet.core.piece import Piece
from limpet.core.skeleton import ENV_SCRIPT, Member, plan_conda_frame, render_env_script
from limpet.core.staging import stale_byte_code
from limpet.tools import files
from limpet.tools.process import Finished

if TYPE_CHECKING:
    from limpet.formats.squashfs import Squashfs

_ACTIVATE = f"{PREFIX}/etc/conda/activate.d"
_VARIABLES = f"{PREFIX}/etc/conda/env_vars.d"
_MESSAGES = f"{PREFIX}/.messages.txt"
# conda runs and sources scripts in bash, and many of them need it.
_SHELL = "shell=$(command -v bash || echo /bin/sh)"
_MARK = b"\0\nlimpet\n"
_CAPTURE = """\
cat /proc/self/environ
printf '\\nlimpet\\n'
for script in @PREFIX@/etc/conda/activate.d/*.sh; do
    if [ -e "$script" ]; then . "$script" >&2; fi
done
cat /proc/self/environ
printf '\\nlimpet\\n'
"""
_LAUNCH = f'{_SHELL}; for pair in "$@"; do export "$pair"; done; exec "$shell" -c '
# Two hosts and users that have nothing in common.
_HOSTS = (
    {"HOME": "/limpet/a", "USER": "a", "LOGNAME": "a", "TMPDIR": "/tmp", "HOSTNAME": "a"},
    {"HOME": "/home/b", "USER": "b", "LOGNAME": "b", "TMPDIR": "/var/tmp", "HOSTNAME": "b"},
)


class Runs(Protocol):
    """Something that runs commands in an environment's image."""

    def run(self, words: Sequence[str], variables: Mapping[str, str]) -> Finished: ...


class Scripts(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be run of a set of packages, and the variables that they name in files."""

    post_link: tuple[CondaPackage, ...] = ()
    pre_link: tuple[str, ...] = ()
    activates: bool = False
    variables: dict[str, str] = msgspec.field(default_factory=dict)


def find_scripts(packages: Sequence[CondaPackage], pieces: Mapping[str, Piece]) -> Scripts:
    """Look into the pieces for scripts; nothing is run."""
    from limpet.formats.squashfs import Squashfs

    post_link, pre_link, activates = [], [], False
    variables: dict[str, dict[str, str]] = {}
    for package in packages:
        with pieces[package.name].path.open("rb") as file:
            image = Squashfs(file)
            if image.find(f"{PREFIX}/bin/.{package.name}-post-link.sh"):
                post_link.append(package)
            if image.find(f"{PREFIX}/bin/.{package.name}-pre-link.sh"):
                pre_link.append(package.name)
            activates = activates or any(n.endswith(".sh") for n in _names(image, _ACTIVATE))
            for name in _names(image, _VARIABLES):
                if name.endswith(".json"):
                    variables[name] = _read_variables(image, package, f"{_VARIABLES}/{name}")
    return Scripts(
        post_link=tuple(post_link),
        pre_link=tuple(pre_link),
        activates=activates,
        variables={k: v for _, some in sorted(variables.items()) for k, v in some.items()},
    )


def _names(image: Squashfs, folder: str) -> list[str]:
    node = image.find(folder)
    return [name.decode("utf-8", "replace") for name in node.children] if node else []


def _read_variables(image: Squashfs, package: CondaPackage, path: str) -> dict[str, str]:
    try:
        return {str(k): str(v) for k, v in json.loads(image.read(path)).items()}
    except (ValueError, AttributeError) as error:
        raise BuildError(
            f"{package.filename} is no valid conda package.", why=f"{path}: {error}."
        ) from error


def with_scripts(
    prepared: Prepared, conda: CondaShelf, parts: Parts, scratch: Path, notify: Notify
) -> Parts:
    """The parts with what post-link and activation scripts do in an image made of them."""
    scripts = find_scripts(conda.packages, conda.found)
    for name in scripts.pre_link:
        message = f"{name} has a pre-link script, which is not run: conda advises against them."
        notify(Event(stage="post-link", kind="note", message=message))
    settings = tuple(Setting(name=name, value=v) for name, v in scripts.variables.items())
    if settings:
        parts = _with_settings(prepared, parts, settings)
    if not (scripts.post_link or scripts.activates):
        return parts
    # Post-link scripts may bring activation scripts, so what those set is only known afterwards.
    kept = None if scripts.post_link else _activation_file(prepared, parts)
    activation = _read_activation(kept) if kept else None
    if activation is None:
        trial = scratch / "trial.sif"
        assemble(trial, parts, scratch=scratch, replace=True)
        folder = scratch / "post-link" if scripts.post_link else None
        layer = Layer(trial, folder, prepared.runtime)
        for package in scripts.post_link:
            _run_post_link(package, layer, notify)
        activation = capture(layer)
        parts = with_written(parts, layer.written(), prepared.interpreter.minor)
        trial.unlink()
        if kept:
            with files.written_beside(kept) as out:
                out.write(msgspec.json.encode(activation))
    for name in activation.host_dependent:
        message = (
            f"Activation sets {name} to something else on each host or in each start: left out. "
            "Set it in [env], or where it is used, if it is needed."
        )
        notify(Event(stage="activation", kind="note", message=message))
    return _with_settings(prepared, parts, (*settings, *activation.settings))


def _activation_file(prepared: Prepared, parts: Parts) -> Path:
    """Where the cache keeps what activation sets in an image of these parts."""
    script = _env_script(prepared, ())
    names = [prepared.facts.digest, *(piece.name for piece in parts.pieces), script]
    key = hashlib.sha256(json.dumps(names).encode()).hexdigest()
    return files.make_folder(prepared.cache / "activations") / f"{key}.json"


def _read_activation(path: Path) -> Activation | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Activation)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def _env_script(prepared: Prepared, settings: tuple[Setting, ...]) -> str:
    frame = plan_conda_frame(prepared.lock, settings)
    return render_env_script(prepared.facts.variables, prepared.recipe.env, frame)


def _with_settings(prepared: Prepared, parts: Parts, settings: tuple[Setting, ...]) -> Parts:
    """The parts with an environment script that says what activation sets."""
    script = Member(path=ENV_SCRIPT, content=_env_script(prepared, settings).encode())
    return msgspec.structs.replace(parts, own=(*parts.own, *own_entries([script])))


def with_written(parts: Parts, written: Written, minor: str) -> Parts:
    """The parts with what a run in a trial image left behind.

    Byte code of a module that was written is left out: no one checks whether it still fits.
    """
    own = (*parts.own, *written.entries)
    stale = (
        stale_byte_code(PurePosixPath(entry.path), minor).lstrip("/")
        for entry in written.entries
        if entry.path.endswith(".py")
    )
    removed = (*parts.removed, *written.removed, *stale)
    return msgspec.structs.replace(parts, own=own, removed=removed)


def _run_post_link(package: CondaPackage, layer: Layer, notify: Notify) -> None:
    script = f"{PREFIX}/bin/.{package.name}-post-link.sh"
    variables = {
        "PREFIX": PREFIX,
        "ROOT_PREFIX": PREFIX,
        "PKG_NAME": package.name,
        "PKG_VERSION": package.version,
        "PKG_BUILDNUM": str(package.build_number),
        "PKG_BUILD_STRING": package.build,
    }
    notify(Event(stage="post-link", message=package.name))
    words = ["/bin/sh", "-c", f'{_SHELL}; cd {PREFIX}/bin && exec "$shell" {shlex.quote(script)}']
    done = layer.run(words, variables)
    said = layer.take(_MESSAGES)  # conda shows what scripts write there, and removes it
    if done.code:
        lines = f"{done.text}\n{done.stderr}\n{said}".split("\n")
        raise BuildError(
            f"The post-link script of {package.name} failed with exit code {done.code}.",
            why="\n".join([line for line in lines if line.strip()][-LAST_LINES:]),
            now="Choose another version of the package, or add what its script needs to the base.",
        )
    if said.strip():
        notify(Event(stage="post-link", kind="note", message=f"{package.name}: {said.strip()}"))


def capture(layer: Runs, prefix: str = PREFIX) -> Activation:
    """Source the activation scripts of an environment three times; see `plan_activation`."""
    script = _CAPTURE.replace("@PREFIX@", shlex.quote(prefix))
    one = _capture_once(layer, script, _HOSTS[0])
    other = _capture_once(layer, script, _HOSTS[1])
    marks = marked_variables(one)
    marked = _capture_once(layer, script, _HOSTS[0] | marks) if marks else one
    return plan_activation(one, other, marked)


def _capture_once(layer: Runs, script: str, variables: Mapping[str, str]) -> Capture:
    pairs = [f"{name}={value}" for name, value in variables.items()]
    done = layer.run(["/bin/sh", "-c", _LAUNCH + shlex.quote(script), "sh", *pairs], {})
    parts = done.stdout.split(_MARK)
    if done.code or len(parts) != 3:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise BuildError(
            f"The environment could not be activated (exit code {done.code}).",
            why="\n".join(lines[-LAST_LINES:]),
            now="One of the packages' scripts in etc/conda/activate.d fails in this base.",
        )
    before, after, _ = map(parse_environment, parts)
    return Capture(before=dict(before), after=dict(after))
