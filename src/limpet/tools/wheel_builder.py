"""Wheels from source: what is run in the base for it, and what its failures mean.

uv builds (PEP 517, with build isolation) with the base's own Python. Everything that a build may
write to is bound from the cache: the runtime's own /tmp is only 64 MB. The host's certificates,
proxies and index settings reach the build and never the wheel.
"""

from __future__ import annotations

import os
import re
import shutil
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import msgspec

from limpet.core.errors import BuildError, FetchError, HostError
from limpet.core.facts import Interpreter
from limpet.core.lock import Artifact, LockedPackage
from limpet.tools import files, process

UV_INSIDE = "/opt/limpet/uv"
CACHE_INSIDE = "/opt/limpet/uv-cache"
BUILD_INSIDE = "/opt/limpet/build"
CA_INSIDE = "/opt/limpet/ca.pem"
PASSED = re.compile(
    r"^(https?|all|no|ftp)_proxy$|^UV_(DEFAULT_INDEX|INDEX|EXTRA_INDEX|FIND_LINKS|NO_INDEX"
    r"|EXCLUDE_NEWER|INSECURE_HOST|HTTP_TIMEOUT)(_.*)?$",
    re.IGNORECASE,
)
FROM_PIP = {
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_EXTRA_INDEX_URL": "UV_INDEX",
    "PIP_FIND_LINKS": "UV_FIND_LINKS",
}
NOT_SOURCE = shutil.ignore_patterns(
    ".git", ".hg", ".svn", "__pycache__", ".venv", ".tox", ".nox", ".mypy_cache", "node_modules"
)
EARLIEST_ZIP_DATE = "315532800"  # 1980-01-01, the first that a zip can hold


class BuildCommand(msgspec.Struct, frozen=True, kw_only=True):
    """What to run in the base. `binds` are (host path, container path, writable)."""

    argv: tuple[str, ...]
    binds: tuple[tuple[Path, str, bool], ...]
    variables: dict[str, str]


def plan_build(
    package: LockedPackage,
    interpreter: Interpreter,
    *,
    uv: Path,
    uv_cache: Path,
    folder: Path,
    source: str,
    ca_bundle: str = "",
    indexes: Iterable[str] = (),
    offline: bool = False,
) -> BuildCommand:
    """Build `source`, a path below `folder`, into a wheel in `folder/out`."""
    argv = [UV_INSIDE, "build", "--wheel", "--no-config", "--no-python-downloads"]
    argv += ["--color", "never", "--python", interpreter.path]
    argv += ["--out-dir", f"{BUILD_INSIDE}/out", *(["--offline"] if offline else [])]
    binds = [(uv, UV_INSIDE, False), (uv_cache, CACHE_INSIDE, True), (folder, BUILD_INSIDE, True)]
    variables = _index_variables(os.environ, indexes) | {
        "HOME": f"{BUILD_INSIDE}/home",
        "TMPDIR": f"{BUILD_INSIDE}/tmp",
        "UV_CACHE_DIR": CACHE_INSIDE,
        "SOURCE_DATE_EPOCH": EARLIEST_ZIP_DATE,
        **_version_variables(package),
    }
    if ca_bundle:
        binds.append((Path(ca_bundle), CA_INSIDE, False))
        names = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE")
        variables |= dict.fromkeys(names, CA_INSIDE)
    for words in (variables.get("UV_FIND_LINKS", ""), variables.get("UV_INDEX", "")):
        local = [Path(word.removeprefix("file://")) for word in re.split(r"[\s,]+", words)]
        binds += [(p, str(p), False) for p in local if p.is_absolute() and p.is_dir()]
    return BuildCommand(
        argv=(*argv, f"{BUILD_INSIDE}/{source}"), binds=tuple(binds), variables=variables
    )


def _index_variables(environment: Mapping[str, str], indexes: Iterable[str]) -> dict[str, str]:
    """uv's settings and, where it has none, pip's; and the indexes that the lock names.

    They may come from configuration files, which a build does not see. Where PyPI is not among
    them, as on a cluster with a mirror, it may not be reachable: then the first is the default.
    """
    passed = {name: value for name, value in environment.items() if PASSED.match(name)}
    for pip_name, uv_name in FROM_PIP.items():
        if environment.get(pip_name):
            passed.setdefault(uv_name, environment[pip_name])
    known = " ".join(value for name, value in passed.items() if "INDEX" in name.upper())
    added = [index for index in indexes if index not in known]
    if added and "UV_DEFAULT_INDEX" not in passed and "UV_INDEX_URL" not in passed:
        default = next((index for index in added if "//pypi.org/" in index), added[0])
        passed["UV_DEFAULT_INDEX"] = default
        added.remove(default)
    if added:
        passed["UV_INDEX"] = " ".join([*added, passed.get("UV_INDEX", "")]).strip()
    return passed


def _version_variables(package: LockedPackage) -> dict[str, str]:
    """The locked version, for the build tools that would ask git for it (which a base may lack)."""
    if not package.version or package.artifact.kind not in ("vcs", "directory"):
        return {}
    name = re.sub(r"[-_.]+", "_", package.name).upper()
    return {
        f"SETUPTOOLS_SCM_PRETEND_VERSION_FOR_{name}": package.version,
        "PBR_VERSION": package.version,
        "POETRY_DYNAMIC_VERSIONING_BYPASS": package.version,
    }


