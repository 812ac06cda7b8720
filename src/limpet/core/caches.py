"""Where packages write at their import or first use, and where a launch sends that.

The table is data and is printed in the documentation. What is compiled on the fly (many small
files, locks, made again in seconds) goes to the job's node-local folder where it has one: a
thousand ranks that race in one shared folder are slow, and some of these caches break there.
What is downloaded, or takes minutes to make, is kept in the image's own cache folder.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from limpet.core.homes import INSIDE, Home
from limpet.core.mounts import Mount
from limpet.core.recipe import HomePolicy

FOLDER = ".cache"
LOCAL = "node-local"


class Cache(msgspec.Struct, frozen=True, kw_only=True):
    """What one package writes. Without a `place` its variable is left alone, for the reason given.

    `place` lies below the cache folder, `local` sends it to the job's node-local folder. With
    `flag` the variable holds `name=value` pairs between commas, and this is the name. `make` is for
    folders that the package does not make itself. `read`: an image may bring what lies there.
    """

    package: str
    variable: str
    writes: str
    source: str
    place: str = ""
    local: bool = False
    flag: str = ""
    make: bool = False
    read: bool = False
    reason: str = ""


CACHES = (
    Cache(
        package="numba",
        variable="NUMBA_CACHE_DIR",
        place="numba",
        local=True,
        writes="compiled functions, in __pycache__ beside their source",
        source="https://numba.readthedocs.io/en/stable/developer/caching.html",
    ),
    Cache(
        package="triton",
        variable="TRITON_CACHE_DIR",
        place="triton",
        local=True,
        writes="compiled kernels, in ~/.triton/cache; its ranks race on a shared file system",
        source="https://github.com/triton-lang/triton/pull/3544",
    ),
    Cache(
        package="cupy",
        variable="CUPY_CACHE_DIR",
        place="cupy",
        local=True,
        writes="compiled kernels, in ~/.cupy/kernel_cache",
        source="https://docs.cupy.dev/en/stable/reference/environment.html",
    ),
    Cache(
        package="torch",
        variable="TORCHINDUCTOR_CACHE_DIR",
        place="torchinductor",
        local=True,
        writes="compiled graphs, in torchinductor_USER of the temporary folder",
        source="https://docs.pytorch.org/tutorials/recipes/"
        "torch_compile_caching_configuration_tutorial.html",
    ),
    Cache(
        package="pytensor",
        variable="PYTENSOR_FLAGS",
        place="pytensor",
        local=True,
        flag="base_compiledir",
        writes="compiled graphs behind one lock, in ~/.pytensor",
        source="https://github.com/pymc-devs/pytensor/blob/main/pytensor/configdefaults.py",
    ),
    Cache(
        package="MIOpen",
        variable="MIOPEN_USER_DB_PATH",
        place="miopen/db",
        local=True,
        make=True,
        writes="tuning results (SQLite, which shared file systems break), in ~/.config/miopen",
        source="https://rocm.docs.amd.com/projects/MIOpen/en/latest/conceptual/perfdb.html",
    ),
    Cache(
        package="MIOpen",
        variable="MIOPEN_CUSTOM_CACHE_DIR",
        place="miopen/cache",
        local=True,
        make=True,
        writes="compiled kernels (SQLite), in ~/.cache/miopen",
        source="https://rocm.docs.amd.com/projects/MIOpen/en/latest/cache.html",
    ),
    Cache(
        package="the CUDA driver",
        variable="CUDA_CACHE_PATH",
        place="nv",
        local=True,
        writes="compiled PTX, in ~/.nv/ComputeCache",
        source="https://docs.nvidia.com/cuda/cuda-c-programming-guide/#cuda-environment-variables",
    ),
    Cache(
        package="nltk",
        variable="NLTK_DATA",
        place="nltk_data",
        make=True,
        read=True,
        writes="downloaded corpora, in ~/nltk_data, or in the first folder named that exists",
        source="https://www.nltk.org/data.html",
    ),
    Cache(
        package="torch",
        variable="TORCH_EXTENSIONS_DIR",
        writes="extensions that take minutes to compile",
        source="https://docs.pytorch.org/docs/stable/cpp_extension.html",
        reason="follows XDG_CACHE_HOME",
    ),
    Cache(
        package="torch",
        variable="TORCH_HOME",
        writes="downloaded models",
        source="https://docs.pytorch.org/docs/stable/hub.html",
        reason="follows XDG_CACHE_HOME",
    ),
    Cache(
        package="huggingface-hub",
        variable="HF_HOME",
        writes="downloaded models and data sets",
        source="https://huggingface.co/docs/huggingface_hub/package_reference/"
        "environment_variables",
        reason="follows XDG_CACHE_HOME",
    ),
    Cache(
        package="matplotlib",
        variable="MPLCONFIGDIR",
        writes="the list of fonts",
        source="https://matplotlib.org/stable/install/environment_variables_faq.html",
        reason="follows XDG_CACHE_HOME; setting it would move the settings as well",
    ),
    Cache(
        package="astropy",
        variable="ASTROPY_CACHE_DIR",
        writes="downloaded tables",
        source="https://docs.astropy.org/en/stable/config/index.html",
        reason="follows XDG_CACHE_HOME",
    ),
    Cache(
        package="wandb",
        variable="WANDB_CACHE_DIR",
        writes="artifacts",
        source="https://docs.wandb.ai/guides/track/environment-variables",
        reason="follows XDG_CACHE_HOME",
    ),
    Cache(
        package="wandb",
        variable="WANDB_DIR",
        writes="the runs' logs",
        source="https://docs.wandb.ai/guides/track/environment-variables",
        reason="these are results: they stay in the working folder",
    ),
    Cache(
        package="jax",
        variable="JAX_COMPILATION_CACHE_DIR",
        writes="nothing, unless this is set",
        source="https://docs.jax.dev/en/latest/persistent_compilation_cache.html",
        reason="setting it would switch the cache on",
    ),
)


class Caches(msgspec.Struct, frozen=True, kw_only=True):
    """How a launch carries the table out; fields as in `Home`. `local` is the root of what is
    node-local: empty, or the first of the folders, for the user's eyes only."""

    mounts: tuple[Mount, ...] = ()
    variables: dict[str, str] = msgspec.field(default_factory=dict)
    folders: tuple[str, ...] = ()
    local: str = ""


