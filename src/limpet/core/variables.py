"""Which of the host's environment variables reach the program inside, and why.

The table is data and is printed in the documentation; patterns are those of `fnmatch`, and the
first group that fits decides. Apptainer passes what it is given, so limpet filters what it gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import msgspec

from limpet.core.mounts import is_below
from limpet.core.recipe import VariablePolicy


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Variables that belong together: whether they pass, which they are, and the reason."""

    name: str
    passes: bool
    reason: str
    patterns: tuple[str, ...]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one variable."""

    name: str
    passes: bool
    reason: str


# What the runtime process needs for itself; Apptainer replaces PATH and HOME inside, and its own
# settings (binds, caches, APPTAINERENV_*) are the user's word to it.
RUNTIME = Group(
    name="runtime",
    passes=True,
    reason="the container runtime itself needs it",
    patterns=("PATH", "HOME", "APPTAINER*", "SINGULARITY*"),
)

INCLUDE_PATHS = "*_INCLUDE_PATH"

FOREIGN = (
    Group(
        name="python",
        passes=False,
        reason="steers a Python: the image's is its own",
        patterns=(
            "PYTHON*",
            "PIP_*",
            "UV_*",
            "VIRTUAL_ENV*",
            "PYENV_*",
            "PIPENV_*",
            "POETRY_*",
            "PDM_*",
            "HATCH_*",
            "RYE_*",
            "__PYVENV_LAUNCHER__",
            "NUMBA_CACHE_DIR",
            "IPYTHONDIR",
            "JUPYTER_*",
            "MPLCONFIGDIR",
        ),
    ),
    Group(
        name="conda",
        passes=False,
        reason="belongs to a conda environment of the host",
        patterns=(
            "CONDA_*",
            "_CONDA_*",
            "_CE_*",
            "MAMBA_*",
            "MICROMAMBA_*",
            "PIXI_*",
            "GSETTINGS_*",
        ),
    ),
    Group(
        name="loader",
        passes=False,
        reason="would load the host's libraries into the image's programs",
        patterns=("LD_*", "LIBRARY_PATH", "GCONV_PATH", "LOCPATH", "NLSPATH", "GLIBC_TUNABLES"),
    ),
    Group(
        name="languages",
        passes=False,
        reason="points another language at the host's folders",
        patterns=(
            "R_*",
            "RHOME",
            "PERL*",
            "RUBY*",
            "GEM_*",
            "NODE_*",
            "JAVA_*",
            "JULIA_*",
            "LUA_*",
            "TCL*",
            "TK_LIBRARY",
        ),
    ),
    Group(
        name="shell",
        passes=False,
        reason="would run the host's code in every shell of the image",
        patterns=("BASH_*", "ENV", "PROMPT_COMMAND", "SHELLOPTS", "CDPATH", "IFS", "ZDOTDIR"),
    ),
    Group(
        name="modules",
        passes=False,
        reason="the host's module system and compilers do not exist inside",
        patterns=(
            "MODULE*",
            "_ModuleTable*",
            "__MODULES_*",
            "__LMOD_*",
            "LMOD*",
            "_LMFILES_*",
            "LOADEDMODULES",
            "EBROOT*",
            "EBVERSION*",
            "EBDEVEL*",
            "SPACK_*",
            "CPATH",
            INCLUDE_PATHS,
            "CMAKE_*",
            "PKG_CONFIG_*",
            "MANPATH",
            "INFOPATH",
            "CC",
            "CXX",
            "FC",
            "F77",
            "F90",
            "CFLAGS",
            "CXXFLAGS",
            "LDFLAGS",
            "FFLAGS",
        ),
    ),
    Group(
        name="folders",
        passes=False,
        reason="names folders of the host's session; the home policy decides about these",
        patterns=(
            "XDG_*",
            "DBUS_*",
            "KERAS_HOME",
            "TRITON_HOME",
            "TRITON_CACHE_DIR",
            "CUDA_CACHE_PATH",
            "CUPY_CACHE_DIR",
            "MIOPEN_USER_DB_PATH",
            "MIOPEN_CUSTOM_CACHE_DIR",
        ),
    ),
    Group(
        name="installations",
        passes=False,
        reason="names an installation of the host that does not exist inside",
        patterns=(
            "CUDA_HOME",
            "CUDA_PATH",
            "CUDA_ROOT",
            "ROCM_PATH",
            "ROCM_HOME",
            "HIP_PATH",
            "HIP_ROOT_DIR",
            "MKLROOT",
            "MPI_HOME",
            "MPI_ROOT",
            "MPI_DIR",
            "OPAL_PREFIX",
            "OMPI_CC",
            "OMPI_CXX",
            "OMPI_FC",
            "MPICH_CC",
            "I_MPI_ROOT",
            "MPICH_DIR",
        ),
    ),
)

# Looked at before FOREIGN's PIP_*: a site's mirror, and no word on where packages go.
INDEX = Group(
    name="index",
    passes=True,
    reason="where `pip install` finds packages",
    patterns=(
        "PIP_INDEX_URL",
        "PIP_EXTRA_INDEX_URL",
        "PIP_FIND_LINKS",
        "PIP_NO_INDEX",
        "PIP_TRUSTED_HOST",
        "PIP_PROXY",
        "PIP_TIMEOUT",
        "PIP_DEFAULT_TIMEOUT",
        "PIP_RETRIES",
        "PIP_DISABLE_PIP_VERSION_CHECK",
    ),
)

# Looked at before FOREIGN's PYTHON*. PYTHONOPTIMIZE is not among them: images have no byte code
# for it, so that every start would compile all that it imports.
MANNER = Group(
    name="manner",
    passes=True,
    reason="how Python runs, not where it looks",
    patterns=(
        *("PYTHONUNBUFFERED", "PYTHONFAULTHANDLER", "PYTHONHASHSEED", "PYTHONSAFEPATH"),
        *("PYTHONDONTWRITEBYTECODE", "PYTHONDEVMODE", "PYTHONWARNINGS", "PYTHONUTF8"),
        *("PYTHONIOENCODING", "PYTHONVERBOSE", "PYTHONPROFILEIMPORTTIME", "PYTHONTRACEMALLOC"),
        *("PYTHONASYNCIODEBUG", "PYTHONMALLOC", "PYTHON_GIL", "PYTHON_CPU_COUNT", "PYTHON_COLORS"),
    ),
)

WANTED = (
    INDEX,
    MANNER,
    Group(
        name="scheduler",
        passes=True,
        reason="the job's place and size",
        patterns=(
            "SLURM*",
            "SRUN_*",
            "SBATCH_*",
            "PBS_*",
            "LSB_*",
            "LSF_*",
            "LS_*",
            "JSM_*",
            "FLUX_*",
            "COBALT_*",
            "SGE_*",
            "JOB_ID",
            "JOB_NAME",
            "NSLOTS",
            "NHOSTS",
            "PE_HOSTFILE",
            "OAR_*",
            "CONDOR_*",
            "_CONDOR_*",
        ),
    ),
    Group(
        name="mpi",
        passes=True,
        reason="MPI, its launcher and the network",
        patterns=(
            "PMI_*",
            "PMI2_*",
            "PMIX_*",
            "PALS_*",
            "OMPI_*",
            "OPAL_*",
            "ORTE_*",
            "PRTE_*",
            "MPI_*",
            "MPICH_*",
            "MPIR_*",
            "MPIEXEC_*",
            "MPI4PY_*",
            "MV2_*",
            "MVP_*",
            "I_MPI_*",
            "HYDRA_*",
            "HYDI_*",
            "FI_*",
            "UCX_*",
            "UCC_*",
            "IBV_*",
            "PSM2_*",
            "PSM3_*",
            "CXI_*",
        ),
    ),
    Group(
        name="gpu",
        passes=True,
        reason="which GPUs, and how they are used",
        patterns=(
            "CUDA_*",
            "NVIDIA_*",
            "NCCL_*",
            "NVSHMEM_*",
            "NVTE_*",
            "ROCR_*",
            "HIP_*",
            "HSA_*",
            "ROCM_*",
            "RCCL_*",
            "MIOPEN_*",
            "AMD_*",
            "GPU_*",
            "ZE_*",
            "ONEAPI_DEVICE_SELECTOR",
            "SYCL_*",
        ),
    ),
    Group(
        name="threads",
        passes=True,
        reason="how many threads, and where",
        patterns=(
            "OMP_*",
            "GOMP_*",
            "KMP_*",
            "MKL_*",
            "OPENBLAS_*",
            "BLIS_*",
            "GOTO_*",
            "VECLIB_*",
            "NUMEXPR_*",
            "NUMBA_NUM_THREADS",
            "TBB_*",
            "MALLOC_*",
        ),
    ),
    Group(
        name="distributed",
        passes=True,
        reason="who meets whom in distributed training",
        patterns=(
            "MASTER_ADDR",
            "MASTER_PORT",
            "RANK",
            "LOCAL_RANK",
            "WORLD_SIZE",
            "TORCHELASTIC_*",
        ),
    ),
    Group(
        name="proxy",
        passes=True,
        reason="the way to the network",
        patterns=(
            "http_proxy",
            "https_proxy",
            "ftp_proxy",
            "all_proxy",
            "no_proxy",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "FTP_PROXY",
            "ALL_PROXY",
            "NO_PROXY",
        ),
    ),
    Group(
        name="session",
        passes=True,
        reason="language, terminal, time zone, display",
        patterns=(
            "LANG",
            "LANGUAGE",
            "LC_*",
            "TERM",
            "COLORTERM",
            "NO_COLOR",
            "FORCE_COLOR",
            "CLICOLOR*",
            "COLUMNS",
            "LINES",
            "TZ",
            "DISPLAY",
            "WAYLAND_DISPLAY",
            "XAUTHORITY",
            "SSH_*",
            "USER",
            "LOGNAME",
            "HOSTNAME",
            "SHLVL",
            "PWD",
        ),
    ),
)

TEMPORARY = ("TMPDIR", "TMP", "TEMP")


def judge_variable(name: str, policy: VariablePolicy, *, named: Sequence[str] = ()) -> Verdict:
    """Whether the variable passes under `policy`; `named` are patterns that someone asked for."""
    if _fits(name, RUNTIME.patterns):
        return Verdict(name=name, passes=True, reason=RUNTIME.reason)
    if _fits(name, named):
        return Verdict(name=name, passes=True, reason="asked for by name")
    if policy == "strict":
        return Verdict(name=name, passes=False, reason="--variables strict passes nothing")
    # An exported shell function arrives as BASH_FUNC_name%%, which no other program can use.
    groups = (INDEX, MANNER, *FOREIGN, *(() if policy == "host" else WANTED))
    for group in groups:
        if _fits(name, group.patterns):
            return Verdict(name=name, passes=group.passes, reason=group.reason)
    if policy == "host":
        return Verdict(name=name, passes=True, reason="--variables host passes it")
    return Verdict(name=name, passes=False, reason="not among what a job needs")


def select_variables(
    environment: Mapping[str, str],
    policy: VariablePolicy,
    *,
    named: Sequence[str] = (),
    visible: Sequence[str] = (),
    hidden: Sequence[str] = (),
) -> tuple[dict[str, str], tuple[Verdict, ...]]:
    """The variables that pass, and the verdict on each one.

    `visible` are host folders that are seen inside at the same path: a TMPDIR passes only below
    one of them, since a temporary folder that does not exist is worse than none. `hidden` are
    places that something else lies over inside.
    """
    verdicts = []
    for name in sorted(environment):
        verdict = judge_variable(name, policy, named=named)
        if name in TEMPORARY and policy != "strict":
            verdict = _judge_temporary(name, environment[name], visible, hidden)
        verdicts.append(verdict)
    passed = {v.name: environment[v.name] for v in verdicts if v.passes}
    return passed, tuple(verdicts)


def _judge_temporary(
    name: str, value: str, visible: Sequence[str], hidden: Sequence[str]
) -> Verdict:
    seen = any(is_below(value, folder) for folder in visible)
    seen = seen and not any(is_below(value, folder) for folder in hidden)
    reason = "its folder is seen inside" if seen else f"{value} is not seen inside (--bind it)"
    return Verdict(name=name, passes=seen, reason=reason)


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(_matches(name, pattern) for pattern in patterns)


def _matches(name: str, pattern: str) -> bool:
    """As fnmatch, which would compile hundreds of expressions at each start: nearly all patterns
    are a name or the start of one."""
    start = pattern.removesuffix("*")
    if "*" in start or "?" in start or "[" in start:
        return fnmatchcase(name, pattern)
    return name == start or (start != pattern and name.startswith(start))
