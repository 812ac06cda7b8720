"""Conda packages for a target: solved, or looked up where they are fixed already."""

from __future__ import annotations

import contextlib
import datetime as dt
import difflib
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import msgspec

from limpet.core.conda import CondaPackage, find_token, hide_login
from limpet.core.conda_channels import Channel, Condarc, split_spec
from limpet.core.conda_errors import explain_channel, explain_unsolved
from limpet.core.errors import LimpetError, RecipeError
from limpet.core.secrets import find_passwords
from limpet.tools.conda_engine import run_engine
from limpet.tools.files import make_folder

if TYPE_CHECKING:
    from rattler import Gateway, GenericVirtualPackage, MatchSpec, RepoDataRecord

OTHER_SUBDIRS = ("linux-64", "linux-aarch64", "osx-64", "osx-arm64", "win-64")


class CondaRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be solved: match specs, from these channels, for this platform.

    `virtual` are the virtual packages of the target, name → version. `pinned` stay as they are,
    `locked` are preferred.
    """

    specs: tuple[str, ...]
    channels: tuple[Channel, ...]
    subdir: str
    virtual: dict[str, str]
    pinned: tuple[CondaPackage, ...] = ()
    locked: tuple[CondaPackage, ...] = ()
    exclude_newer: str = ""
    offline: bool = False


def solve_conda(request: CondaRequest, condarc: Condarc, cache: Path) -> tuple[CondaPackage, ...]:
    """The packages that fit; a LockError with the solver's explanation where none do."""
    specs = _with_names([parse_spec(text, request.channels) for text in request.specs])
    with _trusting(condarc):
        return run_engine(_solve(request, specs, condarc, cache))


def parse_spec(text: str, channels: Sequence[Channel] = ()) -> MatchSpec:
    """A match spec; a channel's name in it means what the recipe's channels mean by it."""
    from rattler import MatchSpec
    from rattler.exceptions import InvalidMatchSpecError

    channel, subdir, rest = split_spec(text)
    known = next((one.url for one in channels if channel and one.name == channel), "")
    place = f"{known}/{subdir}" if subdir else known
    try:
        return MatchSpec(f"{place}::{rest}" if known else text)
    except InvalidMatchSpecError as error:
        raise RecipeError(
            f"{text!r} is no conda package with a version.", why=str(error).partition("\n")[0]
        ) from error


def _with_names(specs: list[MatchSpec]) -> list[MatchSpec]:
    """The specs, and the bare name of each that names no channel.

    The engine loads of a channel only what fits a spec, so that with versions alone a later channel
    would step in where the first one has the package, but not in that version.
    """
    placed = {_name(spec) for spec in specs if spec.channel or '[url="' in str(spec)}
    return [*specs, *(parse_spec(name) for name in sorted({*map(_name, specs)} - placed))]


def _name(spec: MatchSpec) -> str:
    return spec.name.normalized


async def _solve(
    request: CondaRequest, specs: list[MatchSpec], condarc: Condarc, cache: Path
) -> tuple[CondaPackage, ...]:
    from rattler import ChannelPriority, solve
    from rattler.exceptions import GatewayError, InvalidChannelError, SolverError

    gateway = _open_gateway(condarc, cache, offline=request.offline)
    urls = [one.url for one in request.channels]
    platforms: Any = [request.subdir, "noarch"]
    secrets = _secrets(request.channels)
    priority = ChannelPriority.Strict if condarc.strict else ChannelPriority.Disabled
    try:
        locked = await _find_again(gateway, urls, platforms, request.locked)
        records = await solve(
            urls,
            specs,
            gateway=gateway,
            platforms=platforms,
            locked_packages=locked,
            pinned_packages=[make_record(one) for one in request.pinned],
            virtual_packages=_virtual(request.virtual),
            channel_priority=priority,
            exclude_newer=_moment(request.exclude_newer),
        )
    except SolverError as error:
        raise await _unsolved(str(error), request, gateway, secrets) from None
    except (GatewayError, InvalidChannelError) as error:
        raise explain_channel(str(error), secrets) from None
    fixed = {(one.name, one.filename): one for one in request.pinned}
    solved = (make_package(record, request.channels) for record in records)
    packages = [fixed.get((one.name, one.filename), one) for one in solved]
    return tuple(sorted(packages, key=lambda one: one.name))


