"""A job script: from the words after `limpet sbatch` to a text that people read and change."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

import msgspec

from limpet.core.errors import UsageError
from limpet.core.slurm import STAGE_DIR

# From this number of nodes on, a copy on each is worth its time.
STAGED_FROM_NODES = 3

_OWN_FLAGS = ("--submit", "--stage", "--no-stage", "--force")
_OWN_VALUES = ("-o", "--script", "--mpi", "--stage-to")
_NODES = ("--nodes", "-N")
_CPUS = ("--cpus-per-task", "-c")
_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./\[\]*-]*")


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asked for: Slurm's options as pairs (without a value: None), and limpet's own.

    `stage` is None where the number of nodes decides; `mpi` is srun's kind, empty where the image
    decides.
    """

    options: tuple[tuple[str, str | None], ...] = ()
    command: tuple[str, ...]
    script: str = ""
    submit: bool = False
    force: bool = False
    stage: bool | None = None
    stage_to: str = ""
    mpi: str = ""

    @property
    def nodes(self) -> int:
        """The most nodes that the job may have; 1 where nothing is said."""
        for name, value in self.options:
            if name in _NODES and value:
                return max(int(number) for number in re.findall(r"\d+", value) or ["1"])
        return 1

    @property
    def staged(self) -> bool:
        """Whether the script stages the image."""
        return self.nodes >= STAGED_FROM_NODES if self.stage is None else self.stage


def parse_batch(words: Sequence[str]) -> Batch:
    """The words after the image; UsageError where they are not options, `--` and a command."""
    if "--" not in words or words[-1] == "--":
        raise UsageError(
            "There is no command for the job.",
            now="Write it after --: limpet sbatch IMAGE --nodes 2 -- python x.py",
        )
    at = list(words).index("--")
    options: list[tuple[str, str | None]] = []
    left = list(words[:at])
    while left:
        word = left.pop(0)
        if not re.match(r"--?[A-Za-z]", word):
            raise UsageError(
                f"{word!r} is no option.", now="The command comes after --, the image before all."
            )
        name, given, value = word.partition("=")
        if re.match(r"-[A-Za-z].", word):
            name, value, given = word[:2], word[2:], "="
        takes = name not in _OWN_FLAGS and bool(left) and not left[0].startswith("-")
        options.append((name, value if given else left.pop(0) if takes else None))
    own = {name: value for name, value in options if name in (*_OWN_FLAGS, *_OWN_VALUES)}
    for name in _OWN_VALUES:
        if name in own and not own[name]:
            raise UsageError(f"{name} needs a value.")
    if "--stage" in own and "--no-stage" in own:
        raise UsageError("--stage and --no-stage contradict each other.")
    return Batch(
        options=tuple(option for option in options if option[0] not in own),
        command=tuple(words[at + 1 :]),
        script=own.get("-o") or own.get("--script") or "",
        submit="--submit" in own,
        force="--force" in own,
        stage=True if "--stage" in own else False if "--no-stage" in own else None,
        stage_to=own.get("--stage-to") or "",
        mpi=own.get("--mpi") or "",
    )


def render_batch(
    batch: Batch, *, image: str, limpet: str, start: str, mpi: str, launchers: str = ""
) -> str:
    """The script. `limpet` is the command, `start` what srun starts, all in a shell's words.

    `launchers` is the folder of those that `start` names as `$launchers`, empty for none.
    """
    lines = ["#!/bin/bash"]
    lines += [f"#SBATCH {_directive(name, value)}" for name, value in batch.options]
    name, value = ("launchers", launchers) if launchers else ("image", image)
    lines += ["", f"{name}={shlex.quote(value)}"]
    if batch.stage_to:
        lines += [f"export {STAGE_DIR}={shlex.quote(batch.stage_to)}"]
    if any(name in _CPUS for name, _ in batch.options):
        # srun of Slurm 22.05 and later does not take it from the job
        lines += ["export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK"]
        lines += ["export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK"]
    if batch.staged:
        lines += [
            "",
            "# A copy on each node's own disk; without room for it the shared file is used.",
        ]
        stage = f'{limpet} stage "$image"'
        if launchers:
            stage = f'staged=$({limpet} stage --path "$launchers") && launchers=$staged'
        lines += [stage]
    kind = f" --mpi={shlex.quote(mpi)}" if mpi else ""
    lines += ["", f"srun{kind} {start}"]
    if batch.staged:
        lines += ["code=$?", f"{limpet} stage --clean", "exit $code"]
    return "\n".join(lines) + "\n"


def _directive(name: str, value: str | None) -> str:
    """An option as sbatch reads it from a script: it knows quotes and backslashes."""
    if value is None:
        return name
    if any(ord(letter) < 32 for letter in value):
        raise UsageError(f"{name}: a job script cannot hold {value!r} in one line.")
    if not _PLAIN.fullmatch(value):
        value = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"{name}={value}" if name.startswith("--") else f"{name} {value}"
