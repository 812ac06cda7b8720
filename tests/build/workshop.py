"""A folder to build in: wheels of a few lines, a recipe, a place for images, and limpet itself."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from limpet.tools.files import PARTIAL_MARK

SOURCE = Path(__file__).parents[2] / "src"
BASE = "debian:trixie"

Tree = dict[str, tuple[str, int, str]]


def write_wheel(
    folder: Path,
    name: str,
    files: Mapping[str, str | bytes],
    *,
    version: str = "1.0",
    requires: Sequence[str] = (),
    tag: str = "py3-none-any",
    compression: int = zipfile.ZIP_DEFLATED,
) -> Path:
    """A wheel as small as they come; the same arguments give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {one}\n" for one in requires)
    members = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
        f"{info}/RECORD": "",
    }
    path = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w", compression) as archive:
        for member, content in members.items():
            entry = zipfile.ZipInfo(member)
            entry.compress_type = compression
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, content)
    return path


class Workshop:
    """`folder` holds the recipe, `folder/wheels` what it may install, `folder/out` the images."""

    def __init__(self, folder: Path, *, cache: Path, base: str | Path = BASE) -> None:
        self.folder = folder
        self.cache = cache
        self.base = str(base)
        self.wheels = folder / "wheels"
        self.out = folder / "out"
        self.image = self.out / "image.sif"
        self.out.mkdir(parents=True, exist_ok=True)
        self.wheels.mkdir(exist_ok=True)

    def add_wheel(self, name: str, files: Mapping[str, str | bytes], **given: object) -> Path:
        return write_wheel(self.wheels, name, files, **given)  # type: ignore[arg-type]

    def write(self, name: str, text: str | bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def require(self, *lines: str, name: str = "requirements.in") -> Path:
        """A requirements file that looks nowhere but in `wheels`."""
        return self.write(name, "\n".join(("--no-index", "--find-links wheels", *lines, "")))

    def describe(self, text: str, *lines: str) -> Path:
        """A limpet.toml with the packages of `lines`."""
        self.require(*lines)
        return self.write("limpet.toml", f'[packages]\nfiles = ["requirements.in"]\n{text}')

    # ---- limpet ----------------------------------------------------------------------------------

    def words(self, *words: str | Path) -> list[str]:
        return [sys.executable, "-P", "-m", "limpet", *map(str, words)]

    def variables(self, env: Mapping[str, str]) -> dict[str, str]:
        own = {"PYTHONPATH": str(SOURCE), "LIMPET_CACHE_DIR": str(self.cache)}
        return {**os.environ, **own, **env}

    def build_words(self, recipe: str | Path, *words: str | Path) -> list[str]:
        flags = list(map(str, words))
        output = () if "-o" in flags else ("-o", str(self.image))
        base = () if "--base" in flags or not self.base else ("--base", self.base)
        return self.words("build", recipe, *output, *base, *words)

    def run(
        self, argv: Sequence[str | Path], *, cwd: Path | None = None, **env: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(word) for word in argv],
            cwd=cwd or self.folder,
            env=self.variables(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def try_build(
        self, recipe: str | Path, *words: str | Path, cwd: Path | None = None, **env: str
    ) -> subprocess.CompletedProcess[str]:
        return self.run(self.build_words(recipe, *words), cwd=cwd, **env)

    def build(
        self, recipe: str | Path, *words: str | Path, cwd: Path | None = None, **env: str
    ) -> Path:
        done = self.try_build(recipe, *words, cwd=cwd, **env)
        assert done.returncode == 0, done.stderr
        given = [str(word) for word in words]
        return Path(given[given.index("-o") + 1]) if "-o" in given else self.image

    def start_build(
        self, recipe: str | Path, *words: str | Path, **env: str
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.build_words(recipe, *words),
            cwd=self.folder,
            env=self.variables(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def python(self, image: Path, code: str, *arguments: str, **env: str) -> str:
        """What a bare `apptainer exec` gives, without limpet."""
        bare: list[str | Path] = ["apptainer", "--silent", "exec", image, "python", "-c", code]
        bare += arguments
        done = self.run(bare, cwd=None, **env)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


def read_tree(folder: Path) -> Tree:
    """Everything below a folder: what it is, when it was written, what is in it."""
    found: Tree = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = ""
        if path.is_symlink():
            content = str(path.readlink())
        elif path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        # A folder's time changes when a file comes and goes, which is no trace.
        when = 0 if path.is_dir() else status.st_mtime_ns
        found[str(path.relative_to(folder))] = (oct(status.st_mode), when, content)
    return found


@contextmanager
def unchanged(folder: Path) -> Iterator[None]:
    """Whatever happens in the block, the folder is the same after it: no file more, none less."""
    before = read_tree(folder)
    yield
    assert read_tree(folder) == before


def find_leftovers(cache: Path) -> list[str]:
    """What a build left lying in its cache that is of no use to any other."""
    passing = [path for name in ("tmp", "work") for path in cache.glob(f"{name}/[!.]*")]
    passing += cache.glob("bases/*/scratch/[!.]*")
    partial = cache.rglob(f"*{PARTIAL_MARK}*")
    return sorted(str(path.relative_to(cache)) for path in (*passing, *partial))


def check_refused(done: subprocess.CompletedProcess[str], code: int, *said: str) -> str:
    """The exit code, and an error of a few lines that says all of `said`; gives it back."""
    assert done.returncode == code, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr
    assert "mistake in limpet" not in done.stderr
    error = done.stderr[done.stderr.index("limpet: ") :]
    lines = error.splitlines()
    assert len(lines) <= 7, error
    assert all(len(line) < 400 for line in lines), error
    for words in said:
        assert words in error, f"{words!r} is not in: {error}"
    return error
