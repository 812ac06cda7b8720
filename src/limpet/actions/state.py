"""`limpet state`: what images keep for their user, listed and cleaned."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from limpet.core.errors import LimpetError, UsageError
from limpet.core.state import (
    Cleaned,
    Kept,
    Whereabouts,
    parse_age,
)
from limpet.tools import files, host, images, states
from limpet.tools.config import read_config


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
