"""Bases of all kinds for real: a registry, Apptainer, mmdebstrap, as a plain user."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec
import pytest

from limpet.actions.base_making import check_packages
from limpet.actions.bases import (
    choose_interpreter,
    derive_base,
    fetch_base,
    probe_base,
    resolve_base,
)
from limpet.core.errors import (
    BaseError,
    BuildError,
    FetchError,
    HostError,
    ImageError,
    LimpetError,
    LockError,
)
from limpet.core.facts import BaseFacts
from limpet.core.lock import LockedBase
from limpet.formats.sif import read_sif, root_partition
from limpet.formats.squashfs import Squashfs
from limpet.tools.apptainer import Runtime, run_inside
from limpet.tools.debian import parse_status
from tests import images

pytestmark = pytest.mark.real
ARCH = os.uname().machine


def learn(reference: str, cache: Path, runtime: Runtime) -> tuple[Path, BaseFacts]:
    base = resolve_base(reference, cache=cache, arch=ARCH)
    sif = fetch_base(base, cache=cache)
    return sif, probe_base(base, sif, cache=cache, runtime=runtime)


def execute(runtime: Runtime, sif: Path, *command: str) -> str:
    done = run_inside(runtime, sif, command)
    assert done.code == 0, done.stderr
    return done.text


def test_debian_python_is_externally_managed(address: str, cache: Path, runtime: Runtime) -> None:
    sif, facts = learn(f"docker://{address}/shapes/debian", cache, runtime)
    python = choose_interpreter(facts, ">=3.11")
    assert (python.path, python.prefix, python.externally_managed) == (
        "/usr/bin/python3",
        "/usr",
        True,
    )
    assert facts.os_id == "debian"
    assert facts.libc is not None and facts.libc.family == "glibc"
    assert facts.variables["VENDOR_HOME"] == "/opt/a b"
    assert "apt-get" in facts.programs and "gcc" not in facts.programs
    assert python.markers["sys_platform"] == "linux"
    said = execute(runtime, sif, "python3", "-c", "import os; print(os.environ['VENDOR_HOME'])")
    assert said == "/opt/a b\n"


def test_python_in_usr_local(address: str, cache: Path, runtime: Runtime) -> None:
    sif, facts = learn(f"docker://{address}/shapes/slim", cache, runtime)
    python = choose_interpreter(facts, "")
    assert (python.path, python.prefix) == ("/usr/local/bin/python3", "/usr/local")
    assert not python.externally_managed
    done = subprocess.run(
        [runtime.path, "--silent", "run", "--contain", "--no-home", sif],
        input="import sys; print(sys.prefix)", capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "/usr/local\n"


def test_a_base_without_python(address: str, cache: Path, runtime: Runtime) -> None:
    _, facts = learn(f"docker://{address}/shapes/plain", cache, runtime)
    assert facts.interpreters == ()
    with pytest.raises(BaseError, match="has no Python"):
        choose_interpreter(facts, "3.13")


def test_a_vendor_image_tells_what_it_has(address: str, cache: Path, runtime: Runtime) -> None:
    _, facts = learn(f"docker://{address}/shapes/vendor", cache, runtime)
    found = {d.name: d for d in choose_interpreter(facts, "").distributions}
    assert found["torch"].version == "2.3.0a0+vendor"
    assert found["torch"].requires == ("typing-extensions>=4.8",)
    assert found["torch"].location == "/usr/lib/python3/dist-packages"


def test_a_tag_is_resolved_to_the_digest_of_the_architecture(
    address: str, layouts: Path, cache: Path
) -> None:
    reference = f"docker://{address}/shapes/debian"
    base = resolve_base(reference, cache=cache, arch=ARCH)
    index = json.loads((layouts / "debian" / "index.json").read_text())["manifests"][0]["digest"]
    assert base.digest != index
    pinned = resolve_base(f"{reference}@{base.digest}", cache=cache, arch=ARCH)
    assert pinned.digest == base.digest
    with pytest.raises(BaseError, match="not there for"):
        resolve_base(reference, cache=cache, arch="aarch64" if ARCH == "x86_64" else "x86_64")


def test_offline_knows_what_was_resolved_and_fetched(
    address: str, cache: Path, tmp_path: Path
) -> None:
    reference = f"docker://{address}/shapes/plain"
    base = resolve_base(reference, cache=cache, arch=ARCH)
    made = fetch_base(base, cache=cache)
    assert resolve_base(reference, cache=cache, arch=ARCH, offline=True) == base
    assert fetch_base(base, cache=cache, offline=True) == made
    with pytest.raises(FetchError):
        resolve_base(reference, cache=tmp_path, arch=ARCH, offline=True)
    with pytest.raises(FetchError):
        fetch_base(base, cache=tmp_path, offline=True)


def test_the_same_bytes_from_registry_folder_and_archive(
    address: str, layouts: Path, cache: Path, tmp_path: Path
) -> None:
    reference = f"docker://{address}/shapes/plain"
    first = fetch_base(resolve_base(reference, cache=cache, arch=ARCH), cache=cache)
    archive = tmp_path / "plain.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(layouts / "plain", ".")
    for other in (f"oci:{layouts}/plain:latest", f"oci-archive:{archive}"):
        base = resolve_base(other, cache=tmp_path, arch=ARCH)
        second = fetch_base(base, cache=tmp_path)
        assert second.name == first.name
        assert second.read_bytes() == first.read_bytes()
        second.unlink()


def test_layers_as_a_container_sees_them(
    tmp_path: Path, cache: Path, debian_tar: Path, runtime: Runtime
) -> None:
    odd = images.make_layer(
        {"opt/": None, "opt/x": "1", "opt/.wh.gone": "", "usr/bin/.wh.perl": ""}
    )
    lower = images.make_layer({"opt/": None, "opt/gone": "1", "opt/suid": "2"}, mode=0o4711)
    images.make_oci_layout(tmp_path / "o", [debian_tar, lower, odd], ["A=$(id)", "B=\"x'"])
    base = resolve_base("oci:o", cache=cache, arch=ARCH, folder=tmp_path)
    sif = fetch_base(base, cache=cache, folder=tmp_path)
    with sif.open("rb") as file:
        image = Squashfs(file, root_partition(read_sif(file)).offset)
        assert image.find("opt/gone") is None and image.find("usr/bin/perl") is None
        suid = image.find("opt/suid")
        assert suid is not None and suid.mode & 0o7777 == 0o4711
        tmp = image.find("tmp")
        assert tmp is not None and tmp.mode & 0o7777 == 0o1777
    said = execute(runtime, sif, "sh", "-c", 'echo "$A|$B"; ls /opt')
    assert said == "$(id)|\"x'\nsuid\nx\n"
    outside = {"A": "from outside", "NEW": "$(id)"}
    done = run_inside(runtime, sif, ["sh", "-c", 'echo "$A|$NEW"'], variables=outside)
    assert done.text == "from outside|$(id)\n"


def test_a_registry_that_wants_a_login(
    layouts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = subprocess.run(
        ["htpasswd", "-nbB", "limpet", "geheim"], capture_output=True, text=True, check=True
    ).stdout.strip()
    monkeypatch.setenv("HOME", str(tmp_path))
    with images.start_registry(tmp_path / "registry", htpasswd=line) as address:
        reference = images.push_image(layouts / "plain", address, "p", login="limpet:geheim")
        with pytest.raises(FetchError, match="refuses access") as caught:
            resolve_base(reference, cache=tmp_path, arch=ARCH)
        assert "registry login" in caught.value.now
        auth = base64.b64encode(b"limpet:geheim").decode()
        config = tmp_path / ".apptainer" / "docker-config.json"
        config.parent.mkdir()
        config.write_text(json.dumps({"auths": {address: {"auth": auth}}}))
        base = resolve_base(reference, cache=tmp_path, arch=ARCH)
        assert fetch_base(base, cache=tmp_path).exists()


def test_a_local_sif_is_used_in_place(
    address: str, cache: Path, tmp_path: Path, runtime: Runtime
) -> None:
    reference = f"docker://{address}/shapes/slim"
    made = fetch_base(resolve_base(reference, cache=cache, arch=ARCH), cache=cache)
    own = tmp_path / "my base.sif"
    shutil.copy(made, own)
    base = resolve_base("./my base.sif", cache=cache, arch=ARCH, folder=tmp_path)
    assert fetch_base(base, cache=cache, folder=tmp_path) == own
    assert probe_base(base, own, cache=cache, runtime=runtime).interpreters
    with pytest.raises(BaseError, match=f"is for {ARCH}, and other is needed"):
        resolve_base(str(own), cache=cache, arch="other")
    with own.open("ab") as file:
        file.write(b"x")
    with pytest.raises(LockError, match="no longer"):
        fetch_base(base, cache=cache, folder=tmp_path)
    os.truncate(own, 1_000_000)
    with pytest.raises(ImageError, match="damaged"):
        resolve_base(str(own), cache=cache, arch=ARCH)
    own.write_bytes(b"no image at all")
    with pytest.raises(ImageError, match="no SIF"):
        resolve_base(str(own), cache=cache, arch=ARCH)
    with pytest.raises(BaseError, match="does not exist"):
        resolve_base(str(tmp_path / "none.sif"), cache=cache, arch=ARCH)


def test_a_sandbox(debian_tar: Path, cache: Path, tmp_path: Path, runtime: Runtime) -> None:
    sandbox = tmp_path / "sand box"
    with tarfile.open(debian_tar) as tar:
        members = [m for m in tar if not m.isdev() and m.name.startswith(("./usr", "./bin", "./lib",
                   "./etc", "./sbin")) and not m.name.startswith("./usr/share")]  # fmt: skip
        for member in members:
            member.mode |= stat.S_IRUSR | (stat.S_IRWXU if member.isdir() else 0)
        tar.extraction_filter = lambda member, _: member
        tar.extractall(sandbox, members, numeric_owner=True)
    sif, facts = learn(str(sandbox), cache, runtime)
    assert facts.interpreters
    done = run_inside(runtime, sif, ["sh", "-c", 'echo "$NEW"'], variables={"NEW": "1"})
    assert done.text == "1\n"
    assert execute(runtime, sif, "python3", "-c", "print(1)") == "1\n"
    (sandbox / "usr" / "secret").write_text("x")
    (sandbox / "usr" / "secret").chmod(0)
    if os.geteuid() != 0:
        with pytest.raises(BaseError, match="secret"):
            resolve_base(str(sandbox), cache=cache, arch=ARCH)


@pytest.mark.parametrize(
    ("reference", "kind"),
    [
        ("docker://{address}/shapes/none", BaseError),
        ("docker://{address}/shapes/slim:none", BaseError),
        ("docker://127.0.0.1:9/x", FetchError),
        ("oci:/nowhere", BaseError),
    ],
)
def test_bases_that_do_not_exist(
    reference: str, kind: type[LimpetError], address: str, cache: Path
) -> None:
    with pytest.raises(kind):
        resolve_base(reference.format(address=address), cache=cache, arch=ARCH)


def test_a_base_without_a_shell(tmp_path: Path, cache: Path, runtime: Runtime) -> None:
    images.make_oci_layout(tmp_path / "o", [images.make_layer({"program": "x"})])
    base = resolve_base(f"oci:{tmp_path}/o", cache=cache, arch=ARCH)
    with pytest.raises(BaseError, match="no /bin/sh"):
        probe_base(base, fetch_base(base, cache=cache), cache=cache, runtime=runtime)


def test_apt_and_post_make_a_derived_base(
    address: str, cache: Path, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = f"docker://{address}/shapes/plain"
    base = resolve_base(reference, cache=cache, arch=ARCH)
    sif = fetch_base(base, cache=cache)
    facts = probe_base(base, sif, cache=cache, runtime=runtime)
    monkeypatch.setenv("no_proxy", "secret.example")
    made, derived, pins = derive_base(
        base, facts, sif, apt=("make",), post="echo \"it's $no_proxy\" | tr e 3 > /opt/note",
        cache=cache, runtime=runtime,
    )  # fmt: skip
    assert [pin.partition("=")[0] for pin in pins] == ["make"]
    assert "make" in derived.programs and derived.digest != base.digest
    assert execute(runtime, made, "cat", "/opt/note") == "it's s3cr3t.3xampl3\n"
    assert "no_proxy" not in derived.variables
    monkeypatch.delenv("no_proxy")
    look = "env; grep -rsE 'secret.example|ca.pem' / --exclude-dir=proc --exclude-dir=sys || true"
    said = execute(runtime, made, "sh", "-c", look)
    assert "secret.example" not in said and "ca.pem" not in said
    assert execute(runtime, made, "ls", "-A", "/mnt") == ""
    before = made.stat().st_mtime_ns
    derive_base(
        base, facts, sif, apt=("make",), post="echo \"it's $no_proxy\" | tr e 3 > /opt/note",
        cache=cache, runtime=runtime,
    )  # fmt: skip
    assert made.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("apt", "post", "words"),
    [
        (("no-such-package-limpet",), "", "does not know a package"),
        ((), "echo told you; exit 7", "exit code 7"),
    ],
)
def test_a_derived_base_that_fails_says_why(
    apt: tuple[str, ...], post: str, words: str, address: str, cache: Path, runtime: Runtime
) -> None:
    base = resolve_base(f"docker://{address}/shapes/debian", cache=cache, arch=ARCH)
    sif = fetch_base(base, cache=cache)
    facts = probe_base(base, sif, cache=cache, runtime=runtime)
    before = sorted(path.name for path in sif.parent.iterdir())
    with pytest.raises(BuildError, match=words) as caught:
        derive_base(base, facts, sif, apt=apt, post=post, cache=cache, runtime=runtime)
    assert "no-such-package" in caught.value.why or "told you" in caught.value.why
    after = sorted(path.name for path in sif.parent.iterdir() if path.suffix != ".lock")
    assert set(after) <= set(before)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LockedBase, Path]:
    """debian:trixie made now: its cache, lock entry and SIF."""
    folder = tmp_path_factory.mktemp("fresh")
    base = resolve_base("debian:trixie", cache=folder, arch=ARCH)
    return folder, base, fetch_base(base, cache=folder)


def test_debian_from_its_packages(fresh: tuple[Path, LockedBase, Path], runtime: Runtime) -> None:
    folder, base, made = fresh
    assert any(package.startswith("python3=") for package in base.packages)
    facts = probe_base(base, made, cache=folder, runtime=runtime)
    assert choose_interpreter(facts, "3.13").externally_managed
    assert made.stat().st_size < 60_000_000
    # Byte code of Debian's fits its source: nothing is compiled again.
    said = run_inside(runtime, made, ["python3", "-v", "-c", "import json"]).stderr
    assert "bytecode is stale" not in said and "matches" in said
    with pytest.raises(LockError, match="moved on") as caught:
        older = msgspec.structs.replace(base, packages=("python3=3.0", *base.packages[1:]))
        check_packages(older, "\n\n".join(_paragraph(p) for p in base.packages).encode())
    assert base.packages[0] in caught.value.why


def _paragraph(package: str) -> str:
    name, _, version = package.partition("=")
    return f"Package: {name}\nStatus: install ok installed\nVersion: {version}"


def test_two_makings_of_debian_are_the_same_bytes(
    fresh: tuple[Path, LockedBase, Path],
    debian_tar: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Against the tar that was kept, as long as the mirror still has what it is made of."""
    _, base, made = fresh
    with tarfile.open(debian_tar) as tar:
        status = tar.extractfile("./var/lib/dpkg/status")
        assert status is not None
        if parse_status(status.read().decode()) != base.packages:
            pytest.skip("the mirror has moved on since the tar was kept")

    @contextmanager
    def open_kept(*_: object) -> Iterator[BinaryIO]:
        with debian_tar.open("rb") as file:
            yield file

    monkeypatch.setattr("limpet.tools.debian.open_tar", open_kept)
    kept = fetch_base(base, cache=tmp_path)
    assert made.read_bytes() == kept.read_bytes()


def test_a_suite_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(BaseError, match="no debian:nosuchsuite"):
        resolve_base("debian:nosuchsuite", cache=tmp_path, arch=ARCH)


def test_no_derived_base_below_a_comma(
    address: str, cache: Path, tmp_path: Path, runtime: Runtime
) -> None:
    base = resolve_base(f"docker://{address}/shapes/plain", cache=cache, arch=ARCH)
    sif = fetch_base(base, cache=cache)
    facts = probe_base(base, sif, cache=cache, runtime=runtime)
    with pytest.raises(HostError, match="cannot work below"):
        derive_base(
            base, facts, sif, apt=(), post="true", cache=tmp_path / "a,b", runtime=runtime
        )  # fmt: skip
    none = msgspec.structs.replace(facts, programs=())
    with pytest.raises(BaseError, match="no apt-get"):
        derive_base(base, none, sif, apt=("x",), post="", cache=cache, runtime=runtime)
