"""What images keep for their user: noted at each start, carried over to a rebuilt image, listed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from limpet.core.errors import ImageError, LimpetError, UsageError
from limpet.core.launch import ImageSeen, Launch
from limpet.core.state import (
    Cleaned,
    ImageInside,
    Kept,
    Record,
    Whereabouts,
    parse_age,
    plan_carry,
)
from limpet.tools import apptainer, files, host, images, states
from limpet.tools.config import read_config

# Written for the image's own Python: what it is, and what it sees.
_ASK = """
import json, platform, re, sys
from importlib.metadata import distributions
versions = {}
for one in distributions():
    name = one.metadata["Name"] if one.metadata else None
    if name and one.version:
        versions.setdefault(re.sub(r"[-_.]+", "-", name).lower(), one.version)
print(json.dumps({"python": platform.python_version(), "libc": platform.libc_ver()[1],
                  "versions": versions}))
"""


def settle(launch: Launch) -> tuple[str, ...]:
    """Make this image's folders and note whose they are; what there is to tell the user.

    At the first start of a rebuilt image, the personal packages of the one that was there before
    are carried over where they fit.
    """
    if not launch.folders:
        return ()
    host.make_private(launch.folders, launch.state)
    folder = Path(launch.state, launch.image.identity)
    path = os.path.realpath(launch.image.path)
    record = states.read_record(folder)
    if record and path in record.paths and not record.superseded:
        states.touch_record(folder)
        return ()
    notes: tuple[str, ...] = ()
    with files.held(folder / ".limpet-lock"):
        previous = states.find_previous(folder.parent, path, folder.name)
        if record is None and previous is not None:
            notes = _take_over(launch.image, previous, folder)
        paths = (*record.paths, path) if record else (path,)
        facts = launch.image.facts
        states.write_record(
            folder,
            Record(
                title=launch.image.title,
                paths=tuple(dict.fromkeys(paths)),
                python=facts.python if facts else "",
                base=facts.base.digest if facts else "",
            ),
        )
    return notes


def _take_over(image: ImageSeen, previous: Path, folder: Path) -> tuple[str, ...]:
    packages = states.read_packages(previous)
    old = states.read_record(previous)
    if not packages or old is None:
        return ()
    if image.facts is None:
        left = f"The image that was here before has personal packages: {previous}."
        return (left, "They are not used with this one.")
    carried = plan_carry(
        packages,
        ask_image(image),
        python=old.python,
        same_base=old.base == image.facts.base.digest,
    )
    states.carry_packages(previous, folder, frozenset(one.name for one in carried.fit))
    reasons = "; ".join(f"{name}: {why}" for name, why in sorted(carried.left.items()))
    states.write_record(
        previous,
        msgspec.structs.replace(old, superseded=reasons or "its personal packages were taken over"),
    )
    notes = []
    if carried.fit:
        names = ", ".join(f"{one.name} {one.version}" for one in carried.fit)
        notes.append(f"The image was rebuilt. Personal packages taken over: {names}.")
    if reasons:
        notes.append(f"Personal packages set aside: {reasons}. They are still in {previous}.")
    return tuple(notes)


def ask_image(image: ImageSeen) -> ImageInside:
    """Let the image's Python say what it has, with nothing of the user's."""
    assert image.facts is not None
    python = f"{image.facts.prefix}/bin/python"
    command = [python, "-I", "-c", _ASK]
    done = apptainer.run_inside(apptainer.probe_runtime(), Path(image.path), command)
    try:
        return msgspec.json.decode(done.stdout, type=ImageInside)
    except msgspec.DecodeError as error:
        raise ImageError(
            f"The Python of {image.path} does not say what it has.", why=done.stderr.strip()[-500:]
        ) from error


def list_state(names: Sequence[str] = (), *, config_file: str = "") -> tuple[Kept, ...]:
    """What images keep: all of them, or the named ones (a path, a name, an identity)."""
    state = _state_folder(config_file)
    kept = tuple(
        states.describe(folder, _find_image(folder)) for folder in states.find_folders(state)
    )
    if not names:
        return kept
    return tuple(dict.fromkeys(one for name in names for one in _named(name, kept)))


def clean_state(
    names: Sequence[str],
    *,
    older_than: str = "",
    gone: bool = False,
    dry_run: bool = False,
    config_file: str = "",
) -> Cleaned:
    """Remove what the named images keep; with `older_than` and `gone` only such as are that."""
    age_s = parse_age(older_than) if older_than else 0.0
    if age_s is None:
        raise UsageError(f"--older-than {older_than}: that is no age.", now="Write 30d, 12h or 2w.")
    if not (names or older_than or gone):
        raise UsageError(
            "Nothing is removed unasked.", now="Name images, or use --older-than 30d or --gone."
        )
    now_s = states.now_s()
    chosen = tuple(
        one
        for one in list_state(names, config_file=config_file)
        if now_s - one.used_s >= age_s and (not gone or one.whereabouts in ("gone", "replaced"))
    )
    if not dry_run:
        for one in chosen:
            states.remove(Path(one.folder))
        states.sweep_removed(_state_folder(config_file))
    return Cleaned(kept=chosen, dry_run=dry_run)


def _state_folder(config_file: str) -> Path:
    wanted = files.state_folder(read_config(config_file).state_dir)
    state, _ = host.find_state(wanted)
    if state.exists():
        host.check_private(state)
    return state


def _find_image(folder: Path) -> Whereabouts:
    """Whether the folder's image is still where it was started from."""
    record = states.read_record(folder)
    if record is None:
        return "unknown"
    found: Whereabouts = "gone"
    for path in record.paths:
        if not Path(path).exists():
            continue
        try:
            if images.read_image(path).identity == folder.name:
                return "there"
        except LimpetError:
            pass
        found = "replaced"
    return found


def _named(name: str, kept: Sequence[Kept]) -> list[Kept]:
    path = os.path.realpath(name)
    found = [
        one for one in kept if name in (one.identity, one.record.title) or path in one.record.paths
    ]
    if not found:
        known = ", ".join(sorted({one.title for one in kept})) or "none"
        raise UsageError(
            f"There is no image {name} that keeps anything.", why=f"There are: {known}."
        )
    return found
