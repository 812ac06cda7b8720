"""`limpet sbatch`: a job script for a program in an image, written, shown or submitted."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

from limpet.actions.stage import image_behind
from limpet.core.image import LOCK_OBJECT
from limpet.core.sbatch import Batch, choose_pmi, render_batch
from limpet.tools import files, images, launchers, process, slurm


def make_script(image: str, batch: Batch) -> str:
    """The text of the job script; ImageError and UsageError before anything is written."""
    path = image_behind(image)
    seen = images.read_image(str(path))
    folder = Path(image).absolute()
    limpet = own_command()
    program, *words = batch.command
    start = f'{limpet} run "$image" {shlex.quote(program)}'
    if launchers.is_ours(folder) and (folder / "bin" / program).exists():
        start = shlex.quote(str(folder / "bin" / program))
    start = " ".join((start, *map(shlex.quote, words)))
    lock = images.read_named(path, LOCK_OBJECT) if seen.kind == "sif" else None
    names = re.findall(r'(?m)^name = "([^"]+)"', lock.decode() if lock else "")
    mpi = batch.mpi or choose_pmi(names, slurm.list_pmi())
    return render_batch(batch, image=str(path), limpet=limpet, start=start, mpi=mpi)


def own_command() -> str:
    """This limpet, as a shell starts it from anywhere."""
    program = Path(sys.argv[0])
    if program.name == "limpet" and program.is_absolute() and program.exists():
        return shlex.quote(str(program))
    found = process.find_program("limpet")
    if found and found.parent == Path(sys.executable).parent:
        return shlex.quote(str(found))
    return f"{shlex.quote(sys.executable)} -P -m limpet"


def write_script(path: Path, text: str, *, force: bool) -> None:
    """A file of its own; ExistsError where one is there and `force` is not given."""
    with files.written_beside(path, replace=force) as file:
        file.write(text.encode("utf-8", "surrogateescape"))
    path.chmod(0o755)


def submit(text: str) -> str:
    """The number of the job; HostError with what Slurm said."""
    return slurm.submit(text)
