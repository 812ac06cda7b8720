"""What the program inside sees as its home, and where its personal things go.

`isolated` mounts the real home and lays this image's own folders over the personal ones. The
runtime makes a missing mount point in the real home (it was seen to, even in a read-only one), so
only folders that exist are covered; for the others a variable sends programs to the same place,
which is seen inside at `INSIDE`. The same holds for the files that shells and conda start with:
this image's own, empty at first, lie over them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

import msgspec

from limpet.core.mounts import Mount, is_below
from limpet.core.recipe import HomePolicy

INSIDE = "/.limpet/home"


class Personal(msgspec.Struct, frozen=True, kw_only=True):
    """A folder of the home that belongs to one image, and the variables that move it."""

    folder: str
    variables: dict[str, str]


PERSONAL = (
    Personal(
        folder=".local",
        variables={
            "PYTHONUSERBASE": ".local",
            "XDG_DATA_HOME": ".local/share",
            "XDG_STATE_HOME": ".local/state",
        },
    ),
    Personal(folder=".cache", variables={"XDG_CACHE_HOME": ".cache"}),
    Personal(folder=".config", variables={"XDG_CONFIG_HOME": ".config"}),
    Personal(folder=".ipython", variables={"IPYTHONDIR": ".ipython"}),
    Personal(folder=".jupyter", variables={"JUPYTER_CONFIG_DIR": ".jupyter"}),
    Personal(folder=".keras", variables={"KERAS_HOME": ".keras"}),
    Personal(
        folder=".conda",
        variables={"CONDA_PKGS_DIRS": ".conda/pkgs", "CONDA_ENVS_DIRS": ".conda/envs"},
    ),
    # What is written below these is in `core.caches`; Triton takes its home's parent.
    Personal(folder=".nv", variables={}),
    Personal(folder=".triton", variables={"TRITON_HOME": ""}),
    Personal(folder=".cupy", variables={}),
    Personal(folder=".pip", variables={}),
)

# Of the host's, even where someone stands in them, nothing is found or imported inside.
LOADED = (".local/bin", ".local/lib")

# What runs or configures at the start of a shell, of conda or of an installer: with the host's,
# `limpet run IMAGE bash` would bring the host's conda and modules back.
START_FILES = (
    *(".bashrc", ".bash_profile", ".bash_login", ".bash_logout", ".profile"),
    *(".zshenv", ".zprofile", ".zshrc", ".zlogin", ".cshrc", ".tcshrc", ".login", ".kshrc"),
    *(".condarc", ".mambarc", ".pydistutils.cfg"),
)


class Home(msgspec.Struct, frozen=True, kw_only=True):
    """How a home policy is carried out.

    `options` are the runtime's; `mounts` and `variables` what is added; `first` is mounted before
    all else, because other things may lie in it; `folders` and (empty)
    `files` must exist on the host before the start; `visible` are host folders that are seen inside
    at the same path; `start` is where to start when the working folder is not seen inside.
    """

    options: tuple[str, ...] = ()
    first: tuple[Mount, ...] = ()
    mounts: tuple[Mount, ...] = ()
    variables: dict[str, str] = msgspec.field(default_factory=dict)
    folders: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    visible: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    start: str = "/"


def plan_home(
    policy: HomePolicy, *, home: str, account_home: str, state: str, present: Mapping[str, str]
) -> Home:
    """The home as the policy wants it.

    `home` is where the real one is seen ($HOME; empty where there is none), `account_home` what the
    account says (the runtime goes by that), `state` this image's own folder, `present` the personal
    folders and start files that the real home has and where each is seen inside: a link at what it
    points to, since the runtime mounts nothing through a link that leaves the home.
    """
    if policy == "none":
        return _homeless()
    if not home:
        return _homeless("There is no home inside, for there is none here.")
    own = f"{state}/home"
    if ":" in home or (policy == "private" and ":" in own):
        # `--home` has no way to quote one.
        return _homeless("There is no home inside: its path has a colon, where the runtime splits.")
    chosen = () if home == account_home else ("--home", home)
    if policy == "host":
        return Home(options=chosen, visible=(home,), start=home)
    if policy == "private":
        # The runtime mounts the machine's /tmp over a home that it was told, and a bind over /tmp.
        shown = any(is_below(home, folder) for folder in ("/tmp", "/var/tmp"))
        return Home(
            options=("--home", f"{own}:{home}"),
            first=(Mount(source=own, target=home),) if shown else (),
            folders=(own,),
            start=home,
        )
    covered = [personal for personal in PERSONAL if personal.folder in present]
    moved = [personal for personal in PERSONAL if personal.folder not in present]
    files = [name for name in START_FILES if name in present]
    names = [*(personal.folder for personal in covered), *files]
    mounts = [Mount(source=f"{own}/{name}", target=present[name]) for name in names]
    return Home(
        options=chosen,
        mounts=(Mount(source=own, target=INSIDE), *mounts),
        variables={
            name: str(PurePosixPath(INSIDE, place))
            for personal in moved
            for name, place in personal.variables.items()
        },
        folders=(own, *(f"{own}/{personal.folder}" for personal in covered)),
        files=tuple(f"{own}/{name}" for name in files),
        visible=(home,),
        start=home,
    )


def _homeless(*notes: str) -> Home:
    return Home(options=("--no-home", "--no-mount", "home"), notes=notes)
