"""Profile order: run what users will run, once, and have first in the image what it opened."""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from pathlib import Path

import msgspec

from limpet.actions.assemble import Parts, assemble, open_root
from limpet.actions.import_order import find_import_order
from limpet.actions.pieces import Shelf
from limpet.actions.prepare import Prepared
from limpet.actions.warm import last_lines
from limpet.core.errors import BuildError, LimpetError
from limpet.core.events import Event, Notify
from limpet.core.facts import PREFIX
from limpet.core.profile import (
    PYTHON,
    Order,
    Profile,
    blocks_key,
    import_command,
    parse_modules,
    parse_notes,
    parse_order,
    plan_profile,
    profile_key,
    render_order,
)
from limpet.formats.squashfs import Hot, Kept
from limpet.tools import apptainer, files, kept_blocks
from limpet.tools.apptainer import Bind
from limpet.tools.process import Finished

SCRIPT = Path(__file__).parent.parent / "base_scripts" / "note_opened.py"
HOOK_INSIDE = "/opt/limpet/profile"
NOTES_INSIDE = "/opt/limpet/notes"
# By way of a shell in the image, because an image's own start files empty PYTHONPATH.
_WATCHED = (
    f"export PYTHONPATH={HOOK_INSIDE} LIMPET_OPENED={NOTES_INSIDE}/opened "
    'PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1; exec "$@"'
)
LOOK_EVERY_S = 5  # a look at what was read of a gigabyte takes 0.2 s

# Of what a start reads, on slow file systems: an eighth smaller than at level 3, for 25 times the
# work, which is done once for each block (`tools/kept_blocks`).
HOT_LEVEL = 15

AUTO = "auto"  # of --profile: what the recipe asks for is imported


