"""What a launch is planned from: the image and this machine as they were seen, and the request."""

from __future__ import annotations

from typing import Literal

import msgspec

from limpet.core.facts import Libc
from limpet.core.gpu import Driver, Gpu, GpuNeeds
from limpet.core.image import Ahead, ImageFacts
from limpet.core.mpi_plan import MpiSeen
from limpet.core.personal import PipSeen
from limpet.core.recipe import GpuPolicy, HomePolicy, VariablePolicy

ImageKind = Literal["sif", "squashfs", "sandbox"]


class ImageSeen(msgspec.Struct, frozen=True, kw_only=True):
    """An image as it lies there; `facts` only where limpet made it.

    `identity` names what is in it and stays the same for every copy: its personal folders are kept
    under that name. `title` is for people. `arch` is empty where nothing tells. `needs`, `libc` and
    `env` (what its scripts set of the variables that a start sets) of a foreign image are read from
    its file. `ahead` is what a start reads first, where that is known.
    """

    path: str
    kind: ImageKind
    identity: str
    title: str
    arch: str = ""
    facts: ImageFacts | None = None
    needs: GpuNeeds = GpuNeeds()
    libc: Libc | None = None
    env: dict[str, str] = msgspec.field(default_factory=dict)
    ahead: Ahead = Ahead()


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What a foreign image's file says, as in `ImageSeen`: read once, and kept."""

    libc: Libc | None = None
    needs: GpuNeeds = GpuNeeds()
    env: dict[str, str] = msgspec.field(default_factory=dict)


class Siblings(msgspec.Struct, frozen=True, kw_only=True):
    """The ranks of a step on this node: the process that starts them, how many, which this is.

    `folder` is the job's own place on this node, empty where there is none.
    """

    parent: int
    count: int
    rank: int
    folder: str = ""


class HostSeen(msgspec.Struct, frozen=True, kw_only=True):
    """What a launch has to know of this machine and this session.

    `home` is $HOME (empty where there is none), `real_home` the same without symbolic links,
    `account_home` what the account database says. `personal` are the personal folders and start
    files that the home really has, with their true paths. `links` are the links at the top of the
    file system that lead to folders, `temporaries` the folders of TMPDIR and its like. `state` is
    the folder for images' personal things; `state_note` is set where it is only a passing one.
    `local` is the user's folder on the node's own disk, empty outside a job. `missing` are the
    sources of wished binds that do not exist. `fuse` and `namespaces`: whether this user may use
    them; `setuid`: whether the runtime needs neither (None: unknown). `mpi` is
    None where nobody asks for MPI. `siblings` are the ranks of the same step on this node, None for
    one alone.
    """

    runtime: str
    runtime_kind: Literal["apptainer", "singularity-ce"]
    runtime_version: str
    arch: str
    environment: dict[str, str]
    home: str
    real_home: str
    account_home: str
    state: str
    local: str = ""
    cwd: str
    personal: dict[str, str] = msgspec.field(default_factory=dict)
    links: dict[str, str] = msgspec.field(default_factory=dict)
    temporaries: tuple[str, ...] = ()
    state_note: str = ""
    gpus: tuple[Gpu, ...] = ()
    driver: Driver = Driver()
    fuse: bool = True
    namespaces: bool = True
    setuid: bool | None = None
    missing: tuple[str, ...] = ()
    pip: PipSeen = PipSeen()
    mpi: MpiSeen | None = None
    siblings: Siblings | None = None


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asked for; what is None or empty, the image and the site decide.

    `mpi` is a policy or the name of a host set. `binds` are the user's own `--bind` (they must
    exist), `site_binds` the configuration's, which the action adds. `alone`: other
    ranks of this node have containers of their own.
    """

    command: tuple[str, ...] = ()
    shell: bool = False
    variables: VariablePolicy | None = None
    home: HomePolicy | None = None
    gpu: GpuPolicy | None = None
    mpi: str = ""
    env: tuple[str, ...] = ()
    binds: tuple[str, ...] = ()
    site_binds: tuple[str, ...] = ()
    overlays: tuple[str, ...] = ()
    writable_tmpfs: bool = False
    pwd: str = ""
    verbose: bool = False
    alone: bool = False
