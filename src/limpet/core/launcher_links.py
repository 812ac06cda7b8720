"""The launcher's text for machines with links at the top: what is mounted has both its names.

See `core.seeing`. The links are those of the machine where the launchers are made; whether one
leads to the same folder here is asked at the start, where something lies below it.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from limpet.core.mounts import Mount
from limpet.core.seeing import plan_aliases
from limpet.core.seen import HostSeen

LINKS = r"""#if linked
_limpet_alias() {
    case $_limpet_home/ in "$2"/*) return ;; esac
    if [ "$2" = "$_limpet_place" ]; then return; fi
    if [ "$1" = "$_limpet_place" ] && _limpet_bound "$2"; then return; fi
    if [ "$1" -ef "$2" ]; then _limpet_mount "$1" "$2" ${3:+"$3"}; fi
}
@LINKED_PLACE@
@LINKED_BINDS@
#end
"""


def link_parts(host: HostSeen, binds: Sequence[Mount]) -> tuple[dict[str, str], set[str]]:
    """What fills in this text and the seldom one, and the word `linked` where there are links."""
    if not host.links:
        return {"LINKED_COVERS": "    :"}, set()
    place, covers = [], []
    for link, leads_to in host.links.items():
        name, folder = shlex.quote(link), shlex.quote(leads_to)
        place += [
            f"case $_limpet_place/ in {folder}/*)",
            f'    _limpet_alias "$_limpet_place" {name}"${{_limpet_place#{folder}}}" ;;',
            "esac",
            f"_limpet_to={folder}",
            'case $_limpet_to/ in "${_limpet_place:-//}"/?*)',
            f'    _limpet_alias "$_limpet_to" {name} ;;',
            "esac",
        ]
        covers += [
            f"    case $_limpet_target/ in {folder}/*)",
            f'        if [ "$_limpet_target" -ef {name}"${{_limpet_target#{folder}}}" ]; then',
            '            _limpet_mount "$_limpet_own/$_limpet_folder" '
            f'{name}"${{_limpet_target#{folder}}}"',
            "        fi ;;",
            "    esac",
        ]
    return {
        "LINKED_PLACE": "\n".join(place),
        "LINKED_COVERS": "\n".join(covers),
        "LINKED_BINDS": "\n".join(
            f"_limpet_alias {shlex.quote(one.source)} {shlex.quote(one.target)}"
            f"{'' if one.writable else ' ro'}"
            for one in plan_aliases(binds, host.links, home="")
        ),
    }, {"linked"}
