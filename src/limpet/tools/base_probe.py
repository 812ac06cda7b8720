"""Learns what a base is: some from its squashfs, the rest by one short run of its own shell."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import msgspec

from limpet.core.errors import BaseError, ImageError
from limpet.core.facts import Arch, BaseFacts, Interpreter, Libc
from limpet.formats.sif import read_sif, root_partition
from limpet.formats.squashfs import Squashfs

SCRIPTS = Path(__file__).parent.parent / "base_scripts"
_MACHINES: dict[int, str] = {62: "x86_64", 183: "aarch64", 3: "i686", 40: "armv7l", 243: "riscv64"}
_MACHINES |= {21: "ppc64le", 22: "s390x"}
# Set by the runtime or the shell, whatever the base.
_NOT_THE_BASES = re.compile(
    r"(APPTAINER|SINGULARITY|LIMPET)(ENV)?_.*|HOME|PWD|OLDPWD|SHLVL|_|PS1|USER_PATH|PROMPT_COMMAND"
    r"|TERM|LIMPET_PROBE"
    # Apptainer hands the host's proxies in even with --cleanenv.
    r"|(?i:(http|https|ftp|all|no)_proxy)"
)
_LIBRARIES_OF_RUNTIME = "/.singularity.d/libs"


class Partition(msgspec.Struct, frozen=True, kw_only=True):
    """What a base's root partition says without being run."""

    arch: Arch
    compressor: str
    size_bytes: int


def read_partition(sif: Path) -> Partition:
    """What a base is without running it: ImageError for no SIF, BaseError for no system in it."""
    with sif.open("rb") as file:
        try:
            root = root_partition(read_sif(file))
            image = Squashfs(file, root.offset)
        except ImageError as error:
            raise ImageError(f"{sif}: {error.what}", why=error.why, now=error.now) from error
        shell = image.find("/bin/sh", follow=True)
        if shell is None or not shell.is_file:
            raise BaseError(
                f"The base {sif.name} has no /bin/sh.",
                why="limpet needs a system with a shell and a Python, not a bare program's image.",
                now="Take a fuller variant of it, for instance `-slim` or `-debug`.",
            )
        with image.open(shell) as opened:
            head = opened.read(20)
    machine = int.from_bytes(head[18:20], "little")
    arch = _MACHINES.get(machine, f"machine {machine}") if head[:4] == b"\x7fELF" else ""
    if arch not in ("x86_64", "aarch64"):
        raise BaseError(
            f"The base {sif.name} is for {arch or 'no machine that limpet knows'}.",
            now="limpet knows x86_64 and aarch64.",
        )
    return Partition(arch=cast(Arch, arch), compressor=image.compressor, size_bytes=root.size_bytes)


def probe_input() -> tuple[bytes, dict[str, str]]:
    """What the base's shell reads, and the variables it needs."""
    script = (SCRIPTS / "probe_base.sh").read_bytes()
    program = (SCRIPTS / "probe_base.py").read_bytes().replace(b"'", b"'\\''")
    return b"LIMPET_PROBE='" + program + b"'\n" + script, {}


def parse_facts(said: bytes, digest: str, partition: Partition) -> BaseFacts:
    """The facts from what the probe wrote."""
    text, _, environment = said.partition(b"\nenvironment\n")
    lines = [line.partition(" ") for line in text.decode("utf-8", "replace").splitlines()]
    release = _parse_release(rest for word, _, rest in lines if word == "os")
    return BaseFacts(
        digest=digest,
        arch=partition.arch,
        os_id=release.get("ID", ""),
        os_version=release.get("VERSION_ID", ""),
        os_name=release.get("PRETTY_NAME", ""),
        libc=_parse_libc([(word, rest) for word, _, rest in lines]),
        interpreters=tuple(
            msgspec.json.decode(rest, type=Interpreter)
            for word, _, rest in lines
            if word == "python"
        ),
        variables=_parse_environment(environment),
        programs=tuple(sorted(rest for word, _, rest in lines if word == "program")),
        compressor=partition.compressor,
        size_bytes=partition.size_bytes,
    )


def _parse_release(lines: Iterator[str]) -> Mapping[str, str]:
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip().strip("\"'") for name, _, value in pairs}


def _parse_libc(lines: list[tuple[str, str]]) -> Libc | None:
    said = "\n".join(rest for word, rest in lines if word in ("libc", "loader"))
    if found := re.search(
        r"glibc (\d+\.\d+)|GNU C Library.*?(\d+\.\d+)|release version (\d+\.\d+)", said
    ):
        return Libc(family="glibc", version=next(part for part in found.groups() if part))
    if "musl" in said and (found := re.search(r"Version (\d+\.\d+)", said)):
        return Libc(family="musl", version=found[1])
    return None


def _parse_environment(data: bytes) -> dict[str, str]:
    pairs = (line.partition("=") for line in data.decode("utf-8", "replace").split("\0"))
    kept = {name: value for name, _, value in pairs if name and not _NOT_THE_BASES.fullmatch(name)}
    if "LD_LIBRARY_PATH" in kept:
        parts = [
            p for p in kept["LD_LIBRARY_PATH"].split(":") if p not in ("", _LIBRARIES_OF_RUNTIME)
        ]
        kept["LD_LIBRARY_PATH"] = ":".join(parts)
    if kept.get("LANG") == "C":
        del kept["LANG"]  # what --cleanenv leaves where a base sets none
    return {name: value for name, value in sorted(kept.items()) if value}
