"""`limpet doctor`: look at this machine and account, or at a compute node, and judge."""

from __future__ import annotations

import os
import platform
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from limpet.core.config import Config
from limpet.core.doctor import judge_machine, judge_no_node, judge_node, sort_findings
from limpet.core.errors import HostError
from limpet.core.findings import Finding
from limpet.core.machine import (
    AccountSeen,
    ClusterSeen,
    ContainerSeen,
    Difference,
    GpuSeen,
    MachineSeen,
    Trouble,
    find_differences,
)
from limpet.tools import (
    account,
    apptainer,
    bounded,
    cluster,
    containers,
    files,
    gpu,
    host,
    mounts,
    places,
    process,
    states,
)
from limpet.tools.config import read_config

COMMAND_SHARE = 0.8  # of the limit: a command that hangs is named before the look itself is ended
NODE_TIMEOUT_S = 600


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `limpet doctor` gives. `node` and `differences` only with `--node`."""

    machine: MachineSeen
    findings: tuple[Finding, ...]
    fixed: tuple[str, ...] = ()
    node: MachineSeen | None = None
    differences: tuple[Difference, ...] = ()


def examine(
    *, timeout_s: float, config_file: str = "", cache_dir: str = "", fix: bool = False
) -> Report:
    """This machine and its findings; with `fix`, what is safe is set right first."""
    machine = see_machine(timeout_s=timeout_s, config_file=config_file, cache_dir=cache_dir)
    fixed: tuple[str, ...] = ()
    if fix and (fixed := _fix(machine, timeout_s)):
        machine = see_machine(timeout_s=timeout_s, config_file=config_file, cache_dir=cache_dir)
    return Report(machine=machine, findings=judge_machine(machine), fixed=fixed)


def see_machine(*, timeout_s: float, config_file: str = "", cache_dir: str = "") -> MachineSeen:
    """Every look in a child process that is given up after `timeout_s`."""
    settings = partial(_settings, config_file, cache_dir)
    first = bounded.look_all({"The configuration": settings}, timeout_s=timeout_s)
    told = first["The configuration"]
    troubles = [told] if isinstance(told, Trouble) else []
    config, folders = (Config(), {}) if isinstance(told, Trouble) else told
    looks = _looks(config, folders, timeout_s * COMMAND_SHARE)
    seen = bounded.look_all({name: look for name, (_, look) in looks.items()}, timeout_s=timeout_s)
    parts: dict[str, dict[str, Any]] = {"container": {}, "account": {}, "cluster": {}}
    gathered: dict[str, list[Any]] = {"places": [], "quotas": []}
    gpus = GpuSeen()
    for name, (slot, _) in looks.items():
        value = seen[name]
        if isinstance(value, Trouble):
            troubles.append(_placed(value, folders))
        elif slot == "gpu":
            gpus = value
        elif slot in gathered:
            gathered[slot] += value if isinstance(value, tuple) else [value]
        else:
            kind, _, field = slot.partition(".")
            parts[kind] |= {field: value} if field else value
    return MachineSeen(
        host=socket.gethostname(),
        user=account_name(),
        system=f"{_os_name()}, Linux {platform.release()}",
        arch=platform.machine(),
        cpus=len(os.sched_getaffinity(0)),
        container=_container(parts["container"]),
        places=tuple(gathered["places"]),
        quotas=tuple(gathered["quotas"]),
        account=AccountSeen(**parts["account"]),
        cluster=ClusterSeen(**parts["cluster"]),
        gpu=gpus,
        troubles=tuple(troubles),
    )


def account_name() -> str:
    """The user's name, without asking a directory service that may hang."""
    return os.environ.get("USER") or os.environ.get("LOGNAME") or str(os.getuid())


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"


def _settings(config_file: str, cache_dir: str) -> tuple[Config, dict[str, str]]:
    config = read_config(config_file)
    cache = files.cache_folder(cache_dir or config.cache_dir)
    folders = {
        "cache": str(cache),
        "build": config.build_dir or str(cache),
        "state": str(files.state_folder(config.state_dir)),
    }
    return config, folders


