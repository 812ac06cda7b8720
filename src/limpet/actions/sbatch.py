"""`limpet sbatch`: a job script for a program in an image, written, shown or submitted."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from limpet.actions.mpi import MpiReport, examine
from limpet.actions.stage import image_behind
from limpet.core.errors import UsageError
from limpet.core.mpi_plan import render_pmi, usual_kind
from limpet.core.sbatch import Batch, render_batch
from limpet.tools import files, launchers, process, slurm


def make_script(image: str, batch: Batch, *, config_file: str = "", cache_dir: str = "") -> str:
    """The text of the job script; ImageError and UsageError before anything is written."""
    path = image_behind(image)
    folder = Path(image).absolute()
    limpet = own_command()
    program, *words = batch.command
    start = f'{limpet} run "$image" {shlex.quote(program)}'
    used = ""
    if launchers.is_ours(folder) and (folder / "bin" / program).exists():
        start, used = f'"$launchers"/bin/{shlex.quote(program)}', str(folder)
    start = " ".join((start, *map(shlex.quote, words)))
    mpi = batch.mpi or choose_mpi(examine(str(path), config_file=config_file, cache_dir=cache_dir))
    return render_batch(batch, image=str(path), limpet=limpet, start=start, mpi=mpi, launchers=used)


def choose_mpi(report: MpiReport) -> str:
    """srun's kind for what the image uses of MPI; empty where it uses none: the site decides."""
    if not report.mpi.consumers or not report.chosen or report.flag:
        return report.flag
    sets = [host.library for host in report.sets if host.name == report.chosen]
    library = report.mpi.library if report.chosen == "image" else next(iter(sets), None)
    assert library is not None
    if not report.slurm:
        return usual_kind(library)  # written where no srun is: for another machine
    raise UsageError(
        f"{library.title} speaks {render_pmi(library.pmi)}, which this Slurm does not offer: "
        f"`srun --mpi=list` has {', '.join(report.slurm)}.",
        now="Name another kind with --mpi, or --mpi none for a program without MPI.",
    )


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
