"""`limpet export`: a lock for other tools."""

from __future__ import annotations

from pathlib import Path

from limpet.actions.lock_files import choose_lock_path, read_lock
from limpet.core.conda_export import Form, render_export
from limpet.core.errors import ExistsError, LockError, UsageError
from limpet.core.image import LOCK_OBJECT
from limpet.core.lock import Lock
from limpet.core.pylock import is_own_lock, parse_lock
from limpet.tools import images
from limpet.tools.files import written_beside


def export_lock(source: str, form: Form) -> str:
    """The text of a lock in another tool's form; `source` is a recipe, a lock or an image."""
    path = Path(source).absolute()
    lock, folder = find_lock(path)
    return render_export(lock, form, folder=folder, name=path.stem.removeprefix("pylock."))


def write_export(text: str, output: Path, *, force: bool) -> None:
    """Write an export; ExistsError rather than replacing what is there."""
    if output.exists() and not force:
        raise ExistsError(f"{output} is there already.", now="Use --force to replace it.")
    with written_beside(output, replace=force) as file:
        file.write(text.encode())


def find_lock(path: Path) -> tuple[Lock, Path]:
    """The lock of a recipe, of an image, or itself, and where its relative paths start."""
    if not path.is_file():
        raise UsageError(f"There is no file {path}.")
    if images.is_sif(path):
        text = images.read_named(path, LOCK_OBJECT)
        if text is None:
            raise LockError(f"{path} has no lock in it.", now="Make one: limpet lock --freeze.")
        return parse_lock(text.decode(), str(path)), path.parent
    if is_own_lock(path.read_text("utf-8", errors="replace")):
        lock_file = path
    else:
        lock_file = choose_lock_path([path])
    lock = read_lock(lock_file)
    if lock is None:
        raise LockError(
            f"{path} is not locked yet.",
            why=f"There is no {lock_file}.",
            now=f"Run limpet lock {path.name} first.",
        )
    return lock, lock_file.parent
