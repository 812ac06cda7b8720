"""Who is compared, and the command by which each builds one image.

All get the same base, the same requirements, and folders of their own for caches, temporaries and
output on the same file system. Setting them up (environments for cotainr and limpet) is not
measured. pip's warm download cache is a folder of the wheels that it needs, used without asking
the index: quicker than pip's own cache, and there whatever headers the index sends.

- `apptainer`: a definition file with pip in `%post`, everything as it comes (gzip).
- `apptainer-zstd`: zstd level 3 for mksquashfs; when warm, the base is a local SIF pulled before.
- `cotainr`: the same steps through cotainr's Python API, everything as it comes (gzip).
- `cotainr-zstd`: as above, tuned like `apptainer-zstd`.
- `limpet`: `limpet build`, everything as it comes.
- `apptainer-uv` (only with --variants, and never judged): as `apptainer-zstd`, but installed by uv
  with byte code. Nobody's documentation does it; it shows how far a definition file can go.

pip's `--no-compile` is no tuning: every start would then compile what the build did not.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from measure import Command

ZSTD = "-comp zstd -Xcompression-level 3"
# Folders that every base has, for what is bound into a build.
WHEELS_INSIDE = "/mnt"
UV_CACHE_INSIDE = "/srv"
UV_INSIDE = "/media"
CA_INSIDE = "/etc/ssl/certs/ca-certificates.crt"
HERE = Path(__file__).resolve().parent

Group = Literal["default", "tuned", "variant", "limpet"]


@dataclass(frozen=True, kw_only=True)
class Shop:
    """What was made ready for all before anything is measured."""

    base: str
    base_sif: Path
    cotainr_python: Path | None
    limpet: tuple[str, ...] | None
    uv: Path | None


@dataclass(frozen=True, kw_only=True)
class Order:
    """One build: these requirements, in this contender's own folder.

    `added` is what came to the recipe last; `wheels` has all but that, for a warm pip.
    """

    requirements: tuple[str, ...]
    added: tuple[str, ...]
    folder: Path
    wheels: Path
    warm: bool

    @property
    def image(self) -> Path:
        """Where the image is to be."""
        return self.folder / "out/image.sif"

    def lay_out(self) -> None:
        """Make the folders."""
        for name in ("cache/apptainer", "cache/uv", "cache/xdg", "tmp", "out"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A name, what it is compared as, and its command for an order."""

    name: str
    group: Group
    command: Callable[[Shop, Order], Command]


def host_ca_bundle() -> Path | None:
    """The CA bundle that this host's programs use: a site's own may be in it."""
    named = os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile
    return Path(named).resolve() if named and Path(named).is_file() else None


def environment(folder: Path) -> dict[str, str]:
    """This process's environment, with all caches and temporaries in `folder`."""
    reaching = re.compile(r"(APPTAINER|SINGULARITY|LIMPET|PYTHON|UV_CACHE|PIP_CACHE)")
    kept = {name: value for name, value in os.environ.items() if not reaching.match(name)}
    return kept | {
        "TMPDIR": str(folder / "tmp"),
        "XDG_CACHE_HOME": str(folder / "cache/xdg"),
        "APPTAINER_CACHEDIR": str(folder / "cache/apptainer"),
        "APPTAINER_TMPDIR": str(folder / "tmp"),
        "APPTAINER_NOHTTPS": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }


def _peer_environment(order: Order, *, zstd: bool, uv: Path | None = None) -> dict[str, str]:
    env = environment(order.folder)
    # Paths of the host; inside, the bundle lies at the usual place.
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "PIP_CERT", "REQUESTS_CA_BUNDLE"):
        env.pop(name, None)
    env.pop("PIP_FIND_LINKS", None)
    # Bound by variable: cotainr has no option for it.
    binds = [f"{order.wheels}:{WHEELS_INSIDE}:ro"]
    if bundle := host_ca_bundle():
        binds.append(f"{bundle}:{CA_INSIDE}:ro")
    if uv:
        binds += [f"{uv.parent}:{UV_INSIDE}:ro", f"{order.folder}/cache/uv:{UV_CACHE_INSIDE}"]
    env |= {
        "APPTAINER_BIND": ",".join(binds),
        "PIP_NO_CACHE_DIR": "1",
        # Debian's Python; without it pip would need a venv, which takes longer to make.
        "PIP_BREAK_SYSTEM_PACKAGES": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
    }
    if zstd:
        env["APPTAINER_MKSQUASHFS_ARGS"] = ZSTD
    return env


def _pip_commands(order: Order) -> list[str]:
    pip = ["python3", "-m", "pip", "install"]
    if not order.warm:
        return [shlex.join([*pip, *order.requirements, *order.added])]
    known = [*pip, "--no-index", "--find-links", WHEELS_INSIDE, *order.requirements]
    return [shlex.join(known)] + ([shlex.join([*pip, *order.added])] if order.added else [])


def _define(order: Order, base: tuple[str, str], env: dict[str, str], commands: list[str]) -> Path:
    bootstrap, source = base
    exports = shlex.join(f"{name}={value}" for name, value in env.items() if name[:4] == "PIP_")
    path = order.folder / "out/image.def"
    path.write_text(
        f"Bootstrap: {bootstrap}\nFrom: {source}\n\n%post\n"
        f"    export {exports}\n" + "".join(f"    {command}\n" for command in commands)
    )
    return path


