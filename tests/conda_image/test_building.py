"""Images of conda packages, built for real from a channel, and what they do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from limpet.actions.assemble import open_root
from limpet.actions.build import make_image
from limpet.actions.prepare import Prepared
from limpet.core.conda import CondaPackage
from limpet.core.errors import BuildError, FetchError, LockError
from limpet.core.events import Event
from limpet.core.lock import Artifact, Lock, LockedPackage
from limpet.core.recipe import Recipe, Warm
from limpet.core.request import BuildRequest
from limpet.tools import process
from limpet.tools.apptainer import Runtime
from limpet.tools.files import hash_file
from tests.conda.channel import PLACEHOLDER, SITE_PACKAGES, SUBDIR, Package, Served
from tests.conda_image.locks import PYTHON, choose, loaded, read_channel
from tests.conftest import Base

pytestmark = pytest.mark.real
ALL = (*PYTHON, "greeter", "pip", "numeric", "prefixed", "tarred", "activated", "postlinked")


class Builder:
    """Builds images of chosen packages; listens to what is said."""

    def __init__(self, base: Base, runtime: Runtime, folder: Path) -> None:
        self.base = base
        self.runtime = runtime
        self.folder = folder
        self.said: list[Event] = []

    def build(
        self,
        conda: Iterable[CondaPackage],
        *,
        cache: str = "cache é, x",
        recipe: Recipe | None = None,
        packages: tuple[LockedPackage, ...] = (),
        name: str = "made",
        offline: bool = False,
    ) -> Path:
        lock = Lock(
            base=self.base.locked,
            python="3.13.5",
            interpreter="/opt/env/bin/python",
            conda=tuple(conda),
            packages=packages,
        )
        prepared = Prepared(
            loaded=loaded(self.folder, recipe or Recipe()),
            lock=lock,
            lock_file=None,
            sif=self.base.sif,
            facts=self.base.facts,
            interpreter=self.base.interpreter,
            runtime=self.runtime,
            scratch=self.folder / cache / "tmp",
            cache=self.folder / cache,
        )
        prepared.cache.mkdir(exist_ok=True)
        output = self.folder / f"{name}-{len(list(self.folder.glob('*.sif')))}.sif"
        request = BuildRequest(output=str(output), name=name, offline=offline)
        make_image(prepared, request, self.said.append)
        return output

    def run(self, image: Path, *words: str) -> str:
        argv: list[str | Path] = [
            self.runtime.path,
            "--silent",
            "exec",
            "--cleanenv",
            "--no-home",
            image,
            *words,
        ]
        done = process.run(argv)
        assert not done.code, done.stderr
        return done.text


@pytest.fixture
def builder(debian_base: Base, runtime: Runtime, tmp_path: Path) -> Builder:
    return Builder(debian_base, runtime, tmp_path)


@pytest.fixture
def packages(channel: Served, channel_folder: Path) -> dict[str, CondaPackage]:
    """The channel's packages, as they are locked from its address."""
    return read_channel(channel_folder, channel.url)