def _looks(
    config: Config, folders: Mapping[str, str], limit: float
) -> dict[str, tuple[str, Callable[[], Any]]]:
    """Each look with the place of its answer, named by what it looks at."""
    home = os.environ.get("HOME") or "/"
    temporary = os.environ.get("TMPDIR", "")
    folders = {"home": home, **folders, "temporary": temporary or "/tmp", "working": _working()}
    looks: dict[str, tuple[str, Callable[[], Any]]] = {
        "The container runtime": ("container", _see_runtime),
        "The subordinate ids": ("container.ids", partial(containers.probe_ids, limit)),
        "The GPUs": ("gpu", _see_gpus),
        "The MPI in PATH": ("cluster.mpi", partial(cluster.probe_mpi, limit)),
        "Slurm": ("cluster", partial(_see_slurm, limit)),
        "The quota": ("quotas", partial(cluster.probe_quota, limit)),
        "The start-up files of the shell": (
            "account.hooks",
            partial(account.find_hooks, Path(home)),
        ),
        "The packages in ~/.local": ("account.sites", partial(_see_sites, home, folders)),
        "The certificates": ("account.bundles", partial(account.find_bundles, dict(os.environ))),
        "The environment": ("account", partial(_see_environment, temporary)),
    }
    for name in containers.HELPERS:
        looks[f"The program {name}"] = ("container.+" + name, partial(_see_helper, name, limit))
    looks["The compressors of mksquashfs"] = ("container.compressors", partial(_see_packer, limit))
    for role, path in folders.items():
        partials = role in ("working", "build")
        look = partial(places.probe_place, role, Path(path), partials=partials)
        looks[f"The {role} folder {path}"] = ("places", look)
    for path in dict.fromkeys(folders.values()):
        if mounts.find_mount(path).kind == "lustre":
            looks[f"The Lustre quota of {path}"] = (
                "quotas",
                partial(cluster.probe_lfs_quota, path, limit),
            )
    return looks


def _working() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - the kernel knows it without asking the file system
    except OSError:
        return "/"


def _placed(trouble: Trouble, folders: Mapping[str, str]) -> Trouble:
    """A trouble with the kind of file system that the folder lies on."""
    path = trouble.subject.partition(" folder ")[2]
    kind = mounts.find_mount(path).kind if path else ""
    return (
        msgspec.structs.replace(trouble, why=f"{trouble.why} It is on {kind}.") if kind else trouble
    )


def _see_runtime() -> dict[str, Any]:
    seen: dict[str, Any] = {"namespaces": host.probe_namespaces(), "fuse": containers.probe_fuse()}
    try:
        path = apptainer.find_runtime()
    except HostError as error:
        return {**seen, "trouble": error.what}
    seen |= {"runtime": str(path), "setuid": host.probe_setuid(path)}
    try:
        runtime = apptainer.probe_runtime()
    except HostError as error:
        return {**seen, "trouble": " ".join(filter(None, (error.what, error.why)))}
    return {**seen, "kind": runtime.kind, "version": runtime.version}


def _see_helper(name: str, limit: float) -> Any:
    runtime = process.find_program("apptainer") or process.find_program("singularity")
    path = containers.find_helper(name, str(runtime or ""))
    return containers.probe_program(name, containers.HELPERS[name], path, limit) if path else None


def _see_packer(limit: float) -> tuple[str, ...]:
    path = containers.find_helper("mksquashfs", "")
    return containers.probe_compressors(str(path), limit) if path else ()


def _container(parts: dict[str, Any]) -> ContainerSeen:
    """The parts of a container's looks: helpers come one by one."""
    helpers = [value for name, value in parts.items() if name.startswith("+") and value]
    plain = {name: value for name, value in parts.items() if not name.startswith("+")}
    return ContainerSeen(**plain, programs=tuple(helpers))


