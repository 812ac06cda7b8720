"""`debian:SUITE`: a slim root file system from Debian's packages, by mmdebstrap, without root.

mmdebstrap's own `unshare` mode needs a temporary folder that other users can enter, which a home
folder is not. So limpet makes the namespace itself, with the user as its root, and mmdebstrap works
in it as in any root's.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from limpet.core.errors import BaseError, FetchError, HostError, SpaceError
from limpet.tools import process

PACKAGES = ("ca-certificates", "python3", "python3-venv")
VARIABLES = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8")
EPOCH = 315619200  # 1980-01-02: nothing is younger, and zip archives cannot hold anything older
_DEFAULT_MIRRORS = re.compile(r"https?://deb\.debian\.org/debian/?")
_SLIM = (
    *("path-exclude=/usr/share/man/*", "path-exclude=/usr/share/info/*"),
    *("path-exclude=/usr/share/locale/*", "path-exclude=/usr/share/doc/*"),
    *("path-exclude=/usr/share/lintian/*", "path-include=/usr/share/doc/*/copyright"),
)
# Copied from the host by mmdebstrap, logs of the making, and locks: none of it is Debian's.
_DROPPED = re.compile(
    r"(etc/(hostname|resolv\.conf|machine-id|\.pwd\.lock)"
    r"|var/(log|cache/apt|lib/apt/lists)/.+"
    r"|var/cache/(debconf|ldconfig)/.+|var/lib/dpkg/.+-old)"
)


def is_dropped(name: str) -> bool:
    """Whether a member of mmdebstrap's tar has no place in a base."""
    return _DROPPED.fullmatch(name) is not None


def resolve_packages(suite: str, arch: str, folder: Path) -> tuple[str, ...]:
    """`name=version` of all packages that the base would be made of today."""
    argv = _command(suite, arch, ("--simulate", "--verbose", "--format=null"))
    done = process.run(argv, env=_environment(folder), cwd=folder)
    if done.code != 0:
        raise _explain(suite, done.stderr)
    found = re.findall(r"^Inst (\S+) (?:\[[^]]*\] )?\((\S+) ", done.stderr, re.MULTILINE)
    if not found:
        raise BaseError(f"mmdebstrap does not say what debian:{suite} is made of.")
    return tuple(sorted({f"{name.partition(':')[0]}={version}" for name, version in found}))


def digest_packages(suite: str, arch: str, packages: tuple[str, ...]) -> str:
    """The digest of a base made of these packages."""
    text = "\n".join(("limpet debian 1", suite, arch, *packages))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


@contextmanager
def open_tar(suite: str, arch: str, folder: Path) -> Iterator[BinaryIO]:
    """mmdebstrap's tar as a stream; on leaving, an error of its is raised."""
    options = [f"--dpkgopt={option}" for option in _SLIM]
    errors_path = folder / "mmdebstrap.log"
    argv = _command(suite, arch, ("--format=tar", *options))
    # Its messages go to a file: a pipe that nobody empties would stop it.
    quoted = ["sh", "-c", 'log=$1; shift; exec "$@" 2>"$log"', "sh", str(errors_path), *argv]
    running = process.start(quoted, env=_environment(folder), cwd=folder)
    try:
        yield cast(BinaryIO, running.stdout)
        while running.stdout and running.stdout.read(1 << 20):
            pass  # the zeros behind the end of a tar
    except BaseException as error:
        ended_itself = process.stop(running, patience_s=1) > 0
        if ended_itself and isinstance(error, Exception):  # not where a user interrupted both
            raise _explain(suite, errors_path.read_text(errors="replace")) from None
        raise
    if running.wait() != 0:
        raise _explain(suite, errors_path.read_text(errors="replace"))


def parse_status(text: str) -> tuple[str, ...]:
    """`name=version` of what dpkg's status file says is installed."""
    found = []
    for paragraph in text.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Version|Status): (.*)$", paragraph, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            found.append(f"{fields['Package']}={fields['Version']}")
    return tuple(sorted(found))


def _command(suite: str, arch: str, options: tuple[str, ...]) -> list[str]:
    check_host()
    namespace = ("--map-root-user", "--map-auto", "--mount", "--pid", "--fork", "--kill-child")
    debian_arch = {"x86_64": "amd64", "aarch64": "arm64"}[arch]
    argv = ["unshare", *namespace, "mmdebstrap", "--mode=root", "--variant=minbase"]
    argv += [f"--architectures={debian_arch}", f"--include={','.join(PACKAGES)}", *options]
    mirror = find_mirror(suite)
    return [*argv, suite, "-", *([mirror] if mirror else [])]


