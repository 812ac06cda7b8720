"""What reading ahead saves at a cold start on a slow file system, and what it costs.

    python3 bench/ahead.py [--rounds N] [--delays MS,MS] [--folder FOLDER] [--limpet COMMAND]

The import and the image with its profile are those of bench/order.py, and so is the file system
that delays each operation. `limpet run` starts the image, and a copy of it in which the object that
says what is to be read ahead has another name: nothing else differs. A launcher starts it first in
a new job, where it reads ahead, and then once more in that job, where it does not; each time as on
a node that has seen nothing of the image. All in turn; reads and bytes are counted until the import
is over, times are medians, and each ratio is that to the start without reading ahead.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from order import (
    IMPORTS,
    Command,
    build_images,
    common_options,
    header,
    measure_in_turn,
    rows,
    start_by,
)
from slowfs import build_slowfs, slow_view
from summary import render_markdown

IMAGE, UNTOLD = "profiled.sif", "untold.sif"
OBJECT = b"ahead.json\0"
DESCRIPTORS_END = 32 << 10
RUN, PLAIN_RUN = "limpet run", "limpet run, without"
FIRST, NEXT = "launcher, first in a job", "launcher, next"


def main() -> None:
    """Make what is missing, measure, show."""
    parser = common_options(__doc__, rounds=5)
    parser.add_argument("--delays", default="0.2,0.5,1,5", help="milliseconds, with commas between")
    options = parser.parse_args()
    images = build_images(options)
    hide_ranges(images / IMAGE, images / UNTOLD)
    program = build_slowfs(options.folder)
    node = options.folder.resolve() / "node"
    with slow_view(program, images, delay_ms=0, at=node):  # launchers ask where an image lies
        launcher = wrap(options.limpet, node / IMAGE, options.folder.resolve() / "launcher")
    ways = plan_ways(options.limpet, launcher, options.folder.resolve() / "job")
    table = [header("without")]
    for delay_ms in map(float, options.delays.split(",")):
        found = measure_in_turn(program, images, ways, delay_ms, options.rounds, at=node)
        for ahead, without in ((RUN, PLAIN_RUN), (FIRST, NEXT)):
            pair = {name: found[name] for name in (without, ahead)}
            table += rows(delay_ms, pair, against=without)
    print(render_markdown(table))


def hide_ranges(image: Path, copy: Path) -> None:
    """A copy of an image that does not say what is to be read ahead."""
    shutil.copyfile(image, copy)
    with copy.open("r+b") as file:
        file.seek(file.read(DESCRIPTORS_END).index(OBJECT))
        file.write(b"-")


def wrap(limpet: tuple[str, ...], image: Path, folder: Path) -> Path:
    """A launcher of the image's Python that reads ahead."""
    shutil.rmtree(folder, ignore_errors=True)
    command = [*limpet, "-q", "wrap", str(image), str(folder), "--only", "python"]
    subprocess.run(command, check=True)
    if not (folder / ".limpet/current/ahead.sh").exists():
        sys.exit("The launcher does not read ahead: the image has no profile.")
    return folder / "bin/python"


def wait_for_readers() -> None:
    """Those of the start before would count here, as the next mount has the same place."""
    look = ["pgrep", "-u", str(os.getuid()), "-x", "dd"]
    while subprocess.run(look, stdout=subprocess.DEVNULL, check=False).returncode == 0:
        time.sleep(0.1)


def plan_ways(limpet: tuple[str, ...], launcher: Path, job: Path) -> dict[str, Command]:
    """What is started, by name; `job` is the job's own folder on the node."""
    run = (*limpet, "-q", "run")
    session = ["env", "SLURM_JOB_ID=1", f"SLURM_TMPDIR={job}"]

    def go_on(_: Path) -> list[str]:
        wait_for_readers()
        return [*session, str(launcher), "-c", IMPORTS]

    def begin(place: Path) -> list[str]:
        shutil.rmtree(job, ignore_errors=True)
        job.mkdir()
        return go_on(place)

    return {
        RUN: start_by(run, IMAGE, IMPORTS),
        PLAIN_RUN: start_by(run, UNTOLD, IMPORTS),
        FIRST: begin,
        NEXT: go_on,
    }


if __name__ == "__main__":
    main()