def test_an_environment_works_without_being_activated(
    builder: Builder, packages: dict[str, CondaPackage]
) -> None:
    image = builder.build(choose(packages, ALL))
    run = builder.run
    text = "import numeric, ssl, ctypes, sys, greeter; print(sys.prefix, greeter.__cached__)"
    cached = "/opt/env/lib/python3.13/site-packages/greeter/__pycache__/__init__.cpython-313.pyc"
    assert run(image, "python", "-c", text) == f"/opt/env {cached}\n"
    assert run(image, "greet") == "greetings from 2.0\n"
    assert run(image, "greet-script") == "script\n"
    assert run(image, "prefixed").startswith("/opt/env ")  # finds its library by its RUNPATH
    assert run(image, "prefixed-py") == "/opt/env/bin/python\n"
    assert run(image, "cat", "/opt/env/share/tarred-link") == "/opt/env/share\n"
    made = run(image, "cat", "/opt/env/share/postlinked/made")
    assert made == "postlinked 1.0 /opt/env\n"
    variables = dict(line.split("=", 1) for line in run(image, "env").splitlines() if "=" in line)
    assert variables["CONDA_PREFIX"] == variables["CONDA_DEFAULT_ENV"] == "/opt/env"
    assert variables["ACTIVATED_HOME"] == "/opt/env/share/activated"
    assert variables["ACTIVATED_JSON"] == "from json"
    assert variables["PATH"].startswith("/opt/env/libexec/activated:/opt/env/bin:/usr/local/sbin")
    assert "ACTIVATED_HOST" not in variables
    notes = [event.message for event in builder.said if event.stage == "activation"]
    assert any("ACTIVATED_HOST" in note for note in notes)
    # All byte code is there and fresh: nothing is compiled at import.
    loud = run(image, "sh", "-c", "python -v -c 'import json, greeter, numeric' 2>&1")
    assert loud.count(".pyc matches") + loud.count("code object from '/opt/env/lib") > 10
    assert "wrote" not in loud and "could not create" not in loud


def test_nothing_of_the_building_machine_is_in_an_image(
    builder: Builder,
    packages: dict[str, CondaPackage],
    channel_folder: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "channel").symlink_to(channel_folder)
    local = [
        msgspec.structs.replace(
            package, url="", path=f"channel/{package.subdir}/{package.filename}"
        )
        for package in choose(packages, (*PYTHON, "greeter", "prefixed", "activated"))
    ]
    image = builder.build(
        msgspec.structs.replace(package, channel=f"file://{tmp_path}/channel") for package in local
    )
    traces = [
        PLACEHOLDER[:40],
        "_placehold_placehold",
        "/home/builder",
        str(tmp_path),
        "cache é, x",
    ]
    wanted = [trace.encode() for trace in traces]
    with image.open("rb") as file:
        root = open_root(file)
        seen = 0
        for path, node in root.walk():
            if node.is_file and path.startswith(("opt/env", ".singularity.d")):
                data = root.read(node)
                seen += 1
                assert not [trace for trace in wanted if trace in data], path
    assert seen > 600


def test_two_caches_give_the_same_bytes(
    builder: Builder, packages: dict[str, CondaPackage]
) -> None:
    chosen = choose(packages, (*PYTHON, "greeter", "activated"))
    first = builder.build(chosen, cache="one")
    second = builder.build(reversed(chosen), cache="two")
    assert hash_file(first) == hash_file(second)