def _environment(folder: Path) -> dict[str, str]:
    changed = {"TMPDIR": str(folder), "SOURCE_DATE_EPOCH": str(EPOCH), "LC_ALL": "C.UTF-8"}
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return dict(os.environ) | changed | {"PATH": path}


def find_mirror(suite: str) -> str:
    """$LIMPET_DEBIAN_MIRROR, or the host's own mirror for that suite; empty for Debian's own."""
    named = os.environ.get("LIMPET_DEBIAN_MIRROR", "")
    if named:
        return named
    for text in _source_texts():
        for address in parse_mirrors(text, suite):
            return "" if _DEFAULT_MIRRORS.fullmatch(address) else address
    return ""


def _source_texts() -> Iterator[str]:
    folder = Path("/etc/apt")
    for path in (folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))):
        if path.is_file() and path.suffix in (".list", ".sources"):
            yield path.read_text(errors="replace")


def parse_mirrors(text: str, suite: str) -> list[str]:
    """The addresses that an apt source list names for `main` of a suite, in either format."""
    one_line = rf"^deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+{re.escape(suite)}\s+main\b"
    found = re.findall(one_line, text, re.MULTILINE)
    for paragraph in re.split(r"\n\s*\n", text):
        fields = dict(re.findall(r"^(\w[\w-]*):[ \t]*(.*)$", paragraph, re.MULTILINE))
        described = (fields.get("Suites", "").split(), fields.get("Components", "").split())
        if suite in described[0] and "main" in described[1]:
            found += fields.get("URIs", "").split()
    return found


def check_host() -> None:
    """HostError that names what making a Debian root file system as a plain user lacks here."""
    otherwise = "Or take a base that needs nothing of it: docker://…, oci:FOLDER, a SIF."
    for program, package in (("mmdebstrap", "mmdebstrap"), ("unshare", "util-linux")):
        if process.find_program(program) is None:
            what = f"debian: bases need {program}, which is not here."
            raise HostError(what, now=f"Have {package} installed. {otherwise}")
    if os.geteuid() == 0:
        return
    if process.run(["unshare", "--user", "--map-root-user", "true"]).code != 0:
        raise HostError(
            "debian: bases need user namespaces, which this machine forbids.",
            why="unshare --user fails (kernel.unprivileged_userns_clone, user.max_user_namespaces "
            "or AppArmor).",
            now=otherwise,
        )
    if process.find_program("newuidmap") is None:
        raise HostError(
            "debian: bases need newuidmap, which is not here.",
            now=f"Have the package uidmap (shadow-utils) installed. {otherwise}",
        )
    user = pwd.getpwuid(os.geteuid()).pw_name
    for path in (Path("/etc/subuid"), Path("/etc/subgid")):
        text = path.read_text() if path.exists() else ""
        if not re.search(rf"^({re.escape(user)}|{os.geteuid()}):", text, re.MULTILINE):
            raise HostError(
                f"debian: bases need subordinate ids, and {path} has none for {user}.",
                now=f"An administrator can add some: usermod --add-subuids 100000-165535 "
                f"--add-subgids 100000-165535 {user}. {otherwise}",
            )


def _explain(suite: str, said: str) -> BaseError | FetchError | SpaceError:
    lines = [line for line in said.splitlines() if line.startswith(("E:", "Err:", "W: Failed"))]
    why = "\n".join(lines[-6:]) or said.strip()[-500:]
    if "No space left on device" in said:
        return SpaceError(
            f"debian:{suite} cannot be made: the disk is full.",
            why=why,
            now="Make room, or name another place: --cache-dir or LIMPET_CACHE_DIR.",
        )
    if re.search(r"404\s+Not Found|does not have a Release file|unknown suite", said):
        return BaseError(f"There is no debian:{suite} at the mirror.", why=why)
    if re.search(r"Could not (resolve|connect)|Failed to fetch|Temporary failure|timed out", said):
        now = "Check the network; LIMPET_DEBIAN_MIRROR names another mirror."
        return FetchError("Debian's mirror cannot be reached.", why=why, now=now)
    return BaseError(f"debian:{suite} could not be made.", why=why)
