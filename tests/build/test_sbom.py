"""The bill of materials: complete, deterministic, valid JSON of the named standard."""

import json

from limpet.core.lock import Artifact, Lock, LockedBase, LockedPackage
from limpet.core.sbom import render_sbom

LOCK = Lock(
    base=LockedBase(
        reference="debian:trixie", digest="sha256:ab", arch="x86_64", packages=("libc6=2.41-12",)
    ),
    python="3.13.5",
    interpreter="/usr/bin/python3.13",
    packages=(
        LockedPackage(
            name="numpy",
            version="2.5.5",
            artifact=Artifact(kind="wheel", filename="n.whl", url="https://i/n.whl", sha256="cd"),
        ),
        LockedPackage(
            name="pyerfa",
            version="2.0+local",
            artifact=Artifact(kind="directory", filename="", path="p", sha256="ef"),
            dependencies=("numpy", "not-installed"),
        ),
    ),
    provided={"torch": "2.3.0a0+vendor"},
)


def test_everything_is_in_it() -> None:
    bill = json.loads(render_sbom(LOCK, name="astro", limpet_version="1"))
    purls = [component.get("purl") for component in bill["components"]]
    assert purls == [
        None,
        "pkg:pypi/numpy@2.5.5",
        "pkg:pypi/pyerfa@2.0%2Blocal",
        "pkg:pypi/torch@2.3.0a0%2Bvendor",
        "pkg:deb/libc6@2.41-12?arch=x86_64",
    ]
    assert bill["components"][0]["version"] == "sha256:ab"
    assert bill["components"][1]["hashes"] == [{"alg": "SHA-256", "content": "cd"}]
    assert bill["dependencies"][1]["dependsOn"] == ["pkg:pypi/numpy@2.5.5"]


def test_the_same_lock_gives_the_same_bytes() -> None:
    first = render_sbom(LOCK, name="astro", limpet_version="1")
    assert first == render_sbom(LOCK, name="astro", limpet_version="1")
    assert json.loads(first)["serialNumber"].startswith("urn:uuid:")
