"""A machine judged: what `limpet doctor` saw → findings, worst first."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator

from limpet.core.errors import HostError
from limpet.core.file_systems import MEMORY
from limpet.core.findings import SEVERITIES, Finding
from limpet.core.gpu import GpuNeeds, find_amd_troubles, find_nvidia_troubles
from limpet.core.machine import (
    AccountSeen,
    ContainerSeen,
    Difference,
    GpuSeen,
    MachineSeen,
    Place,
    Quota,
)
from limpet.core.numbers import numbers

LITTLE_BYTES = 2 << 30
LITTLE_INODES = 20_000
FULL = 0.9
OLD_SQUASHFUSE = (0, 2)
VARIABLE_OF = {
    "cache": "LIMPET_CACHE_DIR",
    "build": "LIMPET_BUILD_DIR",
    "state": "LIMPET_STATE_DIR",
}
_ADMIN = "# for an administrator:\n"
_ASK = "# ask the site's support for "


def sort_findings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Worst first, else as they came."""
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))


def judge_machine(seen: MachineSeen) -> tuple[Finding, ...]:
    """All findings on one machine."""
    found = [
        *_judge_looking(seen),
        *_judge_container(seen.container),
        *(finding for place in seen.places for finding in _judge_place(place)),
        *(finding for quota in seen.quotas for finding in _judge_quota(quota)),
        *_judge_account(seen.account),
        *_judge_gpu(seen.gpu),
        *_judge_slurm(seen),
    ]
    return sort_findings(found)


def _judge_looking(seen: MachineSeen) -> Iterator[Finding]:
    for trouble in seen.troubles:
        yield Finding(
            code="LMP001" if trouble.hung else "LMP002",
            severity="error" if trouble.hung else "note",
            what=f"{trouble.subject} did not answer."
            if trouble.hung
            else f"{trouble.subject} could not be looked at.",
            evidence=(trouble.why,),
            cause="Every program that touches it will wait as well." if trouble.hung else "",
        )


# ---- containers ----------------------------------------------------------------------------------


def _judge_container(box: ContainerSeen) -> Iterator[Finding]:
    if not box.runtime:
        if box.trouble:
            yield Finding(
                code="LMP101",
                severity="error",
                what="No container runtime is here.",
                evidence=(box.trouble,),
                cure="module load apptainer",
            )
        return
    if box.trouble:
        yield Finding(
            code="LMP102",
            severity="error",
            what=f"{box.runtime} cannot be used.",
            evidence=(box.trouble,),
            cure="module load apptainer",
        )
    if box.setuid is not True:
        yield from _judge_rights(box)
    names = {program.name for program in box.programs}
    missing = {"fuse2fs", "fuse-overlayfs"} - names
    if missing and box.setuid is not True:
        yield Finding(
            code="LMP107",
            severity="note",
            what="Overlay files cannot be mounted by a plain user.",
            evidence=tuple(f"{name} is not here" for name in sorted(missing)),
            cure="limpet overlay create IMAGE --dir FOLDER",
        )
    if "newuidmap" not in names or not all(box.ids):
        yield Finding(
            code="LMP108",
            severity="note",
            what="Builds on debian: bases, and apt or post steps, will not work.",
            evidence=(
                "newuidmap is there" if "newuidmap" in names else "newuidmap is not here",
                f"{box.ids[0]} subordinate user ids, {box.ids[1]} group ids",
            ),
            cure=_ADMIN + 'usermod --add-subuids 100000-165535 --add-subgids 100000-165535 "$USER"',
        )
    if "mksquashfs" in names and box.compressors and "zstd" not in box.compressors:
        yield Finding(
            code="LMP109",
            severity="note",
            what="mksquashfs cannot write zstd.",
            evidence=(" ".join(box.compressors),),
        )