def with_credentials(url: str, login: tuple[str, str] | None) -> str:
    """An index URL as uv wants it in its variables."""
    parts = urlsplit(url)
    if login is None or "@" in parts.netloc:
        return url
    user, password = (quote(word, safe="") for word in login)
    return urlunsplit(parts._replace(netloc=f"{user}:{password}@{parts.netloc}"))


def prepare_folder(folder: Path) -> None:
    """The folders that a build writes to."""
    for name in ("src", "out", "tmp", "home"):
        files.make_folder(folder / name)


def place_directory(source: Path, folder: Path, artifact: Artifact) -> str:
    """Copy a source tree; building in the user's own would leave things there."""
    if not source.is_dir():
        raise FetchError(
            f"The folder {source} is not there.", now="Put it back, or take it out of the recipe."
        )
    target = folder / "src" / "tree"
    shutil.copytree(source, target, symlinks=True, ignore=NOT_SOURCE)
    return _inside(folder, target, artifact)


def place_archive(archive: Path, folder: Path, artifact: Artifact) -> str:
    """An sdist goes to uv as it is; a project within an archive has to be unpacked for it."""
    target = folder / "src" / archive.name
    if not artifact.subdirectory:
        shutil.copyfile(archive, target)
        return f"src/{archive.name}"
    tree = folder / "src" / "tree"
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            zipped.extractall(tree)
    elif not hasattr(tarfile, "data_filter"):
        raise HostError(
            f"{archive.name} cannot be unpacked safely.",
            why="This Python has no tar filters (PEP 706).",
            now="Use Python 3.11.4 or newer.",
        )
    else:
        with tarfile.open(archive) as tarred:
            tarred.extractall(tree, filter="data")
    inner = list(tree.iterdir())
    return _inside(folder, inner[0] if len(inner) == 1 and inner[0].is_dir() else tree, artifact)


def place_clone(folder: Path, artifact: Artifact) -> str:
    """Clone on the host, with the user's own keys and helpers, at the very commit."""
    url = artifact.url.removeprefix("git+")
    target = folder / "src" / "tree"
    _git(url, "init", "--quiet", str(target))
    try:
        _git(url, "-C", str(target), "fetch", "--quiet", "--depth", "1", url, artifact.commit)
    except FetchError:  # a server that gives no single commits
        _git(url, "-C", str(target), "fetch", "--quiet", "--tags", url, "+refs/*:refs/limpet/*")
    _git(url, "-C", str(target), "checkout", "--quiet", "--detach", artifact.commit)
    _git(url, "-C", str(target), "submodule", "--quiet", "update", "--init", "--recursive")
    return _inside(folder, target, artifact)


def _git(url: str, *words: str) -> None:
    # A batch job must never be asked for a password.
    env = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    done = process.run(["git", *words], env=env)
    if done.code:
        raise FetchError(
            f"{scrub(url)} cannot be cloned.",
            why=scrub("\n".join(done.stderr.strip().splitlines()[-5:])),
            now="Check the URL, the commit in the lock, and your access to the repository.",
        )


def _inside(folder: Path, tree: Path, artifact: Artifact) -> str:
    project = (tree / artifact.subdirectory).resolve()
    if not project.is_dir() or not project.is_relative_to(tree.resolve()):
        raise BuildError(f"{artifact.filename or artifact.url} has no {artifact.subdirectory}.")
    return str(project.relative_to(folder.resolve()))


def find_wheel(folder: Path, package: LockedPackage) -> Path:
    """The wheel that a build has left."""
    wheels = list((folder / "out").glob("*.whl"))
    if len(wheels) != 1:
        raise BuildError(f"The build of {package.name} left {len(wheels)} wheels instead of one.")
    return wheels[0]


NO_COMPILER = re.compile(
    r"command '[^']*(gcc|g\+\+|cc|clang|c\+\+)' failed: No such file"
    r"|unable to execute '[^']*(cc|\+\+|clang)'"
    r"|No such file or directory: '[^']*(gcc|cc|g\+\+|c\+\+)'"
    r"|Unknown compiler\(s\)|CMAKE_(C|CXX|Fortran)_COMPILER"
    r"|linker `cc` not found|(gcc|cc|g\+\+|make): (command )?not found"
    r"|no acceptable C compiler",
)
NO_HEADERS = re.compile(r"Python\.h: No such file")


def build_failure(package: LockedPackage, output: str) -> BuildError:
    """What went wrong, from what uv and the build said."""
    what = f"{package.name} {package.version} could not be built from source.".replace("  ", " ")
    lines = [line for line in scrub(output).splitlines() if line.strip()]
    last = "\n".join(lines[-15:])
    if NO_COMPILER.search(output):
        return BuildError(
            what,
            why=f"The base has no compiler for it.\n{last}",
            now='Add `apt = ["build-essential"]` to [image], or choose a base with a compiler.',
        )
    if NO_HEADERS.search(output):
        return BuildError(
            what,
            why=f"The base's Python has no header files.\n{last}",
            now='Add `apt = ["python3-dev"]` to [image], or choose a base that has them.',
        )
    return BuildError(what, why=last, now="A version that has a wheel needs no build.")


def scrub(text: str) -> str:
    """Text without what stands before the @ of a URL."""
    return re.sub(r"(\w+://)[^/\s@]+@", r"\1***@", text)
