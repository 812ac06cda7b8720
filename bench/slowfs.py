"""A folder seen through slowfs.c: each operation that reaches it is delayed and counted.

    python3 bench/slowfs.py FOLDER [--delay-ms MS] -- COMMAND …

runs a command in the slow view of FOLDER, as a node that has not seen it yet, and prints what
reached the servers as JSON. Needs gcc, pkg-config, libfuse3's header files and fusermount3.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("slowfs.c")
COUNTERS = ".slowfs.json"
PATIENCE_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Operations that reached the file system since it was mounted, and bytes that were read."""

    attributes: int
    opens: int
    links: int
    listings: int
    reads: int
    read_bytes: int

    @property
    def metadata(self) -> int:
        """All operations but reads."""
        return self.attributes + self.opens + self.links + self.listings


@dataclass(frozen=True, kw_only=True)
class SlowView:
    """A mounted view: `place` shows what `source` holds."""

    source: Path
    place: Path
    delay_ms: float

    def counted(self) -> Counted:
        """What has reached the file system so far."""
        return Counted(**json.loads((self.place / COUNTERS).read_text()))


def build_slowfs(folder: Path) -> Path:
    """The program, compiled into `folder` unless it is there and newer than its source."""
    program = folder / "slowfs"
    if program.exists() and program.stat().st_mtime >= SOURCE.stat().st_mtime:
        return program
    folder.mkdir(parents=True, exist_ok=True)
    asked = ["pkg-config", "fuse3", "--cflags", "--libs"]
    flags = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
    partial = folder / f".slowfs-{os.getpid()}"
    subprocess.run(
        ["gcc", "-O2", "-Wall", "-o", str(partial), str(SOURCE), *shlex.split(flags)], check=True
    )
    return partial.replace(program)


@contextlib.contextmanager
def slow_view(
    program: Path,
    source: Path,
    *,
    delay_ms: float,
    server: Path | None = None,
    service_ms: float = 0,
    at: Path | None = None,
) -> Iterator[SlowView]:
    """Mount `source` for the time of the block, as a plain user.

    The place is `at`, or a new folder beside the source. Each call is a client that has seen
    nothing yet. Those that name the same file as `server` share one that does a metadata operation
    in `service_ms`, one at a time.
    """
    source = source.resolve()
    if at:
        at.mkdir()
    place = at or Path(tempfile.mkdtemp(prefix=".slowfs-", dir=source.parent))
    settings = f"source={_escaped(source)},delay_us={round(delay_ms * 1000)}"
    if server:
        settings += f",server={_escaped(server)},service_us={round(service_ms * 1000)}"
    mount = subprocess.Popen([str(program), "-f", str(place), "-o", settings])
    try:
        _wait_for(mount, place)
        yield SlowView(source=source, place=place, delay_ms=delay_ms)
    finally:
        _unmount(mount, place)
        place.rmdir()


def _escaped(path: Path) -> str:
    """As libfuse's option parser reads it."""
    return str(path).replace("\\", "\\\\").replace(",", "\\,")


def _wait_for(mount: subprocess.Popen[bytes], place: Path) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not os.path.ismount(place):
        if mount.poll() is not None or time.monotonic() > deadline_s:
            raise RuntimeError("slowfs could not be mounted; is /dev/fuse open to users?")
        time.sleep(0.01)


def _unmount(mount: subprocess.Popen[bytes], place: Path) -> None:
    """Containers let go of their image a moment after they have ended."""
    deadline_s = time.monotonic() + PATIENCE_S
    unmount = ["fusermount3", "-u", "-q", str(place)]
    while mount.poll() is None and subprocess.run(unmount, capture_output=True).returncode:
        if time.monotonic() > deadline_s:
            subprocess.run([*unmount, "-z"], check=False)
            break
        time.sleep(0.05)
    mount.kill()  # a container that started meanwhile may hold on to the mount
    mount.wait(PATIENCE_S)


def main() -> None:
    """Run one command in the slow view."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--delay-ms", type=float, default=1.0)
    parser.add_argument("--program", type=Path, default=Path.home() / ".cache/limpet-bench")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    program = build_slowfs(options.program)
    with slow_view(program, options.folder, delay_ms=options.delay_ms) as view:
        begun_s = time.perf_counter()
        done = subprocess.run(options.command, cwd=view.place, stdout=sys.stderr)
        wall_s = time.perf_counter() - begun_s
        print(json.dumps({"wall_s": round(wall_s, 3), **asdict(view.counted())}))
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
