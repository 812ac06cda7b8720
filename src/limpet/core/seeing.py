"""What of the host is seen inside under more names, and where it must not lie over the image.

Clusters link from the top: `/appl` is `/pfs/appl`. The runtime mounts a path under the one name
that it was given; people and their scripts use both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from limpet.core.mounts import Mount, is_below

# The image's own: the host's are never mounted over them unasked.
OWN_TREES = ("/usr", "/etc", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/boot")
OWN_FOLDERS = ("/", "/opt", "/var", "/run", "/mnt", "/media", "/srv")
ALWAYS = ("/tmp", "/var/tmp", "/proc", "/sys", "/dev")


def is_own(path: str, prefix: str = "") -> bool:
    """Whether that place is the image's own; `prefix` is where its environment lies."""
    trees = (*OWN_TREES, prefix) if prefix else OWN_TREES
    return path in OWN_FOLDERS or any(is_below(path, tree) for tree in trees)


def plan_aliases(
    mounts: Sequence[Mount], links: Mapping[str, str], *, home: str, prefix: str = ""
) -> tuple[Mount, ...]:
    """The mounts again, under the other names that the host's top-level `links` give them.

    Only what is seen at its own path outside; never over `home`, the image's own or each other.
    """
    taken = {mount.target for mount in mounts}
    more = []
    for mount in mounts:
        if mount.source != mount.target:
            continue
        for alias in _names(mount, links):
            covers = home and is_below(home, alias.target)
            always = any(is_below(alias.target, folder) for folder in ALWAYS)
            if alias.target in taken or covers or always or is_own(alias.target, prefix):
                continue
            taken.add(alias.target)
            more.append(alias)
    return tuple(more)


def _names(mount: Mount, links: Mapping[str, str]) -> Iterator[Mount]:
    real = mount.source
    for link, place in links.items():
        if is_below(mount.source, link):
            real = place + mount.source.removeprefix(link)
            yield Mount(source=mount.source, target=real, writable=mount.writable)
    for link, place in links.items():
        if is_below(real, place):
            target = link + real.removeprefix(place)
            yield Mount(source=mount.source, target=target, writable=mount.writable)
        elif is_below(place, real):
            yield Mount(source=place, target=link, writable=mount.writable)


def plan_temporaries(
    folders: Sequence[str], *, visible: Sequence[str], home: str, prefix: str = ""
) -> tuple[Mount, ...]:
    """A job's own temporary folders, often on the node's disk, where nothing shows them yet."""
    return tuple(
        Mount(source=folder, target=folder)
        for folder in dict.fromkeys(folders)
        if not any(is_below(folder, place) for place in visible)
        and not is_own(folder, prefix)
        and not (home and is_below(home, folder))
    )