class Keeping(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept once the image is there: `order` beside the lock, and `kept` at `blocks`."""

    order: bytes = b""
    blocks: Path | None = None
    kept: Kept = msgspec.field(default_factory=Kept)


def with_order(
    prepared: Prepared, parts: Parts, shelf: Shelf, command: str, scratch: Path, notify: Notify
) -> tuple[Parts, Keeping]:
    """The parts in the order that their lock was first built with, or in one found now.

    And what is to be kept of it (`keep_order`). Where nothing is to be run, it is the order of what
    the packages' modules say that they import; that is not kept, for the same lock gives the same.
    """
    profile = plan_profile(prepared.recipe.warm, "" if command == AUTO else command, prepared.lock)
    wanted = profile.asked or command == AUTO
    key = profile_key(profile, prepared.lock)
    order = recall_order(prepared, key, account=wanted)
    if order is None and not wanted:  # an import costs a first build up to a third of its time
        found = find_import_order(shelf, parts.pieces, prepared.sif)
        ident = _ident(parts, "\n".join(found)) if found else parts.ident
        return msgspec.structs.replace(parts, order=found, ident=ident), Keeping()
    if order is None:
        order = find_order(prepared, parts, profile, scratch, notify)
    if profile.asked and not order.files:
        message = "The profile opened no file that Python tells of; files keep their usual order."
        notify(Event(stage="profile", kind="note", message=message))
    said = render_order(key, order)
    data = said.encode("utf-8", "surrogateescape")
    _write_order(_kept_path(prepared, key), data, notify)
    ident = _ident(parts, f"{HOT_LEVEL}\n{said}") if order.files else parts.ident
    parts = msgspec.structs.replace(parts, order=order.files, ident=ident)
    if parts.small or not order.files:
        return parts, Keeping(order=data)
    blocks = prepared.cache / "orders" / f"{blocks_key(profile, prepared.lock)}.blocks"
    kept = kept_blocks.recall(blocks)
    parts = msgspec.structs.replace(parts, hot=Hot(read=order.read, level=HOT_LEVEL, kept=kept))
    return parts, Keeping(order=data, blocks=blocks, kept=kept)


def _ident(parts: Parts, said: str) -> bytes:
    return hashlib.sha256(parts.ident + said.encode("utf-8", "surrogateescape")).digest()[:16]


def order_path(lock_file: Path) -> Path:
    """`pylock.toml` → `pylock.order`."""
    return lock_file.with_suffix(".order")


def _kept_path(prepared: Prepared, key: str) -> Path:
    return prepared.cache / "orders" / f"{key}.order"


def recall_order(prepared: Prepared, key: str, *, account: bool) -> Order | None:
    """The order that is kept with the lock, else (`account`) by this account; None for none."""
    places = [order_path(prepared.lock_file)] if prepared.lock_file else []
    for path in (*places, *([_kept_path(prepared, key)] if account else [])):
        try:
            text = path.read_bytes().decode("utf-8", "surrogateescape")
        except OSError:
            continue
        if (order := parse_order(text, key)) is not None:
            return order
    return None


def keep_order(prepared: Prepared, keeping: Keeping, notify: Notify) -> None:
    """Write the order beside the lock; where it cannot be, the next build finds it."""
    if prepared.lock_file and keeping.order:
        _write_order(order_path(prepared.lock_file), keeping.order, notify)
    if keeping.blocks:
        kept_blocks.keep(keeping.blocks, keeping.kept)


def _write_order(path: Path, data: bytes, notify: Notify) -> None:
    try:
        if not path.exists() or path.read_bytes() != data:
            files.make_folder(path.parent)
            with files.written_beside(path) as out:
                out.write(data)
    except (LimpetError, OSError) as error:
        message = f"The order of files is not kept in {path}: {error}"
        notify(Event(stage="profile", kind="note", message=message))


def find_order(
    prepared: Prepared, parts: Parts, profile: Profile, scratch: Path, notify: Notify
) -> Order:
    """Run the profile in a trial image; the files that it opened, in the order of their opening."""
    if not (profile.commands or profile.roots):
        return Order()
    started_s = time.monotonic()
    notify(Event(stage="profile", kind="start", message="Finding out what a start opens"))
    trial = scratch / "profiled.sif"
    assemble(trial, msgspec.structs.replace(parts, small=False), scratch=scratch, replace=True)
    commands = profile.commands
    if not commands:
        names = find_modules(trial, profile.roots, prepared.interpreter.minor)
        commands = (import_command(names),) if names else ()
    notes: list[str] = []
    for words in commands:
        notes += run_watched(prepared, trial, words, profile, scratch, notify)
    trial.unlink()
    order = parse_notes(notes)
    elapsed_s = time.monotonic() - started_s
    count = len(order.files)
    notify(Event(stage="profile", kind="end", done=count, unit="files", elapsed_s=elapsed_s))
    return order


def find_modules(image: Path, roots: tuple[str, ...], minor: str) -> tuple[str, ...]:
    """What can be imported of these distributions, from their records in an image."""
    wanted = set(roots)
    found: list[str] = []
    with image.open("rb") as file:
        squashfs = open_root(file)
        site = f"{PREFIX}/lib/python{minor}/site-packages"
        folder = squashfs.find(site, follow=True)
        for name in sorted(folder.children) if folder and folder.is_dir else ():
            info = name.decode("utf-8", "replace")
            title = re.sub(r"[-_.]+", "-", info.partition("-")[0]).lower()
            if info.endswith(".dist-info") and title in wanted:
                record = f"{site}/{info}/RECORD"
                if squashfs.find(record, follow=True):
                    text = squashfs.read(record).decode("utf-8", "replace")
                    found += parse_modules(text)
    return tuple(dict.fromkeys(found))


def run_watched(
    prepared: Prepared,
    image: Path,
    words: tuple[str, ...],
    profile: Profile,
    scratch: Path,
    notify: Notify,
) -> list[str]:
    """Run one command in a read-only image; the notes of it, also where it was stopped."""
    hook, notes = scratch / "profile", scratch / "notes"
    for folder in (hook, notes):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    shutil.copyfile(SCRIPT, hook / "sitecustomize.py")
    if prepared.interpreter.path:
        watch = (PYTHON, "-I", "-S", f"{HOOK_INSIDE}/sitecustomize.py", str(LOOK_EVERY_S))
        words = (*watch, *words)
    done = apptainer.run_limited(
        prepared.runtime,
        image,
        ("/bin/sh", "-c", _WATCHED, "limpet", *words),
        binds=(
            Bind(source=hook, target=HOOK_INSIDE),
            Bind(source=notes, target=NOTES_INSIDE, writable=True),
        ),
        variables={"LC_ALL": "C.UTF-8"},
        timeout_s=profile.limit_s,
    )
    _judge(done, words, profile, notify)
    try:
        text = (notes / "opened").read_bytes().decode("utf-8", "surrogateescape")
    except OSError:
        return []
    return text.split("\n")


def _judge(done: Finished | None, words: tuple[str, ...], profile: Profile, notify: Notify) -> None:
    """Stopped is no failure: a server never ends. What users did not ask for may fail, too."""
    if done is None:
        message = (
            f"The profile was stopped after {profile.limit_s} s; what it opened by then counts."
        )
    elif done.code and profile.asked:
        raise BuildError(
            f"The profile {words[-1]!r} failed with exit code {done.code}.",
            why=last_lines(done.stderr),
            now="Name a command that works in a read-only image, or use --no-profile.",
        )
    elif done.code:
        message = f"An import ended with exit code {done.code}; what was opened by then counts."
    else:
        return
    notify(Event(stage="profile", kind="note", message=message))
