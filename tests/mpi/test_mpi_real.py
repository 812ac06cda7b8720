"""Real ranks: an image's MPI, a host's, both started by the host's own mpiexec."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from limpet.actions.mpi import _MEET
from tests.mpi.conftest import Worker

pytestmark = pytest.mark.real

OWN = "/opt/env/lib/libmpi.so.12"
HOSTS = "/.limpet/mpi/lib"
_LOOK = (
    "import os; print(open('/etc/fabric/settings').read(), end=''); "
    "print(os.environ['FI_PROVIDER'], os.environ.get('UCX_TLS'))"
)


def check_ranks(said: str, count: int, title: str, library: str) -> None:
    """Each rank once, the right sum, one library."""
    ranks = sorted(re.findall(r"rank (\d+) of (\d+) sum (\d+)", said))
    total = str(count * (count + 1) // 2)
    assert ranks == [(str(rank), str(count), total) for rank in range(count)], said
    assert said.count(title) == count, said
    assert said.count(f" {library}") == count, said


def test_ranks_of_a_hosts_mpiexec_meet_with_the_images_mpi(
    worker: Worker, hosts: dict[str, Path], mpi_images: dict[str, Path]
) -> None:
    """The starter is of another version than the image's library: PMI is what they share."""
    mpiexec = hosts["mpich"] / "bin/mpiexec"
    run = worker.limpet("run", mpi_images["mpich"], "python", "x.py")
    said = worker.said(mpiexec, "-n", "4", *run)
    check_ranks(said, 4, "4.3.2", OWN)
    mpiexec = hosts["openmpi"] / "bin/mpiexec"
    run = worker.limpet("run", mpi_images["openmpi"], "python", "x.py")
    said = worker.said(mpiexec, "--oversubscribe", "-n", "2", *run)
    check_ranks(said, 2, "Open MPI v", "/opt/env/lib/libmpi.so.40")


def test_ranks_of_a_hosts_mpiexec_share_a_container_by_launchers(
    worker: Worker, hosts: dict[str, Path], mpi_images: dict[str, Path]
) -> None:
    """As `limpet run` and a launcher start them where nobody has decided about sharing."""
    worker.said(*worker.limpet("-q", "wrap", mpi_images["mpich"], "env"))
    program = worker.folder / "x.py"
    program.write_text(program.read_text() + "import os; print(os.readlink('/proc/self/ns/mnt'))\n")
    mpiexec = hosts["mpich"] / "bin/mpiexec"
    undecided = ("env", "-u", "APPTAINER_SHARENS")
    said = worker.said(*undecided, mpiexec, "-n", "4", "env/bin/python", "x.py")
    check_ranks(said, 4, "4.3.2", OWN)
    assert len(set(re.findall(r"mnt:\S+", said))) == 1, said


# The last rank alone says 7, when the others have ended: hydra stops what is left of a job in which
# one has failed. The first hears a signal to its group twice, of two processes of the runtime, the
# second time maybe when Python, on its way out, has taken its handlers away.
HEARS = """\
import os, signal, time
rank = os.environ.get("PMI_RANK") or os.environ["OMPI_COMM_WORLD_RANK"]
def hear(*_):
    os.write(1, b"told\\n")
    if rank == "2":
        time.sleep(6)  # mpiexec ends what is left then: the others' containers have to be gone
    os._exit(7 if rank == "2" else 0)
signal.signal(signal.SIGUSR1, hear)
os.write(1, b"ready\\n")
signal.pause()
"""


