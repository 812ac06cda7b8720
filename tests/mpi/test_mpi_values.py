"""Families, pairs, what a launcher offers, and what a start does about it, as values."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from limpet.core.elf import is_general, is_libc, newest
from limpet.core.errors import HostError, ImageError, LimpetError, UsageError
from limpet.core.facts import Libc
from limpet.core.mpi import (
    Consumer,
    HostSet,
    ImageMpi,
    Library,
    family_of,
    identify,
    pair,
    parse_tasks,
    without_symbols,
)
from limpet.core.mpi_plan import MpiSeen, needs_host, plan_mpi
from limpet.core.numbers import is_newer
from limpet.tools.config import read_config
from limpet.tools.host_mpi import parse_loader_cache, parse_mpi_list

LIBC = Libc(family="glibc", version="2.36")
MPICH = Library(
    path="/opt/env/lib/libmpi.so.12",
    soname="libmpi.so.12",
    family="mpich",
    product="MPICH",
    version="4.3.2",
    pmi=("pmi1", "pmi2"),
)
OPEN = Library(
    path="/apps/openmpi/lib/libmpi.so.40",
    soname="libmpi.so.40",
    family="openmpi",
    product="Open MPI",
    version="5.0.11",
    pmi=("pmix",),
)
BOTH = Consumer(
    name="mpi4py/MPI",
    needs={"libmpi.so.12": ("MPI_Init", "MPI_Send"), "libmpi.so.40": ("MPI_Init",)},
)
IMAGE = ImageMpi(libraries=(MPICH,), consumers=(BOTH,), compiler={"GLIBCXX": "3.4.30"})
SYMBOLS = ("MPI_Init", "MPI_Send")
MPICH_STEP = {"PMI_FD": "10", "PMI_SIZE": "4", "PMI_RANK": "1"}
STEP = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "0"}


def host_set(library: Library = OPEN, name: str = "theirs", **more: object) -> HostSet:
    values = {"exports": SYMBOLS, "files": {library.soname: library.path}} | more
    return HostSet(name=name, library=library, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("soname", "family"),
    [
        ("libmpi.so.12", "mpich"),
        ("libmpich.so.12", "mpich"),  # Debian's
        ("libmpi_gnu_123.so.12", "mpich"),  # Cray's
        ("libmpi.so.40", "openmpi"),
        ("libmpi_abi.so.1", "abi"),
        ("libmpi.so.20", None),  # Open MPI 3
        ("libmpi_cxx.so.40", None),
        ("libc.so.6", None),
    ],
)
def test_sonames_tell_families(soname: str, family: str | None) -> None:
    assert family_of(soname) == family


@pytest.mark.parametrize(
    ("soname", "needed", "data", "title", "pmi"),
    [
        ("libmpi.so.12", (), b"\0PMI_FD\0MPICH Version:\0004.3.2\0", "MPICH 4.3.2", "pmi1 pmi2"),
        ("libmpi.so.12", (), b"\0PMI_FD\0Intel(R) MPI Library\0001.3.2\0002021.11\0",
         "Intel MPI 2021.11", "pmi1 pmi2"),
        ("libmpi.so.12", ("libpmi.so.0", "libpmi2.so.0"), b"\0CRAY MPICH version\0008.1.29\0",
         "Cray MPICH 8.1.29", "libpmi"),
        ("libmpi.so.12", ("libpmix.so.2",), b"\0MPICH Version\0004.1\0", "MPICH 4.1", "pmix"),
        ("libmpi.so.40", (), b"\0Open MPI v%d\0005.0.11rc1\0005.0.11\0", "Open MPI 5.0.11", "pmix"),
    ],
)  # fmt: skip
def test_libraries_say_what_they_are(
    soname: str, needed: tuple[str, ...], data: bytes, title: str, pmi: str
) -> None:
    found = identify("/lib/x", soname, needed, data)
    assert found
    assert (found.title, " ".join(found.pmi)) == (title, pmi)
    assert identify("/lib/x", "libother.so.1", needed, data) is None


def test_versions_have_an_order() -> None:
    found = newest(["GLIBC_2.2.5", "GLIBC_2.17", "GLIBC_2.9", "GLIBC_PRIVATE", "GCC_3.0"])
    assert found == {"GLIBC": "2.17", "GCC": "3.0"}
    assert is_newer("2.17", "2.9") and is_newer("2.2", "") and not is_newer("", "2.2")


def test_the_libc_is_never_taken_along() -> None:
    parts = ("libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2", "libpthread.so.0", "libnss_dns.so.2")
    assert all(map(is_libc, parts))
    assert not any(map(is_libc, ("libcxi.so.1", "libmunge.so.2", "librdmacm.so.1", "libmpi.so.12")))
    assert is_general("libz.so.1") and not is_general("libibverbs.so.1")


# ---- pairs ---------------------------------------------------------------------------------------


def test_wheels_of_mpi4py_work_with_both_families() -> None:
    for library in (MPICH, OPEN):
        assert pair(IMAGE, LIBC, host_set(library)).works


@pytest.mark.parametrize(
    ("image", "libc", "host", "word"),
    [
        (
            ImageMpi(consumers=(Consumer(name="solver", needs={"libmpi.so.12": ()}),)),
            LIBC,
            host_set(),
            "solver needs libmpi.so.12; Open MPI 5.0.11 is libmpi.so.40.",
        ),
        (IMAGE, LIBC, host_set(MPICH, exports=("MPI_Init",)), "needs MPI_Send, which MPICH 4.3.2"),
        (
            IMAGE,
            LIBC,
            host_set(asked={"GLIBC": "2.38"}, asked_by={"GLIBC": "/lib/libfabric.so.1"}),
            "/lib/libfabric.so.1 needs glibc 2.38; the image has 2.36. Build on a newer base.",
        ),
        (IMAGE, Libc(family="musl", version="0"), host_set(), "C library is musl"),
        (IMAGE, LIBC, host_set(missing=("libcxi.so.1",)), "It needs libcxi.so.1, which was not"),
        (IMAGE, LIBC, host_set(asked={"GLIBCXX": "3.4.33"}), "GLIBCXX_3.4.33, which neither"),
        (ImageMpi(), LIBC, host_set(), "Nothing in the image is linked to MPI."),
    ],
)
def test_what_does_not_go_together_says_why(
    image: ImageMpi, libc: Libc, host: HostSet, word: str
) -> None:
    found = pair(image, libc, host)
    assert not found.works
    assert any(word in reason for reason in found.against), found.against


def test_a_newer_libstdcxx_comes_along_only_where_it_is_needed() -> None:
    compiler = {"libstdc++.so.6": "/usr/lib/libstdc++.so.6"}
    for asked, brought in (("3.4.33", True), ("3.4.29", False)):
        host = host_set(asked={"GLIBCXX": asked}, compiler=compiler)
        plan = plan_mpi("host", MpiSeen(image=IMAGE, libc=LIBC, sets=(host,)))
        targets = {mount.target for mount in plan.mounts}
        assert ("/.limpet/mpi/lib/libstdc++.so.6" in targets) is brought


def test_general_libraries_stay_the_images_own() -> None:
    image = msgspec.structs.replace(IMAGE, general=("libz.so.1",))
    files = {"libmpi.so.40": "/a", "libz.so.1": "/lib/libz.so.1", "libucp.so.0": "/b"}
    plan = plan_mpi("host", MpiSeen(image=image, libc=LIBC, sets=(host_set(files=files),)))
    names = {mount.target.rpartition("/")[2] for mount in plan.mounts}
    assert names == {"libmpi.so.40", "libucp.so.0"}
    assert not any(mount.writable for mount in plan.mounts)


def test_symbols_are_left_out_of_what_is_read_at_every_start() -> None:
    assert without_symbols(IMAGE).consumers[0].needs == {"libmpi.so.12": (), "libmpi.so.40": ()}


# ---- tasks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "in_step", "launcher", "count", "offers"),
    [
        (STEP, True, "srun", 4, ""),
        (STEP | MPICH_STEP | {"PMI_JOBID": "1.0"}, True, "srun", 4, "pmi1 pmi2"),
        (STEP | MPICH_STEP, False, "mpiexec", 4, "pmi1 pmi2"),
        (STEP | MPICH_STEP, True, "mpiexec", 4, "pmi1 pmi2"),
        (STEP | {"PMIX_NAMESPACE": "a", "PMIX_SERVER_URI": "b"}, True, "srun", 4, "pmix"),
        (MPICH_STEP, False, "mpiexec", 4, "pmi1 pmi2"),
        ({"PMIX_NAMESPACE": "a", "PMIX_SERVER_URI41": "b", "OMPI_COMM_WORLD_SIZE": "2"}, False,
         "mpirun", 2, "pmix"),
        ({"PALS_RANKID": "3", "PALS_SIZE": "8"}, False, "PALS", 8, ""),
    ],
)  # fmt: skip
def test_variables_tell_what_a_launcher_offers(
    environment: dict[str, str], in_step: bool, launcher: str, count: int, offers: str
) -> None:
    tasks = parse_tasks(environment, in_step=in_step)
    assert tasks
    assert (tasks.launcher, tasks.count) == (launcher, count)
    assert tasks.offers == (*offers.split(), "libpmi")


@pytest.mark.parametrize(
    ("environment", "in_step", "open_files"),
    [
        ({}, False, False),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, True, False),  # a batch script's own
        (STEP, False, False),  # a shell that outlived its job
        ({"PMI_FD": "10", "PMI_RANK": "0"}, False, False),
        ({"PMIX_NAMESPACE": "a", "PMIX_RANK": "0"}, False, False),
        ({"SLURM_STEP_NUM_TASKS": "many"}, True, False),
    ],
)
def test_variables_that_are_left_over_are_not_believed(
    environment: dict[str, str], in_step: bool, open_files: bool
) -> None:
    assert parse_tasks(environment, in_step=in_step, open_files=open_files) is None


# ---- plans ---------------------------------------------------------------------------------------


def seen(environment: dict[str, str], *sets: HostSet, image: ImageMpi = IMAGE) -> MpiSeen:
    tasks = parse_tasks(environment, in_step=True)
    return MpiSeen(tasks=tasks, image=image, libc=LIBC, sets=sets)


def test_one_task_is_left_alone() -> None:
    for environment in ({}, {"SLURM_STEP_NUM_TASKS": "1"}):
        plan = plan_mpi("auto", seen(environment, host_set()))
        assert (plan.choice, plan.mounts, plan.loads) == ("none", (), MPICH.path)
        assert plan.around(("python",)) == ("python",)


def test_auto_prefers_the_image_then_a_host_that_fits() -> None:
    assert plan_mpi("auto", seen(MPICH_STEP, host_set())).choice == "image"
    pmix = {"PMIX_NAMESPACE": "a", "PMIX_SERVER_URI": "b"}
    plan = plan_mpi("auto", seen(pmix, host_set(MPICH, "other"), host_set()))
    assert (plan.choice, plan.host, plan.loads) == (
        "host",
        "theirs",
        "/.limpet/mpi/lib/libmpi.so.40",
    )


def test_auto_is_silent_where_nothing_uses_mpi() -> None:
    image = ImageMpi(libraries=(MPICH,))
    assert plan_mpi("auto", seen(STEP, image=image)).choice == "none"
    assert plan_mpi("auto", None).choice == "none"
    assert plan_mpi("none", seen(STEP)).choice == "none"


def test_an_image_without_a_library_says_so_for_one_task_and_refuses_several() -> None:
    image = ImageMpi(consumers=(BOTH,))
    assert "needs an MPI library" in plan_mpi("auto", seen({}, image=image)).notes[0]
    with pytest.raises(HostError) as error:
        plan_mpi("auto", seen(MPICH_STEP | {"PMI_RANK": "0"}, image=image))
    assert "The image has no MPI library." in error.value.why


@pytest.mark.parametrize(
    ("library", "advice"),
    [(MPICH, "srun --mpi=pmi2"), (OPEN, "srun --mpi=pmix")],
)
def test_tasks_without_pmi_are_refused_and_told_what_to_do(library: Library, advice: str) -> None:
    image = ImageMpi(libraries=(library,), consumers=(BOTH,))
    with pytest.raises(HostError) as error:
        plan_mpi("auto", seen(STEP, image=image))
    assert "The 4 tasks of this srun start would not find each other." in error.value.what
    assert "srun offers nothing. Each would be rank 0 of 1." in error.value.why
    assert advice in error.value.now and "--mpi none" in error.value.now


def test_only_the_first_task_says_all_of_it() -> None:
    with pytest.raises(HostError) as error:
        plan_mpi("image", seen(STEP | {"SLURM_PROCID": "3"}))
    assert (error.value.why, error.value.now) == ("", "")


def test_a_library_that_speaks_through_the_hosts_own_libpmi_is_trusted() -> None:
    cray = msgspec.structs.replace(MPICH, product="Cray MPICH", pmi=("libpmi",))
    plan = plan_mpi("host", seen(STEP, host_set(cray, "cray")))
    assert plan.host == "cray"


@pytest.mark.parametrize(
    ("policy", "image", "sets", "error", "word"),
    [
        ("image", ImageMpi(consumers=(BOTH,)), (), ImageError, "the image has no MPI library"),
        ("host", IMAGE, (), HostError, "no MPI library of this machine works with the image"),
        ("nothere", IMAGE, (host_set(),), UsageError, "there is no host set of this name"),
        ("theirs", IMAGE, (host_set(missing=("libx.so",)),), HostError, "--mpi theirs"),
    ],
)
def test_what_cannot_be_done_is_an_error(
    policy: str, image: ImageMpi, sets: tuple[HostSet, ...], error: type[LimpetError], word: str
) -> None:
    with pytest.raises(error) as raised:
        plan_mpi(policy, seen({}, *sets, image=image))
    assert word in raised.value.what


def test_the_host_is_looked_at_only_where_it_may_be_needed() -> None:
    several = parse_tasks(MPICH_STEP, in_step=False)
    mute = parse_tasks(STEP, in_step=True)
    assert not needs_host("auto", IMAGE, None)
    assert not needs_host("auto", IMAGE, several)
    assert needs_host("auto", IMAGE, mute)
    assert needs_host("auto", ImageMpi(consumers=(BOTH,)), None)
    assert not needs_host("image", IMAGE, mute) and not needs_host("none", IMAGE, mute)
    assert needs_host("host", IMAGE, None) and needs_host("cray", IMAGE, None)


def test_the_loaders_path_goes_before_the_images_own() -> None:
    host = host_set(variables={"A": "it's"}, conflicts=("B",))
    command = plan_mpi("host", seen({}, host)).around(("env",), given=("MPI4PY_LIBMPI",))
    assert command[:2] == ("/bin/sh", "-c") and command[3:] == ("limpet", "env")
    assert "unset MPI4PY_MPIABI B" in command[2]
    assert "export A='it'\"'\"'s'" in command[2]
    assert "MPI4PY_LIBMPI=" not in command[2]  # the user's own word
    path = "export LD_LIBRARY_PATH=/.limpet/mpi/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    assert path in command[2]


# ---- what programs say ---------------------------------------------------------------------------


def test_slurms_lists_are_read_in_both_forms() -> None:
    old = "srun: MPI types are...\nsrun: none\nsrun: pmi2\nsrun: openmpi\n"
    new = (
        "MPI plugin types are...\n\tpmix\n\tnone\n\tcray_shasta\n\tpmi2\n"
        "specific pmix plugin versions available: pmix_v4,pmix_v5\n"
    )
    assert parse_mpi_list(old) == ("none", "pmi2", "openmpi")
    assert parse_mpi_list(new) == ("pmix", "none", "cray_shasta", "pmi2", "pmix_v4", "pmix_v5")
    assert parse_mpi_list("srun: error: Unable to contact slurm controller") == ()


def test_the_loaders_cache_is_read_for_this_kind_of_machine() -> None:
    text = (
        "3 libs found in cache `/etc/ld.so.cache'\n"
        "\tlibz.so.1 (libc6,x86-64) => /lib/x86_64-linux-gnu/libz.so.1\n"
        "\tlibz.so.1 (libc6) => /lib/i386-linux-gnu/libz.so.1\n"
        "\tlibmpi.so.40 (libc6,x86-64) => /opt/with space/libmpi.so.40\n"
    )
    found = parse_loader_cache(text)
    assert found["libz.so.1"] == "/lib/x86_64-linux-gnu/libz.so.1"
    assert found["libmpi.so.40"] == "/opt/with space/libmpi.so.40"


def test_a_sites_sets_come_from_its_configuration(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[mpi.cray]\nlibrary = "/opt/cray/libmpi.so.12"\nbinds = ["/opt/cray"]\n')
    config = read_config(str(file))
    assert config.mpi["cray"].binds == ("/opt/cray",)
    for text, word in (
        ("[mpi.cray]\nbinds = []\n", "library"),
        ('[mpi.cray]\nlibrary = "/x"\nbind = []\n', "Did you mean mpi.cray.binds?"),
    ):
        file.write_text(text)
        with pytest.raises(UsageError) as error:
            read_config(str(file))
        assert word in str(error.value)