def test_the_second_build_fetches_and_starts_nothing(
    builder: Builder,
    packages: dict[str, CondaPackage],
    channel: Served,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = choose(packages, (*PYTHON, "greeter", "activated"))
    first = builder.build(chosen)
    asked = len(channel.asked)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(process, "run", refuse)
    monkeypatch.setattr(process, "start", refuse)
    second = builder.build(chosen, offline=True)
    assert len(channel.asked) == asked
    assert hash_file(first) == hash_file(second)


def test_a_mirror_costs_no_second_compiling(
    builder: Builder, packages: dict[str, CondaPackage], channel_folder: Path
) -> None:
    chosen = choose(packages, (*PYTHON, "greeter"))
    builder.build(chosen)
    builder.said.clear()
    builder.build(
        choose(read_channel(channel_folder, channel_folder.as_uri()), [p.name for p in chosen])
    )
    assert "byte code" not in {event.stage for event in builder.said}


def test_wheels_on_conda_python_are_compiled_by_it(
    builder: Builder, packages: dict[str, CondaPackage], make_wheel: Callable[..., Path]
) -> None:
    wheel = make_wheel({"onto/__init__.py": b"import greeter\nVALUE = 1\n"}, name="onto")
    pip = LockedPackage(
        name="onto",
        version="1.0",
        artifact=Artifact(
            kind="wheel", filename=wheel.name, path=str(wheel), sha256=hash_file(wheel)
        ),
    )
    image = builder.build(
        choose(packages, (*PYTHON, "greeter")),
        packages=(pip,),
        recipe=Recipe(warm=Warm(imports=("onto",))),
    )
    text = "import onto, os; print(onto.__cached__, os.path.exists(onto.__cached__))"
    cached = "/opt/env/lib/python3.13/site-packages/onto/__pycache__/__init__.cpython-313.pyc"
    assert builder.run(image, "python", "-c", text) == f"{cached} True\n"


def test_a_module_that_post_link_changes_is_the_one_that_runs(
    builder: Builder,
    packages: dict[str, CondaPackage],
    written: Callable[[Package], tuple[Path, CondaPackage]],
) -> None:
    path = f"{SITE_PACKAGES}/changed.py"
    script = f'#!/bin/sh\necho "VALUE = \'after\'" >"$PREFIX/{path}"\n'
    _, changed = written(
        Package(
            name="changed",
            depends=("python",),
            files={path: "VALUE = 'before'\n", "bin/.changed-post-link.sh": script},
        )
    )
    image = builder.build([*choose(packages, PYTHON), changed])
    assert builder.run(image, "python", "-c", "import changed; print(changed.VALUE)") == "after\n"


# ---- what goes wrong -----------------------------------------------------------------------------


def left_in(folder: Path) -> list[str]:
    """Images, and passing files anywhere."""
    return [
        str(path)
        for path in folder.rglob("*")
        if path.suffix == ".sif" or ".limpet-partial-" in path.name
    ]


def test_a_failing_post_link_script_fails_the_build(
    builder: Builder, packages: dict[str, CondaPackage], tmp_path: Path
) -> None:
    with pytest.raises(BuildError, match=r"post-link script of postfails failed.*code 3") as caught:
        builder.build(choose(packages, ("postfails",)))
    assert "no licence here" in caught.value.why
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("transport", ["http", "file"])
def test_a_wrong_hash_is_refused(
    builder: Builder,
    packages: dict[str, CondaPackage],
    channel_folder: Path,
    tmp_path: Path,
    transport: str,
) -> None:
    package = packages["greeter"]
    place = channel_folder / "noarch" / package.filename
    url = package.url if transport == "http" else place.as_uri()
    with pytest.raises(FetchError, match="is not the file that was locked") as caught:
        builder.build([msgspec.structs.replace(package, url=url, sha256="0" * 64)])
    assert hash_file(place) in caught.value.why
    assert left_in(tmp_path) == []
    assert not any((tmp_path / "cache é, x").rglob("*.conda"))


def test_a_truncated_download_is_refused(
    builder: Builder, packages: dict[str, CondaPackage], channel_folder: Path, tmp_path: Path
) -> None:
    package = packages["prefixed"]
    cut = tmp_path / package.filename
    cut.write_bytes((channel_folder / SUBDIR / package.filename).read_bytes()[:-100])
    with pytest.raises(FetchError, match="is cut short"):
        builder.build([msgspec.structs.replace(package, url=cut.as_uri())])


def test_a_package_for_another_platform_is_refused(
    builder: Builder, packages: dict[str, CondaPackage]
) -> None:
    other = msgspec.structs.replace(packages["prefixed"], subdir="osx-arm64")
    with pytest.raises(LockError, match="is not for this base") as caught:
        builder.build([other])
    assert "osx-arm64" in caught.value.why


def test_offline_names_what_is_absent(builder: Builder, packages: dict[str, CondaPackage]) -> None:
    with pytest.raises(FetchError, match=r"Offline.*greeter-2\.0") as caught:
        builder.build([packages["greeter"]], offline=True)
    assert caught.value.now


def test_two_builds_share_one_cache(builder: Builder, packages: dict[str, CondaPackage]) -> None:
    chosen = choose(packages, (*PYTHON, "greeter"))
    with ThreadPoolExecutor(2) as threads:
        made = list(threads.map(lambda name: builder.build(chosen, name=name), ("left", "right")))
    for image in made:
        assert builder.run(image, "greet") == "greetings from 2.0\n"
    assert left_in(builder.folder / "cache é, x") == []
