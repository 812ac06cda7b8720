"""What few starts need of a launcher: files beside it, read by the shell only then.

All but `SELDOM`, which holds functions, are read in the launcher's own place and may change the
user's words. Filled in like the launcher's own text.
"""

from __future__ import annotations

from limpet.core.launcher_command import MOUNT
from limpet.core.launcher_job import AHEAD, JOB, RANKS
from limpet.core.launcher_keep import KEEP, KEEPER_FILE, KEEPING
from limpet.core.launcher_mpi import MPI

WHERE = r"""# Called over a link, or the folder was moved.
unset CDPATH
_limpet_at=${0%/*}
case $0 in */*) _limpet_at=$_limpet_at/ ;; *) _limpet_at=./ ;; esac
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
if ! [ "$_limpet_at" -ef "$_limpet_root/bin" ]; then # the folder was moved
    cd -P -- "$_limpet_at" || exit 125
    _limpet_root=${PWD%/.limpet/versions/*}
    cd -- "$_limpet_cwd" || exit 125
fi
"""

PYTHON = r"""# A virtual environment on top, and arguments of Python that need help.
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
    cd -- "$_limpet_cwd" || exit 125
    # Python finds its virtual environment by its own name, which a shell cannot set.
    set -- -I -S -c 'import os, sys; os.execv(sys.argv[1], sys.argv[2:])' \
        "$_limpet_program" "$_limpet_venv/bin/${0##*/}" "$@"
fi
"""

TEMPORARY = (
    f"""{MOUNT}"""
    + r"""# A temporary folder that is seen inside stays, or is mounted.
_limpet_mounted=''
for _limpet_to in @TEMPORARY@; do
    eval "_limpet_why=\${$_limpet_to+set} _limpet_link=\${$_limpet_to-}"
    if [ -z "$_limpet_why" ]; then continue; fi
#if private
    case $_limpet_home:$_limpet_link/ in
        /tmp/*:"$_limpet_home"/* | /var/tmp/*:"$_limpet_home"/*) unset "$_limpet_to"; continue ;;
    esac
#end
    case $_limpet_link/ in @ALWAYS@) continue ;; esac
#if isolated host
    case $_limpet_link/ in "$_limpet_home"/*) continue ;; esac
#end
    case $_limpet_link/ in "${_limpet_place:-//}"/*) continue ;; esac
#if bound
    if _limpet_bound "$_limpet_link"; then continue; fi
#end
    case $_limpet_link/ in
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
_limpet_temporaries=$_limpet_mounts _limpet_mounts=''
"""
)

