"""What is read of commands' answers, and what is made of a machine."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from limpet.core.doctor import judge_machine, judge_node
from limpet.core.finding_codes import CODES
from limpet.core.gpu import Driver
from limpet.core.machine import (
    AccountSeen,
    ClusterSeen,
    ContainerSeen,
    GpuSeen,
    MachineSeen,
    Place,
    Program,
    Quota,
    Trouble,
    UserSite,
    find_differences,
    list_facts,
    parse_compressors,
    parse_lfs_quota,
    parse_pmi,
    parse_quota,
    parse_version,
)
from limpet.report.doctor import render_differences, render_machine, render_verdict
from limpet.tools import account, mounts, places

HELPERS = ("squashfuse_ll", "fuse2fs", "fuse-overlayfs", "newuidmap")
GOOD = MachineSeen(
    host="login1",
    user="ada",
    system="Debian",
    arch="x86_64",
    cpus=8,
    container=ContainerSeen(
        runtime="/usr/bin/apptainer",
        kind="apptainer",
        version="1.4.5",
        setuid=False,
        programs=tuple(Program(name=n, path=f"/usr/bin/{n}", version="1.0") for n in HELPERS),
        ids=(65536, 65536),
    ),
    places=(Place(role="cache", path="/c", kind="ext4", free_bytes=10**12, size_bytes=10**12),),
)


def codes(seen: MachineSeen) -> list[str]:
    found = judge_machine(seen)
    assert all(finding.code in CODES for finding in found)
    return [finding.code for finding in found]


def changed(**parts: object) -> MachineSeen:
    return msgspec.structs.replace(GOOD, **parts)


def box(**parts: object) -> MachineSeen:
    return changed(container=msgspec.structs.replace(GOOD.container, **parts))


def place(**parts: object) -> MachineSeen:
    return changed(places=(msgspec.structs.replace(GOOD.places[0], **parts),))


def test_a_good_machine_has_nothing_wrong() -> None:
    assert judge_machine(GOOD) == ()
    assert render_verdict(()) == "Nothing was found that is wrong.\n"


@pytest.mark.parametrize(
    ("seen", "code"),
    [
        (changed(troubles=(Trouble(subject="/dead", why="No answer.", hung=True),)), "LMP001"),
        (changed(troubles=(Trouble(subject="/shut", why="Permission denied"),)), "LMP002"),
        (box(runtime="", trouble="No container runtime is here."), "LMP101"),
        (box(trouble="apptainer is 1.0: too old"), "LMP102"),
        (box(namespaces=False), "LMP103"),
        (box(fuse="refused"), "LMP104"),
        (box(programs=GOOD.container.programs[1:]), "LMP105"),
        (
            box(
                programs=(
                    Program(name="squashfuse", path="/s", version="0.1.105"),
                    *GOOD.container.programs[1:],
                )
            ),
            "LMP106",
        ),
        (
            box(programs=tuple(p for p in GOOD.container.programs if p.name != "fuse2fs")),
            "LMP107",
        ),
        (box(ids=(65536, 0)), "LMP108"),
        (
            box(
                programs=(*GOOD.container.programs, Program(name="mksquashfs", path="/m")),
                compressors=("gzip", "xz"),
            ),
            "LMP109",
        ),
        (place(free_bytes=10**9), "LMP201"),
        (place(inodes=10**6, free_inodes=100), "LMP202"),
        (place(writable=False), "LMP204"),
        (place(kind="tmpfs"), "LMP205"),
        (place(others_write=True), "LMP207"),
        (place(role="build", no_exec=True), "LMP208"),
        (place(partials=("/c/.x",)), "LMP209"),
        (changed(account=AccountSeen(tmpdir="/gone", tmpdir_there=False)), "LMP206"),
        (changed(account=AccountSeen(hooks=("/home/ada/.bashrc:3",))), "LMP301"),
        (
            changed(account=AccountSeen(sites=(UserSite(path="/p", python="3.12", packages=3),))),
            "LMP302",
        ),
        (changed(account=AccountSeen(leaking=("PYTHONPATH",))), "LMP303"),
        (changed(account=AccountSeen(bundles=(("PIP_CERT", "/no", False),))), "LMP304"),
        (changed(account=AccountSeen(proxies={"HTTP_PROXY": "http://p"})), "LMP305"),
        (
            changed(
                gpu=GpuSeen(
                    makers=("nvidia",),
                    driver=Driver(version="550.1", library_version="535.2", glibc="2.17"),
                )
            ),
            "LMP401",
        ),
        (changed(gpu=GpuSeen(makers=("nvidia",), driver=Driver(version="550.1"))), "LMP402"),
        (changed(cluster=ClusterSeen(slurm="22.05", pmi=("none", "openmpi"))), "LMP403"),
    ],
)
def test_one_thing_wrong(seen: MachineSeen, code: str) -> None:
    assert codes(seen) == [code]


def test_setuid_needs_neither_namespaces_nor_fuse() -> None:
    assert codes(box(setuid=True, namespaces=False, fuse="missing")) == []


@pytest.mark.parametrize(
    ("used", "limit", "severity"), [(89, 100, ""), (90, 100, "warning"), (101, 100, "error")]
)
def test_quotas(used: int, limit: int, severity: str) -> None:
    quota = Quota(place="/h", used_bytes=5, limit_bytes=0, used_files=used, limit_files=limit)
    found = judge_machine(changed(quotas=(quota,)))
    assert [finding.severity for finding in found] == ([severity] if severity else [])


def test_quota_of_linux() -> None:
    text = """Disk quotas for user ada (uid 1000):
     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace
      /dev/sda1  204800*  100000  200000  1700000  150       0     1000       0
