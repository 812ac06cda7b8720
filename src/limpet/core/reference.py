"""Base references as users write them: `docker://python:3.13-slim`, `./base.sif`."""

from __future__ import annotations

import difflib
import re
from typing import Literal

import msgspec

from limpet.core.errors import BaseError

Scheme = Literal["docker", "oras", "library", "oci", "oci-archive", "debian", "host", "path"]

_WRITTEN = {
    "docker": "docker://",
    "oras": "oras://",
    "library": "library://",
    "oci": "oci:",
    "oci-archive": "oci-archive:",
    "debian": "debian:",
    "host": "host:",
}
_DOCKER_HUB = "docker.io"
_NAME = re.compile(
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_SUITE = re.compile(r"[a-z][a-z0-9-]*")


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """A base reference taken apart.

    `host` and `name` are those of a registry, `tag` and `digest` as written (`latest` where neither
    is). `name` is the suite for `debian`, the whole rest for `library`. `path` is on the disk.
    """

    text: str
    scheme: Scheme
    host: str = ""
    name: str = ""
    tag: str = ""
    digest: str = ""
    path: str = ""

    @property
    def version(self) -> str:
        """What a registry is asked for: the digest where there is one."""
        return self.digest or self.tag


def parse_reference(text: str) -> Reference:
    """The parts of a reference; BaseError for what is none."""
    text = text.strip()
    if "\n" in text or "\0" in text or not text:
        raise _unreadable(text, "It is empty or holds a line break.")
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)(://|:)(.*)", text)
    scheme = found[1].lower() if found else ""
    if found and _WRITTEN.get(scheme) == f"{scheme}{found[2]}":
        return _parse_known(text, scheme, found[3])
    if _looks_like_path(text):
        return Reference(text=text, scheme="path", path=text.removeprefix("file://"))
    raise _unknown(text, scheme, sure=bool(found and found[2] == "://"))


def _parse_known(text: str, scheme: str, rest: str) -> Reference:
    match scheme:
        case "docker" | "oras":
            return _parse_registry(text, scheme, rest)
        case "oci" | "oci-archive":
            return _parse_layout(text, scheme, rest)
        case "debian":
            if not _SUITE.fullmatch(rest):
                raise _unreadable(text, "A suite is a word such as trixie or stable.")
            return Reference(text=text, scheme="debian", name=rest)
        case "host":
            if not rest:
                raise _unreadable(text, "The path of a Python follows host:.")
            return Reference(text=text, scheme="host", path=rest)
        case _:
            if not rest.strip("/"):
                raise _unreadable(text, "Nothing follows the scheme.")
            return Reference(text=text, scheme="library", name=rest)


def _parse_registry(text: str, scheme: Literal["docker", "oras"], rest: str) -> Reference:
    rest, _, digest = rest.partition("@")
    if digest and not _DIGEST.fullmatch(digest):
        raise _unreadable(text, "The digest is not sha256: and 64 hexadecimal digits.")
    host, slash, name = rest.partition("/")
    if not slash or not (set(host) & set(".:[") or host == "localhost"):
        host, name = _DOCKER_HUB, rest
    name, _, tag = name.partition(":")
    if host in (_DOCKER_HUB, "index.docker.io", "registry-1.docker.io"):
        host = _DOCKER_HUB
        name = name if "/" in name else f"library/{name}"
    if not _NAME.fullmatch(name):
        raise _unreadable(text, f"{name!r} is no repository name (lower-case letters and digits).")
    if tag and not _TAG.fullmatch(tag):
        raise _unreadable(text, f"{tag!r} is no tag.")
    tag = tag or ("" if digest else "latest")
    return Reference(text=text, scheme=scheme, host=host, name=name, tag=tag, digest=digest)


def _parse_layout(text: str, scheme: Literal["oci", "oci-archive"], rest: str) -> Reference:
    """`FOLDER[:tag]`; a colon belongs to the path where a slash follows it."""
    path, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        path, tag = rest, ""
    if not path:
        raise _unreadable(text, "No path follows the scheme.")
    return Reference(text=text, scheme=scheme, path=path, tag=tag)


def _looks_like_path(text: str) -> bool:
    return (
        text.startswith(("/", "./", "../", "~", "file://"))
        or text in (".", "..")
        or text.endswith((".sif", ".simg", ".img", ".sqfs"))
        or ("/" in text and ":" not in text)
    )


def _unreadable(text: str, why: str) -> BaseError:
    return BaseError(
        f"The base {text!r} cannot be read.",
        why=why,
        now="For example: docker://python:3.13-slim, ./base.sif, oci:FOLDER, debian:trixie.",
    )


def _unknown(text: str, scheme: str, *, sure: bool) -> BaseError:
    """The error with the nearest scheme; `python:3.13`, say, may well be no scheme at all."""
    near = difflib.get_close_matches(scheme, _WRITTEN, n=1, cutoff=0.5 if sure else 0.75)
    if near:
        rest = text[len(scheme) :].removeprefix(":").removeprefix("//")
        now = f"Did you mean {_WRITTEN[near[0]]}{rest}?"
    else:
        now = "" if sure else f"Did you mean docker://{text}, or the path ./{text}?"
    why = f"It starts with none of {', '.join(_WRITTEN.values())}, and is no path."
    return BaseError(f"The base {text!r} is of no kind that limpet knows.", why=why, now=now)
