"""Conda and pip together, with the real uv, a real base, and a Python that really runs."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from limpet.core.lock import Lock
from limpet.core.pylock import parse_lock
from limpet.tools.files import hash_file
from tests.conda.channel import SUBDIR, serve
from tests.conftest import Base, Limpet
from tests.lock.conftest import index as index  # a small package index on loopback
from tests.lock.loopback_index import Index

pytestmark = pytest.mark.real


@pytest.fixture
def pip_index(index: Index, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    for name in [name for name in os.environ if name.startswith(("UV_", "CONDA", "MAMBA"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("UV_DEFAULT_INDEX", index.simple)
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    yield index


def environment(folder: Path, channel: Path | str, *pip: str, conda: str = "") -> Path:
    lines = "".join(f"    - {line}\n" for line in pip)
    text = f"channels: [{json.dumps(str(channel))}]\ndependencies:\n  - greeter=1\n  - numeric\n"
    text += "".join(f"  - {spec}\n" for spec in conda.split())
    path = folder / "environment.yml"
    path.write_text(text + (f"  - pip\n  - pip:\n{lines}" if pip else ""), "utf-8")
    return path


def read(path: Path) -> Lock:
    return parse_lock(path.read_text("utf-8"), str(path))


def lock_it(limpet: Limpet, base: Base, recipe: Path, *words: str) -> tuple[int, str]:
    done = limpet("lock", recipe, "--base", base.reference, *words)
    return done.returncode, done.stderr


def test_the_channel_has_a_python_that_works_anywhere(channel: Path, tmp_path: Path) -> None:
    from rattler import BuildString, GenericVirtualPackage, PackageName, Version, install, solve

    async def put(prefix: Path) -> None:
        libc = GenericVirtualPackage(PackageName("__glibc"), Version("2.41"), BuildString("0"))
        specs = ["greeter=1", "numeric", "prefixed", "tarred"]
        records = await solve([channel.as_uri()], specs, virtual_packages=[libc])
        await install(records, prefix, cache_dir=tmp_path / "packages")

    prefix = tmp_path / "here"
    asyncio.run(put(prefix))
    told = "import sys, ssl, ctypes, bz2, lzma, numeric; print(sys.prefix, numeric.__version__)"
    for words, said in (
        (["bin/python", "-c", told], f"{prefix} 2.1.0\n"),
        (["bin/greet"], "greetings from 1.0\n"),
        (["bin/prefixed"], "the data\n"),
        (["bin/prefixed-py"], f"{prefix}/bin/python\n"),
    ):
        done = subprocess.run(
            [prefix / words[0], *words[1:]], capture_output=True, text=True, check=False, env={}
        )
        assert done.stdout.endswith(said), done.stderr


def test_conda_first_then_pip_and_nothing_twice(
    limpet: Limpet, debian_base: Base, channel: Path, pip_index: Index, tmp_path: Path
) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "requirements.txt").write_text("two\n")
    pip_index.add("one", "1.0", "numeric>=2", "greeter")
    pip_index.add("two", "1.0")
    pip_index.add("numeric", "9.0")
    pip_index.add("greeter", "9.0")
    nested = ("one", "numeric", "-r more/requirements.txt")
    with serve(channel.parent) as served:
        url = f"{served.url}/{channel.name}"
        recipe = environment(tmp_path, url, *nested)
        code, said = lock_it(limpet, debian_base, recipe)
        assert code == 0, said
        path = tmp_path / "pylock.toml"
        first, lock = path.read_bytes(), read(path)
        assert [one.name for one in lock.packages] == ["one", "two"]
        has = {one.name: one for one in lock.conda}
        assert (has["numeric"].version, has["greeter"].version) == ("2.1.0", "1.0")
        assert (lock.interpreter, lock.python) == ("/opt/env/bin/python", "3.13.5")
        assert lock.provided == {}
        for one in lock.conda:
            assert one.url == f"{url}/{one.subdir}/{one.filename}"
            assert one.sha256 == hash_file(channel / one.subdir / one.filename)
        path.unlink()
        assert lock_it(limpet, debian_base, recipe)[0] == 0
        assert path.read_bytes() == first
    path.unlink()
    assert lock_it(limpet, debian_base, recipe, "--offline")[0] == 0
    assert path.read_bytes() == first
    done = limpet("export", recipe, "--to", "environment")
    assert "numeric=2.1.0=py313h1_0" in done.stdout and "one==1.0" in done.stdout


def test_flags_alone(limpet: Limpet, debian_base: Base, channel: Path, tmp_path: Path) -> None:
    (tmp_path / "here").symlink_to(channel)
    words = ("--conda", "greeter=1", "--conda", "accelerated", "--channel", "./here")
    base = ("--base", debian_base.reference, "--cuda", "12.4")
    done = limpet("lock", *words, *base, "-o", tmp_path / "a.toml", "--json")
    assert done.returncode == 0, done.stderr
    lock = read(tmp_path / "a.toml")
    has = {one.name: one for one in lock.conda}
    assert (has["greeter"].version, has["accelerated"].build) == ("1.0", "cuda12_0")
    assert has["greeter"].path == "here/noarch/greeter-1.0-pyhd8ed1ab_0.conda"
    told = json.loads(done.stdout.splitlines()[-1])
    assert len(told["result"]["lock"]["conda"]) == len(lock.conda)


def test_pip_must_fit_what_conda_brings(
    limpet: Limpet, debian_base: Base, channel: Path, pip_index: Index, tmp_path: Path
) -> None:
    pip_index.add("one", "1.0", "numeric<2")
    pip_index.add("numeric", "1.0")
    recipe = environment(tmp_path, channel, "one")
    code, said = lock_it(limpet, debian_base, recipe)
    assert code == 4
    assert "do not fit what conda brings" in said and "numeric 2.1.0" in said
    assert sorted(one.name for one in tmp_path.iterdir() if one.name != "home") == [
        "environment.yml"
    ]


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("dependencies:\n  - a\n - b\n", 3, "line 3, column 2"),
        ("channels: [CHANNEL]\ndependencies: [gretter]\n", 4, "Did you mean greeter?"),
        ("channels: [CHANNEL]\ndependencies: [clash-old, clash-new]\n", 4, "shared"),
        ("channels: [CHANNEL]\ndependencies: [accelerated]\n", 4, "--cuda"),
        ("channels: [/nowhere]\ndependencies: [python]\n", 6, "There is no channel"),
        ("channels: ['http://127.0.0.1:9/x']\ndependencies: [python]\n", 6, "cannot be reached"),
    ],
)
def test_bad_input_leaves_the_disk_as_it_was(
    limpet: Limpet, debian_base: Base, channel: Path, home: Path, tmp_path: Path,
    text: str, code: int, said: str,
) -> None:  # fmt: skip
    recipe = tmp_path / "environment.yml"
    recipe.write_text(text.replace("CHANNEL", channel.as_uri()), "utf-8")
    before = sorted(tmp_path.rglob("*"))
    got, told = lock_it(limpet, debian_base, recipe)
    assert (got, said in told) == (code, True), told
    assert "Traceback" not in told
    assert sorted(tmp_path.rglob("*")) == before


def test_no_python_is_needed_in_the_base(
    limpet: Limpet, plain_os: str, channel: Path, home: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[systems.gpu]\ncuda = "12.4"\n')
    recipe = environment(tmp_path, channel, conda="accelerated")
    done = limpet("--config", config, "lock", recipe, "--base", plain_os, "--system", "gpu")
    assert done.returncode == 0, done.stderr
    lock = read(tmp_path / "pylock.toml")
    assert {"accelerated", "python"} <= {one.name for one in lock.conda}
    assert (lock.packages, lock.interpreter) == ((), "/opt/env/bin/python")


def test_another_python_is_locked_anew(
    limpet: Limpet, debian_base: Base, channel: Path, home: Path, tmp_path: Path
) -> None:
    recipe = environment(tmp_path, channel)
    assert lock_it(limpet, debian_base, recipe)[0] == 0
    code, said = lock_it(limpet, debian_base, recipe, "--python", ">=3.13,<3.14")
    assert code == 0 and "fits and is used" in said
    code, said = lock_it(limpet, debian_base, recipe, "--python", "3.12")
    assert code == 4 and "python 3.12.*" in said


def test_a_private_authority_vouches_for_a_channel(
    channel: Path, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ssl_verify` of .condarc names a bundle, or turns the question off."""
    import ssl
    import threading
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    from limpet.core.conda_channels import Channel
    from limpet.core.errors import FetchError
    from limpet.tools.conda_solve import CondaRequest, solve_conda
    from limpet.tools.condarc import read_condarc

    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout key -out cert"
    words += " -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE"
    subprocess.run(["openssl", *words.split()], cwd=tmp_path, check=True, capture_output=True)
    handler = partial(SimpleHTTPRequestHandler, directory=str(channel))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    request = CondaRequest(
        specs=("greeter=1",),
        channels=(Channel(name="own", url=f"https://localhost:{server.server_port}"),),
        subdir=SUBDIR,
        virtual={"__glibc": "2.41"},
    )
    try:
        with pytest.raises(FetchError):
            solve_conda(request, read_condarc(), tmp_path / "a")
        for number, said in enumerate((f"ssl_verify: {tmp_path}/cert\n", "ssl_verify: false\n")):
            (home / ".condarc").write_text(said)
            found = solve_conda(request, read_condarc(), tmp_path / str(number))
            assert found[0].name == "bzip2"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_conda_environment_on_the_disk_is_frozen(
    limpet: Limpet, debian_base: Base, channel: Path, pip_index: Index, tmp_path: Path
) -> None:
    from rattler import BuildString, GenericVirtualPackage, PackageName, Version, install, solve

    async def put(prefix: Path) -> None:
        libc = GenericVirtualPackage(PackageName("__glibc"), Version("2.41"), BuildString("0"))
        records = await solve([channel.as_uri()], ["greeter=1"], virtual_packages=[libc])
        await install(records, prefix, cache_dir=tmp_path / "packages")

    asyncio.run(put(tmp_path / "env"))
    info = tmp_path / "env" / "lib" / "python3.13" / "site-packages" / "one-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: one\nVersion: 1.0\n")
    sha256 = pip_index.add("one", "1.0")
    pip_index.add("one", "2.0")
    base = ("--base", debian_base.reference)
    done = limpet("lock", "--freeze", tmp_path / "env", *base, "-o", tmp_path / "lock.toml")
    assert done.returncode == 0, done.stderr
    lock = read(tmp_path / "lock.toml")
    assert [(one.name, one.version, one.artifact.sha256) for one in lock.packages] == [
        ("one", "1.0", sha256)
    ]
    has = {one.name: one for one in lock.conda}
    assert has["greeter"].version == "1.0" and "pip" not in has
    for one in has.values():
        assert one.sha256 == hash_file(channel / one.subdir / one.filename)


def test_the_engine_is_loaded_only_where_it_is_needed() -> None:
    """`limpet --help` and what starts programs must not pay for it."""
    code = (
        "import sys, limpet.cli.main, limpet.cli.launch, limpet.cli.build, limpet.cli.export\n"
        "import limpet.actions.launch, limpet.actions.build\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('rattler', 'ruamel')])"
    )
    import sys

    source = Path(__file__).parent.parent.parent / "src"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(source)},
    )
    assert done.stdout == "[]\n", done.stderr
