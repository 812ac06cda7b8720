"""Launches as values: nothing is started and nothing is looked at."""

from __future__ import annotations

import shlex
from typing import Any

import msgspec
import pytest

from limpet.core.caches import CACHES
from limpet.core.errors import HostError, ImageError, UsageError
from limpet.core.homes import INSIDE, PERSONAL
from limpet.core.image import ImageFacts
from limpet.core.launch import Launch, plan_launch
from limpet.core.lock import LockedBase
from limpet.core.mounts import Mount, parse_bind, render_mount
from limpet.core.recipe import Run
from limpet.core.seen import HostSeen, ImageSeen, Request
from limpet.report.launch import render_command, render_explanation

FOREIGN = ImageSeen(path="/i/a.sif", kind="sif", identity="abc", title="a", arch="x86_64")
BASE = LockedBase(reference="debian:trixie", digest="sha256:00", arch="x86_64")
FACTS = ImageFacts(limpet="0.1", layout="layered", arch="x86_64", base=BASE)
OURS = msgspec.structs.replace(FOREIGN, facts=FACTS)
HOST = HostSeen(
    runtime="/usr/bin/apptainer",
    runtime_kind="apptainer",
    runtime_version="1.4.5",
    arch="x86_64",
    environment={"PATH": "/bin", "HOME": "/home/u", "SLURM_JOB_ID": "1", "PYTHONPATH": "/x"},
    home="/home/u",
    real_home="/home/u",
    account_home="/home/u",
    state="/home/u/.local/state/limpet",
    cwd="/home/u/p",
)


def host(**changes: Any) -> HostSeen:
    return msgspec.structs.replace(HOST, **changes)


def plan(
    image: ImageSeen = FOREIGN, seen: HostSeen = HOST, command: str = "true", **wishes: Any
) -> Launch:
    return plan_launch(image, seen, Request(command=tuple(shlex.split(command)), **wishes))


def ours(**run: Any) -> ImageSeen:
    return msgspec.structs.replace(OURS, facts=msgspec.structs.replace(FACTS, run=Run(**run)))


def test_the_plain_command() -> None:
    launch = plan(command="python3 -c 'import x'", home="host")
    assert launch.argv == (
        *("/usr/bin/apptainer", "--quiet", "exec", "--no-eval", "--no-mount", "cwd"),
        *("--pwd", "/home/u/p", "/i/a.sif", "python3", "-c", "import x"),
    )
    assert launch.env == {"PATH": "/bin", "HOME": "/home/u", "SLURM_JOB_ID": "1"}
    assert launch.folders == ()


def test_a_limpet_image_is_started_through_its_layer() -> None:
    argv = plan(OURS, command="python x").argv
    after = argv[argv.index("/i/a.sif") + 1 :]
    assert after[:2] == ("/bin/sh", "-c")
    assert after[3] == "limpet"
    assert "enable overlay" in after[4] and "--layout merged" in after[4]
    assert after[5:] == ("/opt/env/.limpet/start", "python", "x")


def test_isolated_covers_what_is_there_and_moves_the_rest() -> None:
    launch = plan(seen=host(personal={".cache": "/home/u/.cache"}))
    own = "/home/u/.local/state/limpet/abc/home"
    assert launch.mounts == (
        Mount(source=own, target=INSIDE),
        Mount(source=f"{own}/.cache", target="/home/u/.cache"),
    )
    assert launch.folders[:2] == (own, f"{own}/.cache")
    assert "XDG_CACHE_HOME" not in launch.added
    assert launch.added["PYTHONUSERBASE"] == f"{INSIDE}/.local"
    assert launch.env["APPTAINERENV_KERAS_HOME"] == f"{INSIDE}/.keras"
    assert "--home" not in launch.argv


def test_nothing_is_moved_where_all_is_covered() -> None:
    everything = {p.folder: f"/home/u/{p.folder}" for p in PERSONAL}
    launch = plan(seen=host(personal=everything))
    assert set(launch.added) == {cache.variable for cache in CACHES if cache.place}


def test_a_personal_folder_that_is_a_link_is_covered_where_it_points() -> None:
    seen = host(real_home="/pfs/u", personal={".cache": "/s/cache", ".nv": "/pfs/u/.nv"})
    assert {m.target for m in plan(seen=seen).mounts} >= {"/s/cache", "/home/u/.nv"}


