"""What is run, what is kept of it, and when a launch reads ahead: all of it values."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from limpet.actions.profile import SCRIPT
from limpet.core.file_systems import may_be_shared
from limpet.core.image import Ahead
from limpet.core.lock import Artifact, Lock, LockedBase, LockedPackage
from limpet.core.prefetch import AheadSeen, plan_prefetch
from limpet.core.profile import (
    BLOCK_BYTES,
    STARTING,
    Order,
    clean_order,
    find_roots,
    parse_modules,
    parse_notes,
    parse_order,
    plan_profile,
    profile_key,
    render_order,
)
from limpet.core.recipe import Warm
from limpet.tools import page_cache


def package(name: str, *needs: str, version: str = "1.0") -> LockedPackage:
    wheel = Artifact(kind="wheel", filename=f"{name}.whl", url=f"https://x/{name}", sha256="0" * 64)
    return LockedPackage(name=name, version=version, artifact=wheel, dependencies=needs)


LOCK = Lock(
    base=LockedBase(reference="debian:trixie", digest="sha256:1", arch="x86_64"),
    python="3.13.5",
    interpreter="/usr/bin/python3",
    packages=(package("astropy", "numpy", "pyyaml"), package("numpy"), package("pyyaml")),
)


def test_what_is_run() -> None:
    assert plan_profile(Warm(entry="a"), "b c", LOCK).commands == (("/bin/sh", "-c", "b c"),)
    assert plan_profile(Warm(entry="a", imports=("x",)), "", LOCK).commands[0][-1] == "a"
    (imports,) = plan_profile(Warm(imports=("x", "y.z")), "", LOCK).commands
    assert imports[0] == "/opt/env/bin/python" and "('x', 'y.z')" in imports[-1]
    own = plan_profile(Warm(), "", LOCK)
    assert own.roots == ("astropy",) == find_roots(LOCK)
    assert not own.asked and not own.commands


def test_the_modules_of_a_distribution() -> None:
    record = (
        'pkg/__init__.py,sha256=x,1\npkg/sub/__init__.py,,\n"odd,name/__init__.py",,\n'
        "single.py,,\nnative.cpython-313-x86_64-linux-gnu.so,,\n_private.py,,\n"
        "tests/__init__.py,,\npkg-1.0.dist-info/METADATA,,\n../../../bin/pkg,,\n"
    )
    assert parse_modules(record) == ("native", "pkg", "single")


def test_an_order_is_kept_for_what_it_was_made_for() -> None:
    newer = msgspec.structs.replace(
        LOCK, packages=(*LOCK.packages[1:], package("astropy", "numpy"))
    )
    other = msgspec.structs.replace(LOCK, packages=(package("scipy"),))
    own, asked = plan_profile(Warm(), "", LOCK), plan_profile(Warm(), "true", LOCK)
    # Newer versions of the same packages need no new run, unless the user named what to run.
    assert profile_key(own, LOCK) == profile_key(plan_profile(Warm(), "", LOCK), LOCK)
    assert profile_key(asked, LOCK) != profile_key(asked, newer)
    assert profile_key(plan_profile(Warm(), "", other), other) != profile_key(own, LOCK)

    order = clean_order(["/usr/bin/python3", "/proc/self/maps", "/tmp/x", "/b", "/usr/bin/python3"])
    assert order == (*STARTING, "/usr/bin/python3", "/b")
    assert clean_order(["/proc/self/maps", "relative"]) == ()
    block = BLOCK_BYTES
    read = {
        "/b": ((0, 3 * block), (7 * block, block)),
        "/c d": ((3 * block, block),),
        "/\r\x85": (),
    }
    kept = Order(files=(*order, "/c d", "/\r\x85", "/whole"), read=read)
    text = render_order("key", kept)
    assert "\n0-2,7 /b\n3 /c d\n- /\r\x85\n/whole\n" in text
    assert parse_order(text, "key") == kept
    bent = parse_order(text + "9-3 /x\n1-99999999999999999999 /y\n٣ /z\n", "key")
    assert bent and bent.files[-1] == "/x" and bent.read["/x"] == ()
    assert parse_order(text, "other") is None
    assert parse_order("", "key") is None and parse_order("junk\n\0\n", "key") is None


def test_what_several_processes_read_counts_together() -> None:
    notes = ("/a b", "/lib", "/proc/x", "1-2 /lib", "0,2 /lib", "7 /proc/x", "4 /never opened", "")
    order = parse_notes(notes)
    assert order.files == (*STARTING, "/a b", "/lib")
    assert order.read == {"/lib": ((0, 3 * BLOCK_BYTES),)}
    assert parse_notes(["0 /lib"]) == Order()
    assert parse_notes(["/lib", "- /lib"]).read == {"/lib": ()}


SLOW, FAST = 5e-3, 5e-6
SEEN = AheadSeen(
    ahead=Ahead(ranges=((0, 1_000_000), (9_000_000, 50_000_000))),
    kind="lustre",
    shared=True,
    waits_s=(SLOW, SLOW, FAST, SLOW, SLOW),
    memory_bytes=8 << 30,
)


@pytest.mark.parametrize(
    ("change", "reads", "says"),
    [
        ({}, True, "51 MB: 4 of 5 pages on lustre were not at hand (median 5.0 ms)"),
        ({"waits_s": (FAST,) * 5}, False, "5 of 5 pages came at once"),
        ({"waits_s": (FAST, FAST, FAST, SLOW, SLOW)}, False, "3 of 5 pages"),
        ({"waits_s": ()}, False, "could not be read"),
        ({"shared": False, "kind": "ext4"}, False, "ext4 is local"),
        ({"ahead": Ahead()}, False, "no profile"),
        ({"rank": 3, "waits_s": ()}, False, "the first rank on this node does"),
        ({"memory_bytes": 100_000_000}, False, "too much for the memory"),
        ({"ahead": Ahead(ranges=((0, 2 << 30),))}, False, "too much for the memory"),
    ],
)
def test_reads_ahead_only_where_it_pays(change: dict[str, object], reads: bool, says: str) -> None:
    planned = plan_prefetch(msgspec.structs.replace(SEEN, **change))
    assert bool(planned.ranges) is reads
    assert says in planned.reason
    assert planned.reason.startswith("no: ") is not reads


def test_where_a_server_may_have_to_be_asked() -> None:
    kinds = ("nfs4", "lustre", "gpfs", "fuse.glusterfs", "beegfs_nodev", "fuse")
    assert all(may_be_shared(kind) for kind in kinds)
    assert not any(may_be_shared(k) for k in ("ext4", "xfs", "tmpfs", "overlay", ""))


def test_a_local_image_is_not_even_looked_at(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"x" * 10_000)
    seen = page_cache.look_ahead(image, Ahead(ranges=((0, 10_000),)))
    assert not seen.waits_s or seen.shared
    assert page_cache.free_memory_bytes(tmp_path / "none") == 0
    assert page_cache.free_memory_bytes() > 0


@pytest.mark.parametrize(("program", "code"), [("exit 3", 3), ("kill -9 $$", 137), ("true", 0)])
def test_a_profiled_program_ends_as_it_does(tmp_path: Path, program: str, code: int) -> None:
    """Whatever becomes of the notes: here none can be read."""
    words = [sys.executable, "-I", "-S", str(SCRIPT), "5", "/bin/sh", "-c", program]
    done = subprocess.run(
        words, env={"LIMPET_OPENED": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (code, "")