SELDOM = (
    rf"""# What few starts of these launchers need.
{MOUNT}"""
    + r"""
_limpet_seldom() { "$@"; }
_limpet_say() { printf 'limpet: %s\n' "$@" >&2; }
_limpet_fail() { _limpet_say "$@"; exit 125; }
_limpet_back() { cd -- "$_limpet_cwd" || _limpet_fail "$_limpet_cwd cannot be entered."; }
_limpet_put() { export "$1=$2" "@OURS@$1=$2"; }

_limpet_other_home() {
    for _limpet_home in "$_limpet_account" ''; do
        case $_limpet_home in /*[!/]*) if [ -d "$_limpet_home" ]; then break; fi ;; esac
    done
    _limpet_home=${_limpet_home%/}
}

_limpet_homeless() {
    if ! [ -e /.singularity.d ]; then
        case $_limpet_home in
            '') _limpet_say 'There is no home inside, for there is none here.' ;;
            *) _limpet_say \
                'There is no home inside: its path has a colon, where the runtime splits.' ;;
        esac
    fi
    . "$_limpet_root/@VERSION_FOLDER@/homeless.sh"
}

# What is missing of an image, a runtime and a place outside of containers.
_limpet_find() {
    if [ -e /.singularity.d ]; then _limpet_inside "$@"; fi
    [ -r "$_limpet_image" ] || _limpet_fail \
        "The image $_limpet_image is gone or cannot be read." \
        "Bring it back, or name another one: limpet update $_limpet_root IMAGE"
    [ -x "$_limpet_runtime" ] || _limpet_find_runtime
}
_limpet_inside() {
    # Of this image, the program is here; another one has no runtime to start it.
    case ${APPTAINER_CONTAINER-${SINGULARITY_CONTAINER-}} in
        "$_limpet_image" | */"@STAGED@") exec "$_limpet_program" "$@" ;;
    esac
    _limpet_fail "$_limpet_name is a launcher for $_limpet_image." \
        'It cannot be used from inside another container: call it from outside.'
}

_limpet_find_runtime() {
    _limpet_rest=$IFS
    IFS=:
    for _limpet_to in ${PATH-}; do
        for _limpet_link in apptainer singularity; do
            if [ -x "$_limpet_to/$_limpet_link" ] && ! [ -x "$_limpet_runtime" ]; then
                _limpet_runtime=$_limpet_to/$_limpet_link
            fi
        done
    done
    IFS=$_limpet_rest
    [ -x "$_limpet_runtime" ] || _limpet_fail 'Neither apptainer nor singularity is in PATH.' \
        "Load your site's module for it (often: module load apptainer)."
}

_limpet_make() { (umask 077 && mkdir -p -- "$1") 2>/dev/null; }
_limpet_need() { _limpet_make "$1" || _limpet_fail "$1 cannot be made."; }

_limpet_make_own() {
    if [ -d "$_limpet_own" ] && ! [ -O "$_limpet_own" ]; then
        _limpet_fail "$_limpet_own belongs to someone else." \
            'Set LIMPET_STATE_DIR to a folder of your own.'
    fi
    if { [ -d "$_limpet_own" ] || _limpet_make "$_limpet_own"; } && [ -w "$_limpet_own" ]; then
        return
    fi
    _limpet_to=$_limpet_state
    _limpet_state=${TMPDIR:-/tmp}/limpet-$(id -u)
    _limpet_own=$_limpet_state/@IDENTITY@/home
    _limpet_say "$_limpet_to cannot be written: this image's personal folders are in" \
        "$_limpet_state and will not last. LIMPET_STATE_DIR names another place."
    _limpet_make "$_limpet_own"
    # Below /tmp someone else may have made it first.
    if [ -L "$_limpet_state" ] || ! [ -O "$_limpet_state" ] || ! [ -w "$_limpet_own" ]; then
        _limpet_fail "$_limpet_state cannot be used." 'Set LIMPET_STATE_DIR.'
    fi
}

_limpet_make_all() {
    :
#if isolated private none
    if ! [ -d "$_limpet_own" ] || ! [ -w "$_limpet_own" ] || ! [ -O "$_limpet_own" ]; then
        _limpet_make_own
    fi
    for _limpet_folder in @CACHE_FOLDERS@; do _limpet_need "$_limpet_own/$_limpet_folder"; done
#end
#if own_packages
    _limpet_need "${_limpet_own%/home}/packages"
#end
}

# Says why the working folder is not the same inside.
_limpet_unseen() {
    _limpet_pwd=@START@
    case $_limpet_cwd/ in
#if private none
        @STANDS@) _limpet_why="the host's personal folders stay outside" ;;
#end
        @FOLDERS@|@TREES@) _limpet_why="that place is the image's own" ;;
        *) _limpet_why='the home lies below it, and would be seen whole' ;;
    esac
    if [ "$_limpet_cwd" != "$_limpet_real" ] || [ "$_limpet_pwd" != "$_limpet_home" ]; then
        _limpet_say "The working folder $_limpet_cwd is not seen inside: $_limpet_why." \
            "The program starts in $_limpet_pwd."
    fi
}

# The tables of what is mounted, minding every path.
_limpet_assemble() {
@ASSEMBLE_ODD@
}

# Where the session has settings for both runtimes, the one here reads only its own.
_limpet_join_binds() {
    for _limpet_to in BIND BINDPATH; do
        eval "_limpet_link=\${@OTHER_NAME@_$_limpet_to-} _limpet_text=\${@OUR_NAME@_$_limpet_to-}"
        if [ -n "$_limpet_link" ] && [ -n "$_limpet_text" ]; then
            export "@OUR_NAME@_$_limpet_to=$_limpet_text,$_limpet_link"
            unset "@OTHER_NAME@_$_limpet_to"
        fi
    done
}
_limpet_drop_others() {
    for _limpet_to in $_limpet_others; do
        eval "_limpet_link=\${@OURS@$_limpet_to+set}"
        if [ -n "$_limpet_link" ]; then unset "@OTHERS@$_limpet_to"; fi
    done
}
_limpet_drop_include_paths() {
    for _limpet_to in $_limpet_names; do
        case $_limpet_to in
            *[!A-Za-z0-9_]* | @FIRST@) ;;
            *_INCLUDE_PATH) unset "$_limpet_to" ;;
        esac
    done
}

_limpet_mount_odd() {
    case $1$2 in
        *"$IFS"*) _limpet_fail "$1: launchers mount no path that has a line break in it." ;;
    esac
    _limpet_flag=--bind _limpet_bind=$1
    case $1$2 in
        *[:,\"\\]*)
            _limpet_replace "$1" '"' '""'; _limpet_source=$_limpet_text
            _limpet_replace "$2" '"' '""'
            _limpet_flag=--mount
            _limpet_bind="type=bind,\"source=$_limpet_source\",\"target=$_limpet_text\"${3:+,ro}"
            ;;
        *) if [ "$1" != "$2" ] || [ -n "${3-}" ]; then _limpet_bind=$1:$2${3:+:ro}; fi ;;
    esac
    _limpet_mounts=$_limpet_flag$IFS$_limpet_bind$IFS$_limpet_mounts
}
_limpet_replace() {
    _limpet_text='' _limpet_rest=$1
    while :; do
        case $_limpet_rest in *"$2"*) ;; *) break ;; esac
        _limpet_text=$_limpet_text${_limpet_rest%%"$2"*}$3
        _limpet_rest=${_limpet_rest#*"$2"}
    done
    _limpet_text=$_limpet_text$_limpet_rest
}

# The runtime mounts nothing through a link that leaves the home: over what it points to.
_limpet_cover() {
    if [ -d "$_limpet_home/$_limpet_folder" ]; then _limpet_need "$_limpet_own/$_limpet_folder"
    elif ! [ -f "$_limpet_own/$_limpet_folder" ]; then : >"$_limpet_own/$_limpet_folder"
    fi
    _limpet_target=$_limpet_home/$_limpet_folder
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
    if [ -n "${_limpet_again-}" ]; then
        case $_limpet_target/ in
            "$_limpet_home"/*) _limpet_target=$_limpet_real${_limpet_target#"$_limpet_home"} ;;
            *) return ;;
        esac
#if clean host_variables
    else # a temporary folder below it is not seen any more
        for _limpet_to in @TEMPORARY@; do
            eval "_limpet_link=\${$_limpet_to-}"
            case $_limpet_link/ in "$_limpet_target"/*) unset "$_limpet_to" ;; esac
        done
#end
    fi
    case ${_limpet_again-}@PWD@ in '')
        case $_limpet_target/ in "$_limpet_pwd"/*) _limpet_whole=1 ;; esac
        case $_limpet_pwd/ in "$_limpet_target"/*)
            _limpet_late="$_limpet_late:$_limpet_folder${_limpet_pwd#"$_limpet_target"}/" ;;
        esac
        ;;
    esac
    _limpet_mount "$_limpet_own/$_limpet_folder" "$_limpet_target"
    case $_limpet_target/ in "$_limpet_home"/* | "$_limpet_real"/*) return ;; esac
@LINKED_COVERS@
}
# The working folder lies in one of them: it is mounted again, or stays out as in `plan_place`.
_limpet_uncover() {
    _limpet_place=''
    case ${_limpet_whole-}$_limpet_late in 1* | @LOADED@)
        _limpet_pwd=@START@ _limpet_late=''
        _limpet_why="the host's personal folders stay outside"
        _limpet_say "The working folder $_limpet_cwd is not seen inside: $_limpet_why." \
            "The program starts in $_limpet_pwd."
        return
        ;;
    esac
    if [ "$_limpet_pwd" != "$_limpet_cwd" ]; then _limpet_mount "$_limpet_cwd" "$_limpet_cwd"; fi
    _limpet_mount "$_limpet_cwd" "$_limpet_pwd"
    _limpet_uncovered=$_limpet_mounts _limpet_mounts='' _limpet_late=$_limpet_pwd
}
_limpet_cover_all() { for _limpet_folder in $_limpet_found; do _limpet_cover; done; }
# All of it under the home's real name as well.
_limpet_cover_again() {
    _limpet_again=1
    _limpet_cover_all
    _limpet_again=''
}

_limpet_flags() {
    case $2 in
        *compiledir* | *'$'*) ;;
        *) _limpet_put "$1" "${2:+$2,}$3" ;;
    esac
}
_limpet_caches() {
@CACHES@
    return 0
}
"""
)

BESIDE = {
    "where.sh": WHERE,
    "python.sh": PYTHON,
    "temporary.sh": TEMPORARY,
    "seldom.sh": SELDOM,
    "job.sh": JOB,
    "ahead.sh": AHEAD,
    "ranks.sh": RANKS,
    "mpi.sh": MPI,
    "keep.sh": KEEP,
    "keeping.sh": KEEPING,
    "keeper.sh": KEEPER_FILE,
}