def _judge_rights(box: ContainerSeen) -> Iterator[Finding]:
    severity = "error" if box.setuid is False else "warning"
    if not box.namespaces:
        yield Finding(
            code="LMP103",
            severity=severity,  # type: ignore[arg-type]
            what="This machine allows its users no user namespaces, which containers need.",
            evidence=("user.max_user_namespaces or kernel.unprivileged_userns_clone is 0",),
            cure=_ADMIN + "sysctl -w user.max_user_namespaces=15000",
        )
    if box.fuse != "usable":
        yield Finding(
            code="LMP104",
            severity="warning",
            what="/dev/fuse cannot be used: images are unpacked at each start."
            if box.fuse == "refused"
            else "There is no /dev/fuse: images are unpacked at each start.",
            cure=_ADMIN + ("chmod 666 /dev/fuse" if box.fuse == "refused" else "modprobe fuse"),
        )
    mounters = [p for p in box.programs if p.name.startswith("squashfuse")]
    if not mounters:
        yield Finding(
            code="LMP105",
            severity="warning",
            what="squashfuse is not here: images are unpacked at each start.",
            cure=_ASK + "the package squashfuse",
        )
    else:
        # Apptainer takes squashfuse_ll first.
        used = mounters[0]
        if used.version and numbers(used.version) < OLD_SQUASHFUSE:
            yield Finding(
                code="LMP106",
                severity="warning",
                what=f"{used.path} is {used.version}: it reads with one thread.",
                cause="Imports from images are several times slower than with 0.2 or newer.",
                cure=_ASK + "squashfuse 0.2 or newer",
            )


# ---- disks ---------------------------------------------------------------------------------------


def _judge_place(place: Place) -> Iterator[Finding]:
    variable = VARIABLE_OF.get(place.role, "")
    elsewhere = f"export {variable}=/a/folder/with/room" if variable else ""
    name = f"The {place.role} folder {place.path}"
    if not place.writable and place.role not in ("working",):
        yield Finding(
            code="LMP204",
            severity="error" if variable else "warning",
            what=f"{name} cannot be written.",
            cure=elsewhere,
        )
    if place.size_bytes and place.free_bytes < LITTLE_BYTES:
        yield Finding(
            code="LMP201",
            severity="warning",
            what=f"{name} has {_size(place.free_bytes)} left of {_size(place.size_bytes)}.",
            evidence=(f"file system: {place.kind}",) if place.kind else (),
            cure=elsewhere or f"du -xh --max-depth=1 {shlex.quote(place.path)} | sort -h | tail",
        )
    if place.inodes and place.free_inodes < LITTLE_INODES:
        yield Finding(
            code="LMP202",
            severity="warning",
            what=f"{name} has room for {place.free_inodes} more files.",
            cure=elsewhere,
        )
    if place.kind in MEMORY and variable:
        yield Finding(
            code="LMP205",
            severity="warning",
            what=f"{name} is in memory ({place.kind}).",
            cure=elsewhere,
        )
    if place.others_write and variable:
        yield Finding(
            code="LMP207",
            severity="warning",
            what=f"{name} can be written by others.",
            cause="They could put code into your programs.",
            cure=f"chmod go-w {shlex.quote(place.path)}",
        )
    if place.no_exec and place.role == "build":
        yield Finding(
            code="LMP208",
            severity="warning",
            what=f"No program can be started from {place.path} (noexec).",
            cure=elsewhere,
        )
    if place.partials:
        yield Finding(
            code="LMP209",
            severity="note",
            what=f"{place.path} has rests of builds that were killed.",
            evidence=place.partials[:8],
            cure="\n".join(f"rm {shlex.quote(path)}" for path in place.partials[:8]),
        )


def _judge_quota(quota: Quota) -> Iterator[Finding]:
    parts = []
    worst = 0.0
    if quota.limit_bytes:
        worst = quota.used_bytes / quota.limit_bytes
        parts.append(f"{_size(quota.used_bytes)} of {_size(quota.limit_bytes)}")
    if quota.limit_files:
        worst = max(worst, quota.used_files / quota.limit_files)
        parts.append(f"{quota.used_files} of {quota.limit_files} files")
    if worst >= FULL:
        yield Finding(
            code="LMP203",
            severity="error" if worst >= 1 else "warning",
            what=f"The quota on {quota.place} is {'used up' if worst >= 1 else 'nearly used up'}.",
            evidence=tuple(parts),
            cure="export LIMPET_CACHE_DIR=/a/folder/elsewhere",
        )


def _size(size_bytes: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} GB"


