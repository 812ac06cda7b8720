"""Where the program starts, and what of the host is mounted so that it finds its way."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from limpet.core.errors import HostError, UsageError
from limpet.core.homes import LOADED, PERSONAL, Home
from limpet.core.host_python import share_host
from limpet.core.mounts import Mount, is_below, parse_bind
from limpet.core.seeing import ALWAYS, is_own, plan_aliases, plan_temporaries
from limpet.core.seen import HostSeen, ImageSeen, Request


def wished_binds(
    image: ImageSeen, request: Request, cwd: str
) -> tuple[tuple[Mount, ...], tuple[Mount, ...]]:
    """What the image needs, the site and the recipe offer, and what the user asks for."""
    recipe = image.facts.run.bind if image.facts else ()
    needed = share_host(image.facts.host if image.facts else None)
    offered = tuple(parse_bind(text, cwd) for text in (*request.site_binds, *recipe))
    return (*needed, *offered), tuple(parse_bind(text, cwd) for text in request.binds)


def plan_binds(
    image: ImageSeen, host: HostSeen, request: Request
) -> tuple[tuple[Mount, ...], tuple[str, ...]]:
    """The user's binds must exist; the site's and the recipe's are left out where they do not."""
    offered, asked = wished_binds(image, request, host.cwd)
    for mount in asked:
        if mount.source in host.missing:
            raise HostError(f"--bind {mount.source}: there is no such file or folder.")
    targets = {mount.target for mount in asked}
    chosen = {m.target: m for m in offered if m.source not in host.missing}
    told = [m for m in offered if m not in share_host(image.facts.host if image.facts else None)]
    notes = tuple(f"{m.source} does not exist here." for m in told if m.source in host.missing)
    return (*(m for m in chosen.values() if m.target not in targets), *asked), notes


