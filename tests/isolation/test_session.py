"""What jobs need arrives, and what users and sites set for the runtime still works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from limpet.core.handover import join_settings
from tests.cli.test_main import HEAVY, SLOW
from tests.launch.conftest import Person

# One a line, as the programs' own documentation spells them.
NEEDED = {
    "scheduler": """SLURM_JOB_ID SLURM_PROCID SLURM_LOCALID SLURM_NTASKS SLURM_STEP_NODELIST
        SLURM_CPUS_PER_TASK SLURMD_NODENAME SRUN_DEBUG PBS_JOBID PBS_NODEFILE LSB_JOBID LSB_HOSTS
        JSM_NAMESPACE_RANK FLUX_JOB_ID COBALT_JOBID JOB_ID NSLOTS PE_HOSTFILE OAR_JOB_ID
        _CONDOR_SLOT""",
    "mpi": """PMI_RANK PMI_SIZE PMI_FD PMI2_ID PMIX_RANK PMIX_NAMESPACE PMIX_SERVER_URI2
        PALS_RANKID OMPI_COMM_WORLD_RANK OMPI_MCA_btl PRTE_MCA_x MPICH_GPU_SUPPORT_ENABLED
        MPIR_CVAR_CH4_NETMOD MV2_COMM_WORLD_RANK I_MPI_FABRICS HYDRA_BOOTSTRAP FI_PROVIDER
        UCX_TLS PSM2_DEVICES FI_CXI_RX_MATCH_MODE MPI4PY_RC_THREADS""",
    "gpu": """CUDA_VISIBLE_DEVICES CUDA_DEVICE_ORDER NVIDIA_VISIBLE_DEVICES NCCL_DEBUG
        NCCL_SOCKET_IFNAME ROCR_VISIBLE_DEVICES HIP_VISIBLE_DEVICES HSA_OVERRIDE_GFX_VERSION
        GPU_DEVICE_ORDINAL ZE_AFFINITY_MASK""",
    "threads": "OMP_NUM_THREADS OMP_PLACES KMP_AFFINITY MKL_NUM_THREADS OPENBLAS_NUM_THREADS",
    "training": "MASTER_ADDR MASTER_PORT RANK LOCAL_RANK WORLD_SIZE TORCHELASTIC_RUN_ID",
    "proxy": "http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY all_proxy",
    "language": "LANG LC_ALL LC_CTYPE LANGUAGE TZ",
    "terminal": "TERM COLORTERM NO_COLOR COLUMNS LINES DISPLAY SSH_CONNECTION",
}
NAMES = [name for names in NEEDED.values() for name in names.split()]
# Locales and terminals that exist: the image's bash complains of others.
REAL = {"LANG": "C.UTF-8", "LC_ALL": "C", "LC_CTYPE": "C", "TERM": "dumb", "TZ": "UTC"}


def environment_inside(person: Person, *words: str, env: dict[str, str]) -> dict[str, str]:
    done = person.limpet("run", *words, "env", "-0", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    return dict(pair.split("=", 1) for pair in done.stdout.rstrip("\0").split("\0"))


@pytest.mark.real
@pytest.mark.parametrize("kind", ["foreign_sif", "limpet_sif", "own_image"])
def test_what_jobs_need_arrives(person: Person, kind: str, request: pytest.FixtureRequest) -> None:
    image = str(request.getfixturevalue(kind))
    session = {name: REAL.get(name, f"a value of {name}, $HOME") for name in NAMES}
    inside = environment_inside(person, image, env=session)
    assert {name: inside.get(name) for name in NAMES} == session
    strict = environment_inside(person, "--variables", "strict", image, env=session)
    # What the runtime and the base themselves set.
    assert set(strict) & set(NAMES) <= {"LANG"}


@pytest.mark.real
def test_a_start_imports_little(person: Person, own_image: Path) -> None:
    person.limpet("run", str(own_image), "true")  # the first one makes folders, and limpet's pip
    done = person.limpet("run", str(own_image), "true", env={"PYTHONPROFILEIMPORTTIME": "1"})
    modules = set(re.findall(r"^import time: .*\| +(\S+)$", done.stderr, re.MULTILINE))
    assert "limpet.tools.images" in modules
    assert not modules & (HEAVY | SLOW)


@pytest.mark.real
@pytest.mark.parametrize("policy", ["clean", "host", "strict"])
def test_settings_of_the_runtime_work_one_by_one_and_together(
    person: Person, foreign_sif: str, policy: str
) -> None:
    for name in "ab":
        (person.home.parent / name).mkdir()
        (person.home.parent / name / name).touch()
    above = person.home.parent
    env = {
        "APPTAINERENV_X": "apptainer",
        "SINGULARITYENV_X": "singularity",
        "SINGULARITYENV_Y": "singularity",
        "APPTAINER_BIND": f"{above}/a:/mnt/a",
        "SINGULARITY_BIND": f"{above}/b:/mnt/b:ro",
    }
    script = "echo $X $Y; ls /mnt/a /mnt/b; touch /mnt/b/x 2>/dev/null || echo read-only"
    words = ("run", "--variables", policy, foreign_sif, "sh", "-c", script)
    together = person.limpet(*words, env=env)
    said = "apptainer singularity\n/mnt/a:\na\n\n/mnt/b:\nb\nread-only\n"
    assert (together.stdout, together.stderr) == (said, "")
    for name, value in env.items():
        target = value.split(":")[1] if "BIND" in name else ""
        look = f"ls {target}" if target else 'echo "$X$Y"'
        words = ("run", "--variables", policy, foreign_sif, "sh", "-c", look)
        one = person.limpet(*words, env={name: value})
        assert (one.stdout, one.stderr) == (f"{target[-1:] or value}\n", "")


def test_settings_are_joined_for_the_runtime_that_reads_them() -> None:
    session = {"APPTAINER_BIND": "/a,/b", "SINGULARITY_BIND": "/b,/c", "PATH": "/bin"}
    joined = {"PATH": "/bin"}
    assert join_settings(session, "apptainer") == joined | {"APPTAINER_BIND": "/a,/b,/c"}
    assert join_settings(session, "singularity-ce") == joined | {"SINGULARITY_BIND": "/b,/c,/a"}
    alone = {"SINGULARITY_BIND": "/b", "SINGULARITYENV_X": "1"}
    assert join_settings(alone, "apptainer") == alone
    both = {"SINGULARITYENV_X": "1", "APPTAINERENV_X": "2"}
    assert join_settings(both, "apptainer") == {"APPTAINERENV_X": "2"}
    assert join_settings(both, "singularity-ce") == {"SINGULARITYENV_X": "1"}
