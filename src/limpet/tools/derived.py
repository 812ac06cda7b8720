"""A base with apt packages and a post script on top, by `apptainer build --fakeroot`.

The definition is the same for everybody and the step itself comes in by a mount, because a runtime
keeps the definition in the image, and proxies and site certificates must not stay there.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from limpet.core.errors import BuildError, FetchError, HostError, LimpetError
from limpet.tools import process

STEP_AT = "/mnt"
COMPRESSION = "-comp zstd -Xcompression-level 3"
DEFINITION = f"""Bootstrap: localimage
From: base.sif

%post
    /bin/sh {STEP_AT}/step.sh
"""
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")
_CA_VARIABLES = (
    *("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT", "GIT_SSL_CAINFO"),
    *("NODE_EXTRA_CA_CERTS", "UV_SSL_CERT_FILE"),
)
_OTHERWISE = (
    "Or choose a base that has it all already, or take the packages from conda; "
    "neither needs a writable base."
)


def derived_digest(digest: str, arch: str, apt: Sequence[str], post: str) -> str:
    """The name of a derived base: what it is made from."""
    text = "\0".join(("limpet derived 1", digest, arch, *sorted(apt), "", post))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def write_step(folder: Path, apt: Sequence[str], post: str) -> None:
    """Everything that the step needs, in a folder of its own, and its /tmp beside that."""
    folder.mkdir()
    (folder.parent / "tmp").mkdir()
    (folder.parent / "tmp").chmod(0o1777)
    (folder / "step.sh").write_text(render_step(apt, has_ca=_copy_ca(folder), post=bool(post)))
    (folder / "apt.conf").write_text(_APT_CONF + _apt_ca(folder))
    if post:
        first = "" if post.startswith("#!") else "#!/bin/sh\nset -e\n"
        (folder / "post").write_text(first + post.rstrip("\n") + "\n")
        (folder / "post").chmod(0o755)


_APT_CONF = """APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "2";
Dpkg::Use-Pty "false";
Dir::Log "/dev/null";
"""


def _apt_ca(folder: Path) -> str:
    if not (folder / "ca.pem").exists():
        return ""
    return f'Acquire::https::CAInfo "{STEP_AT}/ca.pem";\n'


def _copy_ca(folder: Path) -> bool:
    for name in _CA_VARIABLES[:3]:
        named = os.environ.get(name, "")
        if named and Path(named).is_file():
            (folder / "ca.pem").write_bytes(Path(named).read_bytes())
            return True
    return False


def render_step(apt: Sequence[str], *, has_ca: bool, post: bool) -> str:
    """The script that runs as root of the container's namespace."""
    lines = ["set -e", "umask 022", "export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8"]
    lines.append('failed() { echo "limpet-step $1 $2"; exit 1; }')
    for name in _PROXIES:
        for spelled in (name, name.upper()):
            if os.environ.get(spelled):
                lines.append(f"export {spelled}={shlex.quote(os.environ[spelled])}")
    if has_ca:
        lines += [f"export {name}={STEP_AT}/ca.pem" for name in _CA_VARIABLES]
    if apt:
        packages = " ".join(shlex.quote(package) for package in apt)
        lines += [
            f"export APT_CONFIG={STEP_AT}/apt.conf",
            "apt-get -q update || failed apt $?",
            f"apt-get -q -y install -- {packages} || failed apt $?",
            "apt-get clean",
            "rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/debconf/*-old"
            " /var/lib/dpkg/*-old /var/log/dpkg.log /var/log/alternatives.log /var/log/apt",
            "unset APT_CONFIG",
        ]
    if post:
        lines += ["cd /", f"{STEP_AT}/post || failed post $?"]
    return "\n".join(lines) + "\n"


def build_argv(runtime: Path, work: Path, output: Path) -> list[str]:
    """The command that makes the derived base; run in `work`, with base.sif, step/ and tmp/."""
    mount = f'type=bind,"source={str(work / "step").replace(chr(34), chr(34) * 2)}"'
    return [
        *(str(runtime), "build", "--fakeroot", "--force"),
        *("--mount", f"{mount},target={STEP_AT},ro"),
        # The runtime would hand in the machine's own. (It takes one --mount in a build, not more.)
        *("--bind", f"{work}/tmp:/tmp,{work}/tmp:/var/tmp"),
        *("--mksquashfs-args", COMPRESSION),
        *(str(output), "limpet.def"),
    ]


