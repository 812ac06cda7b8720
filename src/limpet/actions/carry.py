"""The personal packages of an image that was there before, for the one that is there now."""

from __future__ import annotations

from pathlib import Path

import msgspec

from limpet.core.carry import Carried, ImageInside, minor, plan_carry
from limpet.core.errors import ImageError, LimpetError
from limpet.core.seen import ImageSeen
from limpet.tools import apptainer, states

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
                  "versions": versions, "executable": sys.executable}))
"""


def take_over(image: ImageSeen, previous: Path, folder: Path) -> tuple[str, ...]:
    """Give `folder` what fits of `previous`; what there is to tell the user."""
    packages = states.read_packages(previous)
    old = states.read_record(previous)
    if not packages or old is None:
        return ()
    if image.facts is None:
        carried = _take_over_foreign(image, previous, folder)
    else:
        inside = ask_image(image, f"{image.facts.prefix}/bin/python")
        same_base = old.base == image.facts.base.digest
        carried = plan_carry(packages, inside, python=old.python, same_base=same_base)
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


def _take_over_foreign(image: ImageSeen, previous: Path, folder: Path) -> Carried:
    """The same for a `~/.local` of a foreign image, which has a folder for each Python."""
    by_python = states.read_packages_by_python(previous)
    try:
        inside = ask_image(image, "python3")
    except LimpetError:
        why = "the image has no Python that says what it has"
        return Carried(left={one.name: why for found in by_python.values() for one in found})
    left: dict[str, str] = {}
    for python, packages in by_python.items():
        if python != minor(inside.python):
            left |= plan_carry(packages, inside, python=python, same_base=False).left
    packages = by_python.get(minor(inside.python), ())
    carried = plan_carry(packages, inside, python=inside.python, same_base=False)
    names = frozenset(one.name for one in carried.fit)
    python = minor(inside.python)
    states.carry_packages(previous, folder, names, python=python, executable=inside.executable)
    left = {name: why for name, why in left.items() if name not in names}
    return Carried(fit=carried.fit, left=left | carried.left)


def ask_image(image: ImageSeen, python: str) -> ImageInside:
    """Let the image's Python say what it has, with nothing of the user's."""
    command = [python, "-I", "-c", _ASK]
    host = image.facts.host if image.facts else None
    runtime = apptainer.sharing(apptainer.probe_runtime(), host.folders if host else ())
    done = apptainer.run_inside(runtime, Path(image.path), command)
    try:
        return msgspec.json.decode(done.stdout, type=ImageInside)
    except msgspec.DecodeError as error:
        raise ImageError(
            f"The Python of {image.path} does not say what it has.", why=done.stderr.strip()[-500:]
        ) from error