def test_the_working_folders_mount_comes_before_what_covers_it() -> None:
    seen = host(personal={".cache": "/s/u/cache"}, cwd="/s/u")
    targets = [mount.target for mount in plan(seen=seen).mounts]
    assert targets.index("/s/u") < targets.index("/s/u/cache")


def test_the_recipes_variables_are_not_overruled_by_the_home() -> None:
    facts = msgspec.structs.replace(FACTS, env={"KERAS_HOME": "/k"})
    launch = plan(msgspec.structs.replace(OURS, facts=facts))
    assert "KERAS_HOME" not in launch.added and "IPYTHONDIR" in launch.added


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("private", ["--home", "/home/u/.local/state/limpet/abc/home:/home/u"]),
        ("none", ["--no-home", "--no-mount", "home"]),
    ],
)
def test_other_homes(policy: Any, words: list[str]) -> None:
    launch = plan(home=policy)
    assert shlex.join(words) in shlex.join(launch.argv)
    assert launch.mounts[0] == Mount(source="/home/u/p", target="/home/u/p")
    assert {mount.target for mount in launch.mounts[1:]} <= {INSIDE}
    assert launch.pwd == "/home/u/p"


def test_a_home_elsewhere_than_the_account_says_is_named() -> None:
    assert "--home /h" in " ".join(plan(seen=host(home="/h", real_home="/h")).argv)


@pytest.mark.parametrize("home", ["", "/a:b"])
def test_no_usable_home_is_told(home: str) -> None:
    launch = plan(seen=host(home=home, real_home=home, cwd="/tmp"))
    assert "--no-home" in launch.argv and "no home inside" in launch.notes[0]
    assert launch.pwd == "/tmp"


@pytest.mark.parametrize(
    ("cwd", "pwd", "bound"),
    [
        ("/home/u", "/home/u", False),
        ("/home/u/a b", "/home/u/a b", False),
        ("/home/user2", "/home/user2", True),
        ("/scratch/x", "/scratch/x", True),
        ("/tmp/x", "/tmp/x", False),
        ("/dev/shm", "/dev/shm", False),
        ("/usr/lib", "/home/u", False),
        ("/opt", "/home/u", False),
        ("/opt/data", "/opt/data", True),
        ("/opt/env/lib", "/home/u", False),
        ("/home", "/home/u", False),
        ("/", "/home/u", False),
    ],
)
def test_the_working_folder(cwd: str, pwd: str, bound: bool) -> None:
    launch = plan(OURS, host(cwd=cwd))
    assert launch.pwd == pwd
    assert (Mount(source=cwd, target=cwd) in launch.mounts) is bound
    assert any("not seen inside" in note for note in launch.notes) is (cwd != pwd)


def test_a_folder_inside_is_named_in_full() -> None:
    with pytest.raises(UsageError, match="must be an absolute path"):
        plan(pwd="sub/folder")


def test_the_working_folder_in_a_home_behind_a_link() -> None:
    launch = plan(seen=host(real_home="/pfs/u", cwd="/pfs/u/p"))
    assert launch.pwd == "/home/u/p"


def test_a_bind_shows_the_working_folder() -> None:
    launch = plan(seen=host(cwd="/scratch/x"), binds=("/scratch",), home="none")
    assert launch.mounts[0] == Mount(source="/scratch", target="/scratch")
    assert "/scratch/x" not in {mount.target for mount in launch.mounts}


def test_binds_of_site_recipe_and_user() -> None:
    image = ours(bind=("/work", "/gone"))
    launch = plan(
        image,
        host(missing=("/gone",)),
        home="host",
        site_binds=("/appl", "/data"),
        binds=("/mine:/data:ro",),
    )
    assert launch.mounts[:3] == (
        Mount(source="/appl", target="/appl"),
        Mount(source="/work", target="/work"),
        Mount(source="/mine", target="/data", writable=False),
    )
    assert launch.notes == ("/gone does not exist here.",)
    with pytest.raises(HostError, match="/gone"):
        plan(seen=host(missing=("/gone",)), binds=("/gone",))


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("/a", Mount(source="/a", target="/a")),
        ("rel:/b", Mount(source="/cwd/rel", target="/b")),
        ("/a:/b:ro", Mount(source="/a", target="/b", writable=False)),
        ("/a:/b:rw", Mount(source="/a", target="/b")),
    ],
)
def test_parse_bind(text: str, mount: Mount) -> None:
    assert parse_bind(text, "/cwd") == mount


