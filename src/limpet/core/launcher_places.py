"""The launcher's text for images with `places`: the image's own folders, mounted once more.

See `core.places`: the host's home or working folder may lie over a packed folder's own path.
"""

from __future__ import annotations

import shlex

from limpet.core.homes import PERSONAL
from limpet.core.mounts import render_served
from limpet.core.places import serve_places
from limpet.core.seen import ImageSeen

# Last of all mounts.
SERVE = r"""_limpet_served_mounts=''
#if served
case $_limpet_image in
    *\"*) _limpet_seldom _limpet_replace "$_limpet_image" '"' '""'; _limpet_served=$_limpet_text ;;
    *) _limpet_served=$_limpet_image ;;
esac
_limpet_served_mounts=@SERVED@
#end
"""

# What is mounted below something of the host's needs a folder there, as in `plan_points`. What
# exists decides what is mounted, so they are made after that.
POINT = r"""#if served
for _limpet_folder in @POINTS@; do
    _limpet_to=''
    case $_limpet_folder in
        "${_limpet_place:-//}"/*) _limpet_to=$_limpet_folder ;;
#if private
        "$_limpet_home"/*) _limpet_to=$_limpet_own/${_limpet_folder#"$_limpet_home"/} ;;
#end
#if isolated
        "${_limpet_late:-//}"/*) _limpet_to=$_limpet_cwd${_limpet_folder#"$_limpet_late"} ;;
        "$_limpet_home"/*)
            _limpet_to=$_limpet_folder _limpet_top=${_limpet_folder#"$_limpet_home"/}
            case ${_limpet_top%%/*} in @PERSONAL_CASE@)
                if [ -d "$_limpet_home/${_limpet_top%%/*}" ]; then
                    _limpet_to=$_limpet_own/$_limpet_top
                fi ;;
            esac
            ;;
#end
#if isolated host
        "$_limpet_home"/* | "$_limpet_real"/*) _limpet_to=$_limpet_folder ;;
#end
        /tmp/* | /var/tmp/*) _limpet_to=$_limpet_folder ;;
        *) if _limpet_bound "$_limpet_folder"; then _limpet_to=$_limpet_folder; fi ;;
    esac
    if [ -n "$_limpet_to" ] && ! [ -d "$_limpet_to" ]; then
        _limpet_seldom _limpet_make "$_limpet_to"
    fi
done
#end
"""


def place_parts(image: ImageSeen) -> tuple[dict[str, str], set[str]]:
    """What fills in these texts, and the word `served` for an image with `places`."""
    served = serve_places(image)
    if not served:
        return {}, set()
    line = "".join(
        '--mount"$IFS"{}"$_limpet_served"{}"$IFS"'.format(
            shlex.quote('type=bind,"source='), shlex.quote(f'",{render_served(mount)}')
        )
        for mount in served
    )
    return {
        "SERVED": line,
        "POINTS": shlex.join(mount.target for mount in served),
        "PERSONAL_CASE": "|".join(personal.folder for personal in PERSONAL),
    }, {"served"}
