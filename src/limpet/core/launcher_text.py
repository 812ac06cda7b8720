"""The launcher's text: where it is, what it starts, and what of the session passes.

`@NAME@` is filled in by `core.launcher`; the rest of the text is in `core.launcher_command`.
It runs under dash, bash and busybox sh. Everything is named `_limpet_*`, because a name that the
session happens to export would reach the program with a changed value.
"""

SESSION = r"""#!/bin/sh
# Written by limpet @LIMPET@; `limpet update` writes it anew. Each launcher is this same text and
# starts the program of its own name.
# shellcheck disable=SC2016,SC2086,SC2090,SC2163,SC2221,SC2222
# shellcheck disable=SC3013 # -ef is in POSIX.1-2024, and before in all shells
_limpet_root=@ROOT_BAKED@
_limpet_name=${0##*/} _limpet_venv='' _limpet_connection='' _limpet_host=@HOST@
unset CDPATH
set -f

_limpet_say() { printf 'limpet: %s\n' "$@" >&2; }
_limpet_fail() { _limpet_say "$@"; exit 125; }
_limpet_back() { cd -- "$_limpet_cwd" || _limpet_fail "$_limpet_cwd cannot be entered."; }

# ---- which folder, which program ----

case $0 in */*) _limpet_at=${0%/*}/ ;; *) _limpet_at=./ ;; esac
if [ -L "$0" ]; then
    if [ -e "${_limpet_at}../pyvenv.cfg" ]; then _limpet_venv=$_limpet_at..; fi
    if [ "$0" -ef "$_limpet_root/bin/$_limpet_name" ]; then
        _limpet_at=$_limpet_root/bin/
    elif [ "$0" -ef "$_limpet_root/bin/python" ]; then
        _limpet_name=python _limpet_at=$_limpet_root/bin/
    else # a link under another name, or to a folder that was moved
        _limpet_link=$_limpet_at$_limpet_name
        while [ -L "$_limpet_link" ]; do
            _limpet_to=$(readlink "$_limpet_link") || exit 125
            case $_limpet_to in
                /*) _limpet_link=$_limpet_to ;;
                *) _limpet_link=${_limpet_link%/*}/$_limpet_to ;;
            esac
        done
        _limpet_name=${_limpet_link##*/} _limpet_at=${_limpet_link%/*}/
    fi
fi
cd -P . 2>/dev/null || _limpet_fail 'The working folder does not exist any more.'
_limpet_cwd=$PWD
[ . -ef "$_limpet_cwd" ] || _limpet_fail 'The working folder does not exist any more.'
if ! [ "$_limpet_at" -ef "$_limpet_root/bin" ]; then # the folder was moved
    cd -P -- "$_limpet_at" || exit 125
    _limpet_root=${PWD%/.limpet/versions/*}
    _limpet_back
fi
_limpet_image=@IMAGE@
@PROGRAMS@

# ---- a virtual environment on top, and arguments that need help ----

case $_limpet_name in python | python[0-9]*)
    case "${1-} ${2-}" in
        '-m venv')
            shift 2
            set -- "$_limpet_root/@VERSION_FOLDER@/on_top.py" "$_limpet_root/bin/$_limpet_name" "$@"
            ;;
        '-m ipykernel_launcher' | '-m ipykernel')
            for _limpet_word; do
                case ${_limpet_flag-}:$_limpet_word in
                    -f:*) _limpet_connection=$_limpet_word ;;
                    *:-f=* | *:--f=*) _limpet_connection=${_limpet_word#*=} ;;
                esac
                _limpet_flag=$_limpet_word
            done
            case $_limpet_connection in
                /*/*) _limpet_connection=${_limpet_connection%/*} ;;
                *) _limpet_connection='' ;;
            esac
            ;;
    esac
    ;;
esac
if [ -n "$_limpet_venv" ]; then
    cd -P -- "$_limpet_venv" || exit 125
    _limpet_venv=$PWD
    _limpet_back
    # Python finds its virtual environment by its own name, which a shell cannot set.
    set -- -I -S -c 'import os, sys; os.execv(sys.argv[1], sys.argv[2:])' \
        "$_limpet_program" "$_limpet_venv/bin/${0##*/}" "$@"
fi
@JOB@
if [ -e /.singularity.d ]; then
    # Already inside: of this image, the program is here; another one has no runtime to start it.
    case ${APPTAINER_CONTAINER-${SINGULARITY_CONTAINER-}} in
        "$_limpet_image" | */"@STAGED@") exec "$_limpet_program" "$@" ;;
    esac
    _limpet_fail "$_limpet_name is a launcher for $_limpet_image." \
        'It cannot be used from inside another container: call it from outside.'
fi

# ---- the image and the runtime ----

[ -r "$_limpet_image" ] || _limpet_fail "The image $_limpet_image is gone or cannot be read." \
    "Bring it back, or name another one: limpet update $_limpet_root IMAGE"
_limpet_runtime=@RUNTIME@
if ! [ -x "$_limpet_runtime" ]; then
    IFS=:
    for _limpet_to in ${PATH-}; do
        for _limpet_link in apptainer singularity; do
            if [ -x "$_limpet_to/$_limpet_link" ] && ! [ -x "$_limpet_runtime" ]; then
                _limpet_runtime=$_limpet_to/$_limpet_link
            fi
        done
    done
    unset IFS
    [ -x "$_limpet_runtime" ] || _limpet_fail 'Neither apptainer nor singularity is in PATH.' \
        "Load your site's module for it (often: module load apptainer)."
fi

# ---- what is seen inside as the home ----

# Steps are counted here: a shell takes milliseconds for a few hundred. What is set to a value known
# beforehand is gathered in `sets` and set at once, mounts in a line that a shell can read.
_limpet_sets='' _limpet_mounts=''
_limpet_put() { export "$1=$2" "@OURS@$1=$2"; unset "@OTHERS@$1"; }

# Puts a mount before the others; paths with the runtime's separators in them go as CSV.
_limpet_mount() {
    case $1$2 in
        *[:,\"\\\']*) _limpet_mount_odd "$@" ;;
        "$1$1") _limpet_mounts="--bind '$1${3:+:$1:ro}' $_limpet_mounts" ;;
        *) _limpet_mounts="--bind '$1:$2${3:+:ro}' $_limpet_mounts" ;;
    esac
}
_limpet_mount_odd() {
    _limpet_flag=--bind _limpet_word=$1
    case $1$2 in
        *[:,\"\\]*)
            _limpet_replace "$1" '"' '""'; _limpet_to=$_limpet_text
            _limpet_replace "$2" '"' '""'
            _limpet_flag=--mount
            _limpet_word="type=bind,\"source=$_limpet_to\",\"target=$_limpet_text\"${3:+,ro}"
            ;;
        *) if [ "$1" != "$2" ] || [ -n "${3-}" ]; then _limpet_word=$1:$2${3:+:ro}; fi ;;
    esac
    _limpet_replace "$_limpet_word" "'" "'\\''"
    _limpet_mounts="$_limpet_flag '$_limpet_text' $_limpet_mounts"
}
_limpet_replace() {
    _limpet_text='' _limpet_link=$1
    while :; do
        case $_limpet_link in *"$2"*) ;; *) break ;; esac
        _limpet_text=$_limpet_text${_limpet_link%%"$2"*}$3
        _limpet_link=${_limpet_link#*"$2"}
    done
    _limpet_text=$_limpet_text$_limpet_link
}

_limpet_account=''
case ${USER:-${LOGNAME-}} in
    '' | [!A-Za-z_]* | *[!A-Za-z0-9._-]*) ;;
    *) eval "_limpet_account=~${USER:-$LOGNAME}" ;;
esac
_limpet_home=''
for _limpet_to in "${HOME-}" "$_limpet_account"; do
    case $_limpet_to in
        /*[!/]*)
            if [ -z "$_limpet_home" ] && [ -d "$_limpet_to" ]; then
                _limpet_home=${_limpet_to%/}
            fi
            ;;
    esac
done
_limpet_real=$_limpet_home
case $_limpet_cwd/ in
    "$_limpet_home"/*) ;;
    *) if cd -P -- "${_limpet_home:-.}" 2>/dev/null; then _limpet_real=$PWD; _limpet_back; fi ;;
esac
_limpet_policy=@HOME_POLICY@
if [ "$_limpet_policy" != none ]; then
    case $_limpet_home in
        '') _limpet_policy=none; _limpet_say 'There is no home inside, for there is none here.' ;;
        *:*)
            _limpet_policy=none
            _limpet_say 'There is no home inside: its path has a colon, where the runtime splits.'
            ;;
    esac
fi

# The image's own folder for personal things: the only thing made here, at the first start.
_limpet_state=@STATE_DIR@
if [ -z "$_limpet_state" ]; then
    case ${LIMPET_STATE_DIR-}:${XDG_STATE_HOME-} in
        /*) _limpet_state=$LIMPET_STATE_DIR ;;
        '~'/*) _limpet_state=${HOME-}${LIMPET_STATE_DIR#'~'} ;;
        [!:]*) _limpet_state=$_limpet_cwd/$LIMPET_STATE_DIR ;;
        :/*) _limpet_state=$XDG_STATE_HOME/limpet ;;
        *) _limpet_state=$_limpet_home/.local/state/limpet ;;
    esac
fi
_limpet_own() { _limpet_own=$_limpet_state/@IDENTITY@/home; }
_limpet_own
_limpet_make() { (umask 077 && mkdir -p -- "$1") 2>/dev/null; }
case $_limpet_policy in isolated | private | none)
    if ! { [ -d "$_limpet_own" ] || _limpet_make "$_limpet_own"; } || ! [ -w "$_limpet_own" ]; then
        _limpet_to=$_limpet_state
        _limpet_state=${TMPDIR:-/tmp}/limpet-$(id -u)
        _limpet_own
        _limpet_say "$_limpet_to cannot be written: this image's personal folders are in" \
            "$_limpet_state and will not last. LIMPET_STATE_DIR names another place."
        _limpet_make "$_limpet_own"
        # Below /tmp someone else may have made it first.
        if [ -L "$_limpet_state" ] || ! [ -O "$_limpet_state" ] || ! [ -w "$_limpet_own" ]; then
            _limpet_fail "$_limpet_state cannot be used." 'Set LIMPET_STATE_DIR.'
        fi
    fi
    ;;
esac

# ---- the variables that pass ----

if [ -n "${@OTHER_NAME@_BIND-}${@OTHER_NAME@_BINDPATH-}" ]; then
    for _limpet_to in BIND BINDPATH; do
        eval "_limpet_link=\${@OTHER_NAME@_$_limpet_to-} _limpet_text=\${@OUR_NAME@_$_limpet_to-}"
        if [ -n "$_limpet_link" ] && [ -n "$_limpet_text" ]; then
            export "@OUR_NAME@_$_limpet_to=$_limpet_text,$_limpet_link"
            unset "@OTHER_NAME@_$_limpet_to"
        fi
    done
fi
# What pip needs of the session, before it is dropped.
_limpet_pip_config=${PIP_CONFIG_FILE-} _limpet_config_home=${XDG_CONFIG_HOME:-$_limpet_home/.config}
_limpet_ca1=${PIP_CERT-} _limpet_ca2=${SSL_CERT_FILE-} _limpet_ca3=${REQUESTS_CA_BUNDLE-}
_limpet_ca4=${CURL_CA_BUNDLE-}
_limpet_kit=$_limpet_state@KIT_BAKED@
_limpet_names='' _limpet_others=''
case ${BASH_VERSION-} in 4.4* | [5-9].*)
    eval 'export -n SHELLOPTS BASHOPTS OLDPWD
        mapfile -d "" -t _limpet_names </proc/self/environ
        _limpet_to=${_limpet_names[*]%%=*}; unset _limpet_names; _limpet_names=$_limpet_to'
    ;;
esac
if [ -z "$_limpet_names" ]; then # no other shell tells them without a copy of itself
    IFS='
'
    for _limpet_to in $(export -p); do
        case $_limpet_to in
            'export '[A-Za-z_]*) _limpet_to=${_limpet_to#export } ;;
            'declare -x '[A-Za-z_]*) _limpet_to=${_limpet_to#declare -x } ;;
            *) continue ;;
        esac
        _limpet_names="$_limpet_names ${_limpet_to%%=*}"
    done
    unset IFS
fi
for _limpet_to in $_limpet_names; do
    case $_limpet_to in
        BASH_FUNC_*%%) _limpet_to=${_limpet_to#BASH_FUNC_}; unset -f "${_limpet_to%??}"; continue ;;
        [!A-Za-z_]* | *[!A-Za-z0-9_]*) continue ;;
@JUDGES@
    esac
    unset "$_limpet_to"
done
"""
