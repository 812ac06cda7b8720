"""What packages need of a driver, and what is said where a machine does not give it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from limpet.core.facts import Libc
from limpet.core.gpu import (
    Driver,
    GpuNeeds,
    find_compat,
    find_target_troubles,
    plan_gpu,
    plan_needs,
)

DEBIAN = Libc(family="glibc", version="2.41")


@pytest.mark.parametrize(
    ("packages", "cuda", "rocm"),
    [
        ({"numpy": "2.1.0"}, "", ""),
        ({"torch": "2.5.1", "nvidia-cuda-runtime-cu12": "12.4.127"}, "12.4", ""),
        ({"torch": "2.9.0", "nvidia-cuda-runtime": "13.0.48"}, "13.0", ""),
        ({"torch": "2.3.1+cu121"}, "12.1", ""),
        ({"pytorch": "2.4.1", "cuda-version": "12.4"}, "12.4", ""),
        ({"pytorch": "1.13.1", "cudatoolkit": "11.7.1"}, "11.7", ""),
        ({"torch": "2.0.1+cu118"}, "11.8", ""),
        ({"torch": "2.5.1+cpu"}, "", ""),
        ({"torch": "2.3.0a0+40ec155e58.nv24.3"}, "", ""),
        ({"torch": "2.5.1+rocm6.2"}, "", "6.2"),
        ({"jaxlib": "0.4.30+cuda12.cudnn91"}, "12", ""),
        ({"jax-cuda12-plugin": "0.4.35", "jax-cuda12-pjrt": "0.4.35"}, "12", ""),
        ({"jax-rocm60-plugin": "0.4.35"}, "", "6.0"),
        ({"jax-rocm7-plugin": "0.8.0"}, "", "7"),
        ({"cupy-cuda12x": "13.3.0"}, "12", ""),
        ({"cupy-cuda112": "10.6.0"}, "11.2", ""),
        ({"cupy-rocm-5-0": "13.3.0"}, "", "5.0"),
        ({"cudf-cu12": "24.10.1", "nvidia-cuda-runtime-cu12": "12.6.77"}, "12.6", ""),
        ({"cudf-cu13": "25.10.0", "nvidia-cuda-runtime-cu12": "12.6.77"}, "13", ""),
    ],
)
def test_what_packages_need(packages: dict[str, str], cuda: str, rocm: str) -> None:
    needs = plan_needs(packages, {})
    assert (needs.cuda, needs.rocm) == (cuda, rocm)
    assert needs.makers == (("nvidia",) if cuda else ("amd",) if rocm else ())


def test_a_base_says_it_by_its_variables() -> None:
    needs = plan_needs({"cupy-cuda11x": "13"}, {"CUDA_VERSION": "12.4.1.003"})
    assert (needs.cuda, needs.cuda_of) == ("12.4", "its CUDA_VERSION")


@pytest.mark.parametrize(
    ("version", "cuda"),
    [
        ("450.80.02", "11.0"),
        ("470.82.01", "11.4"),
        ("535.183.06", "12.2"),
        ("550.54.15", "12.4"),
        ("580.65.06", "13.0"),
        ("999.1", "13.1"),
        ("340.108", ""),
        ("", ""),
    ],
)
def test_which_cuda_a_driver_gives(version: str, cuda: str) -> None:
    assert Driver(version=version).cuda == cuda
    assert Driver(library_version=version).cuda == cuda


CUDA_12 = GpuNeeds(cuda="12.4", cuda_of="nvidia-cuda-runtime-cu12 12.4.127")
ROCM_6 = GpuNeeds(rocm="6.2", rocm_of="torch 2.5.1+rocm6.2")


def notes(
    driver: Driver, needs: GpuNeeds = CUDA_12, libc: Libc | None = DEBIAN, gpu: Any = "nvidia"
) -> str:
    chosen, said = plan_gpu("auto", (gpu,), driver, needs, libc)
    assert chosen == gpu and not [line for line in said if "\n" in line]
    return "\n".join(said)


def test_what_fits_is_not_talked_about() -> None:
    assert notes(Driver(version="550.54.15", library_version="550.54.15", glibc="2.17")) == ""
    # One driver serves all minor versions of a major one; a newer driver serves all older ones.
    assert notes(Driver(version="525.60.13")) == notes(Driver(version="580.65.06")) == ""
    assert notes(Driver(), libc=None) == notes(Driver(version="470.1"), GpuNeeds()) == ""
    assert notes(Driver(rocm="6.3.1"), ROCM_6, gpu="amd") == ""


def test_a_driver_that_is_too_old() -> None:
    said = notes(Driver(version="470.82.01"))
    assert "needs CUDA 12.4 (nvidia-cuda-runtime-cu12 12.4.127)" in said
    assert "470.82.01 gives at most 11.4, 525.60.13 is the oldest" in said


CUDA_13 = GpuNeeds(
    cuda="13.0", cuda_of="torch 2.9+cu130", compat="580.65.06", compat_at="/usr/local/cuda/compat"
)


def test_an_image_that_brings_libcuda_for_older_drivers() -> None:
    said = notes(Driver(version="535.104.05"), CUDA_13)
    assert "535.104.05 gives 12.2. On GPUs of data centres the image's own libcuda 580.65" in said
    assert "--env LD_LIBRARY_PATH=/usr/local/cuda/compat:/.singularity.d/libs" in said
    # A driver that is new enough needs none, and NVIDIA allows none that is older than the driver.
    assert notes(Driver(version="580.65.06"), CUDA_13) == ""
    assert notes(Driver(version="595.10"), CUDA_13) == ""
    # One that does not serve the version is no help.
    older = msgspec.structs.replace(CUDA_13, compat="550.54.15")
    assert "is the oldest that would do" in notes(Driver(version="535.104.05"), older)


@pytest.mark.parametrize(
    ("files", "version", "at"),
    [
        (["usr/local/cuda-13.0/compat/libcuda.so.580.65.06"], "580.65.06", "cuda-13.0/compat"),
        (["usr/local/cuda/compat/lib.real/libcuda.so.575.57.08"], "575.57.08", "compat/lib.real"),
        (["opt/env/cuda-compat/libcuda.so.550.54.15"], "550.54.15", "/opt/env/cuda-compat"),
        (["usr/local/cuda/compat/libcuda.so.1", "usr/local/cuda-12/lib64/libcudart.so"], "", ""),
        (
            [
                "usr/local/cuda-12.9/compat/libcuda.so.575.1",
                "usr/local/cuda/compat/libcuda.so.95.9",
            ],
            "575.1",
            "cuda-12.9/compat",
        ),
        (["usr/local/bin/python"], "", ""),
    ],
)
def test_where_images_have_it(files: list[str], version: str, at: str) -> None:
    def names(folder: str) -> list[str]:
        below = [name.removeprefix(f"{folder}/") for name in files if name.startswith(f"{folder}/")]
        return sorted({name.partition("/")[0] for name in below})

    found, folder = find_compat(names, "/opt/env")
    assert found == version
    assert folder.endswith(at) and folder.startswith("/") is bool(at)


def test_a_libc_that_is_too_old() -> None:
    driver = Driver(version="550.1", glibc="2.34", glibc_of="libcuda.so.1")
    assert notes(driver, libc=Libc(family="glibc", version="2.34")) == ""
    said = notes(driver, libc=Libc(family="glibc", version="2.9"))  # not as text: "2.9" > "2.34"
    assert "libcuda.so.1 needs glibc 2.34, and the image has 2.9" in said
    assert "musl" in notes(driver, libc=Libc(family="musl", version="1.2"))


def test_a_driver_in_the_middle_of_an_update() -> None:
    said = notes(Driver(version="550.54.14", library_version="555.42.02"))
    assert "kernel module is 550.54.14" in said and "restarted" in said


def test_amds_troubles() -> None:
    assert "group `render`" in notes(Driver(kfd=False), ROCM_6, gpu="amd")
    assert "no card in /dev/dri" in notes(Driver(cards=False), ROCM_6, gpu="amd")
    assert "this machine has 5.7.1" in notes(Driver(rocm="5.7.1"), ROCM_6, gpu="amd")


def test_an_image_for_another_makers_gpus() -> None:
    assert "for NVIDIA's GPUs (nvidia-cuda" in notes(Driver(), CUDA_12, gpu="amd")
    assert "for AMD's GPUs (torch" in notes(Driver(), ROCM_6, gpu="nvidia")
    both = plan_gpu("auto", ("nvidia", "amd"), Driver(), ROCM_6, None)
    assert both == ("amd", ())


def test_what_the_user_forces_is_done_and_told() -> None:
    chosen, said = plan_gpu("nvidia", (), Driver(), CUDA_12, None)
    assert chosen == "nvidia" and "no such device" in said[0]
    assert plan_gpu("none", ("nvidia",), Driver(version="470.1"), CUDA_12, None) == (None, ())
    assert plan_gpu("auto", (), Driver(), CUDA_12, None) == (None, ())


@pytest.mark.parametrize(
    ("needs", "cuda", "rocm", "said"),
    [
        (GpuNeeds(cuda="12.4", cuda_of="torch 2.5"), "12.1", "", ""),  # minor versions mix
        (GpuNeeds(cuda="13.0", cuda_of="torch 2.9"), "12.4", "", "torch 2.9 needs CUDA 13.0"),
        (GpuNeeds(cuda="13.0", cuda_of="torch 2.9"), "", "", ""),
        (GpuNeeds(rocm="6.2", rocm_of="torch 2.5"), "", "6.0", ""),
        (
            GpuNeeds(rocm="6.2", rocm_of="torch 2.5"),
            "",
            "5.7",
            "is for ROCm 6.2; the target has 5.7",
        ),
        (GpuNeeds(), "12.4", "6.2", ""),
    ],
)
def test_packages_for_another_target_are_told(
    needs: GpuNeeds, cuda: str, rocm: str, said: str
) -> None:
    told = " ".join(find_target_troubles(needs, cuda=cuda, rocm=rocm))
    assert said in told and bool(told) == bool(said)
