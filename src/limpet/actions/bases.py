"""Bases: from what the user wrote to a SIF in the cache, and what is known of it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import msgspec

from limpet.actions.base_making import (
    fetch_base,
    local_path,
    open_registry,
    pull_library,
    temporaries,
)
from limpet.actions.host_base import resolve_host
from limpet.core.errors import BaseError, FetchError, HostError
from limpet.core.events import Event, Notify, ignore
from limpet.core.facts import BaseFacts
from limpet.core.interpreters import choose_interpreter
from limpet.core.lock import LockedBase
from limpet.core.reference import Reference, parse_reference
from limpet.tools import apptainer, base_probe, base_store, debian, derived, files, oci, process
from limpet.tools.apptainer import Runtime

__all__ = ["choose_interpreter", "derive_base", "fetch_base", "probe_base", "resolve_base"]

DAY_S = 86400.0
EVER_S = float("inf")


def resolve_base(
    reference: str,
    *,
    cache: Path,
    arch: str,
    folder: Path | None = None,
    notify: Notify = ignore,
    offline: bool = False,
    refresh: bool = False,
    insecure: Collection[str] = (),
) -> LockedBase:
    """What a reference means now, by digest. Paths are relative to `folder`.

    A registry is asked each time, for that is one request; what takes longer (Debian's package
    lists, `library://`) is remembered for a day, unless `refresh`. Offline: what was known last.
    """
    parsed = parse_reference(reference)
    if parsed.scheme == "host":
        return resolve_host(parsed, folder, arch)
    if parsed.scheme in ("path", "oci", "oci-archive"):
        return _resolve_on_disk(parsed, local_path(parsed, folder), cache, arch)
    remembered = base_store.recall_base(
        cache, parsed.text, arch, oldest_s=EVER_S if offline else DAY_S
    )
    slow = parsed.scheme in ("debian", "library")
    if remembered and (offline or (slow and not refresh)):
        return remembered
    if offline:
        if parsed.digest:
            return LockedBase(reference=parsed.text, digest=parsed.digest, arch=arch)
        raise FetchError(
            f"What {parsed.text} means is not known offline.",
            now="Run once with the network, or name the base by its digest.",
        )
    notify(Event(stage="base", kind="start", message=f"Resolving {parsed.text}"))
    base = _resolve_far(parsed, cache, arch, insecure)
    base_store.remember_base(cache, base)
    return base


def _resolve_far(
    parsed: Reference, cache: Path, arch: str, insecure: Collection[str]
) -> LockedBase:
    if parsed.scheme == "debian":
        with base_store.scratch_folder(cache) as scratch:
            packages = debian.resolve_packages(parsed.name, arch, scratch)
        digest = debian.digest_packages(parsed.name, arch, packages)
        return LockedBase(reference=parsed.text, digest=digest, arch=arch, packages=packages)
    if parsed.scheme == "library":
        return pull_library(parsed.text, cache, arch)
    client = open_registry(parsed, insecure)
    manifest = oci.select_manifest(client.read_manifest, parsed.version, arch, client.label)
    return LockedBase(reference=parsed.text, digest=manifest.digest, arch=arch)


def _resolve_on_disk(parsed: Reference, path: Path, cache: Path, arch: str) -> LockedBase:
    if not path.exists():
        raise BaseError(f"The base {parsed.text} does not exist.", why=f"There is no {path}.")
    if parsed.scheme in ("oci", "oci-archive"):
        with oci.Layout(path) as layout:
            version = layout.find_version(parsed.tag)
            manifest = oci.select_manifest(layout.read_manifest, version, arch, parsed.text)
            return LockedBase(reference=parsed.text, digest=manifest.digest, arch=arch)
    if path.is_dir():
        digest = base_store.digest_sandbox(path)
        return LockedBase(reference=parsed.text, digest=digest, arch=arch)
    _check_arch(parsed.text, base_probe.read_partition(path), arch)
    digest = base_store.digest_file(cache, path)
    return LockedBase(reference=parsed.text, digest=digest, arch=arch)


def _check_arch(name: str, partition: base_probe.Partition, arch: str) -> None:
    if partition.arch != arch:
        raise BaseError(
            f"The base {name} is for {partition.arch}, and {arch} is needed.",
            now="Take the base for that architecture; a registry often has both.",
        )


def probe_base(base: LockedBase, sif: Path, *, cache: Path, runtime: Runtime) -> BaseFacts:
    """What there is to know of a base; asked once per digest."""
    memory = base_store.base_path(cache, base.digest).with_suffix(".facts.json")
    try:
        return msgspec.json.decode(memory.read_bytes(), type=BaseFacts)
    except (OSError, msgspec.DecodeError):
        pass
    partition = base_probe.read_partition(sif)
    _check_arch(base.reference, partition, base.arch)
    script, variables = base_probe.probe_input()
    done = apptainer.run_inside(
        runtime, sif, ["/bin/sh", "-s"], variables=variables, input_bytes=script, timeout_s=300
    )
    if done.code != 0 or b"\nenvironment\n" not in done.stdout:
        raise BaseError(
            f"The base {base.reference} cannot be run.",
            why=done.stderr.strip()[-800:] or f"Its /bin/sh ended with exit code {done.code}.",
        )
    facts = base_probe.parse_facts(done.stdout, base.digest, partition)
    with files.written_beside(memory) as file:
        file.write(msgspec.json.encode(facts))
    return facts


def derive_base(
    base: LockedBase,
    facts: BaseFacts,
    sif: Path,
    *,
    apt: tuple[str, ...],
    post: str,
    cache: Path,
    runtime: Runtime,
    pinned: tuple[str, ...] = (),
    notify: Notify = ignore,
) -> tuple[Path, BaseFacts, tuple[str, ...]]:
    """The base with apt packages and a post script on top: its SIF, its facts, pinned packages.

    Made once for the same base, packages and script. The pins are what apt brought or changed;
    with a lock's `pinned` the same versions are brought again, from here or from the archive.
    """
    if apt and not {"apt-get", "dpkg-query"} <= set(facts.programs):
        raise BaseError(
            f"The base {base.reference} has no apt-get, and the recipe asks for apt packages.",
            why=f"It is {facts.os_name or 'no Debian or Ubuntu'}.",
            now="Take a base of Debian's or Ubuntu's, or the packages from conda.",
        )
    digest = derived.derived_digest(base.digest, base.arch, apt, post)
    if pinned and _read_pins(base_store.base_path(cache, digest)) != pinned:
        apt = pinned
        digest = derived.derived_digest(base.digest, base.arch, apt, post)
    made = LockedBase(reference=base.reference, digest=digest, arch=base.arch)
    target = base_store.base_path(cache, digest)
    with files.held(target.with_suffix(".lock")):
        files.sweep_partials(target.parent)
        if not target.exists() or _read_pins(target) is None:
            notify(Event(stage="base", kind="start", message="Building the derived base"))
            _build_derived(sif, target, apt, post, cache, runtime)
            pins = _installed(runtime, target, apt) - _installed(runtime, sif, apt)
            with files.written_beside(_pins_path(target)) as file:
                file.write(msgspec.json.encode(sorted(pins)))
            notify(Event(stage="base", kind="end", message="Built the derived base"))
    facts = probe_base(made, target, cache=cache, runtime=runtime)
    return target, facts, _read_pins(target) or ()


def _pins_path(target: Path) -> Path:
    return target.with_suffix(".apt.json")


def _read_pins(target: Path) -> tuple[str, ...] | None:
    """What apt brought into a derived base; None where there is none yet."""
    try:
        return msgspec.json.decode(_pins_path(target).read_bytes(), type=tuple[str, ...])
    except (OSError, msgspec.DecodeError):
        return None


def _build_derived(
    sif: Path, target: Path, apt: tuple[str, ...], post: str, cache: Path, runtime: Runtime
) -> None:
    derived.check_host(cache)
    files.check_space(cache, size_bytes=5 * sif.stat().st_size)
    with base_store.scratch_folder(cache) as scratch:
        derived.write_step(scratch / "step", apt, post)
        (scratch / "base.sif").symlink_to(sif.absolute())
        (scratch / "limpet.def").write_text(derived.DEFINITION)
        env = apptainer.build_environment(runtime, {}) | temporaries(runtime, scratch)
        output = scratch / "derived.sif"
        done = process.run(derived.build_argv(runtime.path, scratch, output), env=env, cwd=scratch)
        if done.code != 0 or not output.exists():
            raise derived.explain_failure(done.code, done.text + done.stderr)
        output.replace(target)


def _installed(runtime: Runtime, sif: Path, apt: tuple[str, ...]) -> frozenset[str]:
    if not apt:
        return frozenset()
    done = apptainer.run_inside(runtime, sif, derived.DPKG_QUERY, timeout_s=120)
    if done.code != 0:
        raise HostError("The packages of a base cannot be listed.", why=done.stderr.strip()[-400:])
    return derived.parse_dpkg(done.text)
