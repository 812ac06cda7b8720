"""`limpet check IMAGE`: look into an image, and at it on this machine; nothing is started."""

from __future__ import annotations

import os
import platform
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec

from limpet.core.contents import Software
from limpet.core.doctor import sort_findings
from limpet.core.errors import HostError, LimpetError
from limpet.core.findings import Finding
from limpet.core.gpu import plan_gpu
from limpet.core.image import LOCK_OBJECT
from limpet.core.image_contents import Heap, ImageContents
from limpet.core.image_env import parse_variables
from limpet.core.image_judge import judge_contents
from limpet.core.machine import Trouble
from limpet.core.pylock import parse_lock
from limpet.core.seen import ImageSeen
from limpet.formats import sif
from limpet.formats.image_tree import ImageTree, opened_tree
from limpet.tools import bounded, conda_check, gpu, image_needs, images
from limpet.tools.advisories import read_advisories
from limpet.tools.contents import heaps, libraries, packages, records
from limpet.tools.host_python import check_host_python

MACHINE_TIMEOUT_S = 10.0
_CONTROL = {*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
MOST_NAMES = 8


class CheckReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `limpet check` gives: sizes in bytes, packages largest first."""

    image: str
    size_bytes: int
    files: int
    arch: str
    libc: str
    packages: tuple[Software, ...]
    heaps: tuple[Heap, ...]
    findings: tuple[Finding, ...]
    fixed: tuple[str, ...] = ()


def reach(image: str, timeout_s: float) -> None:
    """HostError where the file system with the image does not answer."""
    looks = {image: lambda: images.touch(Path(image))}
    limit = min(timeout_s, MACHINE_TIMEOUT_S)
    told = bounded.look_all(looks, timeout_s=limit)[image]
    if isinstance(told, Trouble) and told.hung:
        raise HostError(
            f"{image} could not be read within {limit:g} s.",
            why="The file system that it lies on does not answer.",
            now="limpet doctor shows which file systems hang.",
        )


def check_image(image: str, *, advisories: str = "", fix: bool = False) -> CheckReport:
    """Everything that can be found without starting the image."""
    path = Path(image).absolute()
    seen = images.read_image(image)
    fixed = _fix(path) if fix else ()
    contents = read_for_check(seen)
    installed = [package for env in contents.environments for package in env.packages]
    found = [
        f
        for f in judge_contents(_with_provided(seen, contents), shlex.quote(image))
        if not _is_hosts(seen, f)
    ]
    found += conda_check.judge_conda(contents.conda)
    found += _judge_file(path)
    found += _judge_fit(seen, contents)
    if advisories:
        from limpet.core.advisories import judge_advisories

        records = read_advisories(Path(advisories), {package.name for package in installed})
        found += judge_advisories(installed, records)
    distinct = {(package.folder, package.name): package for package in installed}
    return CheckReport(
        image=str(path),
        size_bytes=contents.size_bytes,
        files=contents.files,
        arch=contents.arch,
        libc=contents.libc,
        packages=tuple(sorted(distinct.values(), key=lambda package: -package.size_bytes)),
        heaps=contents.heaps,
        findings=sort_findings(dict.fromkeys(found)),
        fixed=fixed,
    )


def _with_provided(seen: ImageSeen, contents: ImageContents) -> ImageContents:
    """With the packages that the host's Python brings, where the image is built on one."""
    host = seen.facts.host if seen.facts else None
    lock = images.read_named(Path(seen.path), LOCK_OBJECT) if host else None
    if host is None or lock is None:
        return contents
    provided = parse_lock(lock.decode(), seen.path).provided
    more = [
        Software(manager="base", name=n, version=v, folder=host.prefix) for n, v in provided.items()
    ]
    environments = [
        msgspec.structs.replace(env, packages=(*env.packages, *more))
        for env in contents.environments
    ]
    return msgspec.structs.replace(contents, environments=tuple(environments))


def _is_hosts(seen: ImageSeen, finding: Finding) -> bool:
    """Whether it is about libraries that the host's system brings, on whose Python it is built."""
    return bool(seen.facts and seen.facts.host) and finding.code in ("LMP601", "LMP603")


def read_for_check(seen: ImageSeen) -> ImageContents:
    """What is in the image; what cannot be read is in its `troubles`."""
    with opened_tree(seen) as members:
        noted = records.read_records(members)
        environments = packages.find_environments(members, noted)
        folders = list(dict.fromkeys(f for env in environments for f in env.folders))
        found, no_elf = libraries.read_libraries(members, folders)
        scripts = sorted(members.names(".singularity.d/env"))
        variables = parse_variables(
            [members.read_text(f".singularity.d/env/{name}") for name in scripts]
        )
        own = {member.key: member.size_bytes for member in members.members.values()}
        seen_here = ImageContents(
            arch=seen.arch,
            libc=_host_libc(seen) or libraries.read_libc(members),
            files=len(members.members),
            size_bytes=sum(own.values()),
            environments=environments,
            conda=noted.conda,
            libraries=found,
            loader=libraries.find_loader_folders(members),
            found=libraries.find_shared(members),
            heaps=tuple(heaps.find_heaps(members)),
            variables=variables,
            odd_names=tuple(_odd_names(members)),
            signed=_is_signed(seen),
        )
        # What could not be read is known only now.
        troubles = dict.fromkeys((*no_elf, *members.troubles))
        return msgspec.structs.replace(seen_here, troubles=tuple(troubles))


def _host_libc(seen: ImageSeen) -> str:
    facts = seen.facts
    return facts.libc.version if facts and facts.host and facts.libc else ""


def _odd_names(members: ImageTree) -> Iterator[str]:
    number = 0
    for path in members.members:
        if not path.isprintable() and any(ord(letter) in _CONTROL for letter in path):
            yield f"/{path}"
            number += 1
            if number >= MOST_NAMES:
                return


def _is_signed(seen: ImageSeen) -> bool | None:
    if seen.kind != "sif":
        return None
    with Path(seen.path).open("rb") as file:
        kinds = [item.kind for item in sif.read_sif(file).descriptors]
    return sif.ObjectKind.SIGNATURE in kinds


def _judge_file(path: Path) -> Iterator[Finding]:
    mode = path.stat().st_mode
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield Finding(
            code="LMP705",
            severity="warning",
            what=f"{path} can be changed by others.",
            evidence=(stat.filemode(mode),),
            cause="They could put code into your programs.",
            cure=f"chmod go-w {shlex.quote(str(path))}",
        )


def _fix(path: Path) -> tuple[str, ...]:
    status = path.stat()
    if status.st_mode & 0o022 and status.st_uid == os.getuid():
        path.chmod(stat.S_IMODE(status.st_mode) & ~0o022)
        return (f"{path} can be changed by nobody else any more.",)
    return ()


def _judge_fit(seen: ImageSeen, contents: ImageContents) -> Iterator[Finding]:
    machine = platform.machine()
    if seen.arch and seen.arch != machine:
        yield Finding(
            code="LMP701",
            severity="error",
            what=f"The image is for {seen.arch}; this machine is {machine}.",
        )
    yield from _judge_host_python(seen)
    looks = {"The GPUs": lambda: _see_gpus()}
    drivers = bounded.look_all(looks, timeout_s=MACHINE_TIMEOUT_S)["The GPUs"]
    if not isinstance(drivers, tuple):
        return
    makers, driver = drivers
    needs, libc = seen.needs, seen.libc
    if makers and not seen.facts and seen.kind != "sandbox":
        try:
            known = image_needs.read_known(Path(seen.path), seen.kind == "sif")
            needs, libc = known.needs, known.libc
        except (LimpetError, OSError):
            return
    for line in plan_gpu("auto", makers, driver, needs, libc)[1]:
        yield Finding(code="LMP702", severity="warning", what=line)
    if needs.makers and not makers:
        wanted = needs.cuda_of or needs.rocm_of
        yield Finding(
            code="LMP702",
            severity="note",
            what=f"The image has packages for GPUs ({wanted}); this machine has none.",
            cure="limpet doctor --node --gres=gpu:1",
        )


def _judge_host_python(seen: ImageSeen) -> Iterator[Finding]:
    if seen.facts and seen.facts.host:
        try:
            check_host_python(seen.facts.host, seen.path)
        except HostError as error:
            yield Finding(
                code="LMP701",
                severity="error",
                what=error.what,
                evidence=(error.why,),
                cure=error.now,
            )


def _see_gpus() -> tuple[object, object]:
    makers = gpu.probe_gpus()
    return makers, gpu.probe_driver(makers)
