"""The launcher's text: the runtime's command line, put together from its end to its start.

POSIX shells have one list, the positional parameters: every step puts its words before what is
there already. `@NAME@` is filled in by `core.launcher`.
"""

COMMAND = r"""
# ---- the command line, from its end to its start ----

set -- @INSIDE@ "$@"
set -- "$_limpet_image" "$@"

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
set -- --pwd "$_limpet_pwd" "$@"

# This folder itself, so that programs inside can call launchers by their path.
for _limpet_to in "$_limpet_connection" "$_limpet_venv" "$_limpet_root"; do
    if [ -n "$_limpet_to" ]; then
        _limpet_mount "$_limpet_to" "$_limpet_to"
        set -- "$_limpet_flag" "$_limpet_word" "$@"
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
    if _limpet_first "$_limpet_ca1" "$_limpet_ca2" "$_limpet_ca3" "$_limpet_ca4"; then
        _limpet_certificates=$_limpet_link
        _limpet_mount "$_limpet_certificates" @PIP_CERTIFICATES@ ro
        set -- "$_limpet_flag" "$_limpet_word" "$@"
        _limpet_put PIP_CERT @PIP_CERTIFICATES@
    fi
    if _limpet_first "$_limpet_pip_config" "$_limpet_config_home/pip/pip.conf" \
        "$_limpet_home/.pip/pip.conf" /etc/pip.conf; then
        _limpet_config=$_limpet_link
        _limpet_mount "$_limpet_config" @PIP_CONFIG@ ro
        set -- "$_limpet_flag" "$_limpet_word" "$@"
        _limpet_put PIP_CONFIG_FILE @PIP_CONFIG@
    fi
    if [ -e "$_limpet_kit/pip.zip" ]; then
        _limpet_mount "$_limpet_kit" @KIT@ ro
        set -- "$_limpet_flag" "$_limpet_word" "$@"
    fi
    if [ "$_limpet_base" = @PACKAGES@ ]; then
        _limpet_to=${_limpet_own%/home}/packages
        [ -d "$_limpet_to" ] || _limpet_make "$_limpet_to" ||
            _limpet_fail "$_limpet_to cannot be made."
        _limpet_from=$_limpet_to
        _limpet_mount "$_limpet_from" @PACKAGES@
        set -- "$_limpet_flag" "$_limpet_word" "$@"
        _limpet_put JUPYTER_PATH @PACKAGES@/share/jupyter
    fi
    _limpet_put "${_limpet_packages%%=*}" "${_limpet_packages#*=}"
    _limpet_put PREPEND_PATH \
        "${@OURS@PREPEND_PATH:+$@OURS@PREPEND_PATH:}@KIT@/bin:@BIN_OF_PREFIX@$_limpet_base/bin"
fi

# Where packages write at import.
_limpet_given=''
_limpet_cache() {
    eval "_limpet_given=\${$1:-\${@OURS@$1:-\${@OTHERS@$1-}}}"
    case ${3:+flag}:$_limpet_given in
        :?* | flag:*compiledir*) return ;;
        flag:?*) _limpet_put "$1" "$_limpet_given,$3=$_limpet_caches/$2" ;;
        flag:) _limpet_put "$1" "$3=$_limpet_caches/$2" ;;
        *) _limpet_put "$1" "$_limpet_caches/$2" ;;
    esac
}
if [ "$_limpet_policy" != host ]; then
    _limpet_caches=@INSIDE_HOME@
    case $_limpet_policy in
        private | none)
            _limpet_mount "$_limpet_own" @INSIDE_HOME@
            set -- "$_limpet_flag" "$_limpet_word" "$@"
            if [ "$_limpet_policy" = none ]; then _limpet_cache XDG_CACHE_HOME .cache; fi
            ;;
    esac
@CACHES@
    for _limpet_folder in @CACHE_FOLDERS@; do
        [ -d "$_limpet_own/$_limpet_folder" ] || _limpet_make "$_limpet_own/$_limpet_folder" ||
            _limpet_fail "$_limpet_own/$_limpet_folder cannot be made."
    done
fi

# Sets where a thing of the home is seen inside: a link at what it points to.
_limpet_find() {
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
    _limpet_from=$_limpet_own/$1
}
if [ "$_limpet_policy" = isolated ]; then
    for _limpet_again in yes no; do
        if [ "$_limpet_again" = yes ] && [ "$_limpet_real" = "$_limpet_home" ]; then continue; fi
        for _limpet_folder in @START_FILES@ @PERSONAL@; do
            case $_limpet_folder in
                @PERSONAL_PATTERN@)
                    if ! [ -d "$_limpet_home/$_limpet_folder" ]; then
                        if [ "$_limpet_again" = no ]; then
                            case $_limpet_folder in
@MOVED@
                            esac
                        fi
                        continue
                    fi
                    _limpet_find "$_limpet_folder"
                    [ -d "$_limpet_from" ] || _limpet_make "$_limpet_from" ||
                        _limpet_fail "$_limpet_from cannot be made."
                    ;;
                *)
                    [ -f "$_limpet_home/$_limpet_folder" ] || continue
                    _limpet_find "$_limpet_folder"
                    [ -f "$_limpet_from" ] || : >"$_limpet_from"
                    ;;
            esac
            if [ "$_limpet_again" = yes ]; then
                case $_limpet_target/ in
                    "$_limpet_home"/*)
                        _limpet_target=$_limpet_real${_limpet_target#"$_limpet_home"}
                        ;;
                    *) continue ;;
                esac
            else
                for _limpet_to in @TEMPORARY@; do
                    eval "_limpet_link=\${$_limpet_to-}"
                    case $_limpet_link/ in "$_limpet_target"/*) unset "$_limpet_to" ;; esac
                done
            fi
            _limpet_mount "$_limpet_from" "$_limpet_target"
            set -- "$_limpet_flag" "$_limpet_word" "$@"
        done
    done
    _limpet_mount "$_limpet_own" @INSIDE_HOME@
    set -- "$_limpet_flag" "$_limpet_word" "$@"
fi
case $_limpet_policy in isolated | host)
    if [ "$_limpet_real" != "$_limpet_home" ]; then
        _limpet_mount "$_limpet_real" "$_limpet_real"
        set -- "$_limpet_flag" "$_limpet_word" "$@"
    fi
    ;;
esac
# A temporary folder that is not seen inside is worse than none.
_limpet_mounted=''
for _limpet_to in @TEMPORARY@; do
    eval "_limpet_link=\${$_limpet_to-}"
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
                _limpet_name=$_limpet_to
                _limpet_mount "$_limpet_link" "$_limpet_link"
                set -- "$_limpet_flag" "$_limpet_word" "$@"
                continue
            fi
            ;;
    esac
    unset "$_limpet_to"
done

@VALUES@
if [ -n "$_limpet_place" ]; then
    _limpet_mount "$_limpet_place" "$_limpet_place"
    set -- "$_limpet_flag" "$_limpet_word" "$@"
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
            set -- "$_limpet_flag" "$_limpet_word" "$@"
        fi
    done
    export "@OURS@APPEND_PATH=$PATH"; unset @OTHERS@APPEND_PATH
fi
set -- @REST@ "$@"
_limpet_gpu=@GPU@
if [ "$_limpet_gpu" = auto ]; then
    if [ -e /dev/nvidiactl ] || [ -e /dev/nvidia0 ]; then _limpet_gpu=nvidia
    elif [ -e /dev/kfd ]; then _limpet_gpu=amd
    fi
fi
case $_limpet_gpu in
    nvidia) set -- --nv "$@" ;;
    amd) set -- --rocm "$@" ;;
esac
case $_limpet_policy in
    none) set -- --no-home --no-mount home "$@" ;;
    private) set -- --home "$_limpet_own:$_limpet_home" "$@" ;;
    *) [ "$_limpet_home" = "${_limpet_account%/}" ] || set -- --home "$_limpet_home" "$@" ;;
esac
exec "$_limpet_runtime" @HEAD@ "$@"
"""
