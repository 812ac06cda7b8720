"""The launcher's text: the runtime's command line, put together from its end to its start.

POSIX shells have one list, the positional parameters, and it holds the user's words: the mounts are
gathered in a line that is read at the end, each before what is there already. `@NAME@` is filled
in by `core.launcher`.
"""

COMMAND = r"""
# ---- the command line, from its end to its start ----

_limpet_start=/
case $_limpet_policy in isolated | private | host) _limpet_start=$_limpet_home ;; esac
_limpet_place='' _limpet_pwd=@PWD@

# Below a folder that is mounted at its own place.
_limpet_bound() {
@BOUND@
    if [ -n "$_limpet_host" ]; then
        _limpet_top=${1#/}
        case /${_limpet_top%%/*} in @HOST_OWN@) ;; *) return 0 ;; esac
    fi
    return 1
}
_limpet_seen_at=$_limpet_cwd
case $_limpet_cwd/ in
    "$_limpet_real"/*) _limpet_seen_at=$_limpet_home${_limpet_cwd#"$_limpet_real"} ;;
esac
_limpet_in_home=''
case $_limpet_policy:$_limpet_cwd/ in
    isolated:"$_limpet_real"/* | host:"$_limpet_real"/*) _limpet_in_home=1 ;;
esac
if [ -n "$_limpet_pwd" ]; then :
elif [ -n "$_limpet_in_home" ]; then _limpet_pwd=$_limpet_seen_at
elif _limpet_bound "$_limpet_cwd"; then _limpet_pwd=$_limpet_cwd
else
    case $_limpet_cwd in
        @ALWAYS@) _limpet_pwd=$_limpet_cwd ;;
        @FOLDERS@|@TREES@) _limpet_why='that place is the image'"'s own" ;;
        *)
            case $_limpet_real/:$_limpet_home/ in
                "$_limpet_cwd"/* | *:"$_limpet_cwd"/*)
                    _limpet_why='the home lies below it, and would be seen whole' ;;
                *) _limpet_pwd=$_limpet_cwd _limpet_place=$_limpet_cwd ;;
            esac
            ;;
    esac
fi
if [ -z "$_limpet_pwd" ]; then
    _limpet_pwd=$_limpet_start
    if [ "$_limpet_cwd" != "$_limpet_real" ] || [ "$_limpet_start" != "$_limpet_home" ]; then
        _limpet_say "The working folder $_limpet_cwd is not seen inside: $_limpet_why." \
            "The program starts in $_limpet_start."
    fi
fi

# This folder itself, so that programs inside can call launchers by their path.
for _limpet_to in "$_limpet_connection" "$_limpet_venv" "$_limpet_root"; do
    if [ -n "$_limpet_to" ]; then
        _limpet_mount "$_limpet_to" "$_limpet_to"
    fi
done
# Personal packages, and pip for them.
_limpet_first() {
    for _limpet_link; do
        if [ -f "${_limpet_link:-/}" ]; then return 0; fi
    done
    return 1
}
_limpet_base=''
case $_limpet_start:@PREFIX@:$_limpet_policy in
    /::* | /:/*) ;;
    *::none | *:none) ;;
    *::host) ;;
    *::*)
        if [ -e "$_limpet_kit/pip.zip" ]; then
            _limpet_base=$_limpet_home/.local
            if [ "$_limpet_policy" = isolated ] && ! [ -d "$_limpet_base" ]; then
                _limpet_base=@INSIDE_HOME@/.local
            fi
            _limpet_packages=PIP_BREAK_SYSTEM_PACKAGES=1
        fi
        ;;
    *) _limpet_base=@PACKAGES@ _limpet_packages=@PACKAGES_VARIABLE@=@PACKAGES@ ;;
esac
if [ -n "$_limpet_base" ]; then
    if [ -n "$_limpet_ca1$_limpet_ca2$_limpet_ca3$_limpet_ca4" ] &&
        _limpet_first "$_limpet_ca1" "$_limpet_ca2" "$_limpet_ca3" "$_limpet_ca4"; then
        _limpet_certificates=$_limpet_link
        _limpet_mount "$_limpet_certificates" @PIP_CERTIFICATES@ ro
        _limpet_sets="$_limpet_sets PIP_CERT=@PIP_CERTIFICATES@ @OURS@PIP_CERT=@PIP_CERTIFICATES@"
    fi
    if _limpet_first "$_limpet_pip_config" "$_limpet_config_home/pip/pip.conf" \
        "$_limpet_home/.pip/pip.conf" /etc/pip.conf; then
        _limpet_config=$_limpet_link
        _limpet_mount "$_limpet_config" @PIP_CONFIG@ ro
        _limpet_sets="$_limpet_sets PIP_CONFIG_FILE=@PIP_CONFIG@ @OURS@PIP_CONFIG_FILE=@PIP_CONFIG@"
    fi
    if [ -e "$_limpet_kit/pip.zip" ]; then
        _limpet_mount "$_limpet_kit" @KIT@ ro
    fi
    if [ "$_limpet_base" = @PACKAGES@ ]; then
        _limpet_to=${_limpet_own%/home}/packages
        [ -d "$_limpet_to" ] || _limpet_make "$_limpet_to" ||
            _limpet_fail "$_limpet_to cannot be made."
        _limpet_from=$_limpet_to
        _limpet_mount "$_limpet_from" @PACKAGES@
        @SET_JUPYTER@
    fi
    _limpet_sets="$_limpet_sets $_limpet_packages @OURS@$_limpet_packages"
    _limpet_put PREPEND_PATH \
        "${@OURS@PREPEND_PATH:+$@OURS@PREPEND_PATH:}@KIT@/bin:@BIN_OF_PREFIX@$_limpet_base/bin"
fi

# Where packages write at import.
_limpet_flags() {
    case $2 in
        *compiledir*) ;;
        *) _limpet_put "$1" "${2:+$2,}$3" ;;
    esac
}
if [ "$_limpet_policy" != host ]; then
    case $_limpet_policy in
        private | none)
            _limpet_mount "$_limpet_own" @INSIDE_HOME@
            ;;
    esac
    case $_limpet_policy in none)
@CACHE_HOME@
        ;;
    esac
@CACHES@
    if ! { @CACHES_MADE@; }; then
        for _limpet_folder in @CACHE_FOLDERS@; do
            _limpet_make "$_limpet_own/$_limpet_folder" ||
                _limpet_fail "$_limpet_own/$_limpet_folder cannot be made."
        done
    fi
fi

# Puts the image's own over a thing of the home: where that is a link, over what it points to.
_limpet_cover() {
    _limpet_target=$_limpet_home/$1
    if [ -L "$_limpet_target" ]; then
        if [ -d "$_limpet_target" ] && cd -P -- "$_limpet_target" 2>/dev/null; then
            _limpet_target=$PWD
            _limpet_back
        else
            _limpet_target=$(readlink -f "$_limpet_target")
        fi
        case $_limpet_target in
            "$_limpet_real"/*) _limpet_target=$_limpet_home${_limpet_target#"$_limpet_real"} ;;
        esac
    fi
    if [ "$_limpet_again" = yes ]; then
        case $_limpet_target/ in
            "$_limpet_home"/*) _limpet_target=$_limpet_real${_limpet_target#"$_limpet_home"} ;;
            *) return ;;
        esac
    else
        case $_limpet_temporary in *":$_limpet_target"/*)
            for _limpet_to in @TEMPORARY@; do
                eval "_limpet_link=\${$_limpet_to-}"
                case $_limpet_link/ in "$_limpet_target"/*) unset "$_limpet_to" ;; esac
            done
            ;;
        esac
    fi
    _limpet_mount "$_limpet_own/$1" "$_limpet_target"
}
_limpet_temporary=@TEMPORARY_SET@
if [ "$_limpet_policy" = isolated ]; then
    for _limpet_again in yes no; do
        if [ "$_limpet_again" = yes ] && [ "$_limpet_real" = "$_limpet_home" ]; then continue; fi
        for _limpet_folder in @START_FILES@; do
            if [ -f "$_limpet_home/$_limpet_folder" ]; then
                [ -f "$_limpet_own/$_limpet_folder" ] || : >"$_limpet_own/$_limpet_folder"
                _limpet_cover "$_limpet_folder"
            fi
        done
        for _limpet_folder in @PERSONAL@; do
            if [ -d "$_limpet_home/$_limpet_folder" ]; then
                [ -d "$_limpet_own/$_limpet_folder" ] ||
                    _limpet_make "$_limpet_own/$_limpet_folder" ||
                    _limpet_fail "$_limpet_own/$_limpet_folder cannot be made."
                _limpet_cover "$_limpet_folder"
            elif [ "$_limpet_again" = no ]; then
                case $_limpet_folder in
@MOVED@
                esac
            fi
        done
    done
    _limpet_mount "$_limpet_own" @INSIDE_HOME@
fi
case $_limpet_policy in isolated | host)
    if [ "$_limpet_real" != "$_limpet_home" ]; then
        _limpet_mount "$_limpet_real" "$_limpet_real"
    fi
    ;;
esac
# A temporary folder that is not seen inside is worse than none.
_limpet_mounted=''
for _limpet_to in @TEMPORARY@; do
    eval "_limpet_why=\${$_limpet_to+set} _limpet_link=\${$_limpet_to-}"
    if [ -z "$_limpet_why" ]; then continue; fi
    _limpet_why=''
    case $_limpet_link in /tmp | /tmp/* | /var/tmp | /var/tmp/*) _limpet_why=seen ;; esac
    case $_limpet_policy:$_limpet_link/ in
        isolated:"$_limpet_home"/* | host:"$_limpet_home"/*) _limpet_why=seen ;;
    esac
    case $_limpet_link/ in "${_limpet_place:-//}"/*) _limpet_why=seen ;; esac
    case $_limpet_link in @ALWAYS@) _limpet_why=seen ;; esac
    if [ -n "$_limpet_why" ] || _limpet_bound "$_limpet_link"; then continue; fi
    case $_limpet_link in
        @FOLDERS@ | @TREES@) ;;
        /*)
            if [ -d "$_limpet_link" ] && [ -w "$_limpet_link" ] && [ -x "$_limpet_link" ]; then
                case $_limpet_home/ in "$_limpet_link"/*) unset "$_limpet_to"; continue ;; esac
                case $_limpet_mounted in *":$_limpet_link:"*) continue ;; esac
                _limpet_mounted=$_limpet_mounted:$_limpet_link:
                _limpet_mount "$_limpet_link" "$_limpet_link"
                continue
            fi
            ;;
    esac
    unset "$_limpet_to"
done

# Split into words on purpose: none of these values has a space.
export $_limpet_sets
if [ -n "$_limpet_others" ]; then
    for _limpet_to in $_limpet_sets; do unset "@OTHERS@${_limpet_to%%=*}"; done
fi
@VALUES@
if [ -n "$_limpet_place" ]; then
    _limpet_mount "$_limpet_place" "$_limpet_place"
fi
@BINDS@
if [ -n "$_limpet_host" ]; then
    # What the host has and the image lacks; a link's target is seen at the link's own name.
    set +f
    for _limpet_to in /*; do
        case $_limpet_policy:$_limpet_home/ in
            none:"$_limpet_to"/* | private:"$_limpet_to"/*) continue ;;
        esac
        case $_limpet_to in @HOST_OWN@) continue ;; esac
        if [ -d "$_limpet_to" ]; then
            _limpet_mount "$_limpet_to" "$_limpet_to"
        fi
    done
    export "@OURS@APPEND_PATH=$PATH"; unset @OTHERS@APPEND_PATH
fi
_limpet_gpu=@GPU@
if [ "$_limpet_gpu" = auto ]; then
    if [ -e /dev/nvidiactl ] || [ -e /dev/nvidia0 ]; then _limpet_gpu=nvidia
    elif [ -e /dev/kfd ]; then _limpet_gpu=amd
    fi
fi
case $_limpet_gpu in
    nvidia) _limpet_gpu=--nv ;;
    amd) _limpet_gpu=--rocm ;;
    *) _limpet_gpu='' ;;
esac
_limpet_flag='' _limpet_word=$_limpet_home
case $_limpet_policy in
    none) _limpet_flag='--no-home --no-mount home' ;;
    private) _limpet_flag=--home _limpet_word=$_limpet_own:$_limpet_home ;;
    *) [ "$_limpet_home" = "${_limpet_account%/}" ] || _limpet_flag=--home ;;
esac
[ "$_limpet_flag" = --home ] || _limpet_word=''
# In few steps, for each one copies all the words.
@SHARE@
set -- --pwd "$_limpet_pwd" "$_limpet_image" "$@"
eval "set -- $_limpet_mounts \"\$@\""
exec "$_limpet_runtime" @HEAD@ $_limpet_flag ${_limpet_word:+"$_limpet_word"} $_limpet_gpu \
    @REST@ "$@"
"""