def check_host(work: Path) -> None:
    """HostError that names what of `--fakeroot` this machine or site lacks."""
    if set(str(work)) & set(",:"):
        raise HostError(
            f"apt and post cannot work below {work}.",
            why="Apptainer and SingularityCE take no comma or colon in the path of a build.",
            now="Name another cache folder: --cache-dir or LIMPET_CACHE_DIR.",
        )
    if os.geteuid() == 0:
        return
    if process.find_program("unshare") and (
        process.run(["unshare", "--user", "--map-root-user", "true"]).code != 0
    ):
        raise _forbidden(
            "this machine forbids user namespaces",
            "unshare --user fails (user.max_user_namespaces, kernel.unprivileged_userns_clone or "
            "AppArmor).",
        )
    if process.find_program("fakeroot"):
        return  # without subordinate ids the runtime falls back to the fakeroot program
    for problem, why in _missing_ids():
        raise _forbidden(problem, why)


def _missing_ids() -> Iterator[tuple[str, str]]:
    user = pwd.getpwuid(os.geteuid()).pw_name
    for path in (Path("/etc/subuid"), Path("/etc/subgid")):
        text = path.read_text() if path.exists() else ""
        if not re.search(rf"^({re.escape(user)}|{os.geteuid()}):", text, re.MULTILINE):
            yield (
                f"{path} has no subordinate ids for {user}",
                f"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}, by an "
                "administrator, gives some; the program fakeroot would do too.",
            )
    if process.find_program("newuidmap") is None:
        yield ("newuidmap is not here", "It is in the package uidmap (shadow-utils).")


def _forbidden(problem: str, why: str) -> HostError:
    what = f"apt and post need a writable base, and {problem}."
    return HostError(what, why=why, now=_OTHERWISE)


def explain_failure(code: int, said: str) -> LimpetError:
    """What went wrong in the step, by what the runtime and apt said."""
    lines = [line for line in said.splitlines() if line.strip()]
    ended = re.search(r"^limpet-step (apt|post) (\d+)$", said, re.MULTILINE)
    if ended:
        noise = re.compile(r"(INFO|WARNING|FATAL|ERROR|VERBOSE):|\+ |limpet-step")
        step = [line for line in lines if not noise.match(line)]
        if ended[1] == "apt":
            return _explain_apt(step)
        what = f"The post script failed with exit code {ended[2]}."
        return BuildError(what, why="\n".join(step[-12:]))
    if re.search(r"newuidmap|newgidmap|subuid|subgid|user namespace", said):
        return _forbidden("the runtime may not make one here", "\n".join(lines[-3:]))
    return BuildError(
        f"The derived base could not be built (exit code {code}).", why="\n".join(lines[-8:])
    )


def _explain_apt(lines: list[str]) -> LimpetError:
    errors = [line for line in lines if line.startswith(("E:", "Err:", "W: Failed"))]
    why = "\n".join((errors or lines)[-8:])
    if re.search(
        r"Could not (resolve|connect)|Temporary failure|Unable to fetch|Failed to fetch", why
    ):
        return FetchError("apt cannot reach the base's mirror.", why=why, now="Check the network.")
    if re.search(r"Unable to locate|has no installation candidate|Version .* was not found", why):
        return BuildError(
            "apt does not know a package.",
            why=why,
            now="Check the names against the base's distribution; a pinned version that the mirror "
            "no longer has needs `limpet lock --upgrade`.",
        )
    return BuildError("apt failed.", why=why)


DPKG_QUERY = ("dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${binary:Package}=${Version}\\n")


def parse_dpkg(text: str) -> frozenset[str]:
    """`name=version` of what is installed."""
    return frozenset(line[4:].strip() for line in text.splitlines() if line.startswith("ii "))
