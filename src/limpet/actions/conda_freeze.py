"""`limpet lock --freeze PREFIX`: a conda environment that lies on the disk, as a lock."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec

from limpet.actions.conda_fetch import find_channels
from limpet.actions.conda_lock import finish_conda
from limpet.actions.freeze import freeze_distributions
from limpet.actions.prepare import Workplace, hash_download, read_flags, settle_base, stand_base
from limpet.core.conda import SUBDIRS, CondaPackage, conda_interpreter
from limpet.core.conda_channels import Condarc, channel_of
from limpet.core.errors import LockError
from limpet.core.facts import Distribution
from limpet.core.lock import Lock
from limpet.tools.conda_files import read_pip_distributions, read_prefix
from limpet.tools.condarc import read_condarc
from limpet.tools.recipes import read_recipe


def lock_prefix(work: Workplace, prefix: Path, folder: Path) -> Lock:
    """A lock of all that conda and pip put into an environment; paths in it start at `folder`."""
    loaded = read_recipe([], flags=read_flags(work.request, work.config, []))
    base = settle_base(work, loaded, None)
    facts = stand_base(work, base, loaded, None).facts
    condarc = read_condarc()
    hash_of = partial(hash_download, work.cache, loaded)
    there = [placed(one, condarc) for one in read_prefix(prefix)]
    way = find_channels(loaded, there)
    packages = tuple(finish_conda(one, folder, way, hash_of) for one in there)
    for one in packages:
        if one.subdir not in (SUBDIRS[facts.arch], "noarch"):
            raise LockError(f"{prefix} is for {one.subdir}, the base for {SUBDIRS[facts.arch]}.")
    interpreter = conda_interpreter(packages)
    if interpreter is None:
        return Lock(base=base, python="", interpreter="", conda=packages)
    found = read_pip_distributions(prefix)
    lock = freeze_distributions(
        [Distribution(name=name, version=version) for name, (version, _) in found.items()],
        base,
        facts,
        interpreter,
        cache=work.cache,
        folder=folder,
        direct_urls={name: direct for name, (_, direct) in found.items() if direct},
        options=_index_options(work),
        offline=work.request.offline,
        hash_of=hash_of,
    )
    return msgspec.structs.replace(lock, conda=packages, isolated_from_base=False)


def placed(package: CondaPackage, condarc: Condarc) -> CondaPackage:
    """The package with its channel's short name, and a file: URL as a path."""
    channel = channel_of(package.channel, condarc).shown
    if not package.url.startswith("file:"):
        return msgspec.structs.replace(package, channel=channel)
    path = unquote(urlsplit(package.url).path)
    return msgspec.structs.replace(package, channel=channel, url="", path=path)


def _index_options(work: Workplace) -> tuple[str, ...]:
    request = work.request
    options = [f"--index-url {request.index_url}"] if request.index_url else []
    options += [f"--extra-index-url {url}" for url in request.extra_index_urls]
    return (*options, *(f"--find-links {link}" for link in request.find_links))