def plan_caches(
    policy: HomePolicy, home: Home, *, state: str, local: str, taken: Mapping[str, str]
) -> Caches:
    """The variables that are not `taken`, and the folders behind them.

    `state` is this image's own folder, `local` the user's folder on the node's own disk (empty:
    none). With `--home host` the user's own caches are used as they are on the host.
    """
    if policy == "host":
        return Caches()
    own, identity = f"{state}/home", state.rpartition("/")[2]
    cache = f"{INSIDE}/{FOLDER}"
    seen = any(mount.target == INSIDE for mount in home.mounts)
    mounts = [] if seen else [Mount(source=own, target=INSIDE)]
    node = f"{local}/{identity}" if local else f"{own}/{FOLDER}/{LOCAL}"
    if local:
        # Over a folder of the image's own, so that no image needs a mount point for it.
        mounts.append(Mount(source=node, target=f"{cache}/{LOCAL}"))
    variables = {} if home.folders else {"XDG_CACHE_HOME": cache}
    variables = {name: value for name, value in variables.items() if name not in taken}
    folders = [own, f"{own}/{FOLDER}/{LOCAL}", *([node] if local else [])]
    for row in filter(lambda row: row.place, CACHES):
        place = f"{LOCAL}/{row.place}" if row.local else row.place
        value = _value(row, f"{cache}/{place}", taken)
        if value:
            variables[row.variable] = value
            if row.make:
                folders.append(f"{node if row.local else f'{own}/{FOLDER}'}/{row.place}")
    return Caches(mounts=tuple(mounts), variables=variables, folders=tuple(folders), local=local)


def is_decided(flags: str) -> bool:
    """Whether flags name a place already, or are not plain and so cannot be added to."""
    return "compiledir" in flags or "$" in flags


def _value(cache: Cache, path: str, taken: Mapping[str, str]) -> str:
    """What the variable is set to; empty where the user or the image decided."""
    given = taken.get(cache.variable, "")
    if not cache.flag:
        return "" if given else path
    if is_decided(given):
        return ""
    return ",".join(word for word in (given, f"{cache.flag}={path}") if word)
