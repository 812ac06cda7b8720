"""`limpet overlay`, and the overlays that a start asks for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from limpet.core.errors import ExistsError, ImageError, SpaceError, UsageError
from limpet.core.overlay import (
    Overlay,
    Record,
    check_start,
    check_use,
    label_of,
    mark_of,
    parse_size,
    parse_wish,
)
from limpet.core.seen import HostSeen, ImageSeen
from limpet.tools import files, host, images
from limpet.tools import overlay as tool
from limpet.tools.config import read_config

DEFAULT_NAME = "default"


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """The overlays of a start: as the runtime wants them, the folders to be held, and notes."""

    words: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def choose_overlays(image: ImageSeen, here: HostSeen, wanted: Sequence[str]) -> Chosen:
    """What `--overlay` names, found and checked; an error says what the start would end in."""
    words, held, notes, writers = [], [], [], 0
    for text in wanted:
        wish = parse_wish(text)
        folder = Path(here.state, image.identity, "overlays")
        path = find(image, folder, wish.name) if wish.name else Path(here.cwd, wish.path)
        found = tool.probe_overlay(path)
        note = check_start(found, image, writable=wish.writable)
        if found.size_bytes:
            tool.check_helpers(here.runtime)
        if wish.writable and found.kind == "folder":
            held.append(found.path)
        writers += wish.writable and (found.kind == "folder" or found.size_bytes > 0)
        words.append(found.path if wish.writable else f"{found.path}:ro")
        parse_wish(words[-1])  # a state folder with a colon in it
        notes += [note] if note else []
    if writers > 1:
        raise UsageError("Only one overlay can be written to.", now="Add :ro to the others.")
    return Chosen(words=tuple(words), held=tuple(held), notes=tuple(notes))


def find(image: ImageSeen, folder: Path, name: str) -> Path:
    """An overlay of this image by its name; ImageError that says which there are."""
    for path in (folder / f"{name}.img", folder / name):
        if path.exists():
            return path
    there = ", ".join(overlay.name for overlay in list_folder(folder)) or "none yet"
    raise ImageError(
        f"{image.path} has no overlay {name!r}.",
        why=f"There is: {there}. Another build of an image has overlays of its own.",
        now=f"Make it: limpet overlay create {image.path} {name} --size 4G",
    )


def list_folder(folder: Path) -> list[Overlay]:
    """The overlays in a folder."""
    if not folder.is_dir():
        return []
    named = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    return [tool.probe_overlay(path) for path in named]


def create_overlay(
    image: str, where: str = "", *, size: str = "", folder: bool = False, config_file: str = ""
) -> Overlay:
    """Make an overlay for an image, by name or at a path."""
    if bool(size) == folder:
        raise UsageError(
            "An overlay is a file of a certain size or a folder.", now="Give --size 4G, or --dir."
        )
    size_bytes = parse_size(size) if size else 0
    seen = images.read_image(image)
    path = _place(seen, where, config_file, ".img" if size else "")
    if path.exists() or path.is_symlink():
        raise ExistsError(f"{path} is there already.", now="Name another one, or remove it first.")
    label, mark = label_of(seen), mark_of(seen)
    if size:
        tool.make_file(path, size_bytes=size_bytes, label=label, mark=mark)
    else:
        tool.make_folder(path, Record(label=label, mark=mark))
    return tool.probe_overlay(path)


def _place(seen: ImageSeen, where: str, config_file: str, suffix: str) -> Path:
    wish = parse_wish(where or DEFAULT_NAME)
    if wish.path:
        return Path(wish.path).expanduser().absolute()
    return own_folder(seen, config_file) / f"{wish.name}{suffix}"


def own_folder(seen: ImageSeen, config_file: str) -> Path:
    """Where this image's overlays are kept."""
    state = files.state_folder(read_config(config_file).state_dir)
    kept, note = host.find_state(state)
    if note:
        raise SpaceError(
            f"{state} cannot be written: overlays are kept there.",
            now="Name a path for the overlay, or set LIMPET_STATE_DIR.",
        )
    return kept / seen.identity / "overlays"


def list_overlays(image: str, where: str = "", *, config_file: str = "") -> list[Overlay]:
    """One overlay of an image, or all that it has by name."""
    seen = images.read_image(image)
    if where:
        return [_look(seen, where, config_file)]
    state = files.state_folder(read_config(config_file).state_dir)
    return list_folder(state / seen.identity / "overlays")


def _look(seen: ImageSeen, where: str, config_file: str) -> Overlay:
    wish = parse_wish(where)
    state = files.state_folder(read_config(config_file).state_dir)
    folder = state / seen.identity / "overlays"
    path = find(seen, folder, wish.name) if wish.name else Path(wish.path).expanduser().absolute()
    return tool.probe_overlay(path)


def _file(seen: ImageSeen, where: str, config_file: str) -> Overlay:
    found = _look(seen, where, config_file)
    if found.kind == "folder":
        raise UsageError(f"{found.path} is a folder: it needs neither check nor growth.")
    check_use(found, writable=True)
    return found


def grow_overlay(image: str, where: str, *, size: str, config_file: str = "") -> Overlay:
    """Make an overlay file larger: `8G`, or `+4G` more."""
    seen = images.read_image(image)
    found = _file(seen, where, config_file)
    added = parse_size(size.lstrip("+"))
    size_bytes = found.size_bytes + added if size.startswith("+") else added
    if size_bytes <= found.size_bytes:
        raise UsageError(
            f"--size {size}: {found.path} has {found.size_bytes / 1024**2:.0f}M already.",
            why="An overlay can only grow.",
        )
    tool.grow_file(found, size_bytes)
    return tool.probe_overlay(Path(found.path))


def check_overlay(
    image: str, where: str, *, repair: bool = False, config_file: str = ""
) -> tuple[Overlay, bool, str]:
    """Check an overlay file: what it is now, whether anything was mended, and what was said."""
    seen = images.read_image(image)
    found = _file(seen, where, config_file)
    mended, said = tool.check_file(found, repair=repair)
    return tool.probe_overlay(Path(found.path)), mended, said


def remove_overlay(image: str, where: str, *, config_file: str = "") -> Overlay:
    """Remove an overlay of this image, and nothing that is none."""
    seen = images.read_image(image)
    found = _look(seen, where, config_file)
    if found.mark != mark_of(seen):
        raise UsageError(
            f"{found.path} is not an overlay of {seen.path}.", why="So it is not removed."
        )
    tool.remove(found)
    return found