@pytest.mark.parametrize("family", ["mpich", "openmpi"])
def test_ranks_of_a_hosts_mpiexec_that_hear_a_signal_end_as_they_say(
    worker: Worker, hosts: dict[str, Path], mpi_images: dict[str, Path], family: str
) -> None:
    """mpiexec signals a task's process group, in which the runtime's process would die of it."""
    worker.said(*worker.limpet("-q", "wrap", "--mpi", "none", mpi_images["mpich"], "env"))
    (worker.folder / "hears.py").write_text(HEARS)
    more = ["--oversubscribe"] if family == "openmpi" else []
    running = subprocess.Popen(
        [hosts[family] / "bin/mpiexec", *more, "-n", "3", "env/bin/python", "hears.py"],
        env={name: value for name, value in worker.env().items() if name != "APPTAINER_SHARENS"},
        cwd=worker.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stdout
    assert [running.stdout.readline() for _ in range(3)] == ["ready\n"] * 3
    running.send_signal(signal.SIGUSR1)
    out, err = running.communicate(timeout=90)
    assert running.returncode == 7, err
    assert out.count("told") >= 3


@pytest.mark.parametrize(
    ("host", "title", "soname"),
    [
        ("mpich", "5.0.2", "libmpi.so.12"),
        ("openmpi", "Open MPI v5.0.11", "libmpi.so.40"),
        ("impi-rt", "Intel(R) MPI Library 2021.11", "libmpi.so.12"),
    ],
)
def test_ranks_meet_with_the_hosts_mpi(
    worker: Worker,
    hosts: dict[str, Path],
    mpi_images: dict[str, Path],
    host: str,
    title: str,
    soname: str,
) -> None:
    """mpi4py looks into its environment first, where the image's own library lies."""
    root = hosts[host]
    run = worker.limpet("run", "--mpi", "host", mpi_images["mpich"], "python", "x.py")
    more = ("--oversubscribe",) if host == "openmpi" else ()
    env = {"I_MPI_ROOT": str(root)} if host == "impi-rt" else {"LD_LIBRARY_PATH": f"{root}/lib"}
    said = worker.said(root / "bin/mpiexec", *more, "-n", "2", *run, env=env)
    check_ranks(said, 2, title, f"{HOSTS}/{soname}")


def test_auto_takes_the_hosts_where_the_images_cannot_speak_to_the_starter(
    worker: Worker, hosts: dict[str, Path], mpi_images: dict[str, Path]
) -> None:
    """Open MPI's mpiexec offers PMIx, which the image's MPICH does not speak."""
    mpiexec = hosts["openmpi"] / "bin/mpiexec"
    run = worker.limpet("run", mpi_images["mpich"], "python", "x.py")
    env = {"LD_LIBRARY_PATH": str(hosts["openmpi"] / "lib")}
    said = worker.said(mpiexec, "--oversubscribe", "-n", "2", *run, env=env)
    check_ranks(said, 2, "Open MPI v", f"{HOSTS}/libmpi.so.40")


def test_an_image_without_a_library_takes_the_hosts_also_for_one_task(
    worker: Worker, hosts: dict[str, Path], mpi_images: dict[str, Path]
) -> None:
    run = worker.limpet("run", mpi_images["bare"], "python", "x.py")
    said = worker.said(*run, env={"MPICH_DIR": str(hosts["mpich"])})
    check_ranks(said, 1, "5.0.2", f"{HOSTS}/libmpi.so.12")


def test_launchers_use_the_hosts_mpi_and_the_images(
    worker: Worker, hosts: dict[str, Path], mpi_images: dict[str, Path]
) -> None:
    env = {"LD_LIBRARY_PATH": str(hosts["mpich"] / "lib")}
    worker.said(*worker.limpet("wrap", "--mpi", "host", mpi_images["mpich"], "host"), env=env)
    worker.said(*worker.limpet("wrap", mpi_images["mpich"], "own"))
    mpiexec = hosts["mpich"] / "bin/mpiexec"
    for folder, title, library in (
        ("host", "5.0.2", f"{HOSTS}/libmpi.so.12"),
        ("own", "4.3.2", OWN),
    ):
        said = worker.said(mpiexec, "-n", "4", worker.folder / folder / "bin/python", "x.py")
        check_ranks(said, 4, title, library)


def test_tasks_that_could_not_meet_are_not_started(
    worker: Worker, hosts: dict[str, Path], mpi_images: dict[str, Path]
) -> None:
    """Open MPI under MPICH's mpiexec would be rank 0 of 1 twice."""
    mpiexec = hosts["mpich"] / "bin/mpiexec"
    run = worker.limpet("run", mpi_images["openmpi"], "python", "x.py")
    done = worker.run(mpiexec, "-n", "2", *run)
    assert done.returncode == 125, done.stdout + done.stderr
    assert "rank" not in done.stdout
    assert "2 tasks of this mpiexec start would not find each other" in done.stderr
    assert done.stderr.count("speaks PMIx; mpiexec offers PMI-1, PMI-2") == 1
    worker.said(*worker.limpet("wrap", mpi_images["openmpi"], "env"))
    launched = worker.run(mpiexec, "-n", "2", worker.folder / "env/bin/python", "x.py")
    assert launched.returncode == 125, launched.stdout + launched.stderr
    lines = {*launched.stderr.replace("limpet: ", "").splitlines()}
    assert {*done.stderr.replace("limpet: ", "").splitlines()} < lines
    plain = worker.limpet("run", "--mpi", "none", mpi_images["openmpi"], "python", "-c", "print(1)")
    # Without a barrier the first may end before the other has joined it.
    said = worker.said(mpiexec, "-n", "2", *plain, env={"APPTAINER_SHARENS": "false"})
    assert said.split() == ["1", "1"]


def test_explain_names_the_library_that_was_loaded(
    worker: Worker, hosts: dict[str, Path], mpi_images: dict[str, Path]
) -> None:
    mpiexec = hosts["mpich"] / "bin/mpiexec"
    explain = ("run", "--explain", mpi_images["mpich"], "python", "x.py")
    own = worker.said(mpiexec, "-n", "2", *worker.limpet(*explain))
    assert own.count(f"mpi loads    MPICH Version:      4.3.2, {OWN}") == 2
    env = {"LD_LIBRARY_PATH": str(hosts["mpich"] / "lib")}
    said = worker.said(*worker.limpet(*explain[:1], "--mpi", "host", *explain[1:]), env=env)
    assert f"mpi loads    MPICH Version:      5.0.2, {HOSTS}/libmpi.so.12" in said
    assert "bind" in said


def test_mpi_says_what_goes_together_and_a_probe_is_a_set(
    worker: Worker, hosts: dict[str, Path], mpi_images: dict[str, Path]
) -> None:
    env = {"LD_LIBRARY_PATH": f"{hosts['mpich']}/lib:{hosts['openmpi']}/lib"}
    told = worker.said(*worker.limpet("mpi", mpi_images["mpich"]), env=env)
    assert "MPICH 4.3.2 (libmpi.so.12), speaks PMI-1, PMI-2: /opt/env/lib/libmpi.so.12" in told
    assert told.count("         works with the image") == 2
    assert "mpi4py/MPI needs libmpi.so.12 or libmpi.so.40; MPICH 5.0.2 is libmpi_abi.so.1" in told
    assert "choice   the image's" in told
    found = json.loads(worker.said(*worker.limpet("mpi", "--json", mpi_images["mpich"]), env=env))
    assert found["chosen"] == "image"
    assert {host["name"] for host in found["sets"]} >= {"mpich-5.0.2", "openmpi-5.0.11"}

    config = worker.folder / "site.toml"
    config.write_text(worker.said(*worker.limpet("mpi", "--probe", mpi_images["mpich"]), env=env))
    assert config.read_text().count("two ranks met") == 2
    run = worker.limpet("--config", config, "run", "--mpi", "openmpi-5.0.11", mpi_images["mpich"])
    check_ranks(worker.said(*run, "python", "x.py"), 1, "Open MPI v", f"{HOSTS}/libmpi.so.40")


def test_a_rank_tells_a_probe_in_one_write(worker: Worker, mpi_images: dict[str, Path]) -> None:
    """Else two ranks' words mix, and a probe sometimes says that they did not meet."""
    heard, told = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # keeps writes apart
    start = worker.limpet("run", mpi_images["mpich"], "python", "-c", _MEET)
    with heard, told:
        env = worker.env(PYTHONUNBUFFERED="1")
        subprocess.run(
            start, env=env, cwd=worker.folder, stdout=told.fileno(), timeout=90, check=True
        )
        told.shutdown(socket.SHUT_WR)
        writes = [*iter(lambda: heard.recv(65536).decode(), "")]
    assert len(writes) == 1, writes
    assert writes[0].startswith("limpet-mpi [0, 1, 1, ")
    assert writes[0].endswith("]]\n")


@pytest.mark.parametrize("way", ["MPICH_DIR", "CRAY_MPICH_DIR", "mpicc", "mpirun", "the path"])
def test_a_module_is_found_by_what_it_sets(
    worker: Worker, hosts: dict[str, Path], mpi_images: dict[str, Path], way: str
) -> None:
    root = worker.folder / "modules" / "mpich"
    (root / "bin").mkdir(parents=True)
    shutil.copytree(hosts["mpich"] / "lib", root / "lib")
    env = {way: str(root)}
    if way.startswith("mpi"):
        (root / "bin" / way).symlink_to(hosts["mpich"] / "bin" / way)
        env = {"PATH": f"{root}/bin:/usr/bin:/bin:/usr/sbin:/sbin"}
    elif way == "the path":
        env = {"LD_LIBRARY_PATH": f"{root}/lib"}
    told = worker.said(*worker.limpet("mpi", "--json", mpi_images["mpich"]), env=env)
    found = [one["library"]["path"] for one in json.loads(told)["sets"]]
    assert f"{root}/lib/libmpi.so.12" in found, found


def test_a_sites_set_sets_and_takes_away_variables(
    worker: Worker, hosts: dict[str, Path], mpi_images: dict[str, Path]
) -> None:
    extra = worker.folder / "fabric"
    extra.mkdir()
    (extra / "settings").write_text("fast\n")
    copied = extra / "libcopied.so.1"
    shutil.copy(hosts["mpich"] / "lib/mpich/libucm.so.0", copied)
    config = worker.folder / "site.toml"
    config.write_text(
        f'[mpi.ours]\nlibrary = "{hosts["mpich"]}/lib/libmpi.so.12"\n'
        f'copies = ["{extra}/*.so.*"]\nbinds = ["{extra}:/etc/fabric:ro"]\n'
        'variables = { FI_PROVIDER = "tcp" }\nconflicts = ["UCX_TLS"]\n'
    )
    run = worker.limpet("--config", config, "run", "--mpi", "ours", mpi_images["mpich"])
    script = 'cat /etc/fabric/settings; echo "$FI_PROVIDER ${UCX_TLS-none}"; ls /.limpet/mpi/lib'
    said = worker.said(*run, "sh", "-c", script, env={"UCX_TLS": "all"})
    assert said.splitlines()[:2] == ["fast", "tcp none"]
    assert "libcopied.so.1" in said
    wrap = worker.limpet("--config", config, "wrap", "--mpi", "ours", mpi_images["mpich"], "env")
    for made in (wrap, worker.limpet("update", "env")):  # which finds the configuration again
        worker.said(*made)
        launched = worker.said(worker.folder / "env/bin/python", "-c", _LOOK, env={"UCX_TLS": "x"})
        assert launched == "fast\ntcp None\n"
    assert not re.search(r"^(libc|libm|ld-linux.*|libpthread)\.so", said, re.MULTILINE)


# ---- bad input -----------------------------------------------------------------------------------


def changed_host(source: Path, folder: Path, old: bytes, new: bytes) -> Path:
    """The host's MPICH with a word of its symbol tables changed."""
    shutil.copytree(source / "lib", folder / "lib")
    library = folder / "lib/libmpi.so.12"
    data = library.read_bytes()
    assert old in data and len(old) == len(new)
    library.write_bytes(data.replace(old, new))
    return folder


@pytest.mark.parametrize(
    ("old", "new", "refusal"),
    [
        (
            b"\0GLIBC_2.17\0",
            b"\0GLIBC_9.99\0",
            "needs glibc 9.99; the image has 2.41. Build on a newer base.",
        ),
        (
            b"PMPI_Comm_dup\0",
            b"PMPI_Comm_xxx\0",
            "mpi4py/MPI needs MPI_Comm_dup, which MPICH 5.0.2 does not have",
        ),
    ],
    ids=["a newer libc", "a symbol"],
)
def test_a_host_library_that_does_not_fit_is_refused(
    worker: Worker,
    hosts: dict[str, Path],
    mpi_images: dict[str, Path],
    old: bytes,
    new: bytes,
    refusal: str,
) -> None:
    host = changed_host(hosts["mpich"], worker.folder / "h", old, new)
    run = worker.limpet("run", "--mpi", "host", mpi_images["mpich"], "python", "x.py")
    done = worker.run(*run, env={"MPICH_DIR": str(host)})
    assert done.returncode == 125
    assert refusal in done.stderr


def test_a_compiled_program_takes_its_own_family_of_the_host_and_no_other(
    worker: Worker, hosts: dict[str, Path], mpi_images: dict[str, Path]
) -> None:
    """mpi4py's wheels know both families; what was compiled knows one, and has an RPATH, which the
    loader follows before anything that can be set."""
    source = (
        "int MPI_Get_library_version(char *, int *);\n"
        "int version(char *text) { int size; return MPI_Get_library_version(text, &size); }\n"
    )
    library = hosts["mpich"] / "lib/libmpi.so.12"
    build = ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-x", "none", str(library)]
    build += ["-Wl,--unresolved-symbols=ignore-all,--disable-new-dtags,-rpath,/opt/env/lib"]
    build += ["-o", "solver.so"]
    subprocess.run(build, input=source.encode(), cwd=worker.folder, check=True)
    recipe = worker.folder / "limpet.toml"
    recipe.write_text(
        '[image]\nbase = "debian:trixie"\n[packages]\npip = ["mpich==4.3.2"]\n'
        '[files]\n"solver.so" = "/opt/solver/solver.so"\n'
    )
    layers = ("--layout", "layered")  # which have to be read one over the other
    worker.said(*worker.limpet("-q", "build", recipe, *layers, "-o", "solver.sif"))
    told = worker.said(*worker.limpet("mpi", "solver.sif"))
    assert "MPICH 4.3.2 (libmpi.so.12), speaks PMI-1, PMI-2: /opt/env/lib/libmpi.so.12" in told
    assert "glibc 2.41" in told
    script = "import ctypes; text = ctypes.create_string_buffer(9999); "
    script += "ctypes.CDLL('/opt/solver/solver.so').version(text); print(text.value.decode()[:40])"
    ours, theirs = (
        worker.limpet("run", "--mpi", policy, "solver.sif", "python", "-c", script)
        for policy in ("image", "host")
    )
    env = {"LD_LIBRARY_PATH": str(hosts["mpich"] / "lib")}
    assert "4.3.2" in worker.said(*ours, env=env)
    assert "5.0.2" in worker.said(*theirs, env=env)
    done = worker.run(*theirs, env={"LD_LIBRARY_PATH": str(hosts["openmpi"] / "lib")})
    assert done.returncode == 125
    assert "/opt/solver/solver needs libmpi.so.12; Open MPI 5.0.11 is libmpi.so.40" in done.stderr


def test_an_image_in_a_folder_is_read_as_well(worker: Worker, hosts: dict[str, Path]) -> None:
    sandbox = worker.folder / "sandbox"
    (sandbox / "bin").mkdir(parents=True)
    (sandbox / "bin/sh").touch()
    shutil.copytree(hosts["mpich"] / "lib", sandbox / "usr/local/lib")
    told = worker.said(*worker.limpet("mpi", sandbox))
    assert "MPICH 5.0.2 (libmpi.so.12), speaks PMI-1, PMI-2: /usr/local/lib/libmpi.so.12" in told
    assert "nothing in it is linked to MPI" in told


def test_variables_of_another_job_are_not_believed(
    worker: Worker, mpi_images: dict[str, Path]
) -> None:
    """A shell that was left open after salloc, or a batch script's own environment."""
    stale = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4"}
    stale |= {"SLURM_STEP_ID": "0", "SLURM_PROCID": "2", "SLURM_TASK_PID": "999999999"}
    run = worker.limpet("run", mpi_images["mpich"], "python", "-c", "print('started')")
    assert worker.said(*run, env=stale | {"PMI_FD": "77"}) == "started\n"


def test_policies_that_cannot_be_are_errors(worker: Worker, mpi_images: dict[str, Path]) -> None:
    for image, policy, code, word in (
        ("bare", "image", 125, "the image has no MPI library"),
        ("mpich", "nothere", 125, "there is no host set of this name"),
        ("mpich", "host", 125, "no MPI library of this machine works with the image"),
    ):
        path = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}
        run = worker.limpet("run", "--mpi", policy, mpi_images[image], "true")
        done = worker.run(*run, env=path)
        assert (done.returncode, word in done.stderr) == (code, True), done.stderr
