"""The folders that an image keeps for its user: made, and noted down, before each start."""

from __future__ import annotations

import os
from pathlib import Path

from limpet.core.launch import Launch
from limpet.core.state import Record
from limpet.tools import files, host, states


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
            from limpet.actions.carry import take_over  # seldom needed, and at each start costly

            notes = take_over(launch.image, previous, folder)
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
