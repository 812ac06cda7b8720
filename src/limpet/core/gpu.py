"""GPUs: what a machine's driver gives, what an image's packages need, and whether the two meet.

The numbers are from NVIDIA's CUDA Toolkit release notes (tables "CUDA Toolkit and Corresponding
Driver Versions" and "Minimum Required Driver Version for CUDA Minor Version Compatibility",
https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/), from "CUDA Compatibility"
(https://docs.nvidia.com/deploy/cuda-compatibility/forward-compatibility.html) and from AMD's "User
and kernel-space support matrix" (https://rocm.docs.amd.com/projects/install-on-linux/).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import msgspec

from limpet.core.facts import Libc
from limpet.core.numbers import numbers
from limpet.core.recipe import GpuPolicy

Gpu = Literal["nvidia", "amd"]

# The first driver branch that gives each CUDA version.
CUDA_OF_BRANCH = (
    *((410, "10.0"), (418, "10.1"), (440, "10.2"), (450, "11.0"), (455, "11.1"), (460, "11.2")),
    *((465, "11.3"), (470, "11.4"), (495, "11.5"), (510, "11.6"), (515, "11.7"), (520, "11.8")),
    *((525, "12.0"), (530, "12.1"), (535, "12.2"), (545, "12.3"), (550, "12.4"), (555, "12.5")),
    *((560, "12.6"), (565, "12.7"), (570, "12.8"), (575, "12.9"), (580, "13.0"), (590, "13.1")),
)
# From CUDA 11 on, one driver serves all minor versions.
OLDEST_DRIVER = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}
LIBRARY = "libcuda.so.1"


class Driver(msgspec.Struct, frozen=True, kw_only=True):
    """The GPU drivers as they lie here; what cannot be read is empty.

    `version` is that of NVIDIA's kernel module, `library_version` that of its libcuda; `glibc` is
    the newest C library that the driver's libraries ask for, by the file `glibc_of`. `rocm` is what
    is installed, `kfd` whether this user may open AMD's device, `cards` whether any of its cards.
    """

    version: str = ""
    library_version: str = ""
    glibc: str = ""
    glibc_of: str = ""
    rocm: str = ""
    kfd: bool = True
    cards: bool = True

    @property
    def cuda(self) -> str:
        """The newest CUDA version of this driver; empty where it is not known."""
        known = numbers(self.version or self.library_version)
        fitting = [cuda for branch, cuda in CUDA_OF_BRANCH if known and branch <= known[0]]
        return fitting[-1] if fitting else ""


class GpuNeeds(msgspec.Struct, frozen=True, kw_only=True):
    """What an image's packages need of a driver, and which package says so.

    `cuda` and `rocm` are `12.4`, or `12` where only so much is known; empty where nothing needs it.
    `compat` is the version of NVIDIA's forward compatibility libraries that the image brings, and
    `compat_at` their folder.
    """

    cuda: str = ""
    cuda_of: str = ""
    rocm: str = ""
    rocm_of: str = ""
    compat: str = ""
    compat_at: str = ""

    @property
    def makers(self) -> tuple[Gpu, ...]:
        """Whose GPUs the packages are for."""
        found: list[Gpu] = ["nvidia"] if self.cuda else []
        return (*found, "amd") if self.rocm else tuple(found)


# ---- what packages need --------------------------------------------------------------------------


def plan_needs(packages: Mapping[str, str], variables: Mapping[str, str]) -> GpuNeeds:
    """From packages (normalised name → version) and a base's own variables: the highest need."""
    said = [
        *(("cuda", version, words) for version, words in _cuda_of(packages)),
        *(("rocm", version, words) for version, words in _rocm_of(packages)),
        *(
            (maker, ".".join(map(str, numbers(variables.get(name, ""))[:2])), f"its {name}")
            for maker, name in (("cuda", "CUDA_VERSION"), ("rocm", "ROCM_VERSION"))
        ),
    ]
    found: dict[str, str] = {}
    for maker in ("cuda", "rocm"):
        needs = [(numbers(version), version, of) for who, version, of in said if who == maker]
        best = max((need for need in needs if need[0]), default=((), "", ""))
        found |= {maker: best[1], f"{maker}_of": best[2]}
    return GpuNeeds(**found)


def find_compat(names: Callable[[str], Sequence[str]], prefix: str) -> tuple[str, str]:
    """The newest forward compatibility libraries of an image: the driver's version, their folder.

    `names` lists a folder of the image. NVIDIA's packages put them below /usr/local/cuda-X.Y, the
    vendor's images into lib or lib.real there, conda's package into the environment.
    """
    cudas = sorted(name for name in names("usr/local") if re.fullmatch(r"cuda(-[\d.]+)?", name))
    above = [*(f"usr/local/{name}/compat" for name in cudas), f"{prefix.strip('/')}/cuda-compat"]
    found = [
        (numbers(version[1]), version[1], f"/{folder}")
        for top in above
        for folder in (top, f"{top}/lib", f"{top}/lib.real")
        for name in names(folder)
        if (version := re.fullmatch(r"libcuda\.so\.(\d+\.[\d.]*\d)", name))
    ]
    best = max(found, key=lambda one: one[0], default=((), "", ""))
    return best[1:]


