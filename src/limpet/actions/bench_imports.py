"""What `limpet bench` imports where nobody says: modules of the packages that were asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from limpet.actions.contents import read_requested
from limpet.core.bench import Installed, nothing_to_import, plan_imports
from limpet.core.errors import HostError
from limpet.formats.image_tree import opened_tree
from limpet.tools import counting, images, process
from limpet.tools.contents.records import read_records
from limpet.tools.environments import read_installed

Command = tuple[Sequence[str], Mapping[str, str]]


def choose_imports(
    targets: Sequence[str],
    plan: Callable[[str, Sequence[str]], Command],
    *,
    timeout_s: float,
) -> tuple[tuple[str, ...], str]:
    """The modules of the first target's own packages that can be imported in every target.

    And that target. `plan` gives the command that starts Python in a target with these words.
    """
    names: tuple[str, ...] = ()
    for chosen in targets:
        if names := plan_imports(_installed(chosen)):
            break
    else:
        raise nothing_to_import("It is not known which packages were asked for.")
    for text in targets:
        argv, env = plan(text, counting.trial_words(names))
        try:
            said = process.run(argv, env=env, timeout_s=timeout_s).text
        except HostError as error:
            why = f"Importing {', '.join(names)} in {text}: {error.what}"
            raise nothing_to_import(why) from error
        names = counting.parse_trial(said)
        if not names:
            raise nothing_to_import(f"None of the packages asked for can be imported in {text}.")
    return names, chosen


def _installed(text: str) -> tuple[Installed, ...]:
    """The packages of a folder or of an image."""
    if Path(text).is_dir():
        return read_installed(Path(text).absolute())
    seen = images.read_image(text)
    wanted = frozenset(_names(read_requested(seen)))
    prefix = seen.facts.prefix.strip("/") if seen.facts else ""
    with opened_tree(seen) as tree:
        found = [one for one in read_records(tree).python if one.folder.startswith(f"{prefix}/")]
    return tuple(
        Installed(
            name=one.name,
            asked=one.name in wanted or any(path.endswith("/REQUESTED") for path in one.files),
            requires=one.requires,
            record="".join(f"{path.removeprefix(one.folder + '/')},,\n" for path in one.files),
        )
        for one in found
    )


def _names(lines: Sequence[str]) -> list[str]:
    found: list[str] = []
    for line in lines:
        try:
            found.append(canonicalize_name(Requirement(line).name))
        except InvalidRequirement:
            found.append(canonicalize_name(line.split()[0]) if line.split() else "")
    return found
