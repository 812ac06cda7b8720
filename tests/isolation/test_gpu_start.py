"""GPUs at a start: what is planned where a driver does not fit, and a real start without a card."""

from __future__ import annotations

from pathlib import Path

import pytest

from limpet.actions.launch import plan_start
from limpet.core.gpu import Driver
from limpet.core.seen import Request
from limpet.tools import gpu
from limpet.tools.images import read_image
from tests.launch.conftest import Person

pytestmark = pytest.mark.real


@pytest.mark.parametrize("own", [True, False])
def test_a_driver_that_needs_a_newer_libc_is_told_before_the_start(
    own: bool,
    own_image: Path,
    base_image: Path,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = own_image if own else base_image
    driver = Driver(version="550.1", glibc="2.99", glibc_of="libcuda.so.1")
    monkeypatch.setenv("LIMPET_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(gpu, "probe_gpus", lambda: ("nvidia",))
    monkeypatch.setattr(gpu, "probe_driver", lambda *_, **__: driver)
    monkeypatch.chdir(home)
    launch = plan_start(str(image), Request(command=("true",)))
    assert "--nv" in launch.argv
    (note,) = (note for note in launch.notes if "glibc" in note)
    assert "libcuda.so.1 needs glibc 2.99, and the image has 2.41" in note
    quiet = plan_start(str(image), Request(command=("true",), gpu="none"))
    assert "--nv" not in quiet.argv and quiet.notes == ()


def test_an_image_says_which_libc_it_has(own_image: Path) -> None:
    facts = read_image(str(own_image)).facts
    assert facts and facts.libc and facts.libc.version == "2.41"


@pytest.mark.parametrize(("maker", "flag"), [("nvidia", "--nv"), ("amd", "--rocm")])
def test_a_forced_gpu_that_is_not_there(
    person: Person, foreign_sif: Path, maker: str, flag: str
) -> None:
    if gpu.probe_gpus():
        pytest.skip("this machine has a GPU")
    planned = person.limpet("run", "--dry-run", "--gpu", maker, foreign_sif, "true")
    assert f" {flag} " in planned.stdout
    done = person.limpet("run", "--gpu", maker, foreign_sif, "cat", "/etc/the-image")
    assert (done.returncode, done.stdout) == (0, "yes\n")
    assert f"--gpu {maker}: this machine shows no such device" in done.stderr
