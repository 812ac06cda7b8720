"""The software bill of materials of an image, as CycloneDX 1.6 JSON.

Format: https://cyclonedx.org/docs/1.6/json/ ; package URLs: https://github.com/package-url/purl-spec
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from limpet.core.conda import CondaPackage, distribution_names
from limpet.core.conda_install import shown_channel, shown_url
from limpet.core.contents import Contents, Software
from limpet.core.dependencies import plan_graph
from limpet.core.lock import FoundPackage, Lock, LockedPackage
from limpet.core.markers import linux_markers
from limpet.core.package_files import Metadata

REQUESTED = "limpet:requested"  # a property of the image: one requirement as the recipe has it


def render_sbom(
    lock: Lock,
    *,
    name: str,
    limpet_version: str,
    metadata: Mapping[str, Metadata] | None = None,
    requested: Sequence[str] = (),
) -> str:
    """The bill for one lock: same lock, same text (no clock, and a serial number by content).

    `metadata` is what the wheels say of themselves, by name: licences, and who requires whom.
    `requested` are the requirements that the recipe names.
    """
    known = metadata or {}
    components = [_base(lock)]
    components += [_conda(package) for package in sorted(lock.conda, key=lambda p: p.name)]
    components += [_package(package, known.get(package.name)) for package in lock.packages]
    components += [_python("pypi", *pair, note="base") for pair in sorted(lock.provided.items())]
    components += [_found(one) for one in lock.found]
    components += [_system(pin, lock) for pin in (*lock.base.packages, *lock.apt)]
    bill: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "tools": {
                "components": [{"type": "application", "name": "limpet", "version": limpet_version}]
            },
            "component": {
                "type": "container",
                "name": name,
                "bom-ref": "image",
                "properties": [{"name": REQUESTED, "value": line} for line in requested],
            },
        },
        "components": components,
        "dependencies": _dependencies(lock, known, requested),
    }
    text = json.dumps(bill, sort_keys=True)
    bill["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_URL, text).urn
    return json.dumps(bill, indent=1, sort_keys=True) + "\n"


def _base(lock: Lock) -> dict[str, Any]:
    return {
        "type": "container",
        "bom-ref": "base",
        "name": lock.base.reference,
        "version": lock.base.digest,
    }


def _package(package: LockedPackage, metadata: Metadata | None) -> dict[str, Any]:
    artifact = package.artifact
    component = _python("pypi", package.name, package.version)
    if artifact.sha256:
        component["hashes"] = [{"alg": "SHA-256", "content": artifact.sha256}]
    if artifact.url:
        component["externalReferences"] = [{"type": "distribution", "url": artifact.url}]
    if metadata and metadata.license:
        component["licenses"] = [{"license": {"name": metadata.license}}]
    return component


def _conda(package: CondaPackage) -> dict[str, Any]:
    channel = shown_channel(package).rstrip("/").rpartition("/")[2]
    told = {"build": package.build, "channel": channel, "subdir": package.subdir}
    told["type"] = "conda" if package.filename.endswith(".conda") else "tar.bz2"
    qualifiers = "&".join(f"{k}={quote(v, safe='')}" for k, v in told.items() if v)
    purl = f"pkg:conda/{quote(package.name)}@{quote(package.version, safe='')}?{qualifiers}"
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl,
        "name": package.name,
        "version": package.version,
        "purl": purl,
        **({"hashes": [{"alg": "SHA-256", "content": package.sha256}]} if package.sha256 else {}),
        "externalReferences": [{"type": "distribution", "url": shown_url(package)}],
    }
    if package.license:
        component["licenses"] = [{"license": {"name": package.license}}]
    return component


def _python(kind: str, name: str, version: str, *, note: str = "") -> dict[str, Any]:
    purl = f"pkg:{kind}/{quote(name)}@{quote(version, safe='')}"
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
    }
    if note:
        component["group"] = note
    return component


def _found(package: FoundPackage) -> dict[str, Any]:
    """What lies there; with a hash and a place to get it from where its installer noted them."""
    component = _python(package.kind, package.name, package.version)
    if package.sha256:
        component["hashes"] = [{"alg": "SHA-256", "content": package.sha256}]
    if package.url:
        url = f"{package.url}@{package.commit}" if package.commit else package.url
        component["externalReferences"] = [{"type": "distribution", "url": url}]
    if package.place:
        component["bom-ref"] += f"#{quote(package.place)}"
        component["properties"] = [{"name": "limpet:place", "value": package.place}]
    return component


def _system(pin: str, lock: Lock) -> dict[str, Any]:
    name, _, version = pin.partition("=")
    purl = f"pkg:deb/{quote(name)}@{quote(version, safe='')}?arch={lock.base.arch}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _dependencies(
    lock: Lock, metadata: Mapping[str, Metadata], requested: Sequence[str]
) -> list[dict[str, Any]]:
    """Who requires whom, of what the lock installs; the image requires what was asked for."""
    graph = plan_graph(_contents(lock, metadata, requested))
    refs = {p.name: f"pkg:pypi/{quote(p.name)}@{quote(p.version, safe='')}" for p in lock.packages}
    refs |= {p.name: str(_conda(p)["bom-ref"]) for p in lock.conda if p.name not in refs}
    needs: dict[str, set[str]] = {name: set() for name in refs}
    for package in lock.packages:
        needs[package.name] |= {name for name in package.dependencies if name in refs}
    for edge in graph.edges:
        needs[edge.source].add(edge.target)
    roots = sorted(refs[name] for name in graph.asked)
    return [
        *([{"ref": "image", "dependsOn": roots}] if roots else []),
        *(
            {"ref": refs[name], "dependsOn": sorted(refs[other] for other in needs[name])}
            for name in sorted(refs)
        ),
    ]


def _contents(lock: Lock, metadata: Mapping[str, Metadata], requested: Sequence[str]) -> Contents:
    pip = [
        Software(
            name=package.name,
            manager="pip",
            requires=metadata[package.name].requires if package.name in metadata else (),
        )
        for package in lock.packages
    ]
    names = {one.name for one in pip}
    conda = [
        Software(
            name=package.name,
            manager="conda",
            requires=package.depends,
            provides=tuple(name for name in distribution_names(package) if name not in names),
        )
        for package in lock.conda
        if package.name not in names
    ]
    markers = linux_markers(lock.python, lock.base.arch)
    return Contents(software=(*pip, *conda), requested=tuple(requested), markers=markers)