# ---- account and cluster -------------------------------------------------------------------------


def _judge_account(account: AccountSeen) -> Iterator[Finding]:
    if account.hooks:
        yield Finding(
            code="LMP301",
            severity="warning",
            what="Your shell starts conda at each start.",
            evidence=account.hooks,
            cause="Batch jobs wait for it as well, and its programs come before all others.",
            cure="conda init --reverse",
        )
    for site in account.sites:
        yield Finding(
            code="LMP302",
            severity="warning" if site.images else "note",
            what=f"~/.local has {site.packages} packages for Python {site.python}.",
            evidence=(site.path, *(f"would reach into {path}" for path in site.images)),
            cause="Apptainer alone lets them into every image with that Python; limpet does not.",
            cure=f"mv {shlex.quote(site.path)} {shlex.quote(site.path + '.off')}",
        )
    if account.leaking:
        yield Finding(
            code="LMP303",
            severity="note",
            what="Variables of your session would reach into images; limpet drops them.",
            evidence=account.leaking,
            cure=f"unset {' '.join(account.leaking)}",
        )
    if not account.tmpdir_there:
        yield Finding(
            code="LMP206",
            severity="warning",
            what=f"TMPDIR is {account.tmpdir}, which is no folder.",
            cure=f"mkdir -p {shlex.quote(account.tmpdir)}",
        )
    for name, path, there in account.bundles:
        if not there:
            yield Finding(
                code="LMP304",
                severity="warning",
                what=f"{name} names {path}, which cannot be read.",
                cure=f"unset {name}",
            )
    yield from _judge_proxies(account.proxies)


def _judge_proxies(proxies: dict[str, str]) -> Iterator[Finding]:
    for lower in ("http_proxy", "https_proxy", "no_proxy"):
        spellings = (lower, lower.upper())
        there = [name for name in spellings if name in proxies]
        if len(there) == 1:
            other = next(name for name in spellings if name not in there)
            yield Finding(
                code="LMP305",
                severity="note",
                what=f"{there[0]} is set, {other} is not.",
                cure=f'export {other}="${there[0]}"',
            )


def _judge_gpu(gpu: GpuSeen) -> Iterator[Finding]:
    driver = gpu.driver
    troubles: list[str] = []
    if "nvidia" in gpu.makers:
        troubles += find_nvidia_troubles(driver, GpuNeeds(), None)
        if not driver.library_version and not driver.glibc:
            yield Finding(
                code="LMP402",
                severity="warning",
                what="There is an NVIDIA GPU, and no libcuda.so.1.",
                cure=_ASK + "the driver's libraries",
            )
    if "amd" in gpu.makers:
        troubles += find_amd_troubles(driver, GpuNeeds(), None)
    for trouble in troubles:
        yield Finding(code="LMP401", severity="error", what=trouble)


def _judge_slurm(seen: MachineSeen) -> Iterator[Finding]:
    cluster = seen.cluster
    useful = [name for name in cluster.pmi if name.startswith(("pmix", "pmi2", "cray"))]
    if cluster.slurm and cluster.pmi and not useful:
        yield Finding(
            code="LMP403",
            severity="warning",
            what="Slurm has no PMI that MPI programs could use.",
            evidence=(f"srun --mpi=list: {' '.join(cluster.pmi)}",),
            cure="mpirun -n 4 limpet run IMAGE python program.py",
        )


def judge_node(differences: Iterable[Difference], node: str) -> Iterator[Finding]:
    """What about the differences may make a job fail."""
    serious = ("runtime", "user namespaces", "/dev/fuse", "processor", "cache", "state")
    for difference in differences:
        if difference.what in serious or difference.what.startswith("squashfuse"):
            yield Finding(
                code="LMP405",
                severity="warning",
                what=f"{difference.what} is another on {node}.",
                evidence=(f"here   {difference.here}", f"there  {difference.there}"),
            )


def judge_no_node(error: HostError) -> Finding:
    """The finding where the node could not be asked."""
    return Finding(
        code="LMP404",
        severity="error",
        what=error.what,
        evidence=tuple(error.why.splitlines()[:8]),
        cure="limpet doctor --node --partition=NAME --account=NAME --time=5",
    )
