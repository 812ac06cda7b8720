"""`limpet pack` of a tree of many files, against mksquashfs and `tar` of the same tree, in turn.

mksquashfs runs twice: plain, without any option of compression (gzip, as whoever calls it by itself
gets it, and what "plain mksquashfs" means), and tuned as limpet's own images are (zstd 3, 128K),
which is several times as fast and the strict yardstick. Each contender's time is given as a ratio
to both.

The tree is made of the files of a real installation (this Python's own packages, or `--like`),
drawn at random and each made different, so that nothing is stored twice. Every round runs each
contender once; the order is turned round from one to the next. limpet's time is that of the whole
command: it also reads which packages there are, hashes each file, merges with a base, reads
everything back and compares it, and looks once more whether the tree is still the same. A second
contender is the part of it that mksquashfs does as well: look at the tree, read, hash, write.

    bench/pack.py WORK --base base.sif [--files 50000] [--rounds 3] [--like FOLDER]
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

FILES_A_FOLDER = 40
QUIET = ("-noappend", "-no-progress", "-quiet")
TUNED = (
    *("-comp", "zstd", "-Xcompression-level", "3", "-b", "128K"),
    *("-all-root", "-no-xattrs", "-all-time", "0", "-mkfs-time", "0"),
)
YARDSTICKS = {"mksquashfs": "× plain", "mksquashfs zstd-3": "× zstd-3"}


@dataclass(frozen=True)
class Run:
    """What one run took: `memory_bytes` is the most of its largest process."""

    wall_s: float
    cpu_s: float
    memory_bytes: int


def make_tree(folder: Path, like: Path, count: int) -> int:
    """A tree of `count` files; how many bytes they hold."""
    found = [
        path
        for path in like.rglob("*")
        if path.is_file() and not path.is_symlink() and path.suffix != ".pyc"
    ]
    draw = random.Random(1)
    total = 0
    for number in range(count):
        source = draw.choice(found)
        parent = folder / "lib" / f"{number // FILES_A_FOLDER // 20:03}"
        parent /= f"{number // FILES_A_FOLDER % 20:02}"
        if number % FILES_A_FOLDER == 0:
            parent.mkdir(parents=True)
        data = source.read_bytes()
        data = (b"# %d\n" % number + data) if source.suffix == ".py" else data + b"%d" % number
        (parent / f"{number}-{source.name}").write_bytes(data)
        total += len(data)
    return total


def measure(argv: Sequence[str], output: Path) -> Run:
    """One run, in a child of its own so that its memory is known."""
    output.unlink(missing_ok=True)
    # As installed, with byte code, wherever this runs from.
    os.environ["PYTHONPYCACHEPREFIX"] = str(output.parent / "byte-code")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    start = time.perf_counter()
    child = os.fork()
    if not child:
        with open(os.devnull, "wb") as sink:  # noqa: PTH123
            code = subprocess.call(argv, stdout=sink)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        kilobytes = used.ru_maxrss
        (output.parent / "memory").write_text(f"{kilobytes} {used.ru_utime + used.ru_stime}")
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    wall_s = time.perf_counter() - start
    if code:
        raise SystemExit(f"{argv[0]} ended with exit code {code}.")
    memory_kb, cpu_s = (output.parent / "memory").read_text().split()
    return Run(wall_s=wall_s, cpu_s=float(cpu_s), memory_bytes=int(memory_kb) << 10)


def write_alone(tree: Path, output: Path) -> None:
    """The part of limpet's work that mksquashfs does as well."""
    from limpet.formats.squashfs import write_squashfs
    from limpet.tools.prefix_scan import scan_tree
    from limpet.tools.prefix_stream import TreeReader

    with output.open("wb") as out:
        write_squashfs(out, TreeReader(tree, "tree", scan_tree(tree)).entries())


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--base", required=True)
    parser.add_argument("--files", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--like", type=Path, default=Path(sysconfig.get_path("purelib")))
    return parser.parse_args()


def main() -> None:
    if sys.argv[1:2] == ["--write-alone"]:
        write_alone(*map(Path, sys.argv[2:4]))
        return
    options = read_options()
    work = options.work.absolute()
    tree = work / "tree"
    if not tree.exists():
        make_tree(tree, options.like, options.files)
    files = [path for path in tree.rglob("*") if path.is_file()]
    size_bytes = sum(path.stat().st_size for path in files)
    limpet = [sys.executable, "-P", "-m", "limpet", "--quiet", "pack", str(tree), "--force"]
    contenders = {
        "mksquashfs": (["mksquashfs", str(tree), str(work / "g"), *QUIET], work / "g"),
        "mksquashfs zstd-3": (
            ["mksquashfs", str(tree), str(work / "m"), *QUIET, *TUNED],
            work / "m",
        ),
        "tar": (["tar", "-C", str(work), "-cf", str(work / "t"), "tree"], work / "t"),
        "writing": (
            [sys.executable, __file__, "--write-alone", str(tree), str(work / "w")],
            work / "w",
        ),
        "limpet pack": ([*limpet, "-o", str(work / "l"), "--base", options.base], work / "l"),
    }
    runs: dict[str, list[Run]] = {name: [] for name in contenders}
    for number in range(options.rounds + 1):
        order = list(contenders) if number % 2 else list(reversed(contenders))
        for name in order:
            run = measure(*contenders[name])
            if number:  # the first round only brings files and programs into memory
                runs[name].append(run)
    print(f"{len(files)} files, {size_bytes / 1e6:.0f} MB; medians of {options.rounds}\n")
    sizes = {name: out.stat().st_size for name, (_, out) in contenders.items()}
    print_table(runs, sizes, len(files))


def print_table(runs: Mapping[str, Sequence[Run]], sizes: Mapping[str, int], count: int) -> None:
    """One row for each contender; the ratios are medians of those within the rounds."""
    ratios = [*YARDSTICKS.values(), *(f"CPU {name}" for name in YARDSTICKS.values())]
    rows = [["contender", "wall s", "files/s", "CPU s", *ratios, "MB mem", "MB file"]]
    for name, made in runs.items():
        wall_s = median(run.wall_s for run in made)
        pairs = [list(zip(made, runs[plain], strict=True)) for plain in YARDSTICKS]
        walls = [median(one.wall_s / other.wall_s for one, other in pair) for pair in pairs]
        cpus = [median(one.cpu_s / other.cpu_s for one, other in pair) for pair in pairs]
        rows.append(
            [
                name,
                f"{wall_s:.2f}",
                f"{count / wall_s:.0f}",
                f"{median(run.cpu_s for run in made):.2f}",
                *(f"{ratio:.2f}" for ratio in (*walls, *cpus)),
                f"{max(run.memory_bytes for run in made) / 1e6:.0f}",
                f"{sizes[name] / 1e6:.0f}",
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    for row in rows:
        print(f"| {' | '.join(map(str.ljust, row, widths))} |")


if __name__ == "__main__":
    main()
