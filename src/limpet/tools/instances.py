"""The instances that hold images on this node: their folders, and whether they live."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from limpet.core.errors import HostError
from limpet.core.keep import ALIVE, BUS, KEEPER, KEEPERS, LAST, MARK, SAME, Kept, key_of
from limpet.tools import process
from limpet.tools.files import make_folder, remove_tree, written_beside

RECORD = "kept.json"
START_S = 60.0
KEEPER_S = 5.0


def kept_folder(state: Path) -> Path:
    """Where this node's are noted down; homes are shared between nodes."""
    return state / ".kept" / os.uname().nodename


def image_state(image: Path) -> tuple[str | int, ...]:
    """What changes when an image is moved, replaced or written to."""
    status = image.stat()
    place = os.path.realpath(image)
    return (place, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def place_state(path: str) -> tuple[int, ...]:
    """What changes when another one is put at a path; OSError where none is there."""
    status = Path(path).stat()
    return (status.st_dev, status.st_ino)


def session_state() -> tuple[int | str, ...]:
    """What of the process keeps instances apart: its group, and the control groups that take along
    what is in them."""
    return (os.getegid(), ascii(Path("/proc/self/cgroup").read_bytes()))


def find_alive(root: Path, same: bytes) -> Kept | None:
    """An instance of the same that takes programs; it is told first that one comes."""
    for folder in sorted(root.glob(f"limpet-{key_of(same)}-*")):
        with contextlib.suppress(OSError):
            if (folder / SAME).read_bytes() == same and (kept := _read(folder)):
                _touch(folder / LAST)
                if (folder / ALIVE).stat().st_size:
                    return kept
    return None


def list_kept(root: Path) -> Iterator[Kept]:
    """Those that live."""
    return (kept for folder in sorted(root.glob("limpet-*")) if (kept := _read(folder)))


def _read(folder: Path) -> Kept | None:
    try:
        kept = msgspec.json.decode((folder / RECORD).read_bytes(), type=Kept)
    except (OSError, msgspec.DecodeError):
        return None
    return kept if _begun(kept.pid) == kept.begun >= 0 else None


def clear_up(root: Path, runtime: str) -> None:
    """Remove what is left of those that have ended. To be called under a lock, if there are any."""
    ended = [folder for folder in root.glob("limpet-*") if _has_ended(folder)]
    for folder in ended:
        remove_tree(folder)
    if ended:  # the runtime forgets them when it lists them
        process.run([runtime, "instance", "list", "limpet-*"], timeout_s=START_S)


def _has_ended(folder: Path) -> bool:
    """Whether its instance has, or before it is noted down, who makes it and is in its name."""
    if (folder / RECORD).exists():
        return _read(folder) is None
    maker, _, begun = folder.name.rpartition("-")
    pid = maker.rpartition("-")[2]
    return not (pid.isdecimal() and str(_begun(int(pid))) == begun)


def prepare(root: Path, same: bytes, keeper: str) -> Path:
    """A folder for an instance to be; its name is the instance's."""
    # Of its maker's own name: the runtime may still have what a maker left that was killed.
    folder = make_folder(root / f"limpet-{key_of(same)}-{os.getpid()}-{_begun(os.getpid())}")
    (folder / KEEPER).write_text(keeper, "utf-8")
    (folder / KEEPER).chmod(0o700)
    if not os.access(folder / KEEPER, os.X_OK):
        remove_tree(folder)
        raise HostError(f"nothing can be executed in {root}.")
    _touch(folder / LAST)
    make_folder(folder / KEEPERS)
    (folder / ALIVE).write_text("\n", "ascii")
    (folder / SAME).write_bytes(same)
    return folder


def start(folder: Path, argv: Sequence[str], env: Mapping[str, str], kept: Kept) -> Kept:
    """Start the instance and note it down; HostError where the runtime cannot."""
    env = {name: value for name, value in env.items() if name not in BUS}
    done = process.run(argv, env=env, timeout_s=START_S)
    pid = 0 if done.code else _pid_of(argv[0], kept.name, env)
    if not (pid and _is_kept(folder, pid)):
        if pid:
            process.run([argv[0], "instance", "stop", kept.name], env=env, timeout_s=START_S)
        remove_tree(folder)
        said = done.stderr.strip().rpartition("\n")[2]
        raise HostError(
            "its keeper does not run." if pid else "the runtime started no instance.",
            why="" if pid else said,
        )
    kept = msgspec.structs.replace(kept, pid=pid, begun=_begun(pid))
    with written_beside(folder / RECORD) as file:
        file.write(msgspec.json.encode(kept))
    return kept


def _is_kept(folder: Path, pid: int) -> bool:
    """Whether the keeper runs, without which an instance would never end."""
    end = time.monotonic() + KEEPER_S
    while not (folder / MARK).exists():
        if time.monotonic() > end or _begun(pid) < 0:
            return False
        time.sleep(0.02)
    return True


def end(root: Path, kept: Kept, runtime: str) -> None:
    """Stop an instance, with what runs in it."""
    kept = _read(root / kept.name) or kept  # it may have been in the making when it was listed
    process.run([runtime, "instance", "stop", kept.name], timeout_s=START_S)
    # The runtime may have noted it down elsewhere, for another session. While a launcher makes an
    # instance, its record names the launcher, as its name does: that goes on without.
    in_making = kept.name.endswith(f"-{kept.pid}-{kept.begun}")
    if not in_making and _begun(kept.pid) == kept.begun:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(kept.pid, signal.SIGKILL)
    remove_tree(root / kept.name)


def let_go(root: Path, kept: Kept) -> None:
    """Have an instance end as soon as nothing runs in it, and let no more programs in."""
    with contextlib.suppress(OSError):
        (root / kept.name / ALIVE).unlink()


def _pid_of(runtime: str, name: str, env: Mapping[str, str]) -> int:
    done = process.run([runtime, "instance", "list", "--json", name], env=env, timeout_s=START_S)
    try:
        listed: dict[str, Any] = msgspec.json.decode(done.stdout)
        (found,) = listed["instances"]
        # An instance says nothing, in files that would stay.
        for said in (found.get("logErrPath"), found.get("logOutPath")):
            if said:
                Path(said).unlink(missing_ok=True)
        return int(found["pid"])
    except (msgspec.DecodeError, KeyError, ValueError, TypeError):
        return 0


def _begun(pid: int) -> int:
    """When a process began, in clock ticks since the boot; -1 where it is gone."""
    try:
        return int(process.read_status(pid)[19])
    except OSError:
        return -1


def _touch(path: Path) -> None:
    path.touch(mode=0o600)
    os.utime(path)
