"""`limpet lock --freeze IMAGE|PREFIX`: the other way to a lock, from what is installed."""

from __future__ import annotations

import os
import time
from pathlib import Path

from limpet.actions.bases import fetch_base, probe_base, resolve_base
from limpet.actions.conda_freeze import lock_prefix
from limpet.actions.freeze import freeze_distributions
from limpet.actions.lock_files import write_lock
from limpet.actions.prepare import Workplace, open_workplace
from limpet.core.errors import LockError
from limpet.core.events import Notify
from limpet.core.image import LOCK_OBJECT
from limpet.core.interpreters import choose_interpreter
from limpet.core.lock import Lock
from limpet.core.plan import LockReport
from limpet.core.pylock import parse_lock
from limpet.core.request import BuildRequest
from limpet.tools import images
from limpet.tools.conda_files import is_prefix
from limpet.tools.config import read_config


def lock_image(request: BuildRequest, notify: Notify) -> LockReport:
    """Lock what is in an image or a conda environment.

    limpet's own images say it themselves, others are asked and looked up.
    """
    started_s = time.monotonic()
    image = Path(request.freeze).absolute()
    output = Path(request.output or f"pylock.{_word(image.stem)}.toml").absolute()
    if is_prefix(image):
        work = open_workplace(request, read_config(request.config_file), notify)
        return _report(request, lock_prefix(work, image, output.parent), output, started_s)
    seen = images.read_image(str(image))
    text = images.read_named(image, LOCK_OBJECT) if seen.facts else None
    if text is not None:
        lock = parse_lock(text.decode(), str(image))
    else:
        work = open_workplace(request, read_config(request.config_file), notify)
        lock = _lock_foreign(work, image)
    return _report(request, lock, output, started_s)


def _report(request: BuildRequest, lock: Lock, output: Path, started_s: float) -> LockReport:
    if not request.dry_run:
        write_lock(lock, output)
    return LockReport(
        lock=lock,
        lock_file=None if request.dry_run else output,
        elapsed_s=time.monotonic() - started_s,
    )


def _lock_foreign(work: Workplace, image: Path) -> Lock:
    request = work.request
    base = resolve_base(str(image), cache=work.cache, arch=os.uname().machine)
    sif = fetch_base(base, cache=work.cache, notify=work.notify)
    facts = probe_base(base, sif, cache=work.cache, runtime=work.runtime)
    interpreter = choose_interpreter(facts, request.python)
    if not interpreter.distributions:
        raise LockError(
            f"{image} has no Python packages to lock.",
            why=f"Its {interpreter.path} sees none.",
            now="Choose another of its Pythons with --python.",
        )
    options = [f"--index-url {request.index_url}"] if request.index_url else []
    options += [f"--extra-index-url {url}" for url in request.extra_index_urls]
    options += [f"--find-links {link}" for link in request.find_links]
    return freeze_distributions(
        interpreter.distributions,
        base,
        facts,
        interpreter,
        cache=work.cache,
        folder=Path.cwd(),
        options=tuple(options),
        offline=request.offline,
    )


def _word(stem: str) -> str:
    """A name that PEP 751 allows in `pylock.NAME.toml`: without dots."""
    return stem.replace(".", "-") or "image"
