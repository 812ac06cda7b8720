"""The launcher's text: where it is, what it starts, and what of the session passes.

`@NAME@` is filled in by `core.launcher`; what stands between `#if WORDS` and `#end` is left out
where none of the words holds for these launchers. The rest of the text is in
`core.launcher_command`, and what few starts need in `core.launcher_seldom`: bash takes a
millisecond to read 25 kB of it, so it is a file that is read only when it is needed.

It runs under dash, bash and busybox sh. Everything is named `_limpet_*`, because a name that the
session happens to export would reach the program with a changed value.
"""

SESSION = r"""#!/bin/sh
# Written by limpet @LIMPET@; `limpet update` writes it anew. Each launcher is this same text and
# starts the program of its own name. What few starts need is in seldom.sh and its neighbours.
# shellcheck disable=SC1090,SC1091,SC2016,SC2034,SC2086,SC2090,SC2154,SC2163,SC2221,SC2222
# shellcheck disable=SC3013 # -ef is in POSIX.1-2024, and before in all shells
_limpet_root=@ROOT_BAKED@
_limpet_name=${0##*/} _limpet_at=${0%/*} _limpet_venv='' _limpet_connection=''
_limpet_ranks=''
unset CDPATH
set -f

_limpet_say() { printf 'limpet: %s\n' "$@" >&2; }
_limpet_fail() { _limpet_say "$@"; exit 125; }
_limpet_seldom() { . "$_limpet_root/@VERSION_FOLDER@/seldom.sh"; "$@"; }
_limpet_back() { cd -- "$_limpet_cwd" || _limpet_fail "$_limpet_cwd cannot be entered."; }

# ---- which folder, which program ----

cd -P . 2>/dev/null || _limpet_fail 'The working folder does not exist any more.'
_limpet_cwd=$PWD
[ . -ef "$_limpet_cwd" ] || _limpet_fail 'The working folder does not exist any more.'
if [ -L "$0" ] || [ "$_limpet_at" != "$_limpet_root/bin" ]; then
    _limpet_to=$_limpet_root/@VERSION_FOLDER@
    if ! [ -r "$_limpet_to/where.sh" ]; then # the folder was moved
        _limpet_to=$(readlink -f -- "$0") || exit 125
        _limpet_to=${_limpet_to%/bin/*}
    fi
    . "$_limpet_to/where.sh"
fi
_limpet_image=@IMAGE@
@PROGRAMS@

# ---- what is seen inside as the home ----

_limpet_account=${HOME-} _limpet_to=${USER:-${LOGNAME-}}
# That of who made this needs no question to the site's directory of users.
if [ "$_limpet_to:$_limpet_account" != @ACCOUNT@ ]; then
    _limpet_account=''
    case $_limpet_to in
        '' | [!A-Za-z_]* | *[!A-Za-z0-9._-]*) ;;
        *) eval "_limpet_account=~$_limpet_to" ;;
    esac
fi
for _limpet_home in "${HOME-}" "$_limpet_account" ''; do
    case $_limpet_home in /*[!/]*) if [ -d "$_limpet_home" ]; then break; fi ;; esac
done
_limpet_home=${_limpet_home%/}
_limpet_real=$_limpet_home
case $_limpet_cwd/ in
    "$_limpet_home"/*) ;;
    *) if cd -P -- "${_limpet_home:-.}" 2>/dev/null; then _limpet_real=$PWD; _limpet_back; fi ;;
esac
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
_limpet_own=$_limpet_state/@IDENTITY@/home
#if isolated host
case $_limpet_home in '' | *:*) _limpet_seldom _limpet_homeless "$@" ;; esac
#end
#if private
case $_limpet_home in '') _limpet_seldom _limpet_homeless "$@" ;; esac
case $_limpet_home$_limpet_own in *:*) _limpet_seldom _limpet_homeless "$@" ;; esac
#end

# ---- the image and the runtime ----

case ${_limpet_venv:+:}$_limpet_name:${1-}:${2-} in
    :* | python*:-m:venv | python*:-m:ipykernel*) . "$_limpet_root/@VERSION_FOLDER@/python.sh" ;;
esac
case @IN_JOB@ in ?*) . "$_limpet_root/@VERSION_FOLDER@/job.sh" ;; esac
if [ -e /.singularity.d ]; then _limpet_seldom _limpet_inside "$@"; fi
[ -r "$_limpet_image" ] || _limpet_fail "The image $_limpet_image is gone or cannot be read." \
    "Bring it back, or name another one: limpet update $_limpet_root IMAGE"
_limpet_runtime=@RUNTIME@
[ -x "$_limpet_runtime" ] || _limpet_seldom _limpet_find_runtime

# ---- the variables that pass ----

case ${@OTHER_NAME@_BIND-}${@OTHER_NAME@_BINDPATH-} in
    ?*) _limpet_seldom _limpet_join_binds ;;
esac
# What pip needs of the session, before it is dropped.
_limpet_pip_config=${PIP_CONFIG_FILE-} _limpet_config_home=${XDG_CONFIG_HOME:-$_limpet_home/.config}
_limpet_ca1=${PIP_CERT-} _limpet_ca2=${SSL_CERT_FILE-} _limpet_ca3=${REQUESTS_CA_BUNDLE-}
_limpet_ca4=${CURL_CA_BUNDLE-}
_limpet_names='' _limpet_ours='' _limpet_others=''
case ${BASH_VERSION-} in 4.4* | [5-9].*)
    eval 'export -n SHELLOPTS BASHOPTS OLDPWD
        mapfile -d "" -t _limpet_list </proc/self/environ
        _limpet_names=${_limpet_list[*]%%=*}'
    ;;
esac
if [ -z "$_limpet_names" ]; then . "$_limpet_root/@VERSION_FOLDER@/names.sh"; fi
#if mpi
case ${PMI_FD+1}${PMI_PORT+1}${PMIX_NAMESPACE+1}${PALS_RANKID+1}${SLURM_STEP_NUM_TASKS+1} in
    ?*) . "$_limpet_root/@VERSION_FOLDER@/mpi.sh" ;;
esac
#end
#if isolated private none
if ! [ -d "$_limpet_own" ] || ! [ -w "$_limpet_own" ] || ! [ -O "$_limpet_own" ]; then
    _limpet_seldom _limpet_make_own
fi
#end
#if clean host_variables
case "$_limpet_names " in *"_INCLUDE_PATH "*) _limpet_seldom _limpet_drop_include_paths ;; esac
#end
for _limpet_to in $_limpet_names; do
@JUDGES@
    case $_limpet_to in
        BASH_FUNC_*%%) _limpet_to=${_limpet_to#BASH_FUNC_}; unset -f "${_limpet_to%??}" ;;
        [0-9]* | *[!A-Za-z0-9_]*) ;; # no shell can unset these
        *) unset "$_limpet_to" ;;
    esac
done
"""