def plan_sight(
    image: ImageSeen, host: HostSeen, home: Home, request: Request, *, temporaries: bool
) -> Place:
    """What of the host is mounted beside the home, under all its names, and the working folder."""
    binds, bind_notes = plan_binds(image, host, request)
    place = plan_place(host, home, binds, request, image)
    prefix = image.facts.prefix if image.facts else ""
    mounts = (*binds, *place.mounts)
    if temporaries:
        visible = (*ALWAYS, *home.visible, *same_inside(mounts))
        mounts += plan_temporaries(host.temporaries, visible=visible, home=host.home, prefix=prefix)
    mounts += plan_aliases(mounts, host.links, home=host.home, prefix=prefix)
    mounts = (*home.first, *mounts)
    notes = (*bind_notes, *place.notes)
    return msgspec.structs.replace(place, mounts=mounts, notes=notes)


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where the program starts, and what is mounted so that it finds its way.

    `uncovered` is mounted after the home's folders: something of the host's below one of them.
    """

    pwd: str
    mounts: tuple[Mount, ...] = ()
    uncovered: tuple[Mount, ...] = ()
    notes: tuple[str, ...] = ()


def seen_at(path: str, host: HostSeen) -> str:
    below_home = is_below(path, host.real_home)
    return host.home + path.removeprefix(host.real_home) if below_home else path


def home_mounts(home: Home, host: HostSeen) -> tuple[Mount, ...]:
    """The home's, and all of it again under the home's real name where a link leads to it."""
    mounts = (*home.mounts, *_covers_again(home, host)) if home.visible else home.mounts
    if not home.visible or host.real_home == host.home:
        return mounts
    again = [
        Mount(source=mount.source, target=host.real_home + mount.target.removeprefix(host.home))
        for mount in home.mounts
        if is_below(mount.target, host.home)
    ]
    return (Mount(source=host.real_home, target=host.real_home), *mounts, *again)


def _covers_again(home: Home, host: HostSeen) -> tuple[Mount, ...]:
    """What lies over something outside the home, under its other names: links there may use them.

    `~/.cache` may lead to `/scratch/me`, and `/scratch` to `/pfs/scratch`.
    """
    return tuple(
        Mount(source=mount.source, target=link + mount.target.removeprefix(place))
        for mount in home.mounts
        for link, place in host.links.items()
        if is_below(mount.target, place) and not is_below(mount.target, host.home)
    )


def plan_place(
    host: HostSeen, home: Home, binds: Sequence[Mount], request: Request, image: ImageSeen
) -> Place:
    """The working folder inside: the same as outside wherever that can be."""
    if request.pwd:
        if not request.pwd.startswith("/"):
            raise UsageError(
                f"--pwd {request.pwd}: it must be an absolute path, since it is one of the image's."
            )
        return Place(pwd=request.pwd)
    cwd, seen = host.cwd, seen_at(host.cwd, host)
    covered, kept_out = _stands_in(seen, host, home)
    if home.visible and (covered or is_below(cwd, host.real_home)) and not kept_out:
        # A home that is reached over a symbolic link is seen under its own name first.
        names = dict.fromkeys((seen, cwd)) if covered else {}
        again = tuple(Mount(source=cwd, target=name) for name in names)
        return Place(pwd=seen, uncovered=again)
    hidden = any(is_below(cwd, mount.target) for mount in home.first)
    shown = (*(() if hidden else ALWAYS), *same_inside(binds))
    if any(is_below(cwd, folder) for folder in shown) and not (home.visible and kept_out):
        return Place(pwd=cwd)
    if kept_out:
        why = "the host's personal folders stay outside"
    elif is_own(cwd, image.facts.prefix if image.facts else ""):
        why = "that place is the image's own"
    elif is_below(host.real_home, cwd) or is_below(host.home, cwd):
        why = "the home lies below it, and would be seen whole"
    else:
        return Place(pwd=cwd, mounts=(Mount(source=cwd, target=cwd),))
    if cwd == host.real_home and home.start == host.home:
        return Place(pwd=home.start)
    note = (
        f"The working folder {cwd} is not seen inside: {why}. The program starts in {home.start}."
    )
    return Place(pwd=home.start, notes=(note,))


def _stands_in(seen: str, host: HostSeen, home: Home) -> tuple[bool, bool]:
    """Whether that place is in a personal folder that is the host's alone, and has to stay out.

    The folder itself has, for it is the image's own inside; and what is loaded from unasked.
    """
    if home.visible:
        covers = {mount.target for mount in home.mounts}
        places = {name: seen_at(path, host) for name, path in host.personal.items()}
        places = {name: place for name, place in places.items() if place in covers}
    else:
        places = {p.folder: f"{host.home}/{p.folder}" for p in PERSONAL if host.home}
    within = {name + seen.removeprefix(p) for name, p in places.items() if is_below(seen, p)}
    whole = any(is_below(place, seen) for place in places.values())
    loaded = any(is_below(name, folder) for name in within for folder in LOADED)
    return bool(within), bool(within) and (whole or loaded)


def serve_places(image: ImageSeen) -> tuple[Mount, ...]:
    """The image's own folders where the host's home or working folder may lie over them.

    They are mounted from the image once more, at the same path, last. The number is the partition's
    place in the SIF: the system first, then the layer that was put on top.
    """
    if image.facts is None:
        return ()
    number = 2 if image.facts.layout == "layered" else 1
    return tuple(
        Mount(source=image.path, target=place, writable=False, partition=number, inside=place)
        for place in image.facts.places
    )


def plan_points(
    served: Sequence[Mount], mounts: Sequence[Mount], home: Home, host: HostSeen, own: str
) -> tuple[str, ...]:
    """The host's folders that these are mounted on; the runtime makes none in what it mounts.

    `mounts` come before, in order; `own` is where a home that is not the real one lies.
    """
    under = [(folder, folder) for folder in ("/tmp", "/var/tmp")]
    if home.start == host.home:
        under.append((host.home, host.home if home.visible else own))
    under += [(mount.target, mount.source) for mount in mounts]
    points = []
    for mount in served:
        covering = [pair for pair in under if is_below(mount.target, pair[0])]
        if covering:
            target, source = covering[-1]
            points.append(source + mount.target.removeprefix(target.rstrip("/")))
    return tuple(points)


def same_inside(mounts: Sequence[Mount]) -> tuple[str, ...]:
    return tuple(mount.source for mount in mounts if mount.source == mount.target)
