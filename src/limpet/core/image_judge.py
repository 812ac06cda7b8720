"""An image judged: what was read in it → findings."""

from __future__ import annotations

from collections.abc import Iterator

from packaging.markers import InvalidMarker, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from limpet.core.contents import Software
from limpet.core.findings import Finding
from limpet.core.image_contents import Environment, Heap, ImageContents
from limpet.core.loading import find_mpi_families, judge_libraries
from limpet.core.markers import linux_markers

MOST_LISTED = 8
FEW_SOURCES = 20
_HEAPS = {
    "tests": ("LMP721", "Tests of packages", "No program of the image needs them."),
    "static": ("LMP722", "Static libraries", "They serve compilers only."),
    "twins": ("LMP723", "Shared libraries that are there several times", ""),
    "caches": ("LMP724", "Caches of package managers", "They were left by the build."),
}


def judge_contents(seen: ImageContents, image: str) -> Iterator[Finding]:
    """All that can be said of an image without a machine."""
    for environment in seen.environments:
        yield from _judge_requirements(environment, seen.arch)
        yield from _judge_twice(environment)
        yield from _judge_byte_code(environment)
    yield from _judge_metadata(seen)
    yield from _judge_leaks(seen, image)
    yield from judge_libraries(seen)
    families = find_mpi_families(seen)
    if len(families) > 1:
        yield Finding(
            code="LMP703",
            severity="warning",
            what=f"The image has MPI of {len(families)} families.",
            evidence=tuple(f"{family}: {path}" for family, path in families.items()),
            cause="Which one a program gets depends on the loader's path.",
        )
    if seen.signed is False:
        yield Finding(
            code="LMP704",
            severity="note",
            what="The image is not signed.",
            cure=f"apptainer sign {image}",
        )
    yield from (_judge_heap(heap) for heap in seen.heaps)
    if seen.odd_names:
        yield Finding(
            code="LMP731",
            severity="warning",
            what="Names of files in the image hold control characters.",
            evidence=seen.odd_names[:MOST_LISTED],
        )
    if seen.troubles:
        more = len(seen.troubles) - MOST_LISTED
        yield Finding(
            code="LMP732",
            severity="note",
            what="Not all of the image could be read.",
            evidence=(
                *seen.troubles[:MOST_LISTED],
                *([f"… and {more} more"] if more > 0 else []),
            ),
        )


# ---- packages ------------------------------------------------------------------------------------


def _judge_requirements(environment: Environment, arch: str) -> Iterator[Finding]:
    """What `pip check` asks: are all requirements there, in a version that fits?"""
    markers = linux_markers(f"{environment.python}.0", arch or "x86_64") | {"extra": ""}
    first: dict[str, Software] = {}
    for package in environment.packages:
        first.setdefault(canonicalize_name(package.name), package)
    for package in first.values():
        for line in package.requires:
            yield from _judge_line(line, package, first, markers, environment)


def _judge_line(
    line: str,
    package: Software,
    packages: dict[str, Software],
    markers: dict[str, str],
    environment: Environment,
) -> Iterator[Finding]:
    try:
        wanted = Requirement(line)
        if wanted.marker and not wanted.marker.evaluate(markers):
            return
    except (InvalidRequirement, InvalidMarker, UndefinedEnvironmentName, InvalidVersion):
        return
    who = f"{package.name} {package.version}"
    where = f"Python {environment.python} in {environment.prefix}"
    found = packages.get(canonicalize_name(wanted.name))
    if found is None:
        yield Finding(
            code="LMP501",
            severity="error",
            what=f"{who} needs {wanted.name}, which is not installed.",
            evidence=(f"Requires-Dist: {line}", where),
            cure=f"Add to the description: {wanted.name}{wanted.specifier}",
        )
    elif not _fits(wanted, found.version):
        yield Finding(
            code="LMP502",
            severity="error",
            what=f"{who} needs {wanted.name}{wanted.specifier}, and {found.version} is installed.",
            evidence=(f"Requires-Dist: {line}", f"{where}: {found.folder}"),
            cure=f"Add to the description: {wanted.name}{wanted.specifier}",
        )


def _fits(wanted: Requirement, version: str) -> bool:
    try:
        return wanted.specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:
        return True


def _judge_twice(environment: Environment) -> Iterator[Finding]:
    seen: dict[str, Software] = {}
    for package in environment.packages:
        name = canonicalize_name(package.name)
        before = seen.setdefault(name, package)
        if before is not package and before.version != package.version:
            yield Finding(
                code="LMP503",
                severity="warning",
                what=f"{package.name} is there twice; {before.version} is used.",
                evidence=tuple(f"{one.version}  {one.folder}" for one in (before, package)),
            )


def _judge_metadata(seen: ImageContents) -> Iterator[Finding]:
    packages = (package for env in seen.environments for package in env.packages)
    bad = tuple(dict.fromkeys(package.trouble for package in packages if package.trouble))
    if bad:
        yield Finding(
            code="LMP509",
            severity="note",
            what=f"Metadata that cannot be read: {len(bad)}.",
            evidence=bad[:MOST_LISTED],
        )


def _judge_byte_code(environment: Environment) -> Iterator[Finding]:
    bare = environment.sources - environment.compiled
    command = "python -m compileall -q --invalidation-mode unchecked-hash"
    if bare >= FEW_SOURCES:
        yield Finding(
            code="LMP505",
            severity="warning",
            what=f"{bare} of {environment.sources} modules of Python {environment.python} "
            "have no byte code.",
            evidence=environment.folders,
            cause="Each process compiles them again.",
            cure=f"{command} {environment.folders[0]}   # in the image's build",
        )
    if environment.unused >= FEW_SOURCES:
        yield Finding(
            code="LMP506",
            severity="warning",
            what=f"About {environment.unused} byte code files of Python {environment.python} "
            "are not used.",
            evidence=environment.folders,
            cause="Their sources have another time than when they were compiled.",
            cure=f"{command} -f {environment.folders[0]}   # in the image's build",
        )


def _judge_leaks(seen: ImageContents, image: str) -> Iterator[Finding]:
    steering = [n for n in ("PYTHONPATH", "PYTHONHOME") if seen.variables.get(n)]
    if steering:
        yield Finding(
            code="LMP507",
            severity="warning",
            what="The image sets variables of Python for all its programs.",
            evidence=tuple(f"{name}={seen.variables[name]}" for name in steering),
        )
    bare = [env for env in seen.environments if not env.virtual]
    only = not any(env.virtual for env in seen.environments)
    if bare and only and not seen.variables.get("PYTHONNOUSERSITE"):
        yield Finding(
            code="LMP508",
            severity="note",
            what="Started without limpet, its Python takes packages from ~/.local of the host.",
            evidence=tuple(f"Python {env.python} in {env.prefix}" for env in bare),
            cure=f"apptainer exec --env PYTHONNOUSERSITE=1 {image} python3",
        )


def _judge_heap(heap: Heap) -> Finding:
    code, title, cause = _HEAPS[heap.kind]
    return Finding(
        code=code,
        severity="note",
        what=f"{title}: {_size(heap.size_bytes)} in {heap.files} files.",
        evidence=tuple(f"{_size(size)}  {path}" for path, size in heap.largest),
        cause=cause,
    )


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB"
