"""`limpet advise`: look at a case, and say which way to install is right for it."""

from __future__ import annotations

import contextlib
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from limpet.actions.inspect import list_packages
from limpet.actions.lock_files import choose_lock_path, read_lock
from limpet.core.advice import Advice, Facts, advise
from limpet.core.config import Config
from limpet.core.environments import IMPORTED_SHARE, Scan, find_needs
from limpet.core.errors import LimpetError, UsageError
from limpet.core.events import Event, Notify, ignore
from limpet.core.file_systems import is_shared
from limpet.core.image import LOCK_OBJECT
from limpet.core.requirements import parse_requirements
from limpet.tools import environments, images, mounts, surroundings
from limpet.tools.advice_tables import read_table
from limpet.tools.config import read_config
from limpet.tools.image_needs import packages_of
from limpet.tools.recipes import LoadedRecipe, read_recipe

# Names of bases that vendors make for their own hardware.
_VENDORS = re.compile(r"nvcr\.io/|/rocm/|amd/|intel/|lumi|cray|nvidia/")
_NAME = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)")


def give_advice(subject: str = "", *, config_file: str = "") -> Advice:
    """Advice for an environment, a recipe, an image, or (empty) the present folder."""
    config = read_config(config_file)
    table = read_table(config.advice)
    path = Path(subject or ".").absolute()
    if not path.exists():
        raise UsageError(
            f"There is nothing at {path}.",
            now="Name an environment's folder, a recipe or an image.",
        )
    return advise(_look(path, config), table)


def scan_folders(folders: Sequence[str], notify: Notify = ignore) -> Scan:
    """The environments below these folders, largest first."""
    roots = [Path(folder).expanduser().absolute() for folder in folders]
    for root in roots:
        if not root.is_dir():
            raise UsageError(f"{root} is no folder.")

    def tell(files: int, found: int) -> None:
        message = f"{files:,} files, {found:,} environments"
        notify(Event(stage="scan", message=message))

    return environments.scan(roots, tell)


def _look(path: Path, config: Config) -> Facts:
    if path.is_dir():
        if environments.read_manager(path):
            return _look_at_environment(path)
        if (path / ".singularity.d").is_dir():
            return _look_at_image(path)
        recipe = surroundings.find_recipe(path)
        return _look_at_recipe(recipe, config) if recipe else _look_around(path)
    if path.suffix in (".sif", ".sqfs", ".simg", ".img") or images.is_sif(path):
        return _look_at_image(path)
    return _look_at_recipe(path, config)


def _around(path: Path) -> dict[str, object]:
    """What is the same for every case: the disk, and the site's modules."""
    kind = mounts.kind_of(path)
    python, stack = surroundings.find_modules(os.environ.get("MODULEPATH", ""))
    shared = is_shared(kind)
    return {
        "path": str(path),
        "filesystem": kind,
        "shared": shared,
        "module_python": python,
        "site_stack": stack,
    }


def _look_around(path: Path) -> Facts:
    return _facts(kind="nothing", **_around(path))


def _facts(**found: object) -> Facts:
    return Facts(**found)  # type: ignore[arg-type]


def _needs(names: Sequence[str]) -> dict[str, object]:
    gpu, mpi = find_needs(frozenset(names))
    return {"gpu": bool(gpu), "gpu_of": gpu, "mpi": bool(mpi), "mpi_of": mpi}


def _look_at_environment(path: Path) -> Facts:
    manager = environments.read_manager(path)
    found = environments.scan([path]).environments
    own = next((one for one in found if one.path == os.path.realpath(path)), None)
    contents = environments.read_contents(path)
    cost = environments.measure_start(path, contents, IMPORTED_SHARE)
    return _facts(
        kind="environment",
        manager=manager,
        packages=len(contents.packages),
        all_packages=True,
        files=own.files if own else 0,
        folders=own.folders if own else 0,
        operations=cost.operations,
        operations_how=cost.how,
        modules=sum(contents.modules.values()),
        conda=manager == "conda",
        os_python=environments.system_python(path),
        **_needs(sorted(contents.packages)),
        **_around(path),
    )


def _look_at_image(path: Path) -> Facts:
    seen = images.read_image(str(path))
    names = _image_packages(path, is_sif=seen.kind == "sif")
    return _facts(
        kind="image",
        packages=len(names),
        all_packages=True,
        files=1,
        limpet_image=seen.facts is not None,
        base=seen.facts.base.reference if seen.facts else "",
        **_needs(sorted(names)),
        **_around(path),
    )


def _image_packages(path: Path, *, is_sif: bool) -> dict[str, str]:
    """name → version, from the image's lock, else from the names in its file system."""
    if not path.is_file():
        return {}
    with contextlib.suppress(LimpetError):
        text = images.read_named(path, LOCK_OBJECT) if is_sif else None
        if text is not None:
            return {one.name: one.version for one in list_packages(text)}
        return packages_of(path, is_sif)
    return {}


def _look_at_recipe(path: Path, config: Config) -> Facts:
    loaded = read_recipe([path])
    lock = read_lock(choose_lock_path([path]))
    names = _direct_names(loaded)
    if lock:
        names |= {one.name: one.version for one in lock.conda}
        names |= {one.name: one.version for one in lock.packages}
    image = loaded.recipe.image
    base = image.base or (lock.base.reference if lock else "")
    commands = surroundings.find_host_commands(loaded.folder)
    return _facts(
        kind="recipe",
        recipe=os.path.relpath(path),
        packages=len(names),
        all_packages=lock is not None,
        conda=bool(loaded.recipe.packages.conda or any(one.conda for one in loaded.inputs)),
        locked=lock is not None,
        base=base,
        vendor=bool(_VENDORS.search(base)),
        host_commands=", ".join(commands),
        existing_image=_find_image(names, loaded.folder, config),
        **_needs(sorted(names)),
        **_around(path),
    )


def _direct_names(loaded: LoadedRecipe) -> dict[str, str]:
    """What a recipe asks for by name: name → version, where it says exactly one."""
    lines = [*loaded.recipe.packages.pip]
    for one in loaded.inputs:
        text = one.path.read_text("utf-8", errors="replace")
        if one.kind == "requirements":
            lines += [li.text for li in parse_requirements(text) if li.kind == "requirement"]
        elif one.kind == "pyproject":
            lines += tomllib.loads(text).get("project", {}).get("dependencies", [])
    named = [_NAME.match(line) for line in (*lines, *loaded.recipe.packages.conda)]
    exact = [re.search(r"={2,3}\s*([^\s;,*]+)$", line.split(";")[0].strip()) for line in lines]
    versions = [*(found[1] if found else "" for found in exact), *("" for _ in named)]
    return {
        re.sub(r"[-_.]+", "-", name[1]).lower(): version
        for name, version in zip(named, versions, strict=False)
        if name and name[1] != "python"
    }


def _find_image(names: Mapping[str, str], folder: Path, config: Config) -> str:
    """An image near the recipe, or of the site, that has every package in the version asked for."""
    if not names:
        return ""
    places = [folder, *(Path(place).expanduser() for place in config.images)]
    for path in surroundings.find_images(places):
        have = _image_packages(path, is_sif=True)
        if have and all(
            name in have and version in ("", have[name]) for name, version in names.items()
        ):
            return str(path)
    return ""