@pytest.mark.parametrize("text", ["", ":/b", "/a:b", "/a:/b:rx", "/a:/b:ro:x"])
def test_parse_bind_refuses(text: str) -> None:
    with pytest.raises(UsageError, match="--bind"):
        parse_bind(text, "/cwd")


def test_mounts_as_flags() -> None:
    assert render_mount(Mount(source="/a b", target="/a b")) == ("--bind", "/a b")
    assert render_mount(Mount(source="/a", target="/a", writable=False))[1] == "/a:/a:ro"
    assert render_mount(Mount(source='/a:"', target="/b", writable=False)) == (
        "--mount",
        'type=bind,"source=/a:""","target=/b",ro',
    )


@pytest.mark.parametrize(
    ("gpus", "policy", "flag"),
    [
        ((), "auto", None),
        (("nvidia",), "auto", "--nv"),
        (("amd",), "auto", "--rocm"),
        (("nvidia",), "none", None),
        ((), "amd", "--rocm"),
    ],
)
def test_gpu(gpus: Any, policy: Any, flag: str | None) -> None:
    launch = plan(seen=host(gpus=gpus), gpu=policy)
    assert [word for word in launch.argv if word in ("--nv", "--rocm")] == [flag] * bool(flag)
    assert bool(launch.notes) is (policy == "amd")


def test_env_names_values_and_nothing() -> None:
    seen = host(environment=HOST.environment | {"SINGULARITYENV_A": "old", "B": "b$"})
    launch = plan(seen=seen, home="host", env=("A=1=2", "B", "GONE", "PYTHONPATH", "E="))
    assert launch.added == {"A": "1=2", "B": "b$", "PYTHONPATH": "/x", "E": ""}
    assert launch.env["APPTAINERENV_A"] == "1=2" and "SINGULARITYENV_A" not in launch.env
    assert launch.notes == ("--env GONE: it is not set here.",)
    for word in ("1A=x", "=x", "A B=x", "HOME=/x"):
        with pytest.raises(UsageError, match="--env"):
            plan(env=(word,))


def test_singularity_ce_has_its_own_prefix() -> None:
    launch = plan(seen=host(runtime_kind="singularity-ce"), env=("A=1",))
    assert launch.env["SINGULARITYENV_A"] == "1" and "APPTAINERENV_A" not in launch.env


def test_the_image_decides_where_the_user_does_not() -> None:
    image = ours(variables="host", home="none", gpu="none", pass_variables=("MY_*",))
    seen = host(environment={"MY_X": "1", "ANY": "2", "CONDA_PREFIX": "3"}, gpus=("nvidia",))
    launch = plan(image, seen)
    assert (launch.home, launch.variables, launch.gpu) == ("none", "host", None)
    moved = {n for n in launch.env if launch.added.keys() & {n, n.removeprefix("APPTAINERENV_")}}
    assert {n: v for n, v in launch.env.items() if n not in moved} == {"MY_X": "1", "ANY": "2"}
    strict = plan(image, seen, variables="strict", gpu="auto", home="host")
    assert (strict.home, strict.gpu) == ("host", "nvidia")
    assert strict.env["MY_X"] == "1" and "ANY" not in strict.env


def test_plain_passes() -> None:
    argv = plan(overlays=("/o.img:ro",), writable_tmpfs=True, pwd="/w", verbose=True).argv
    assert "--overlay /o.img:ro" in " ".join(argv) and "--writable-tmpfs" in argv
    assert argv[argv.index("--pwd") + 1] == "/w"
    assert "--quiet" not in argv


def test_a_prompt_cannot_be_made_to_run_something() -> None:
    image = msgspec.structs.replace(FOREIGN, title="a$(rm -rf x)`id`\\")
    assert plan_launch(image, HOST, Request(shell=True)).argv[-1] == "[a__rm_-rf_x__id__]"


def test_images_that_do_not_fit() -> None:
    with pytest.raises(ImageError, match="is for aarch64; this machine is x86_64"):
        plan(msgspec.structs.replace(FOREIGN, arch="aarch64"))
    newer = msgspec.structs.replace(OURS, facts=msgspec.structs.replace(FACTS, format=2))
    with pytest.raises(ImageError, match="newer limpet"):
        plan(newer)


