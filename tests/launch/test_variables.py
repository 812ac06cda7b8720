"""Which variables pass."""

from __future__ import annotations

from typing import Any

import pytest

from limpet.core.variable_groups import FOREIGN, WANTED
from limpet.core.variables import judge_variable, select_variables

NEEDED = [
    "SLURM_PROCID",
    "SLURMD_NODENAME",
    "PBS_NODEFILE",
    "LSB_JOBID",
    "FLUX_URI",
    "PMI_RANK",
    "PMIX_SERVER_URI41",
    "PALS_RANKID",
    "OMPI_COMM_WORLD_RANK",
    "MPICH_GPU_SUPPORT_ENABLED",
    "I_MPI_FABRICS",
    "FI_PROVIDER",
    "UCX_TLS",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "NCCL_DEBUG",
    "ROCR_VISIBLE_DEVICES",
    "GPU_DEVICE_ORDINAL",
    "HSA_XNACK",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "KMP_AFFINITY",
    "NUMBA_NUM_THREADS",
    "https_proxy",
    "NO_PROXY",
    "LANG",
    "LC_ALL",
    "TERM",
    "NO_COLOR",
    "TZ",
    "DISPLAY",
    "MASTER_ADDR",
    "PYTHONHASHSEED",
    "PYTHONUNBUFFERED",
    "PYTHONSAFEPATH",
]
HARMFUL = [
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONSTARTUP",
    "PYTHONOPTIMIZE",
    "PIP_TARGET",
    "PIP_USER",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "CONDA_DEFAULT_ENV",
    "_CE_CONDA",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "R_LIBS",
    "PERL5LIB",
    "MODULEPATH",
    "LOADEDMODULES",
    "LMOD_CMD",
    "BASH_FUNC_module%%",
    "BASH_ENV",
    "ENV",
    "NUMBA_CACHE_DIR",
    "MPLCONFIGDIR",
    "JUPYTER_PATH",
    "IPYTHONDIR",
    "XDG_CACHE_HOME",
    "CUDA_HOME",
    "OPAL_PREFIX",
    "PROMPT_COMMAND",
    "JAVA_HOME",
    "EBROOTPYTHON",
]


@pytest.mark.parametrize("name", NEEDED)
def test_a_job_gets_what_it_needs(name: str) -> None:
    assert judge_variable(name, "clean").passes
    assert judge_variable(name, "host").passes
    assert not judge_variable(name, "strict").passes


@pytest.mark.parametrize("name", HARMFUL)
def test_what_belongs_to_other_environments_never_passes(name: str) -> None:
    assert not judge_variable(name, "clean").passes
    assert not judge_variable(name, "host").passes


@pytest.mark.parametrize("policy", ["clean", "host", "strict"])
def test_what_is_named_passes_always(policy: Any) -> None:
    assert judge_variable("PYTHONPATH", policy, named=("PYTHON*",)).passes
    assert judge_variable("APPTAINER_BIND", policy).passes


def test_others_depend_on_the_policy() -> None:
    assert not judge_variable("EDITOR", "clean").passes
    assert judge_variable("EDITOR", "host").passes


@pytest.mark.parametrize(
    ("value", "passes"),
    [("/tmp", True), ("/tmp/a/b", True), ("/tmpfs", False), ("/scratch/1", False)],
)
@pytest.mark.parametrize("policy", ["clean", "host"])
def test_a_temporary_folder_passes_where_it_is_seen(value: str, passes: bool, policy: Any) -> None:
    passed, verdicts = select_variables({"TMPDIR": value}, policy, visible=("/tmp",))
    assert ("TMPDIR" in passed) is passes
    assert verdicts[0].reason


def test_every_pattern_stands_once() -> None:
    patterns = [pattern for group in (*FOREIGN, *WANTED) for pattern in group.patterns]
    assert len(patterns) == len(set(patterns))
    assert all(group.reason and group.passes is (group in WANTED) for group in (*FOREIGN, *WANTED))
