"""A launcher's command line and environment are those of `limpet run`, session by session.

The launcher runs in each shell that is here, with a runtime that only writes down what it was
started with; that is held against `plan_launch` for the same session.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from limpet.core.errors import HostError
from limpet.core.host_python import HostFile, HostPython
from limpet.core.launch import plan_launch
from limpet.core.launcher import render_beside, render_launcher
from limpet.core.mpi import Consumer, ImageMpi, Library
from limpet.core.mpi_plan import MpiSeen
from limpet.core.places import wished_binds
from limpet.core.recipe import Run
from limpet.core.seen import HostSeen, ImageSeen, Request
from limpet.core.share import JOIN, find_siblings
from limpet.core.wrap import Wrap, WrapRequest
from limpet.tools import host, host_mpi, personal, slurm
from limpet.tools.node_local import find_node_local
from tests.wrap.conftest import MACHINE, facts

pytestmark = pytest.mark.real

SHELLS = [
    words
    for words in (["dash"], ["bash", "--posix"], ["bash"], ["busybox", "sh"])
    if shutil.which(words[0])
]
# For what differs by paths, not by shells.
two_shells = pytest.mark.parametrize(
    "shell", [words for words in SHELLS if len(words) == 1], ids=" ".join, indirect=True
)
OF_SHELLS = {"PWD", "OLDPWD", "SHLVL", "_"}
SESSION = {
    "USER": os.environ.get("USER", ""),
    "LANG": "C.UTF-8",
    "SLURM_JOB_ID": "17",
    "SLURM_STRANGE": "a 'b' \"c\"\nexport PATH='nowhere'\nexport SLURM_JOB_ID\n$HOME `x`",
    "OMP_NUM_THREADS": "4",
    "CUDA_VISIBLE_DEVICES": "0",
    "CUDA_HOME": "/usr/local/cuda",
    "PYTHONPATH": "/poison",
    "PYTHONHASHSEED": "17",
    "CONDA_PREFIX": "/conda",
    "LD_LIBRARY_PATH": "/host/lib",
    "R_LIBS": "/r",
    "FOO": "foo",
    "path": "a name of small letters",
    "limpet_x": "x",
    "XDG_RUNTIME_DIR": "/run/user/0",
    "APPTAINERENV_FOO": "by the user",
    "SINGULARITYENV_XDG_CACHE_HOME": "/stale",
    "TMPDIR": "/tmp",
    "TEMP": "/nowhere",
}


# Of this process: other workers clean up after themselves as well.
IDENTITY = f"small-{os.getpid()}"


class Stage:
    """A home, a project folder beside it, an image and a runtime that writes down its start."""

    def __init__(self, work: Path) -> None:
        self.top = Path(tempfile.mkdtemp(dir=work))
        self.home = self.top / "homes" / "me ä"
        self.home.mkdir(parents=True)
        self.project = self.top / "project, one: x"
        self.project.mkdir()
        self.image = self.top / "an image.sif"
        self.image.touch()
        self.root = self.top / "launchers"
        self.told = self.top / "told.json"
        self.links: dict[str, str] = {}
        self.runtime = self.top / "apptainer"
        self.runtime.write_text(
            f"#!{sys.executable} -I\n"
            "import json, os, sys\n"
            # Python changes its own environment: PEP 538.
            "pairs = os.fsdecode(open('/proc/self/environ', 'rb').read()).split('\\0')[:-1]\n"
            f"with open({str(self.told)!r}, 'w') as file:\n"
            "    json.dump([sys.argv, dict(pair.split('=', 1) for pair in pairs)], file)\n"
        )
        self.runtime.chmod(0o755)

    def seen(self, run: Run | None = None, env: dict[str, str] | None = None) -> ImageSeen:
        return ImageSeen(
            path=str(self.image),
            kind="sif",
            identity=IDENTITY,
            title="small",
            arch=MACHINE,
            facts=facts(run, env),
        )

    def probe(self, image: ImageSeen, request: Request) -> HostSeen:
        offered, asked = wished_binds(image, request, "/")
        here = host.probe_host(
            runtime=str(self.runtime),
            runtime_kind="apptainer",
            runtime_version="1.4.5",
            binds=(*offered, *asked),
        )
        pip = personal.probe_pip(Path(here.state), Path(here.home or "/"))
        if pip.kit:
            Path(pip.kit).mkdir(mode=0o700, parents=True, exist_ok=True)
            Path(pip.kit, "pip.zip").touch()
        mpi = MpiSeen(tasks=host_mpi.probe_tasks(), image=image.facts.mpi) if image.facts else None
        local = find_node_local()
        return msgspec.structs.replace(
            here, pip=pip, links=self.links, setuid=False, mpi=mpi, local=local
        )

    def write(self, image: ImageSeen, request: Request) -> Path:
        wrap = Wrap(
            limpet="0",
            number=1,
            image=image.path,
            source=image.path,
            identity=image.identity,
            title=image.title,
            programs={"tool": "/opt/env/bin/tool", "python": "/opt/env/bin/python"},
            request=WrapRequest(launch=request),
        )
        here = self.probe(image, request)
        # A launcher serves all starts: whether tasks can meet is not known now.
        mpi = msgspec.structs.replace(here.mpi, tasks=None) if here.mpi else None
        here = msgspec.structs.replace(here, mpi=mpi)
        script = render_launcher(wrap, image, here, str(self.root))
        launcher = self.root / ".limpet/versions/1/bin/tool"
        launcher.parent.mkdir(parents=True)
        for name, text in render_beside(wrap, image, here, str(self.root)).items():
            (launcher.parent.parent / name).write_text(text)
        launcher.write_text(script)
        launcher.chmod(0o755)
        (self.root / "bin").symlink_to(".limpet/versions/1/bin")
        return self.root / "bin" / "tool"


@pytest.fixture
def stage(work: Path) -> Iterator[Stage]:
    before = Path.cwd()
    yield Stage(work)
    os.chdir(before)
    # Of sessions in a job whose folder is /tmp.
    shutil.rmtree(f"/tmp/limpet-{os.getuid()}/{IDENTITY}", ignore_errors=True)


@pytest.fixture(params=SHELLS, ids=" ".join)
def shell(request: pytest.FixtureRequest) -> list[str]:
    words: list[str] = request.param
    return words


def pairs_of(argv: list[str]) -> list[tuple[str, str]]:
    """The mounts of a command line, in an order of their own."""
    return sorted(
        (flag, word) for flag, word in itertools.pairwise(argv) if flag in ("--bind", "--mount")
    )


def compare(
    stage: Stage,
    shell: list[str],
    monkeypatch: pytest.MonkeyPatch,
    request: Request,
    *,
    image: ImageSeen | None = None,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    starter: str = "",
    links: bool = False,
) -> str:
    """Start the launcher, and hold what the runtime saw against the plan; what it said.

    `starter` is the name of the program that starts it. With `links` the mounts may come in another
    order: the runtime mounts what is higher first.
    """
    image = image or stage.seen()
    session = {"PATH": os.environ["PATH"], "HOME": str(stage.home)} | (env or {})
    if not {"LIMPET_STATE_DIR", "XDG_STATE_HOME"} & session.keys():
        session["LIMPET_STATE_DIR"] = str(stage.top / "state")
        (stage.top / "state").mkdir(mode=0o700, exist_ok=True)
    for name in list(os.environ):
        monkeypatch.delenv(name)
    for name, value in session.items():
        monkeypatch.setenv(name, value)
    launcher = stage.write(image, request)
    os.chdir(cwd or stage.home)
    words = ("a", "b  c", "", "--", "d'e\"f", "g\nh", "-x", "*")
    command = ("/opt/env/bin/tool", *words)
    asked = msgspec.structs.replace(request, command=command)
    here = stage.probe(image, asked)
    siblings = find_siblings(PARENT, starter, os.environ)
    if siblings:
        siblings = msgspec.structs.replace(siblings, folder=slurm.find_job_folder())
    staged = slurm.find_staged(image.identity) or image.path
    plan = plan_launch(
        msgspec.structs.replace(image, path=staged),
        msgspec.structs.replace(here, siblings=siblings),
        asked,
    )
    argv = [*started_by(stage, starter), *shell, str(launcher), *words]
    done = subprocess.run(argv, env=session, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    argv, environment = json.loads(stage.told.read_text())
    own = argv.index(str(stage.root))
    assert argv[own - 1] == "--bind"
    del argv[own - 1 : own + 1]
    planned = list(plan.argv[len(plan.before) :])
    joins = siblings and siblings.rank and "--sharens" in planned
    assert plan.before == (("/bin/sh", "-c", JOIN, "limpet", str(PARENT), "9") if joins else ())
    if str(PARENT) in planned:
        parent = planned.index(str(PARENT))
        assert argv[parent] == (stage.top / "starter.pid").read_text().strip()
        assert argv[parent + 3].startswith(f"{image.identity} ")
        for place in (parent, parent + 3):  # what ranks compare is the launchers' own affair
            argv[place] = planned[place]
    if links:
        assert pairs_of(argv) == pairs_of(planned)
        assert sorted(argv[1:]) == sorted(planned[1:])
    else:
        assert argv[1:] == planned[1:]
    there = {name: value for name, value in environment.items() if name not in OF_SHELLS}
    assert there == {name: value for name, value in plan.env.items() if name not in OF_SHELLS}
    for folder in plan.folders:
        assert Path(folder).is_dir()
        assert Path(folder).stat().st_mode & 0o077 == 0
    for point in plan.points:
        assert Path(point).is_dir()
    return done.stderr


# No process has this number.
PARENT = 2**22 + 1


def started_by(stage: Stage, starter: str) -> list[str]:
    """The words before a command whose parent then has this name."""
    if not starter:
        return []
    program = stage.top / starter
    shutil.copy("/bin/dash", program)
    # A container that is there, and yet cannot be joined: the runtime is started at once.
    lock = "/dev/shm/sharens_instance_$$"
    script = f'echo $$ | tee {lock} >"{stage.top}/starter.pid"; "$@"; end=$?; rm {lock}; exit $end'
    return [str(program), "-c", script, "x"]


RANKS = {"MPI_LOCALNRANKS": "3", "MPI_LOCALRANKID": "2"}
STEP = {
    "SLURM_JOB_ID": "17",
    "SLURM_STEP_TASKS_PER_NODE": "2(x3),1,12",
    "SLURM_NODEID": "4",
    "SLURM_LOCALID": "11",
}


@pytest.mark.parametrize(
    ("starter", "env", "shared"),
    [
        ("slurmstepd", STEP, True),
        ("slurmstepd", STEP | {"SLURM_NODEID": "2", "SLURM_LOCALID": "1"}, True),
        ("slurmstepd", STEP | {"SLURM_NODEID": "3", "SLURM_LOCALID": "0"}, False),
        ("slurmstepd", STEP | {"APPTAINER_SHARENS": "0"}, False),
        ("slurmstepd", STEP | {"APPTAINER_CONFIGDIR": "/own"}, True),
        ("bash", STEP, False),
        ("hydra_pmi_proxy", RANKS, True),
        ("hydra_pmi_proxy", STEP | RANKS, True),
        ("mpirun", {"OMPI_COMM_WORLD_LOCAL_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}, True),
        ("mpirun", {"OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, False),
    ],
)
def test_ranks_of_a_node_share(
    stage: Stage,
    shell: list[str],
    monkeypatch: pytest.MonkeyPatch,
    starter: str,
    env: dict[str, str],
    shared: bool,
) -> None:
    own = stage.top / "of the job"
    own.mkdir()
    env = {"LOCAL_SCRATCH": str(own), "JOBFS": str(stage.top), "LIMPET_RANKS_WAIT_S": "9"} | env
    request = Request(gpu="nvidia", overlays=(f"{stage.top}/over.img",))
    compare(stage, shell, monkeypatch, request, env=env, starter=starter)
    argv, _ = json.loads(stage.told.read_text())
    assert ("--sharens" in argv) is shared


@pytest.mark.parametrize("job", ["17", ""])
def test_a_copy_of_the_image_on_the_nodes_own_disk(
    stage: Stage, shell: list[str], monkeypatch: pytest.MonkeyPatch, job: str
) -> None:
    image = stage.seen()
    places = (f"{stage.home}/env",)
    own = msgspec.structs.replace(facts(), places=places)
    image = msgspec.structs.replace(image, facts=own)
    local = stage.top / 'the "node\'s" own'
    copy = local / f"limpet-job-17/{image.identity}.sif"
    copy.parent.mkdir(parents=True)
    copy.touch()
    env = {"LOCAL_SCRATCH": str(stage.top), "TMPDIR": str(local), "SLURM_JOB_ID": job}
    compare(stage, shell, monkeypatch, Request(), image=image, env=env)
    argv, _ = json.loads(stage.told.read_text())
    assert (str(copy) in argv) is bool(job)


@pytest.mark.parametrize("home", ["isolated", "private", "none", "host"])
def test_what_compilers_keep_is_on_the_nodes_own_disk_in_a_job(
    stage: Stage, shell: list[str], monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    disk = stage.top / "disk, own: x"
    disk.mkdir()
    (stage.top / "scratch").symlink_to(disk)
    request = msgspec.convert({"home": home}, Request)
    env = {"JOBFS": f"{stage.top}/nowhere", "LSF_TMPDIR": f"{stage.top}/scratch", "PBS_JOBID": "1"}
    compare(stage, shell, monkeypatch, request, env=env)
    argv, _ = json.loads(stage.told.read_text())
    place = f"{disk}/limpet-{os.getuid()}/{IDENTITY}"
    assert any(place in word for word in argv) is (home != "host")


def test_a_folder_on_the_nodes_disk_that_is_someone_elses(
    stage: Stage, shell: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link, as who else may write there could have made it."""
    disk = stage.top / "disk"
    disk.mkdir()
    (disk / f"limpet-{os.getuid()}").symlink_to(stage.project)
    launcher = stage.write(stage.seen(), Request())
    env = {"PATH": os.environ["PATH"], "HOME": str(stage.home), "TMPDIR": str(disk)}
    done = subprocess.run(
        [*shell, launcher], env=env | {"SLURM_JOB_ID": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 125
    assert "belongs to someone else, or is a link" in done.stderr
    assert len(done.stderr.splitlines()) <= 3
    assert not stage.told.exists()


KINDS: dict[str, Library | None] = {
    "mpich": Library(
        path="/opt/env/lib/libmpi.so.12",
        soname="libmpi.so.12",
        family="mpich",
        product="MPICH",
        version="4.3.2",
        pmi=("pmi1", "pmi2"),
    ),
    "openmpi": Library(
        path="/opt/it's/libmpi.so.40",
        soname="libmpi.so.40",
        family="openmpi",
        product="Open MPI",
        version="5.0.11",
        pmi=("pmix",),
    ),
    "cray": Library(
        path="/c", soname="libmpi.so.12", family="mpich", product="Cray MPICH", pmi=("libpmi",)
    ),
    "bare": None,
}
OFFERS = {
    "srun, nothing": {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "0"},
    "srun, another rank": {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3"},
    "srun, one task": {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
    "a shell that outlived its job": {"SLURM_STEP_NUM_TASKS": "4", "SLURM_TASK_PID": "4194305"},
    "srun, PMI-2": {"SLURM_STEP_NUM_TASKS": "4", "PMI_FD": "socket", "PMI_JOBID": "1.0"},
    "mpiexec in a step": {"SLURM_STEP_NUM_TASKS": "4", "PMI_FD": "socket", "PMI_SIZE": "2"},
    "mpiexec's port": {"PMI_PORT": "here:1", "PMI_SIZE": "2", "PMI_RANK": "1"},
    "a file that is closed": {"PMI_FD": "9", "PMI_SIZE": "2"},
    "PMIx": {
        "PMIX_NAMESPACE": "a",
        "PMIX_SERVER_URI41": "b",
        "PMIX_RANK": "0",
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": "0",
    },
    "PMIx without a server": {"PMIX_NAMESPACE": "a", "OMPI_COMM_WORLD_SIZE": "2"},
    "both": {"PMIX_NAMESPACE": "a", "PMIX_SERVER_URI": "b", "PMI_PORT": "p", "PMI_SIZE": "x"},
    "PALS": {"PALS_RANKID": "0", "PALS_SIZE": "8"},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("offer", OFFERS)
def test_tasks_that_could_not_meet(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, kind: str, offer: str
) -> None:
    """The launcher starts where the plan does, and says what the plan's error says."""
    library = KINDS[kind]
    needs: dict[str, tuple[str, ...]] = {"libmpi.so.12": (), "libmpi.so.40": ()}
    mpi = ImageMpi(
        libraries=(library,) if library else (), consumers=(Consumer(name="mpi4py", needs=needs),)
    )
    image = stage.seen()
    image = msgspec.structs.replace(image, facts=msgspec.structs.replace(facts(), mpi=mpi))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        env = {"SLURM_TASK_PID": str(os.getpid())} | OFFERS[offer]
        if env.get("PMI_FD") == "socket":
            os.set_inheritable(ours.fileno(), True)
            env["PMI_FD"] = str(ours.fileno())
        env |= {"PATH": os.environ["PATH"], "HOME": str(stage.home)}
        for name in list(os.environ):
            monkeypatch.delenv(name)
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        launcher = stage.write(image, Request())
        request = Request(command=("/opt/env/bin/tool",))
        os.chdir(stage.home)
        for shell in SHELLS:
            stage.told.unlink(missing_ok=True)
            done = subprocess.run(
                [*shell, launcher],
                env=env,
                capture_output=True,
                text=True,
                pass_fds=(ours.fileno(),),
            )
            try:
                plan_launch(image, stage.probe(image, request), request)
            except HostError as error:
                assert done.returncode == 125
                assert not stage.told.exists()
                said = [line.removeprefix("limpet: ") for line in done.stderr.splitlines()]
                decided = "Whether launchers use the host's MPI is decided by"
                assert [s for s in said if not s.startswith(decided)] == str(error).splitlines()
            else:
                assert done.returncode == 0, done.stderr
                assert stage.told.exists()


def test_no_mpi_means_no_question(
    stage: Stage, shell: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mpi = ImageMpi(consumers=(Consumer(name="mpi4py", needs={}),))
    seen = stage.seen()
    image = msgspec.structs.replace(seen, facts=msgspec.structs.replace(facts(), mpi=mpi))
    env = OFFERS["mpiexec's port"]
    compare(stage, shell, monkeypatch, Request(mpi="none"), image=image, env=env)


@pytest.mark.parametrize("home", ["isolated", "private", "none", "host"])
def test_folders_that_an_image_serves(
    stage: Stage, shell: list[str], monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    (stage.home / ".local").mkdir()
    places = (
        f"{stage.home}/an env, of 'mine'",
        f"{stage.home}/.local/deep/env",
        f"{stage.home}/.cache/env",
        f'{stage.project}/my "env"',
        "/sw/nowhere/$env",
    )
    seen = stage.seen()
    own = msgspec.structs.replace(facts(), prefix=places[0], places=places)
    image = msgspec.structs.replace(seen, facts=own)
    request = msgspec.convert({"home": home}, Request)
    compare(stage, shell, monkeypatch, request, image=image, cwd=stage.project)
    (stage.home / "work").mkdir()
    own = msgspec.structs.replace(own, places=(*places, f"{stage.home}/work/env"))
    image = msgspec.structs.replace(seen, facts=own)
    shutil.rmtree(stage.root)
    compare(stage, shell, monkeypatch, request, image=image, cwd=stage.home / "work")


@pytest.mark.parametrize("policy", ["clean", "host", "strict"])
def test_variables(
    stage: Stage, shell: list[str], monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    request = msgspec.convert({"variables": policy}, Request)
    said = compare(stage, shell, monkeypatch, request, env=SESSION)
    assert said == ""


@pytest.mark.parametrize("home", ["isolated", "private", "none", "host"])
@pytest.mark.parametrize("place", ["home", "below", "project", "tmp", "usr", "above", "root"])
def test_homes_and_working_folders(
    stage: Stage, shell: list[str], monkeypatch: pytest.MonkeyPatch, home: str, place: str
) -> None:
    below = stage.home / "below" / "deep"
    below.mkdir(parents=True)
    (stage.home / ".cache").mkdir()
    (stage.home / ".config").symlink_to(stage.project)
    (stage.home / ".keras").symlink_to("below")
    (stage.home / ".conda").symlink_to("nowhere")
    places = {
        "home": stage.home,
        "below": below,
        "project": stage.project,
        "tmp": Path("/tmp"),
        "usr": Path("/usr/bin"),
        "above": stage.home.parent,
        "root": Path("/"),
    }
    request = msgspec.convert({"home": home}, Request)
    env = {"TMPDIR": str(stage.home / "tmp"), "TMP": str(stage.project / "x")}
    said = compare(stage, shell, monkeypatch, request, cwd=places[place], env=env)
    hidden = place in ("usr", "above", "root") or (home in ("private", "none") and place == "home")
    hidden |= home == "isolated" and place == "project"  # ~/.config leads there
    assert ("is not seen inside" in said) == (
        hidden and not (home == "private" and place == "home")
    )


# Below the personal folders, and whether one may stand there under each policy.
STANDS = {
    ".cache/x y/deep": True,
    ".local/share/x": True,
    ".conda/envs/e": True,
    ".config": False,
    ".local/lib/python3.13/site-packages": False,
    ".local/bin": False,
    ".hidden/x": True,
}


@two_shells
@pytest.mark.parametrize("linked", [False, True], ids=["", "a home over a link"])
@pytest.mark.parametrize("home", ["isolated", "private", "none", "host"])
@pytest.mark.parametrize("place", STANDS)
def test_working_folders_below_personal_ones(
    stage: Stage,
    shell: list[str],
    monkeypatch: pytest.MonkeyPatch,
    home: str,
    place: str,
    linked: bool,
) -> None:
    folder = stage.home / place
    folder.mkdir(parents=True)
    (stage.home / ".bashrc").touch()
    env = {"TMPDIR": str(folder)}
    if linked:
        (stage.top / "users").symlink_to("homes")
        env["HOME"] = str(stage.top / "users" / stage.home.name)
    request = msgspec.convert({"home": home}, Request)
    said = compare(stage, shell, monkeypatch, request, cwd=folder, env=env)
    assert ("is not seen inside" in said) == (not STANDS[place] and home != "host")


@pytest.mark.parametrize(
    ("place", "seen"),
    [("cache", False), ("cache/x", True), (".", True), ("cache/.conda", False)],
)
def test_working_folders_that_personal_ones_lead_to(
    stage: Stage, shell: list[str], monkeypatch: pytest.MonkeyPatch, place: str, seen: bool
) -> None:
    scratch = stage.top / "scratch"
    (scratch / "cache/x/keras").mkdir(parents=True)
    (scratch / "cache/.conda/pkgs").mkdir(parents=True)
    (stage.home / ".cache").symlink_to(scratch / "cache")
    (stage.home / ".conda").symlink_to(scratch / "cache/.conda")
    (stage.home / ".local").mkdir()
    said = compare(stage, shell, monkeypatch, Request(), cwd=scratch / place)
    assert ("is not seen inside" in said) is not seen


@two_shells
@pytest.mark.parametrize("home", ["isolated", "private", "none", "host"])
@pytest.mark.parametrize(
    "place", ["pfs/appl/project", "pfs/appl", "pfs/appl/a, b", "pfs", "pfs/other", "homes/me ä"]
)
def test_links_at_the_top(
    stage: Stage, shell: list[str], monkeypatch: pytest.MonkeyPatch, home: str, place: str
) -> None:
    """Here they are not at the top, which only the look at the machine knows."""
    for folder in ("pfs/appl/project", "pfs/appl/a, b", "pfs/appl/cache", "pfs/other", "pfs/gone"):
        (stage.top / folder).mkdir(parents=True)
    (stage.top / "appl").symlink_to("pfs/appl")
    (stage.home / ".cache").symlink_to(stage.top / "appl/cache")
    stage.links = {str(stage.top / "appl"): str(stage.top / "pfs/appl")}
    binds = [f"{stage.top}/appl/project", f"{stage.top}/pfs/other:{stage.top}/pfs/other:ro"]
    request = msgspec.convert({"home": home, "binds": binds}, Request)
    compare(stage, shell, monkeypatch, request, cwd=stage.top / place, links=True)
    shutil.rmtree(stage.root)
    request = msgspec.convert({"home": home}, Request)
    compare(stage, shell, monkeypatch, request, cwd=stage.top / place, links=True)


def test_a_served_folder_below_the_working_folder_in_a_personal_one(
    stage: Stage, shell: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = stage.home / ".local/share"
    folder.mkdir(parents=True)
    own = msgspec.structs.replace(facts(), places=(f"{folder}/env", f"{stage.home}/.local/env"))
    image = msgspec.structs.replace(stage.seen(), facts=own)
    compare(stage, shell, monkeypatch, Request(), image=image, cwd=folder)
    compare_again = Request(pwd="/elsewhere")
    shutil.rmtree(stage.root)
    compare(stage, shell, monkeypatch, compare_again, image=image, cwd=folder)


@pytest.mark.parametrize("place", ["home", "below", "project"])
@pytest.mark.parametrize("policy", ["private", "isolated", "none"])
def test_a_home_below_tmp(
    stage: Stage, shell: list[str], monkeypatch: pytest.MonkeyPatch, place: str, policy: str
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        home = Path(name, "home")
        (home / "below").mkdir(parents=True)
        (home / ".cache").mkdir()
        places = {"home": home, "below": home / "below", "project": stage.project}
        env = {"HOME": str(home), "TMPDIR": f"{home}/below", "TMP": "/tmp", "TEMP": f"{name}/x"}
        request = msgspec.convert({"home": policy}, Request)
        compare(stage, shell, monkeypatch, request, env=env, cwd=places[place])


SETTINGS = {
    "MIOPEN_USER_DB_PATH": "/session",
    "APPTAINERENV_NUMBA_CACHE_DIR": "/ours",
    "SINGULARITYENV_CUPY_CACHE_DIR": "/theirs",
    "APPTAINERENV_XDG_CACHE_HOME": "/ours",
    "SINGULARITYENV_XDG_CONFIG_HOME": "/theirs",
    "APPTAINERENV_BOTH": "/ours",
    "SINGULARITYENV_BOTH": "/theirs",
    "PYTENSOR_FLAGS": "device=cpu",
    "MY_INCLUDE_PATH": "/x",
    "CUDA_INCLUDE_PATH": "/x",
    "NLTK_DATA": "/nltk",
}


@pytest.mark.parametrize("home", ["isolated", "none", "host"])
@pytest.mark.parametrize(
    "words",
    [
        (),
        ("PYTENSOR_FLAGS", "NLTK_DATA", "XDG_CACHE_HOME", "MY_INCLUDE_PATH"),
        ("PYTENSOR_FLAGS=mode=FAST_RUN", "NUMBA_CACHE_DIR=/said"),
        ("PYTENSOR_FLAGS=compiledir=/mine",),
    ],
    ids=" ".join,
)
def test_settings_of_caches_and_of_the_runtime(
    stage: Stage,
    shell: list[str],
    monkeypatch: pytest.MonkeyPatch,
    home: str,
    words: tuple[str, ...],
) -> None:
    request = msgspec.convert({"home": home, "env": words}, Request)
    compare(stage, shell, monkeypatch, request, env=SETTINGS)


def test_settings_of_caches_that_the_host_may_have(
    stage: Stage, shell: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    compare(stage, shell, monkeypatch, Request(variables="host"), env=SETTINGS)


def test_an_image_that_has_flags_of_its_own(
    stage: Stage, shell: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = stage.seen(env={"PYTENSOR_FLAGS": "device=cpu", "NUMBA_CACHE_DIR": "/fixed"})
    compare(stage, shell, monkeypatch, Request(), image=image, env=SETTINGS)


@pytest.mark.parametrize("home", ["isolated", "private", "none", "host"])
def test_what_an_images_maker_set(
    stage: Stage, shell: list[str], monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    theirs = {
        "NUMBA_CACHE_DIR": "/tmp/numba",
        "TRITON_CACHE_DIR": "/opt/triton",
        "CUPY_CACHE_DIR": "$HOME/cupy",
        "NLTK_DATA": "/usr/share/nltk_data",
        "PYTENSOR_FLAGS": "device=cpu",
        "KERAS_HOME": "/opt/keras",
        "XDG_CACHE_HOME": "/opt/cache",
        "MIOPEN_USER_DB_PATH": "/bound/miopen",
    }
    foreign = msgspec.structs.replace(stage.seen(), facts=None, env=theirs)
    request = msgspec.convert({"home": home, "binds": [f"{stage.top}:/bound"]}, Request)
    compare(stage, shell, monkeypatch, request, image=foreign, env=SETTINGS)
    shutil.rmtree(stage.root)
    theirs["PYTENSOR_FLAGS"] = "compiledir=$HOME/x"
    own = msgspec.structs.replace(facts(env={"TRITON_CACHE_DIR": "/fixed"}), base_env=theirs)
    image = msgspec.structs.replace(stage.seen(), facts=own)
    compare(stage, shell, monkeypatch, request, image=image, env=SETTINGS)


def test_a_home_over_a_link(
    stage: Stage, shell: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (stage.top / "users").symlink_to("homes")
    (stage.home / ".local").mkdir()
    home = stage.top / "users" / stage.home.name
    env = {"HOME": str(home)}
    compare(stage, shell, monkeypatch, Request(), env=env, cwd=stage.home)


@pytest.mark.parametrize(
    "env",
    [
        {"LIMPET_STATE_DIR": "{top}/a state"},
        {"LIMPET_STATE_DIR": "relative"},
        {"LIMPET_STATE_DIR": "~/mine"},
        {"XDG_STATE_HOME": "{top}/xdg"},
        {"XDG_STATE_HOME": "relative"},
    ],
    ids=str,
)
def test_the_state_folder(
    stage: Stage, shell: list[str], monkeypatch: pytest.MonkeyPatch, env: dict[str, str]
) -> None:
    env = {name: value.format(top=stage.top) for name, value in env.items()}
    # Made at the first start, a launcher covers it at once and `run` from the second start on.
    (stage.home / ".local").mkdir()
    compare(stage, shell, monkeypatch, Request(), env=env)


def test_a_state_folder_that_cannot_be_written(
    stage: Stage, shell: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = stage.top / "locked"
    locked.mkdir(mode=0o500)
    passing = stage.top / "passing"
    passing.mkdir()
    env = {"LIMPET_STATE_DIR": str(locked / "state"), "TMPDIR": str(passing)}
    said = compare(stage, shell, monkeypatch, Request(), env=env)
    assert "will not last" in said


def test_binds_values_overlays_and_options(
    stage: Stage, shell: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = stage.top / 'da"ta, 1'
    data.mkdir()
    request = Request(
        binds=(f"{data}", f"{stage.project.parent}/homes:/somewhere:ro"),
        site_binds=(f"{stage.top}/missing", f"{stage.top}/homes:/offered"),
        env=("FOO", 'BAR=it\'s $HOME, "so"\nand `so`', "ABSENT", "TMPDIR=/scratch"),
        overlays=(f"{stage.top}/over lay.img",),
        writable_tmpfs=True,
        gpu="nvidia",
    )
    image = stage.seen(
        Run(pass_variables=("MY_*",), bind=("/recipe",)), {"XDG_CONFIG_HOME": "/fixed"}
    )
    env = SESSION | {"MY_NAME": "mine", "TMP": f"{data}/tmp"}
    said = compare(stage, shell, monkeypatch, request, image=image, env=env, cwd=data)
    assert f"{stage.top}/missing does not exist here." in said


@pytest.mark.parametrize(
    ("request_", "env", "used"),
    [
        (Request(), {}, True),
        (Request(binds=("/dev/null:/opt/env/lib/python3.13/site-packages/x.py",)), {}, False),
        (Request(binds=("/dev/null:/elsewhere",)), {"APPTAINER_BIND": "/etc/hosts:/h"}, True),
        (Request(writable_tmpfs=True), {}, False),
        (Request(), {"APPTAINER_BIND": "/etc/hosts,/etc:/usr/lib/x:ro"}, False),
        (Request(), {"SINGULARITY_BINDPATH": "/usr/lib"}, False),
        (Request(), {"APPTAINER_MOUNT": "type=bind,src=/etc,dst=/usr/lib/x"}, False),
        (Request(), {"APPTAINER_OVERLAY": "over.img"}, False),
        (Request(), {"LIMPET_MODULES": "of another"}, True),
    ],
)
def test_the_module_archive(
    stage: Stage,
    shell: list[str],
    monkeypatch: pytest.MonkeyPatch,
    request_: Request,
    env: dict[str, str],
    used: bool,
) -> None:
    compare(stage, shell, monkeypatch, request_, env=env)
    _, environment = json.loads(stage.told.read_text())
    assert ("LIMPET_MODULES" in environment) is used


def test_gpus_and_a_working_folder_that_were_asked_for(
    stage: Stage, shell: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    compare(stage, shell, monkeypatch, Request(gpu="amd", pwd="/else where"))


def test_a_foreign_image(stage: Stage, shell: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    image = msgspec.structs.replace(stage.seen(), facts=None)
    compare(stage, shell, monkeypatch, Request(), image=image, env=SESSION)


def test_a_home_with_a_colon(
    stage: Stage, shell: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = stage.top / "a:b"
    home.mkdir()
    said = compare(stage, shell, monkeypatch, Request(), env={"HOME": str(home)}, cwd=Path("/tmp"))
    assert "There is no home inside" in said


def test_no_home_in_the_session_means_the_accounts(
    stage: Stage, shell: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    env = {"HOME": "/nowhere", "USER": os.environ.get("USER", "")}
    compare(stage, shell, monkeypatch, Request(), env=env, cwd=Path("/tmp"))


def test_exported_functions_do_not_reach_the_program(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = {f"BASH_FUNC_{name}%%": "() {  echo host; }" for name in ("module", "my-own")}
    compare(stage, ["bash"], monkeypatch, Request(), env=env)


@pytest.mark.parametrize("home", ["isolated", "private", "none", "host"])
def test_a_system_that_is_the_hosts(
    stage: Stage, shell: list[str], monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    (stage.home / ".local/an env").mkdir(parents=True)
    (stage.home / "python").mkdir()
    needed = (f"{stage.home}/.local/an env", f"{stage.home}/python")
    python = HostPython(
        version="3.13.5",
        hexversion=0x030D05F0,
        cache_tag="cpython-313",
        prefix=needed[0],
        machine=MACHINE,
        libc="glibc 2.41",
        files=(HostFile(path="/usr/bin/env", size_bytes=0, mtime_ns=0, sha256=""),),
        folders=("/usr", "/etc", "/not on this node", str(stage.project), *needed),
    )
    own = msgspec.structs.replace(facts(), host=python)
    image = msgspec.structs.replace(stage.seen(), facts=own)
    request = msgspec.convert({"home": home, "binds": [f"{stage.top}:/top"]}, Request)
    said = compare(stage, shell, monkeypatch, request, image=image, cwd=stage.project)
    assert said == ""