def test_notes_about_the_session() -> None:
    seen = host(fuse=False, environment={"APPTAINER_CLEANENV": "1"}, state_note="passing")
    notes = " ".join(plan(seen=seen).notes)
    assert "APPTAINER_CLEANENV" in notes and "/dev/fuse" in notes and "passing" in notes
    assert "passing" not in " ".join(plan(seen=seen, home="host").notes)


def test_the_command_to_copy() -> None:
    launch = plan(home="host", env=("A=it's",), command="sh -c 'a\nb'")
    environment = HOST.environment | {"\x1b[31mX": "1"}
    assert render_command(launch, environment) == (
        "env -u $'\\x1b[31mX' -u PYTHONPATH "
        "'A=it'\"'\"'s' 'APPTAINERENV_A=it'\"'\"'s' /usr/bin/apptainer --quiet exec --no-eval "
        "--no-mount cwd --pwd /home/u/p /i/a.sif sh -c $'a\\x0ab'\n"
    )
    assert render_command(plan(), {}).startswith("mkdir -p /home/u/.local/state/limpet/abc/home ")


def test_the_explanation_names_every_variable() -> None:
    text = render_explanation(plan(seen=host(environment={"BAD\x1b": "1", "SLURM_X": "2"})))
    assert "passed     SLURM_X: the job's place and size" in text
    assert "dropped    BAD\\x1b: not among what a job needs" in text
    assert "\x1b" not in text


def test_a_jobs_temporary_folder_is_mounted_and_passed() -> None:
    environment = {"TMPDIR": "/local/7", "TMP": "/gone", "TEMP": "/home/u/.cache/t"}
    seen = host(
        environment=environment,
        temporaries=("/local/7", "/home/u/.cache/t"),
        personal={".cache": "/home/u/.cache"},
    )
    launch = plan(seen=seen)
    assert Mount(source="/local/7", target="/local/7") in launch.mounts
    # Inside, this image's own cache lies over that of the home.
    assert {n: launch.env.get(n) for n in environment} == {
        "TMPDIR": "/local/7",
        "TMP": None,
        "TEMP": None,
    }
    strict = plan(seen=seen, variables="strict")
    assert "TMPDIR" not in strict.env
    assert "/local/7" not in {mount.target for mount in strict.mounts}


def test_a_home_behind_a_link_is_there_under_both_names() -> None:
    seen = host(real_home="/pfs/u", personal={".cache": "/pfs/u/.cache"})
    own = "/home/u/.local/state/limpet/abc/home"
    assert plan(seen=seen).mounts == (
        Mount(source="/home/u/p", target="/home/u/p"),
        Mount(source="/pfs/u", target="/pfs/u"),
        Mount(source=own, target=INSIDE),
        Mount(source=f"{own}/.cache", target="/home/u/.cache"),
        Mount(source=f"{own}/.cache", target="/pfs/u/.cache"),
    )


def test_start_files_are_the_images_own() -> None:
    launch = plan(seen=host(personal={".bashrc": "/home/u/dotfiles/bashrc"}))
    own = "/home/u/.local/state/limpet/abc/home/.bashrc"
    assert launch.files == (own,)
    assert Mount(source=own, target="/home/u/dotfiles/bashrc") in launch.mounts
    assert f"\ntouch {own}\n" in render_command(launch, {})


@pytest.mark.parametrize(
    ("rights", "kind", "fails"),
    [
        ({"namespaces": False, "setuid": False}, "sif", "user namespaces"),
        ({"namespaces": False, "setuid": True}, "sif", ""),
        ({"namespaces": False, "setuid": None}, "sif", ""),
        ({"fuse": False, "setuid": False}, "sif", "/dev/fuse"),
        ({"fuse": False, "setuid": False}, "sandbox", ""),
        ({"fuse": False, "setuid": True}, "sif", ""),
    ],
)
def test_rights(rights: dict[str, Any], kind: Any, fails: str) -> None:
    image = msgspec.structs.replace(FOREIGN, kind=kind)
    if fails:
        with pytest.raises(HostError, match=fails):
            plan(image, host(**rights))
    else:
        assert "/dev/fuse" not in " ".join(plan(image, host(**rights)).notes)
