"""The launcher's text: where it is, what it starts, and what of the session passes.

`@NAME@` is filled in by `core.launcher`; what stands between `#if WORDS` and `#end` is left out
where none of the words holds for these launchers. The rest of the text is in
`core.launcher_command`, and what few starts need in `core.launcher_seldom`.

What bash is slow at decides how it is written. In instructions of bash 5.2: a character of a script
costs 150 to 300, so comments and indentation are left out of what is written; a function is copied
when it is defined and at each call (100,000 for a short one), so there is one; `[` costs 25,000 and
12,000 for each further condition after `-a` or `-o`; a pattern of a `case` costs 3,000. All of it
costs a fifth less in the locale `C`.

It runs under dash, bash and busybox sh. Everything is named `_limpet_*`, because a name that the
session happens to export would reach the program with a changed value.
"""

SESSION = r"""#!/bin/sh
# Written by limpet @LIMPET@; `limpet update` writes it anew. Each launcher is this same text and
# starts the program of its own name. Comments are in limpet's source, core/launcher_text.py.
# shellcheck disable=SC1007,SC1090,SC1091,SC2016,SC2034,SC2046,SC2086,SC2089,SC2090,SC2154
# shellcheck disable=SC2163,SC2166,SC2221,SC2222,SC2295
# shellcheck disable=SC3013,SC3044,SC3045,SC3054 # -ef is in POSIX.1-2024; others are for bash
_limpet_root=@ROOT_BAKED@
# Lists are lines, so that paths may have spaces.
IFS='
'
set -f
_limpet_locale=${LC_ALL+:$LC_ALL}
LC_ALL=C
_limpet_seldom() { . "$_limpet_root/@VERSION_FOLDER@/seldom.sh"; "$@"; }
_limpet_name=${0##*/} _limpet_venv='' _limpet_connection='' _limpet_last='' _limpet_local=''

# ---- which folder, which program ----

if ! cd -P . 2>/dev/null || ! [ . -ef "$PWD" ]; then
    _limpet_seldom _limpet_fail 'The working folder does not exist any more.'
fi
_limpet_cwd=$PWD
if [ -L "$0" ] || [ "${0%/*}" != "$_limpet_root/bin" ]; then
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

_limpet_account=${HOME-} _limpet_to=${USER:-${LOGNAME-}} _limpet_home=''
# That of who made this needs no question to the site's directory of users.
case $_limpet_to:$_limpet_account in
    @ACCOUNT@) ;;
    *)
        _limpet_account=''
        case $_limpet_to in
            '' | [!A-Za-z_]* | *[!A-Za-z0-9._-]*) ;;
            *) eval "_limpet_account=~$_limpet_to" ;;
        esac
        ;;
esac
case ${HOME-} in /*[!/]*) if [ -d "$HOME" ]; then _limpet_home=${HOME%/}; fi ;; esac
case $_limpet_home in '') _limpet_seldom _limpet_other_home ;; esac
_limpet_real=$_limpet_home
case $_limpet_cwd/ in
    "$_limpet_home"/*) ;;
    *)
        if cd -P -- "${_limpet_home:-.}" 2>/dev/null; then _limpet_real=$PWD; fi
        cd -- "$_limpet_cwd" || _limpet_seldom _limpet_fail "$_limpet_cwd cannot be entered."
        ;;
esac
# The image's own folder for personal things: the only thing made here, at the first start.
#if state
_limpet_state=@STATE_DIR@
#end
#if nostate
case ${LIMPET_STATE_DIR-}:${XDG_STATE_HOME-} in
    /*) _limpet_state=$LIMPET_STATE_DIR ;;
    '~'/*) _limpet_state=${HOME-}${LIMPET_STATE_DIR#'~'} ;;
    [!:]*) _limpet_state=$_limpet_cwd/$LIMPET_STATE_DIR ;;
    :/*) _limpet_state=$XDG_STATE_HOME/limpet ;;
    *) _limpet_state=$_limpet_home/.local/state/limpet ;;
esac
#end
_limpet_own=$_limpet_state/@IDENTITY@/home
#if isolated host
case $_limpet_home in '' | *:*) _limpet_seldom _limpet_homeless "$@" ;; esac
#end
#if private
case ${_limpet_home:-:}$_limpet_own in *:*) _limpet_seldom _limpet_homeless "$@" ;; esac
#end

# ---- the image and the runtime ----

case ${_limpet_venv:+:}$_limpet_name:${1-}:${2-} in
    :* | python*:-m:venv | python*:-m:ipykernel*) . "$_limpet_root/@VERSION_FOLDER@/python.sh" ;;
esac
case @IN_JOB@ in ?*) . "$_limpet_root/@VERSION_FOLDER@/job.sh" ;; esac
_limpet_runtime=@RUNTIME@
if [ -e /.singularity.d -o ! -r "$_limpet_image" -o ! -x "$_limpet_runtime" ]; then
    _limpet_seldom _limpet_find "$@"
fi
#if made
if ! [ @MADE@ ]; then _limpet_seldom _limpet_make_all; fi
#end
#if packages
_limpet_kit=$_limpet_state@KIT_BAKED@ _limpet_certificates='' _limpet_config=''
if ! [ -e "$_limpet_kit/pip.zip" ]; then _limpet_kit=''; fi
#if foreign
if [ -n "$_limpet_kit" ]; then
#end
# What pip needs of the session, before it is dropped.
case ${PIP_CERT-}${SSL_CERT_FILE-}${REQUESTS_CA_BUNDLE-}${CURL_CA_BUNDLE-} in ?*)
    for _limpet_to in "${PIP_CERT-}" "${SSL_CERT_FILE-}" "${REQUESTS_CA_BUNDLE-}" \
        "${CURL_CA_BUNDLE-}"; do
        if [ -f "$_limpet_to" ]; then _limpet_certificates=$_limpet_to; break; fi
    done
    ;;
esac
for _limpet_to in ${PIP_CONFIG_FILE:+"$PIP_CONFIG_FILE"} \
    "${XDG_CONFIG_HOME:-$_limpet_home/.config}/pip/pip.conf" "$_limpet_home/.pip/pip.conf" \
    /etc/pip.conf; do
    if [ -f "$_limpet_to" ]; then _limpet_config=$_limpet_to; break; fi
done
#if foreign
fi
#end
#end

# ---- the variables that pass ----

case ${@OTHER_NAME@_BIND-}${@OTHER_NAME@_BINDPATH-} in
    ?*) _limpet_seldom _limpet_join_binds ;;
esac
_limpet_names='' _limpet_ours='' _limpet_others=''
case ${BASH_VERSION-} in 4.4* | [5-9].*)
    export -n SHELLOPTS BASHOPTS OLDPWD
    mapfile -d '' -t _limpet_list </proc/self/environ
    _limpet_names=${_limpet_list[*]%%=*}
    ;;
esac
if [ -z "$_limpet_names" ]; then # from a copy of this shell
    for _limpet_to in $(export -p); do
        case $_limpet_to in
            'export '[A-Za-z_]*) _limpet_to=${_limpet_to#export } ;;
            'declare -x '[A-Za-z_]*) _limpet_to=${_limpet_to#declare -x } ;;
            *) continue ;;
        esac
        _limpet_names=$_limpet_names$IFS${_limpet_to%%=*}
    done
fi
#if mpi
case ${PMI_FD+1}${PMI_PORT+1}${PMIX_NAMESPACE+1}${PALS_RANKID+1}${SLURM_STEP_NUM_TASKS+1} in
    ?*) . "$_limpet_root/@VERSION_FOLDER@/mpi.sh" ;;
esac
#end
@KEPT@
#if clean host_variables
case $_limpet_names$IFS in *_INCLUDE_PATH"$IFS"*) _limpet_seldom _limpet_drop_include_paths ;; esac
#end
for _limpet_to in $_limpet_names; do
@JUDGES@
    case $_limpet_to in
        [0-9]* | *[!A-Za-z0-9_]*) # no shell can unset these
            case $_limpet_to in BASH_FUNC_*%%)
                _limpet_to=${_limpet_to#BASH_FUNC_}; unset -f "${_limpet_to%??}" ;;
            esac
            ;;
        *) unset "$_limpet_to" ;;
    esac
done
"""