def _see_gpus() -> GpuSeen:
    makers = gpu.probe_gpus()
    return GpuSeen(makers=makers, driver=gpu.probe_driver(makers))


def _see_slurm(limit: float) -> dict[str, Any]:
    version, pmi = cluster.probe_slurm(limit)
    return {"slurm": version, "pmi": pmi, "job": os.environ.get("SLURM_JOB_ID", "")}


def _see_sites(home: str, folders: Mapping[str, str]) -> Any:
    images: dict[str, list[str]] = {}
    for folder in states.find_folders(Path(folders.get("state", "/nowhere"))):
        record = states.read_record(folder)
        if record and record.python:
            images.setdefault(".".join(record.python.split(".")[:2]), []).extend(record.paths)
    return account.find_sites(Path(home), images)


def _see_environment(temporary: str) -> dict[str, Any]:
    return {
        "leaking": account.find_leaking(os.environ),
        "proxies": account.find_proxies(os.environ),
        "tmpdir": temporary,
        "tmpdir_there": not temporary or Path(temporary).is_dir(),
    }


# ---- setting right -------------------------------------------------------------------------------


def _fix(machine: MachineSeen, timeout_s: float) -> tuple[str, ...]:
    """Do what harms nobody; what was done, a line each."""
    looks = {place.path: partial(_fix_place, place) for place in machine.places}
    done = bounded.look_all(looks, timeout_s=timeout_s)
    return tuple(line for lines in done.values() if isinstance(lines, tuple) for line in lines)


def _fix_place(place: Any) -> tuple[str, ...]:
    lines = []
    path = Path(place.path)
    limpets_own = place.role in ("cache", "build", "state")
    if place.others_write and limpets_own and path.stat().st_uid == os.getuid():
        path.chmod(path.stat().st_mode & ~0o022)
        lines.append(f"{path} can be written by nobody else any more.")
    if place.partials:
        lines += [f"{partial} was removed." for partial in files.sweep_partials(path)]
    return tuple(lines)


# ---- a compute node ------------------------------------------------------------------------------


def examine_node(options: Sequence[str], *, timeout_s: float, **settings: Any) -> Report:
    """This machine, and a node that srun chooses with these options, compared."""
    here = examine(timeout_s=timeout_s, **settings)
    try:
        there = _ask_node(options, timeout_s)
    except HostError as error:
        found = sort_findings((judge_no_node(error), *here.findings))
        return msgspec.structs.replace(here, findings=found)
    differences = find_differences(here.machine, there)
    name = there.host
    on_node = [
        msgspec.structs.replace(finding, what=f"On {name}: {finding.what}")
        for finding in judge_machine(there)
        if finding not in here.findings
    ]
    found = sort_findings((*here.findings, *on_node, *judge_node(differences, name)))
    return msgspec.structs.replace(here, node=there, differences=differences, findings=found)


def _ask_node(options: Sequence[str], timeout_s: float) -> MachineSeen:
    srun = process.find_program("srun")
    if not srun:
        raise HostError("There is no srun here to reach a compute node with.")
    # limpet itself, as it was started: a shared file system has it on the node as well.
    own = [sys.executable, "-P", "-m", "limpet", "doctor", "--json", "--timeout", f"{timeout_s:g}"]
    argv = [str(srun), "-N1", "-n1", *options, *own]
    environment = dict(os.environ) | {"PYTHONPATH": ":".join(filter(None, _own_path()))}
    done = process.run(argv, env=environment, timeout_s=NODE_TIMEOUT_S)
    start = done.text.find("{")
    try:
        report = msgspec.json.decode(done.stdout[done.stdout.find(b"{") :], type=Report)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        said = done.stderr.strip()[-1000:] or (done.text[start:][:200] if start >= 0 else "")
        raise HostError("The compute node gave no report.", why=said) from error
    return report.machine


def _own_path() -> list[str]:
    return [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
