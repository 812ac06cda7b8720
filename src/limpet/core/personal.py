"""Personal packages: what a user adds to one image, and how the image's Python finds it.

They lie in the image's own folder below limpet's state folder, laid out as an installation of its
own (`bin`, `lib/pythonX.Y/site-packages`, `share` …), which is seen inside at `PACKAGES`. A `.pth`
file in the environment calls the module `HOOK` where `LIMPET_PACKAGES` is set, as limpet's starts
do: a bare `apptainer exec` gives the image as it was built. The hook puts the folder *behind* all
that the image has, the base's packages included, so nothing of the image is shadowed; only where a
package was installed with `--override` does the folder come first. (The user site cannot be it:
Python puts it before the environment's packages, and a venv without the system's has none.)

`pip` is limpet's in every image: the pip that limpet was installed with, as one zip file, started
by a small program (`base_scripts/personal_pip.py`) with the image's own Python. It sees what the
image has, is held to its versions, and gives scripts the shebang of the environment's Python. It
comes first on PATH; `python -m pip` is sent there by the hook. No PIP_* variable is set for this,
since those would follow the user into every virtual environment made inside.

A foreign image has no hook: there the packages go to its own `~/.local`, as `pip install --user`
does, and come before the image's own packages; the versions are held to all the same.
"""

from __future__ import annotations

import msgspec

from limpet.core.homes import Home
from limpet.core.mounts import Mount
from limpet.core.recipe import HomePolicy

PACKAGES = "/.limpet/packages"
KIT = "/.limpet/pip"
PIP = f"{KIT}/bin/pip"
VARIABLE = "LIMPET_PACKAGES"
CONFIG = "/.limpet/pip.conf"
CERTIFICATES = "/.limpet/certificates.pem"

HOOK = "_limpet_personal"
HOOK_LINE = f'import os; os.environ.get("{VARIABLE}") and __import__("{HOOK}")\n'
HOOK_TEXT = f'''\
"""Lets this Python see its user's personal packages. Written by limpet."""

import os
import sys


class Last:
    """Waits for `import sitecustomize`: Python tries that once all other folders are known."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name == "sitecustomize":
            sys.meta_path.remove(cls)
            add(os.environ["{VARIABLE}"])
        return None


def add(folder):
    import site

    own = os.path.dirname(os.path.abspath(__file__))
    before = list(sys.path)
    python = "python%d.%d" % sys.version_info[:2]
    site.addsitedir(os.path.join(folder, "lib", python, "site-packages"))
    if os.path.exists(os.path.join(folder, "first")) and own in before:
        added = [entry for entry in sys.path if entry not in before]
        place = before.index(own)
        sys.path[:] = before[:place] + added + before[place:]
    if getattr(sys, "orig_argv", [])[1:3] == ["-m", "pip"]:
        sys.path.insert(0, "{KIT}/module")


sys.meta_path.insert(0, Last)
'''


class PipSeen(msgspec.Struct, frozen=True, kw_only=True):
    """What `pip` inside takes from this machine; empty where there is none.

    `kit` is the folder with limpet's pip, `config` the pip.conf in force, `certificates` the file
    of certificate authorities that the session names.
    """

    kit: str = ""
    config: str = ""
    certificates: str = ""


class Personal(msgspec.Struct, frozen=True, kw_only=True):
    """What a start adds so that personal packages are there and `pip` can add to them."""

    mounts: tuple[Mount, ...] = ()
    variables: dict[str, str] = msgspec.field(default_factory=dict)
    folders: tuple[str, ...] = ()


def plan_personal(
    policy: HomePolicy, *, prefix: str, home: Home, state: str, pip: PipSeen, path: str
) -> Personal:
    """Personal packages under a home policy; `none` has none.

    `prefix` is that of limpet's own image, empty for a foreign one. `state` is this image's folder,
    `path` what the user wants put before PATH already.
    """
    if policy == "none" or not home.start.strip("/") or (not prefix and policy == "host"):
        return Personal()
    if not (prefix or pip.kit):
        return Personal()
    mounts: list[Mount] = []
    folders: list[str] = []
    if prefix:
        folders.append(f"{state}/packages")
        mounts.append(Mount(source=f"{state}/packages", target=PACKAGES))
        variables, base = {VARIABLE: PACKAGES}, PACKAGES
    else:
        base = home.variables.get("PYTHONUSERBASE", f"{home.start}/.local")
        # This ~/.local belongs to the image alone, so a distribution's own refusal has no reason.
        variables = {"PIP_BREAK_SYSTEM_PACKAGES": "1"}
    words = (path, f"{KIT}/bin", f"{prefix}/bin" if prefix else "", f"{base}/bin")
    variables["PREPEND_PATH"] = ":".join(word for word in words if word)
    if pip.kit:
        mounts.append(Mount(source=pip.kit, target=KIT, writable=False))
        folders.append(pip.kit)
    if pip.config:
        mounts.append(Mount(source=pip.config, target=CONFIG, writable=False))
        variables["PIP_CONFIG_FILE"] = CONFIG
    if pip.certificates:
        mounts.append(Mount(source=pip.certificates, target=CERTIFICATES, writable=False))
        variables["PIP_CERT"] = CERTIFICATES
    return Personal(mounts=tuple(mounts), variables=variables, folders=tuple(folders))
