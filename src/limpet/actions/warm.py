"""`[warm]`: run something once in the finished environment and keep the files that it wrote."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from limpet.actions.assemble import staged_entries
from limpet.core.errors import BuildError
from limpet.core.facts import PREFIX
from limpet.core.recipe import Warm
from limpet.formats.squashfs import Entry
from limpet.tools import apptainer
from limpet.tools.process import Finished

LAST_LINES = 3


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What a warm run left behind: new or changed files, and paths that it removed."""

    entries: tuple[Entry, ...] = ()
    removed: tuple[str, ...] = ()


class Layer:
    """An image with a throw-away writable layer over it, which lies in `folder`; None: with none.

    Needs fuse-overlayfs (or a kernel that lets users mount overlays), as `--overlay` does. What
    goes to /tmp or the home is not kept: those are the job's own at run time.
    """

    def __init__(self, image: Path, folder: Path | None, runtime: apptainer.Runtime) -> None:
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
        self._image = image
        self._folder = folder
        self._runtime = runtime

    def run(self, words: Sequence[str], variables: Mapping[str, str]) -> Finished:
        """Run a command to its end; what it writes is there for the next one."""
        return apptainer.run_inside(
            self._runtime,
            self._image,
            words,
            # By its bare name: --overlay splits what it is given at commas and colons.
            options=("--overlay", self._folder.name) if self._folder else (),
            cwd=self._folder.parent if self._folder else None,
            variables=variables,
        )

    def take(self, path: str) -> str:
        """The text of a file that was written, which is removed."""
        assert self._folder
        file = self._folder / "upper" / path.lstrip("/")
        text = file.read_text("utf-8", "replace") if file.is_file() else ""
        file.unlink(missing_ok=True)
        return text

    def written(self) -> Written:
        """What all commands together left behind."""
        if self._folder is None:
            return Written()
        upper = self._folder / "upper"
        return Written(entries=tuple(_kept(upper)), removed=tuple(_whiteouts(upper)))


def warm_image(image: Path, warm: Warm, *, runtime: apptainer.Runtime, scratch: Path) -> Written:
    """Run the imports and commands over a throw-away writable layer; give back what they wrote."""
    layer = Layer(image, scratch / "warm", runtime)
    for words in _commands(warm):
        done = layer.run(words, {"LC_ALL": "C.UTF-8"})
        if done.code:
            raise BuildError(
                f"[warm] {' '.join(words[-1:])} failed with exit code {done.code}.",
                why=last_lines(done.stderr),
                now="Take it out of [warm], or mend what it runs.",
            )
    return layer.written()


def last_lines(said: str) -> str:
    """What went wrong stands at the end, and its traceback is not of limpet's making."""
    lines = [
        line for line in said.splitlines() if line.strip() and not line.startswith("Traceback")
    ]
    return "\n".join(lines[-LAST_LINES:])


def _commands(warm: Warm) -> Iterator[list[str]]:
    for name in warm.imports:
        yield [f"{PREFIX}/bin/python", "-c", f"import {name}"]
    for command in warm.commands:
        yield ["/bin/sh", "-c", command]


def _kept(upper: Path) -> Iterator[Entry]:
    for path in sorted(upper.rglob("*")):
        inside = str(path.relative_to(upper))
        # fuse-overlayfs marks folders that replace others with `.wh.` names.
        if path.name.startswith(".wh.") or _is_whiteout(path):
            continue
        if path.is_dir() and not path.is_symlink():
            yield Entry(path=inside, kind="dir", mode=stat.S_IMODE(path.stat().st_mode))
        elif path.is_symlink() or path.is_file():  # a socket lives no longer than its program
            yield from staged_entries({path: inside})


def _whiteouts(upper: Path) -> Iterator[str]:
    return (str(path.relative_to(upper)) for path in upper.rglob("*") if _is_whiteout(path))


def _is_whiteout(path: Path) -> bool:
    """overlayfs's mark for a removed file: a character device 0/0."""
    status = path.lstat()
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