nfs:/a b/home    1024  0  0  0  7  0  0  0
"""
    first, second = parse_quota(text)
    assert first == Quota(
        place="/dev/sda1",
        used_bytes=204800 * 1024,
        limit_bytes=200000 * 1024,
        used_files=150,
        limit_files=1000,
    )
    assert (second.place, second.limit_bytes) == ("nfs:/a b/home", 0)
    assert parse_quota("quota: something odd\n\x00") == ()


def test_quota_of_lustre() -> None:
    text = "/lustre/project/x\n                 [1200]*  0  1000 -  55  100  0 -\n"
    (found,) = parse_lfs_quota("/lustre", text)
    assert (found.used_bytes, found.limit_bytes) == (1200 * 1024, 1000 * 1024)
    assert (found.used_files, found.limit_files) == (55, 100)
    assert parse_lfs_quota("/lustre", "Permission denied.") == ()


def test_pmi_of_old_and_new_slurm() -> None:
    old = "srun: MPI types are...\nsrun: openmpi\nsrun: none\nsrun: pmi2\n"
    new = (
        "MPI plugin types are...\n\tnone\n\tcray_shasta\n\tpmi2\n\tpmix\n"
        "specific pmix plugin versions available: pmix_v4,pmix_v5\n"
    )
    assert parse_pmi(old) == ("openmpi", "none", "pmi2")
    assert parse_pmi(new) == ("none", "cray_shasta", "pmi2", "pmix", "pmix_v4", "pmix_v5")
    assert parse_version("apptainer version 1.4.5-1") == "1.4.5"


def test_compressors() -> None:
    text = "\t-comp\n\t\t\tCompressors available:\n\t\t\t\tgzip (default)\n\t\t\t\tzstd\n\tlzo\n"
    assert parse_compressors(text) == ("gzip", "lzo", "zstd")


def test_what_differs_on_a_node() -> None:
    there = box(version="1.3.0", fuse="missing")
    there = msgspec.structs.replace(there, host="n1")
    differences = find_differences(GOOD, there)
    assert [one.what for one in differences] == ["runtime", "/dev/fuse"]
    assert [finding.code for finding in judge_node(differences, "n1")] == ["LMP405", "LMP405"]
    assert "there  missing" in render_differences("n1", differences)
    assert find_differences(GOOD, GOOD) == ()
    assert dict(list_facts(GOOD))["Slurm"] == "none"


def test_hostile_words_do_not_reach_the_terminal() -> None:
    seen = changed(system="Evil\x1b[2J\u202e OS", places=(), user="a\nb")
    text = render_machine(seen)
    assert "\x1b" not in text and "\u202e" not in text and "a\\nb" in text


# ---- the account ---------------------------------------------------------------------------------


def test_conda_in_start_up_files(tmp_path: Path) -> None:
    (tmp_path / ".bashrc").write_text(
        "# conda activate not this\nexport A=1\n# >>> conda initialize >>>\n"
    )
    (tmp_path / ".config/fish").mkdir(parents=True)
    (tmp_path / ".config/fish/config.fish").write_text("source /opt/x/etc/profile.d/conda.fish\n")
    (tmp_path / ".profile").write_bytes(b"\xff\xfe binary")
    with pytest.raises(UnicodeDecodeError):
        (tmp_path / ".profile").read_text("utf-8")
    assert account.find_hooks(tmp_path) == (
        f"{tmp_path}/.bashrc:3",
        f"{tmp_path}/.config/fish/config.fish:1",
    )


def test_packages_of_the_home(tmp_path: Path) -> None:
    site = tmp_path / ".local/lib/python3.12/site-packages"
    for name in ("six-1.0.dist-info", "old-1.egg-info", "six"):
        (site / name).mkdir(parents=True)
    (found,) = account.find_sites(tmp_path, {"3.12": ["/i.sif"], "3.13": ["/other.sif"]})
    assert (found.packages, found.python, found.images) == (2, "3.12", ("/i.sif",))


def test_passwords_of_proxies_are_left_out() -> None:
    environment = {"https_proxy": "http://ada:secret@proxy:8080/x", "NO_PROXY": "localhost"}
    found = account.find_proxies(environment)
    assert found == {"https_proxy": "http://…@proxy:8080/x", "NO_PROXY": "localhost"}
    assert "secret" not in str(account.find_proxies({"http_proxy": "ada:secret@proxy"}))


def test_leaking_variables() -> None:
    environment = {"PYTHONPATH": "x", "LD_PRELOAD": "y", "CONDA_PREFIX": "z", "LANG": "C"}
    assert account.find_leaking(environment) == ("CONDA_PREFIX", "LD_PRELOAD", "PYTHONPATH")


# ---- file systems --------------------------------------------------------------------------------


def test_the_kind_of_a_file_system_is_known_without_touching_it(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:5 / /a\\040b rw,noexec - lustre srv:/l rw\n"
    )
    assert mounts.find_mount("/a b/c", table).kind == "lustre"
    assert "noexec" in mounts.find_mount("/a b", table).options
    assert mounts.find_mount("/a bc", table).kind == "ext4"
    assert mounts.find_mount("/", tmp_path / "none").kind == ""


def test_a_place_that_is_not_there_yet(tmp_path: Path) -> None:
    found = places.probe_place("cache", tmp_path / "x/y")
    assert not found.exists and found.writable and found.size_bytes
    (tmp_path / ".a.sif.limpet-partial-0123").touch()
    (tmp_path / "a.sif").touch()
    tmp_path.chmod(0o777)
    found = places.probe_place("build", tmp_path, partials=True)
    assert found.others_write
    assert found.partials == (f"{tmp_path}/.a.sif.limpet-partial-0123",)
