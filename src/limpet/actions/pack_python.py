"""The Python of a folder that is packed, started in the base with the folder at its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Self

import msgspec

from limpet.actions.conda_scripts import capture
from limpet.actions.prepare import Standing
from limpet.core.activation import Activation
from limpet.core.errors import BaseError
from limpet.core.pack import Prefix, Tree
from limpet.core.prefix import Seen, modules_without_code
from limpet.formats.squashfs import Entry
from limpet.tools import bytecode, files
from limpet.tools.apptainer import Bind, Runtime, build_environment, exec_argv, run_inside
from limpet.tools.process import Finished

_ASK = """\
import importlib.util, json, sys, sysconfig
print(json.dumps({"version": sys.version.split()[0], "implementation": sys.implementation.name,
"magic": importlib.util.MAGIC_NUMBER.hex(), "cache_tag": sys.implementation.cache_tag,
"packages": sysconfig.get_path("purelib"), "library": sysconfig.get_path("stdlib")}))
"""


class Inside(msgspec.Struct, frozen=True, kw_only=True):
    """A folder's Python as it says itself in the base; `packages` and `library` are its folders."""

    version: str
    implementation: str
    magic: str
    cache_tag: str
    packages: str
    library: str


class Bench(msgspec.Struct, frozen=True, kw_only=True):
    """A base with the folders at their places, where commands can be run before there is an image.

    `links` are symbolic links that the image will have, by their place.
    """

    standing: Standing
    runtime: Runtime
    trees: tuple[Tree, ...]
    links: dict[str, str] = msgspec.field(default_factory=dict)
    variables: dict[str, str] = msgspec.field(default_factory=dict)

    @property
    def binds(self) -> list[Bind]:
        """The folders, and what the links lead to."""
        trees = [Bind(source=tree.folder, target=tree.place) for tree in self.trees]
        return trees + [
            Bind(source=Path(place).resolve(), target=place)
            for place in self.links
            if Path(place).exists()
        ]

    def run(self, words: Sequence[str], variables: Mapping[str, str]) -> Finished:
        """Run a command to its end."""
        return run_inside(
            self.runtime,
            self.standing.sif,
            words,
            binds=self.binds,
            variables=self.variables | dict(variables),
        )


def ask_python(bench: Bench, prefix: Prefix, place: str, base: str) -> Inside:
    """What the folder's Python is; BaseError where it does not run on this base, or is another."""
    python = f"{place}/bin/python"
    done = bench.run([python, "-I", "-c", _ASK], {})
    try:
        inside = msgspec.json.decode(done.stdout, type=Inside)
    except msgspec.DecodeError as error:
        why = (done.stderr.strip() or f"It ended with exit code {done.code}.")[-800:]
        if prefix.kind == "venv":
            why += f"\nThe virtual environment was made for the Python in {prefix.home}."
        raise BaseError(
            f"{python} does not start on the base {base}.",
            why=why,
            now="Take a base like the system that it was made on: --base REF.",
        ) from error
    if prefix.python and not inside.version.startswith(f"{prefix.python}."):
        raise BaseError(
            f"{python} is Python {inside.version} on the base {base}, and its packages are for "
            f"{prefix.python}.",
            why=f"The virtual environment takes the Python in {prefix.home} of the base.",
            now=f"Take a base that has Python {prefix.python} there: --base REF.",
        )
    return inside


def read_activation(bench: Bench, prefix: Prefix, place: str) -> Activation:
    """What the environment's activation scripts set; nothing where it has none."""
    if not prefix.activates:
        return Activation()
    variables = {
        "CONDA_PREFIX": place,
        "CONDA_DEFAULT_ENV": prefix.conda_name or place,
        "CONDA_SHLVL": "1",
        "PREPEND_PATH": f"{place}/bin",
    }
    return capture(msgspec.structs.replace(bench, variables=variables), place)


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What the programs of a folder say of it when they are run in the base."""

    inside: Inside | None = None
    activation: Activation = Activation()


class Asking:
    """Has them say it in a thread, from the first `look` on: a container takes its time to start,
    and little of the processors.
    """

    def __init__(self, bench: Bench, prefix: Prefix, base: str) -> None:
        self._bench = bench
        self._prefix = prefix
        self._base = base
        self._pool = ThreadPoolExecutor(1)
        self._told: Future[Told] | None = None
        self._is_well = not (prefix.python or prefix.activates)  # there is nothing to ask

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def look(self) -> None:
        """Raise what has gone wrong, so that nobody waits for all to be packed; never waits."""
        if self._is_well:
            return
        if self._told is None:
            self._told = self._pool.submit(self._ask)
        elif self._told.done():
            self._told.result()
            self._is_well = True

    def told(self) -> Told:
        """All of it; waits."""
        self.look()
        return self._told.result() if self._told else Told()

    def _ask(self) -> Told:
        bench, prefix = self._bench, self._prefix
        place = bench.trees[0].place
        return Told(
            inside=ask_python(bench, prefix, place, self._base) if prefix.python else None,
            activation=read_activation(bench, prefix, place),
        )


def compile_missing(
    bench: Bench,
    inside: Inside,
    left_out: Mapping[str, frozenset[str]],
    *,
    scratch: Path,
    workers: int,
    compiled: list[str],
) -> Iterator[Entry]:
    """Byte code of modules that have none, compiled by the folder's own Python in the base.

    `left_out` are the paths of stale byte code by the place of their tree. What was compiled is
    added to `compiled`; modules that are not for this Python have none, as with compileall.
    """
    lacking: list[tuple[str, Seen]] = []
    for tree in bench.trees:
        folders = [
            folder[len(tree.place) + 1 :]
            for folder in (inside.library, inside.packages)
            if folder.startswith(f"{tree.place}/")
        ]
        gone = dict.fromkeys(left_out[tree.place])
        found = modules_without_code(tree.seen, folders, inside.cache_tag, gone)
        lacking += [(f"{tree.place}/{one.path}", one) for one in found]
    if not lacking:
        return
    out = files.make_folder(scratch / "byte-code")
    binds = [
        *(Bind(source=here, target=there) for here, there in bytecode.SCRIPTS.items()),
        Bind(source=out, target=bytecode.OUT_INSIDE, writable=True),
        *bench.binds,
    ]
    python = f"{bench.trees[0].place}/bin/python"
    command = [python, "-I", "-S", bytecode.SCRIPT_INSIDE]
    argv = exec_argv(bench.runtime, bench.standing.sif, command, binds=binds)
    environment = build_environment(bench.runtime, {})
    with bytecode.Compiler(argv, environment, out=out, workers=workers) as compiler:
        sources = [bytecode.Source(path, 0, 0, one.size_bytes, 0) for path, one in lacking]
        for job in compiler.compile("", sources):
            for path, data, _ in job.result():
                place = bytecode.byte_code_path(path, inside.cache_tag)
                compiled.append(place)
                yield Entry(place.lstrip("/"), "file", content=data)