async def _find_again(
    gateway: Gateway, urls: list[str], platforms: Any, locked: Sequence[CondaPackage]
) -> list[RepoDataRecord]:
    """The records of locked packages, as far as the channels still have these very files."""
    if not locked:
        return []
    wanted = {(one.filename, one.sha256) for one in locked}
    names = [one.name for one in locked]
    found = await gateway.query(urls, platforms, names, recursive=False)
    return [
        record
        for records in found
        for record in records
        if (record.file_name, (record.sha256 or b"").hex()) in wanted
    ]


async def _unsolved(
    text: str, request: CondaRequest, gateway: Gateway, secrets: Sequence[str]
) -> LimpetError:
    """The error, with what the channels have in place of the names that they do not have."""
    urls = [one.url for one in request.channels]
    missing = dict.fromkeys(re.findall(r"No candidates were found for ([\w.-]+)", text))
    elsewhere: dict[str, list[str]] = {}
    near: dict[str, list[str]] = {}
    there: dict[str, list[str]] = {}
    known = await _names(gateway, urls, (request.subdir, "noarch")) if missing else set()
    for name in missing:
        if name.startswith("__"):
            continue
        if name.lower() in known:
            there[name] = await _versions(gateway, urls, request.subdir, name)
            continue
        near[name] = difflib.get_close_matches(name.lower(), sorted(known), n=1)
        for subdir in OTHER_SUBDIRS:
            if subdir != request.subdir and name in await _names(gateway, urls, (subdir,)):
                elsewhere.setdefault(name, []).append(subdir)
    return explain_unsolved(
        text,
        request.subdir,
        virtual=request.virtual,
        elsewhere=elsewhere,
        near=near,
        there=there,
        secrets=secrets,
    )


async def _versions(gateway: Gateway, urls: list[str], subdir: str, name: str) -> list[str]:
    """The versions of a package that the first channel which has it has, the newest first."""
    from rattler.exceptions import GatewayError

    platforms: Any = [subdir, "noarch"]
    try:
        for url in urls:
            groups = await gateway.query([url], platforms, [name], recursive=False)
            if found := {record.version for group in groups for record in group}:
                return [str(version) for version in sorted(found, reverse=True)]
    except GatewayError:
        pass
    return []


async def _names(gateway: Gateway, urls: list[str], subdirs: Any) -> set[str]:
    from rattler.exceptions import GatewayError

    try:
        return {one.normalized for one in await gateway.names(urls, subdirs)}
    except GatewayError:
        return set()


def find_records(
    wanted: Sequence[tuple[Channel, str, str]], condarc: Condarc, cache: Path, *, offline: bool
) -> dict[str, CondaPackage]:
    """What channels know of these archives (channel, subdir, file name), by file name."""

    async def look() -> dict[str, CondaPackage]:
        from rattler.exceptions import GatewayError

        gateway = _open_gateway(condarc, cache, offline=offline)
        found: dict[str, CondaPackage] = {}
        for channel, subdir in dict.fromkeys((one[0], one[1]) for one in wanted):
            files = [file for one, where, file in wanted if (one, where) == (channel, subdir)]
            names: Any = [split_filename(file)[0] for file in files]
            platforms: Any = [subdir]
            try:
                groups = await gateway.query([channel.url], platforms, names, recursive=False)
            except GatewayError as error:
                raise explain_channel(str(error), _secrets([channel])) from None
            for record in (record for group in groups for record in group):
                if record.file_name in files:
                    found[record.file_name] = make_package(record, [channel])
        return found

    with _trusting(condarc):
        return run_engine(look())


def split_filename(filename: str) -> tuple[str, str, str]:
    """Name, version and build of `name-version-build.conda`; RecipeError for anything else."""
    stem = re.sub(r"(\.conda|\.tar\.bz2)$", "", filename)
    parts = stem.rsplit("-", 2)
    if stem == filename or len(parts) != 3:
        raise RecipeError(f"{filename!r} is no conda package's file name.")
    return parts[0], parts[1], parts[2]


def _open_gateway(condarc: Condarc, cache: Path, *, offline: bool) -> Gateway:
    from rattler import Client, Gateway, SourceConfig

    return Gateway(
        cache_dir=make_folder(cache / "conda" / "repodata"),
        client=Client.from_config(_engine_config(condarc)),
        default_config=SourceConfig(
            cache_action="force-cache-only" if offline else "cache-or-fetch"
        ),
    )


