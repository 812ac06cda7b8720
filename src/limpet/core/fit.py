"""Whether this machine, this user and this limpet can start an image at all."""

from __future__ import annotations

from limpet.core.errors import HostError, ImageError
from limpet.core.seen import HostSeen, ImageSeen

FORMAT = 1


def check_fit(image: ImageSeen, host: HostSeen) -> None:
    """ImageError where this machine or this limpet cannot start the image."""
    if image.arch and image.arch != host.arch:
        raise ImageError(
            f"{image.path} is for {image.arch}; this machine is {host.arch}.",
            now="Build it for this machine, or start it on one that it is for.",
        )
    if image.facts and image.facts.format > FORMAT:
        raise ImageError(
            f"{image.path} was made by a newer limpet ({image.facts.limpet}).",
            why=f"Its format is {image.facts.format}; this limpet knows {FORMAT}.",
            now="Use a newer limpet. `apptainer exec` starts it as well.",
        )


def check_rights(image: ImageSeen, host: HostSeen) -> None:
    """HostError where this machine keeps its users from starting containers."""
    if host.setuid is not False:
        return
    ask = "Ask the administrator to allow it, or to install the runtime with setuid rights"
    if not host.namespaces:
        raise HostError(
            "This machine allows its users no user namespaces, which containers need.",
            why="kernel.unprivileged_userns_clone or user.max_user_namespaces is 0.",
            now=f"{ask} (apptainer-suid).",
        )
    if image.kind != "sandbox" and not host.fuse:
        raise HostError(
            "/dev/fuse cannot be used by this user, and the runtime mounts images with it.",
            now=f"{ask}: udev's rules give it mode 666. A sandbox folder starts without it.",
        )


def fuse_notes(image: ImageSeen, host: HostSeen) -> tuple[str, ...]:
    """What may keep the start from working, where the runtime's rights are not known."""
    if image.kind == "sandbox" or host.fuse or host.setuid is not None:
        return ()
    return ("/dev/fuse cannot be used: the runtime needs setuid rights to mount the image.",)