def _base(shop: Shop, order: Order, *, tuned: bool) -> tuple[str, str]:
    if tuned and order.warm:
        return "localimage", str(shop.base_sif)
    return "docker", shop.base.removeprefix("docker://")


def build_by_definition(shop: Shop, order: Order, *, tuned: bool) -> Command:
    """`apptainer build` from a definition file with pip in %post."""
    env = _peer_environment(order, zstd=tuned)
    definition = _define(order, _base(shop, order, tuned=tuned), env, _pip_commands(order))
    return Command(
        argv=("apptainer", "build", "--force", str(order.image), str(definition)),
        env=env,
        watched=order.folder,
    )


def build_by_definition_with_uv(shop: Shop, order: Order) -> Command:
    """The same with uv instead of pip."""
    assert shop.uv
    env = _peer_environment(order, zstd=True, uv=shop.uv)
    install = ["env", f"SSL_CERT_FILE={CA_INSIDE}", f"UV_CACHE_DIR={UV_CACHE_INSIDE}"]
    install += [f"{UV_INSIDE}/{shop.uv.name}", "pip", "install", "--system", "--quiet"]
    install += ["--break-system-packages", "--compile-bytecode", "--link-mode", "copy"]
    install += [*order.requirements, *order.added]
    definition = _define(order, _base(shop, order, tuned=True), env, [shlex.join(install)])
    return Command(
        argv=("apptainer", "build", "--force", str(order.image), str(definition)),
        env=env,
        watched=order.folder,
    )


def build_by_cotainr(shop: Shop, order: Order, *, tuned: bool) -> Command:
    """cotainr's sandbox, pip in it, cotainr's packing."""
    bootstrap, source = _base(shop, order, tuned=tuned)
    base = source if bootstrap == "localimage" else f"docker://{source}"
    program = [str(shop.cotainr_python), str(HERE / "cotainr_build.py")]
    return Command(
        argv=(*program, base, str(order.image), *_pip_commands(order)),
        env=_peer_environment(order, zstd=tuned),
        watched=order.folder,
    )


def build_by_limpet(shop: Shop, order: Order) -> Command:
    """`limpet build` of a requirements file."""
    assert shop.limpet
    recipe = order.folder / "out/requirements.txt"
    lines = (*order.requirements, *order.added)
    recipe.write_text("".join(f"{line}\n" for line in lines))
    env = environment(order.folder) | {
        "LIMPET_CACHE_DIR": str(order.folder / "cache/limpet"),
        "UV_CACHE_DIR": str(order.folder / "cache/uv"),
    }
    build = ["build", str(recipe), "-o", str(order.image), "--base", shop.base, "--force"]
    return Command(argv=(*shop.limpet, *build), env=env, watched=order.folder)


def download_wheels(shop: Shop, requirements: tuple[str, ...], wheels: Path, folder: Path) -> None:
    """With the base's pip, what a warm pip finds beside itself."""
    wheels.mkdir(parents=True)
    env = environment(folder) | {"APPTAINER_BIND": f"{wheels}:{WHEELS_INSIDE}"}
    env.pop("PIP_FIND_LINKS", None)
    if bundle := host_ca_bundle():
        env["APPTAINER_BIND"] += f",{bundle},{bundle}:{CA_INSIDE}:ro"
    pip = ["python3", "-m", "pip", "--quiet", "download", "--dest", WHEELS_INSIDE, *requirements]
    command = ["apptainer", "--silent", "exec", "--no-home", str(shop.base_sif), *pip]
    subprocess.run(command, check=True, env=env)


def contenders() -> tuple[Contender, ...]:
    """Everyone, limpet last."""
    return (
        Contender(
            name="apptainer",
            group="default",
            command=lambda shop, order: build_by_definition(shop, order, tuned=False),
        ),
        Contender(
            name="apptainer-zstd",
            group="tuned",
            command=lambda shop, order: build_by_definition(shop, order, tuned=True),
        ),
        Contender(
            name="cotainr",
            group="default",
            command=lambda shop, order: build_by_cotainr(shop, order, tuned=False),
        ),
        Contender(
            name="cotainr-zstd",
            group="tuned",
            command=lambda shop, order: build_by_cotainr(shop, order, tuned=True),
        ),
        Contender(name="apptainer-uv", group="variant", command=build_by_definition_with_uv),
        Contender(name="limpet", group="limpet", command=build_by_limpet),
    )


def this_trees_python() -> tuple[str, ...]:
    """A command that imports this tree's limpet, which may not be ours to write byte code to."""
    code = Path.home() / ".cache/limpet-bench/pyc"
    named = (f"PYTHONPATH={HERE.parent / 'src'}", f"PYTHONPYCACHEPREFIX={code}")
    return ("env", *named, sys.executable)


def this_trees_limpet() -> tuple[str, ...]:
    """limpet's command, as quick as an installed one."""
    return (*this_trees_python(), "-P", "-m", "limpet")


def make_venv(folder: Path, *packages: str) -> Path:
    """A virtual environment with packages in it; returns its interpreter."""
    python = folder / "bin/python"
    if not python.exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", *packages]
        subprocess.run(install, check=True)
    return python