def _cuda_of(packages: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, version in packages.items():
        words = f"{name} {version}"
        # The last two are conda's: what all of an environment's CUDA packages agree on.
        if re.fullmatch(r"nvidia-cuda-runtime(-cu\d+)?|cuda-version|cudatoolkit", name):
            yield ".".join(map(str, numbers(version)[:2])), words
        elif local := re.search(r"\+(?:.*\.)?cu(\d\d+)(\d)\b", version):  # torch 2.5.1+cu124
            yield f"{local[1]}.{local[2]}", words
        elif local := re.search(r"\+(?:.*\.)?cuda(\d\d)", version):  # jaxlib 0.4.30+cuda12.cudnn91
            yield local[1], words
        elif old := re.fullmatch(r"cupy-cuda(\d\d)(\d)", name):
            yield f"{old[1]}.{old[2]}", words
        elif major := re.search(r"-cu(\d\d)$|^cupy-cuda(\d\d)x$|^jax-cuda(\d\d)-", name):
            yield next(group for group in major.groups() if group), words


def _rocm_of(packages: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, version in packages.items():
        words = f"{name} {version}"
        if local := re.search(r"\+(?:.*\.)?rocm(\d+\.\d+)", version):  # torch 2.5.1+rocm6.2
            yield local[1], words
        elif named := re.match(r"cupy-rocm-(\d+)-(\d+)$|jax-rocm(\d)(\d?)-", name):
            yield ".".join(group for group in named.groups() if group), words


def find_target_troubles(needs: GpuNeeds, *, cuda: str, rocm: str) -> Iterator[str]:
    """What will not work where the image is to run; empty versions are not known."""
    if cuda and numbers(needs.cuda)[:1] > numbers(cuda)[:1]:
        yield f"{needs.cuda_of} needs CUDA {needs.cuda}; the target's driver allows {cuda}."
    if rocm and needs.rocm and numbers(needs.rocm)[0] != numbers(rocm)[0]:
        yield f"{needs.rocm_of} is for ROCm {needs.rocm}; the target has {rocm}."


# ---- whether it fits -----------------------------------------------------------------------------


def plan_gpu(
    policy: GpuPolicy, gpus: Sequence[Gpu], driver: Driver, needs: GpuNeeds, libc: Libc | None
) -> tuple[Gpu | None, tuple[str, ...]]:
    """Whose GPUs are handed in, and what will not work, a line each.

    `auto` takes what the machine has; of two makers' the one that the packages are for.
    """
    if policy == "none" or (policy == "auto" and not gpus):
        return None, ()
    if policy != "auto":
        chosen: Gpu = policy
        if chosen not in gpus:
            return chosen, (f"--gpu {policy}: this machine shows no such device.",)
    else:
        wanted = [gpu for gpu in gpus if gpu in needs.makers]
        chosen = (wanted or gpus)[0]
    if needs.makers and chosen not in needs.makers:
        of = needs.cuda_of if chosen == "amd" else needs.rocm_of
        names = {"nvidia": "NVIDIA's", "amd": "AMD's"}
        other = names[needs.makers[0]]
        return chosen, (f"The image is for {other} GPUs ({of}); this machine has {names[chosen]}.",)
    find = find_nvidia_troubles if chosen == "nvidia" else find_amd_troubles
    return chosen, tuple(find(driver, needs, libc))


def find_nvidia_troubles(driver: Driver, needs: GpuNeeds, libc: Libc | None) -> Iterator[str]:
    """What would else be a linker error, or "no CUDA-capable device"."""
    kernel, library = driver.version, driver.library_version
    if kernel and library and kernel != library:
        yield (
            f"The NVIDIA driver's kernel module is {kernel}, its {LIBRARY} {library}: no program "
            "finds a GPU until the machine has been restarted."
        )
    yield from _find_cuda_troubles(driver, needs)
    if libc and libc.family == "musl":
        yield "The image's C library is musl: NVIDIA's driver libraries cannot be loaded into it."
    elif libc and driver.glibc and numbers(driver.glibc) > numbers(libc.version):
        yield (
            f"The driver's {driver.glibc_of} needs glibc {driver.glibc}, and the image has "
            f"{libc.version}: programs cannot load it. Build on a newer base."
        )


def _find_cuda_troubles(driver: Driver, needs: GpuNeeds) -> Iterator[str]:
    """A newer major version needs a newer driver, or libcuda of one (forward compatibility).

    That one must be newer than the kernel's module and serve the version, and the GPU one of a data
    centre, which no file tells.
    """
    kernel = driver.version or driver.library_version
    wanted, given = numbers(needs.cuda), numbers(driver.cuda)
    if not (wanted and given and wanted[0] > given[0]):
        return
    need = f"The image needs CUDA {needs.cuda} ({needs.cuda_of}); this machine's NVIDIA driver"
    brought = numbers(Driver(version=needs.compat).cuda)
    if brought[:1] >= wanted[:1] and numbers(needs.compat) > numbers(kernel):
        yield (
            f"{need} {kernel} gives {driver.cuda}. On GPUs of data centres the image's own libcuda "
            f"{needs.compat} helps: --env LD_LIBRARY_PATH={needs.compat_at}:/.singularity.d/libs"
        )
        return
    oldest = OLDEST_DRIVER.get(wanted[0])
    yield (
        f"{need} {kernel} gives at most {driver.cuda}"
        + (f", {oldest} is the oldest that would do." if oldest else ".")
    )


def find_amd_troubles(driver: Driver, needs: GpuNeeds, libc: Libc | None) -> Iterator[str]:
    """The same for AMD, whose images bring all of ROCm but the kernel's part."""
    if not driver.kfd:
        yield "/dev/kfd cannot be opened by this user: ask for the group `render` (or `video`)."
    elif not driver.cards:
        yield "This user may open no card in /dev/dri: ask for `render`, or for GPUs in the job."
    if needs.rocm and driver.rocm and numbers(needs.rocm)[0] != numbers(driver.rocm)[0]:
        yield (
            f"The image is for ROCm {needs.rocm} ({needs.rocm_of}), this machine has "
            f"{driver.rocm}: AMD does not promise that these work together."
        )
    if libc and libc.family == "musl":
        yield "The image's C library is musl, which ROCm is not made for."
