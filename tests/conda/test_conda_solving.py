"""Solving against small channels: for the target, not for the host; and how failures are told."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from limpet.actions.conda_lock import CondaAnswer, uses_conda
from limpet.core.conda import CondaPackage, conda_interpreter
from limpet.core.errors import BaseError, FetchError, LimpetError, LockError, RecipeError
from limpet.core.facts import BaseFacts, Libc
from limpet.core.lock import Lock, LockedBase
from limpet.core.pylock import parse_lock, render_lock
from limpet.core.recipe import Image, Recipe
from limpet.tools.recipes import read_recipe
from tests.conda.channel import SUBDIR, Package, Served, serve, write_channel
from tests.conda.conftest import Solve


def env(channel: Path | str, *specs: str, extra: str = "") -> str:
    listed = "".join(f"- {json.dumps(spec)}\n" for spec in specs)
    return f"channels: [{json.dumps(str(channel))}]\ndependencies:\n{listed}{extra}"


def versions(answer: CondaAnswer | Sequence[CondaPackage]) -> dict[str, str]:
    packages = answer.packages if isinstance(answer, CondaAnswer) else answer
    return {one.name: one.version for one in packages}


def lock_of(answer: CondaAnswer, previous: str = "") -> Lock:
    base = LockedBase(reference="debian:trixie", digest="sha256:1", arch="x86_64")
    python = conda_interpreter(answer.packages)
    assert python
    return Lock(base=base, python=python.version, interpreter=python.path, conda=answer.packages)


@pytest.mark.parametrize(
    ("spec", "version"),
    [
        ("greeter", "2.0"),
        ("greeter=1", "1.5"),
        ("greeter==1.0", "1.0"),
        ("greeter=1.0=0", "1.0"),
        ("greeter=*=py*", "2.0"),
        ("greeter>=1,<2", "1.5"),
        ("greeter 1.0.*", "1.0"),
        ("greeter ~=1.0", "1.5"),
        ("greeter=1.0|2.0", "2.0"),
        ("greeter!=2.0", "1.5"),
        ('greeter[version="<1.5"]', "1.0"),
        ("Greeter >=1 py_1", "2.0"),
        ("greeter 1.5 0", "1.5"),
        ("greeter =1.0", "1.0"),
        ("greeter=1.*", "1.5"),
        ("greeter=1.5=*", "1.5"),
        ("greeter<2,!=1.5", "1.0"),
        ("greeter>1.0,<=1.5", "1.5"),
        ("greeter 1.0|>1.5", "2.0"),
        ("greeter[version='1.*', build=0]", "1.5"),
    ],
)
def test_every_way_to_pin(solve: Solve, small: Path, spec: str, version: str) -> None:
    assert versions(solve(env(small, spec)))["greeter"] == version


def test_python_comes_along_in_the_wanted_version(solve: Solve, small: Path) -> None:
    assert versions(solve(env(small, "shared=1"))) == {"shared": "1.0"}  # as conda does it
    with_pip = env(small, "shared=1", extra="- pip:\n  - six\n")
    assert versions(solve(with_pip)) == {"python": "3.13.5", "shared": "1.0"}
    older = Recipe(image=Image(python="3.12"))
    assert versions(solve(env(small, "greeter"), flags=older))["python"] == "3.12.9"
    python = conda_interpreter(solve(env(small, "pip", "setuptools")).packages)
    assert python and python.path == "/opt/env/bin/python"
    assert {one.name for one in python.distributions} == {"pip", "setuptools"}


def test_the_target_decides_and_not_the_host(
    solve: Solve, small: Path, facts: BaseFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONDA_OVERRIDE_CUDA", "99")
    monkeypatch.setenv("CONDA_OVERRIDE_GLIBC", "99")
    assert solve(env(small, "fast")).packages[0].build == "cpu_0"
    cuda = Recipe(image=Image(cuda="12.4"))
    assert solve(env(small, "fast"), flags=cuda).packages[0].build == "cuda_0"
    with pytest.raises(LockError) as caught:
        solve(env(small, "only-cuda"))
    assert "__cuda >=12" in caught.value.why and "--cuda" in caught.value.now
    with pytest.raises(LockError) as caught:
        solve(env(small, "only-cuda"), flags=Recipe(image=Image(cuda="11.8")))
    assert "__cuda 11.8" in caught.value.now
    with pytest.raises(LockError) as caught:
        solve(env(small, "newlibc"))
    assert "__glibc 2.41" in caught.value.now
    musl = BaseFacts(digest="d", arch=facts.arch, libc=Libc(family="musl", version="1.2"))
    with pytest.raises(BaseError, match="need glibc; the base has musl"):
        solve(env(small, "greeter"), facts=musl)


def test_the_first_channel_that_has_a_package_is_the_one(
    solve: Solve, small: Path, tmp_path: Path
) -> None:
    mine = write_channel(tmp_path / "mine", Package(name="greeter", version="0.1"))
    both = f"channels: ['{mine}', '{small}']\ndependencies: ["
    found = solve(f"{both}greeter]")
    assert versions(found) == {"greeter": "0.1"}
    assert {one.channel for one in found.packages} == {str(mine)}
    with pytest.raises(LockError):
        solve(f"{both}'greeter>=1']")
    assert versions(solve(f"{both}'{small}::greeter']"))["greeter"] == "2.0"
    alone = f"channels: ['{mine}']\ndependencies: ["  # the other one is named in a spec only
    for spec in (f"{small}::greeter", f"{small}/noarch::greeter"):
        assert versions(solve(f"{alone}'{spec}']"))["greeter"] == "2.0"
    direct = (small / "noarch" / "greeter-1.0-0.conda").as_uri()
    assert versions(solve(f"{both}'{direct}']"))["greeter"] == "1.0"
    write_channel(tmp_path / "mine", Package(name="shared", version="0.9"))
    with pytest.raises(LockError):
        solve(f"{both}clash-new]", cache=tmp_path / "fresh")


def test_channels_by_name_and_place(
    solve: Solve, here: Path, small: Path, home: Path, tmp_path: Path
) -> None:
    mine = write_channel(tmp_path / "all" / "mine", Package(name="extra"))
    (home / ".condarc").write_text(
        f"channel_alias: {mine.parent.as_uri()}\n"
        f"custom_channels:\n  team/dev: {tmp_path / 'team'}\n"
        f"custom_multichannels:\n  both: [mine, '{small}']\n"
        f"default_channels: ['{small}']\n"
        "channels: [both]\n"
    )
    write_channel(tmp_path / "team" / "team" / "dev", Package(name="dev-tool"))
    found = solve("dependencies: [extra, greeter]\n")  # no channels: .condarc's
    assert {one.name: one.channel for one in found.packages}["extra"] == "mine"
    assert "dev-tool" in versions(
        solve("channels: [team/dev, defaults]\ndependencies: [dev-tool]\n")
    )
    (here / "own").symlink_to(mine)
    text = f"channels: [./own, '{small}']\ndependencies: [extra]\n"
    extra = next(one for one in solve(text).packages if one.name == "extra")
    assert extra.channel == "./own" and extra.path == f"own/{SUBDIR}/extra-1.0-0.conda"


def test_each_package_is_named_exactly(solve: Solve, small: Path) -> None:
    greeter, python = solve(env(small, "greeter=1.5")).packages
    file = small / "noarch" / "greeter-1.5-0.tar.bz2"
    assert (greeter.filename, Path(greeter.path)) == (file.name, file)
    assert greeter.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert greeter.md5 == hashlib.md5(file.read_bytes()).hexdigest()
    assert (greeter.noarch, greeter.subdir, greeter.depends) == (
        *("python", "noarch"),
        ("python >=3.9",),
    )
    assert (python.build, python.size_bytes is not None) == ("h0_cpython", True)


# ---- again and again -----------------------------------------------------------------------------


def test_the_same_recipe_gives_the_same_bytes(solve: Solve, small: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(small, copy)
    first = lock_of(solve(env(copy, "greeter<2", "shared")))
    text = render_lock(first)
    assert parse_lock(text, "lock") == first
    assert render_lock(lock_of(solve(env(copy, "greeter<2", "shared"), previous=first))) == text
    write_channel(
        copy,
        Package(name="greeter", version="1.9", noarch="python", depends=("python",)),
        Package(name="shared", version="3.0"),
    )
    options = {"previous": first, "cache": tmp_path / "fresh"}
    assert render_lock(lock_of(solve("", "environment.yml", **options))) == text
    some = solve("", "environment.yml", upgrade_packages=("Shared",), **options)
    assert versions(some) == {"greeter": "1.5", "python": "3.13.5", "shared": "3.0"}
    every = solve("", "environment.yml", upgrade=True, **options)
    assert versions(every) == {"greeter": "1.9", "python": "3.13.5", "shared": "3.0"}


def test_a_locked_file_that_was_replaced_is_not_kept(
    solve: Solve, small: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(small, copy)
    first = lock_of(solve(env(copy, "python", "shared=1")))
    write_channel(copy, Package(name="shared", version="1.0", files={"share/x": "new"}))
    again = solve(env(copy, "python", "shared=1"), previous=first, cache=tmp_path / "fresh")
    path = copy / SUBDIR / "shared-1.0-0.conda"
    assert again.packages[1].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert again.packages[1].sha256 != first.conda[1].sha256


def test_nothing_newer_than_a_date(solve: Solve, small: Path) -> None:
    assert versions(solve(env(small, "shared"), exclude_newer="2100-01-01"))["shared"] == "2.0"
    with pytest.raises(LockError):
        solve(env(small, "shared"), exclude_newer="2020-01-01")
    with pytest.raises(RecipeError, match="no date"):
        solve(env(small, "shared"), exclude_newer="yesterday")


# ---- lists and locks of others -------------------------------------------------------------------


def url_of(package: Path) -> str:
    return package.as_uri()


def test_an_explicit_list_is_taken_as_it_is(solve: Solve, here: Path, small: Path) -> None:
    python = small / SUBDIR / "python-3.12.9-h0_cpython.conda"
    greeter = small / "noarch" / "greeter-1.0-0.conda"
    sha256 = hashlib.sha256(python.read_bytes()).hexdigest()
    md5 = hashlib.md5(greeter.read_bytes()).hexdigest()
    text = f"@EXPLICIT\n{url_of(python)}#sha256:{sha256}\n{url_of(greeter)}#{md5}\n"
    (here / "list.txt").write_text(text)
    assert uses_conda(read_recipe([here / "list.txt"]))
    found = solve("", "list.txt")
    assert versions(found) == {"python": "3.12.9", "greeter": "1.0"}
    depends = next(one for one in found.packages if one.name == "greeter").depends
    assert depends == ("python >=3.9",)
    (here / "list.txt").write_text(f"@EXPLICIT\n{url_of(python)}#sha256:{'0' * 64}\n")
    with pytest.raises(LockError, match=r"not the file that list\.txt names"):
        solve("", "list.txt")
    (here / "list.txt").write_text(f"@EXPLICIT\n{url_of(greeter)}\n")
    with pytest.raises(LockError, match="bring no Python"):
        solve("", "list.txt")
    other = small / "osx-arm64" / "elsewhere-1.0-0.conda"
    (here / "list.txt").write_text(f"@EXPLICIT\n{url_of(other)}\n")
    with pytest.raises(LockError, match=r"for another platform: elsewhere.* is for osx-arm64"):
        solve("", "list.txt")


def test_an_environment_beside_an_explicit_list(solve: Solve, here: Path, small: Path) -> None:
    python = small / SUBDIR / "python-3.12.9-h0_cpython.conda"
    (here / "list.txt").write_text(f"@EXPLICIT\n{url_of(python)}\n")
    assert versions(solve(env(small, "greeter"), "list.txt")) == {
        "greeter": "2.0",
        "python": "3.12.9",
    }
    with pytest.raises(LockError):
        solve(env(small, "numeric"), "list.txt")


def test_a_list_for_a_place_that_is_no_channel(solve: Solve, here: Path, small: Path) -> None:
    loose = here / "loose" / SUBDIR
    loose.mkdir(parents=True)
    shutil.copy(small / SUBDIR / "python-3.13.5-h0_cpython.conda", loose)
    (here / "list.txt").write_text(f"@EXPLICIT\nloose/{SUBDIR}/python-3.13.5-h0_cpython.conda\n")
    (python,) = solve("", "list.txt").packages
    assert (python.version, python.path) == ("3.13.5", f"loose/{SUBDIR}/{python.filename}")
    assert len(python.sha256) == 64


def test_a_md5_alone_is_not_enough(solve: Solve, here: Path, tmp_path: Path) -> None:
    channel = tmp_path / "c"
    write_channel(channel, Package(name="python", version="3.13.5"))
    for name in ("repodata.json.zst", "repodata.json"):
        (channel / SUBDIR / name).unlink()
    with serve(tmp_path) as served:
        url = f"{served.url}/c/{SUBDIR}/python-3.13.5-0.conda"
        (here / "list.txt").write_text(f"@EXPLICIT\n{url}#{'b' * 32}\n")
        with pytest.raises(LockError, match="no sha256"):
            solve("", "list.txt")
        asked: list[str] = []

        def hash_of(url: str) -> str:
            asked.append(url)
            return "f" * 64

        found = solve("", "list.txt", hash_of=hash_of)
    assert asked == [url] and found.packages[0].sha256 == "f" * 64


# ---- behind a login ------------------------------------------------------------------------------


def _served_env(served: Served, login: str = "", path: str = "") -> str:
    return env(served.url.replace("//", f"//{login}") + path + "/ch", "greeter")


def test_a_login_opens_a_channel_and_stays_out_of_the_lock(
    solve: Solve, tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "ch").symlink_to(small)
    with serve(tmp_path / "served", login="bob:hunter2") as served:
        with pytest.raises(FetchError, match="refuses access") as caught:
            solve(_served_env(served, "bob:wrongpw@"))
        assert "wrongpw" not in str(caught.value)
        in_url = solve(_served_env(served, "bob:hunter2@"))
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login bob password hunter2\n")
        in_netrc = solve(_served_env(served), cache=tmp_path / "other")
        (tmp_path / "netrc").unlink()
        store = {"127.0.0.1": {"BasicHTTP": {"username": "bob", "password": "hunter2"}}}
        (tmp_path / "auth.json").write_text(json.dumps(store))
        monkeypatch.setenv("RATTLER_AUTH_FILE", str(tmp_path / "auth.json"))
        in_store = solve(_served_env(served), cache=tmp_path / "third")
    for answer in (in_url, in_netrc, in_store):
        text = render_lock(lock_of(answer))
        assert "hunter2" not in text and "bob" not in text
        assert answer.packages[0].url == f"{served.url}/ch/noarch/greeter-2.0-py_1.conda"


def test_a_token_opens_a_channel_and_stays_out_of_the_lock(
    solve: Solve, tmp_path: Path, small: Path, home: Path
) -> None:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "ch").symlink_to(small)
    with serve(tmp_path / "served", token="sesame-42") as served:
        with pytest.raises(FetchError, match="refuses access"):
            solve(_served_env(served))
        with pytest.raises(FetchError) as caught:
            solve(_served_env(served, path="/t/wrong-99"))
        assert "wrong-99" not in str(caught.value)
        in_url = solve(_served_env(served, path="/t/sesame-42"))
        (home / ".condarc").write_text(
            f"custom_channels:\n  ch: {served.url}/t/${{MY_TOKEN}}\nssl_verify: true\n"
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MY_TOKEN", "sesame-42")
            by_name = solve(env("ch", "greeter"))
    for answer in (in_url, by_name):
        assert "sesame" not in render_lock(lock_of(answer))
        assert answer.packages[0].url == f"{served.url}/ch/noarch/greeter-2.0-py_1.conda"
    assert by_name.packages[0].channel == "ch"


def test_a_mirror_stands_in(solve: Solve, tmp_path: Path, small: Path, home: Path) -> None:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "mirror").symlink_to(small)
    with serve(tmp_path / "served") as served:
        (home / ".condarc").write_text(
            "channel_alias: http://conda.invalid\n"
            f"mirrored_channels:\n  far: ['{served.url}/mirror']\n"
        )
        found = solve(env("far", "greeter"))
    assert found.packages[0].url == "http://conda.invalid/far/noarch/greeter-2.0-py_1.conda"


def test_proxies_of_condarc(solve: Solve, tmp_path: Path, small: Path, home: Path) -> None:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "ch").symlink_to(small)
    with serve(tmp_path / "served") as proxy:
        (home / ".condarc").write_text(f"proxy_servers:\n  http: {proxy.url}\n")
        with pytest.raises(FetchError):
            solve(env("http://conda.invalid/ch", "greeter"))
        assert any("conda.invalid" in path for path in proxy.asked)


def test_offline(solve: Solve, tmp_path: Path, small: Path) -> None:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "ch").symlink_to(small)
    with serve(tmp_path / "served") as served:
        with pytest.raises(FetchError, match="Offline"):
            solve(_served_env(served), offline=True)
        assert served.asked == []
        online = solve(_served_env(served))
    assert solve("", "environment.yml", offline=True) == online


# ---- bad input -----------------------------------------------------------------------------------


def test_an_unknown_package(solve: Solve, small: Path, tmp_path: Path) -> None:
    with pytest.raises(LockError, match="No channel has gretter") as caught:
        solve(env(small, "gretter"))
    assert caught.value.now == "Did you mean greeter?"
    with pytest.raises(LockError) as caught:
        solve(env(small, "greeter>=9"))
    assert "greeter >=9" in caught.value.why


def test_a_package_for_another_platform(solve: Solve, small: Path) -> None:
    with pytest.raises(LockError, match=f"have elsewhere for osx-arm64, not for {SUBDIR}"):
        solve(env(small, "elsewhere"))


def test_an_unsatisfiable_set_is_explained(solve: Solve, small: Path) -> None:
    with pytest.raises(LockError, match="No set of conda packages") as caught:
        solve(env(small, "clash-old", "clash-new"))
    assert "shared <2" in caught.value.why and "shared >=2" in caught.value.why
    assert len(caught.value.why.splitlines()) <= 16


def test_a_version_that_is_not_there(solve: Solve, small: Path) -> None:
    with pytest.raises(LockError, match="No set of conda packages") as caught:
        solve(env(small, "greeter=3"))
    assert caught.value.why == "No candidates were found for greeter 3.*."
    assert caught.value.now == "The channels have greeter 2.0, 1.5, 1.0."


def test_an_unknown_channel(solve: Solve, small: Path, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"There is no channel file:.*nowhere"):
        solve(env(tmp_path / "nowhere", "greeter"))
    (tmp_path / "served").mkdir()
    with (
        serve(tmp_path / "served") as served,
        pytest.raises(FetchError, match=f"There is no channel {served.url}/ch"),
    ):
        solve(_served_env(served))


def test_a_channel_that_cannot_be_reached(solve: Solve) -> None:
    with pytest.raises(FetchError, match="cannot be reached") as caught:
        solve(env("http://127.0.0.1:9/ch", "greeter"))
    assert "127.0.0.1:9" in caught.value.why


@pytest.mark.parametrize(
    ("channel", "error", "said"),
    [("'ht!tp://x'", RecipeError, "cannot be read"), ("'ftp://x/y'", RecipeError, "scheme")],
)
def test_a_channel_that_is_none(
    solve: Solve, channel: str, error: type[LimpetError], said: str
) -> None:
    with pytest.raises(error) as caught:
        solve(f"channels: [{channel}]\ndependencies: [greeter]\n")
    assert said in str(caught.value)


@pytest.mark.parametrize("text", ["<html>log in</html>", "[]", '{"packages": {"x": {}}}'])
def test_a_channel_whose_list_is_damaged(solve: Solve, tmp_path: Path, text: str) -> None:
    (tmp_path / "bad" / "noarch").mkdir(parents=True)
    (tmp_path / "bad" / "noarch" / "repodata.json").write_text(text)
    with pytest.raises(FetchError, match="list of packages is damaged"):
        solve(env(tmp_path / "bad", "x"))


def test_a_virtual_package_may_be_asked_for(solve: Solve, small: Path) -> None:
    with pytest.raises(LockError, match="No set of conda packages") as caught:
        solve(env(small, "__cuda", "greeter"))
    assert "--cuda" in caught.value.now
    cuda = Recipe(image=Image(cuda="12.4"))
    assert "__cuda" not in versions(solve(env(small, "__cuda", "greeter"), flags=cuda))


def test_a_spec_that_cannot_be_read(solve: Solve, small: Path) -> None:
    with pytest.raises(RecipeError, match="'greeter>==1' is no conda package"):
        solve(env(small, "greeter>==1"))


def test_a_file_that_is_not_what_its_channel_says(
    solve: Solve, small: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(small, copy)
    path = copy / "noarch" / "greeter-2.0-py_1.conda"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(FetchError, match="not the file that its channel names") as caught:
        solve(env(copy, "greeter"))
    assert "expected sha256" in caught.value.why
    path.unlink()
    with pytest.raises(FetchError, match="cannot be read"):
        solve(env(copy, "greeter"))


def test_a_broken_condarc(solve: Solve, small: Path, home: Path) -> None:
    (home / ".condarc").write_text("channels: [x\n")
    with pytest.raises(RecipeError, match=r"\.condarc, line 2, column 1"):
        solve(env(small, "greeter"))