def _engine_config(condarc: Condarc) -> Any:
    """`.condarc`'s settings in the engine's own words."""
    from rattler import Config

    lines = ['tls-root-certs = "native"', f"tls-no-verify = {json.dumps(not condarc.verify)}"]
    if condarc.mirrors:
        lines += ["[mirrors]"]
        lines += [f"{json.dumps(url)} = {json.dumps(to)}" for url, to in condarc.mirrors.items()]
    proxies = {key: url for key, url in condarc.proxies.items() if key in ("http", "https")}
    if proxies:
        lines += ["[proxy-config]"]
        lines += [f"{key} = {json.dumps(url)}" for key, url in proxies.items()]
    return Config.from_toml("\n".join(lines))


@contextlib.contextmanager
def _trusting(condarc: Condarc) -> Iterator[None]:
    """The engine reads the host's certificate authorities from where this variable points."""
    before = os.environ.get("SSL_CERT_FILE")
    named = condarc.ca_file or os.environ.get("REQUESTS_CA_BUNDLE", "")
    if not named or (before and not condarc.ca_file):
        yield
        return
    os.environ["SSL_CERT_FILE"] = str(Path(named).expanduser())
    try:
        yield
    finally:
        if before is None:
            del os.environ["SSL_CERT_FILE"]
        else:
            os.environ["SSL_CERT_FILE"] = before


def _virtual(virtual: dict[str, str]) -> list[GenericVirtualPackage]:
    from rattler import BuildString, GenericVirtualPackage, PackageName, Version

    found = []
    for name, text in virtual.items():
        version, _, build = text.partition("=")
        found.append(
            GenericVirtualPackage(PackageName(name), Version(version), BuildString(build or "0"))
        )
    return found


def _moment(text: str) -> dt.datetime | None:
    if not text:
        return None
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise RecipeError(f"{text!r} is no date.", now="Write 2026-01-31.") from error
    moment = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    # A day alone means its end, as it does for uv.
    return moment + dt.timedelta(days=1) if len(text) == 10 else moment.astimezone(dt.UTC)


def _secrets(channels: Sequence[Channel]) -> list[str]:
    urls = [one.url for one in channels]
    return [*find_passwords(urls), *filter(None, map(find_token, urls))]


# Records ----------------------------------------------------------------


def make_package(record: RepoDataRecord, channels: Sequence[Channel]) -> CondaPackage:
    """An engine's record as limpet's own value, free of logins."""
    url = hide_login(record.url)
    channel = next(
        (one for one in channels if url.startswith(f"{hide_login(one.url).rstrip('/')}/")), None
    )
    local = unquote(urlsplit(url).path) if url.startswith("file:") else ""
    raw = json.loads(record.to_json())
    return CondaPackage(
        name=record.name.normalized,
        version=str(record.version),
        build=str(raw["build"]),
        build_number=record.build_number,
        subdir=record.subdir,
        channel=channel.shown if channel else hide_login(record.channel or "").rstrip("/"),
        filename=record.file_name,
        url="" if local else url,
        path=local,
        sha256=(record.sha256 or b"").hex(),
        md5=(record.md5 or b"").hex(),
        size_bytes=record.size,
        depends=tuple(record.depends),
        constrains=tuple(record.constrains),
        noarch=str(raw.get("noarch") or ""),
        license=record.license or "",
        python_site_packages_path=record.python_site_packages_path or "",
        purls=tuple(raw.get("purls") or ()),
    )


def make_record(package: CondaPackage) -> RepoDataRecord:
    """A locked package as the engine's record."""
    from rattler import BuildString, NoArchType, PackageRecord, RepoDataRecord

    noarch: Any = package.noarch or None
    subdir: Any = package.subdir
    record = PackageRecord(
        package.name,
        package.version,
        BuildString(package.build),
        package.build_number,
        subdir,
        noarch=NoArchType(noarch),
        depends=list(package.depends),
        constrains=list(package.constrains),
        sha256=bytes.fromhex(package.sha256) if package.sha256 else None,
        md5=bytes.fromhex(package.md5) if package.md5 else None,
        size=package.size_bytes,
        license=package.license or None,
        python_site_packages_path=package.python_site_packages_path or None,
    )
    url = package.url or Path(package.path).absolute().as_uri()
    return RepoDataRecord(record, package.filename, url, url.rpartition("/")[0].rpartition("/")[0])
