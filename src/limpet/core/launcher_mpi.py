"""The launcher's text that says where the tasks of a parallel start would not find each other.

`core.mpi.parse_tasks` and the rules of `core.mpi_plan`, for the library that is known when the
launchers are made: a file that is read where a variable hints at several tasks, and only for images
that have to do with MPI.
"""

from __future__ import annotations

import shlex

from limpet.core.mpi import ImageMpi, Library
from limpet.core.mpi_plan import MpiPlan, explain_mismatch
from limpet.core.recipe import Run
from limpet.core.seen import HostSeen, ImageSeen, Request

# Stand for what the session knows, in words that are put together before.
_TASKS, _STARTER, _OFFERED = "\ue010", "\ue011", "\ue012"
_EXPANSIONS = {
    _TASKS: "$_limpet_tasks",
    _STARTER: "$_limpet_starter",
    _OFFERED: "$_limpet_offered",
}
_DECIDED = (
    "Whether launchers use the host's MPI is decided by limpet wrap (--mpi host) and limpet update."
)

MPI = r"""#if mpi
# Whether the tasks of a parallel start would find each other.
_limpet_number() { case $1 in '' | *[!0-9]*) return 1 ;; esac; }
_limpet_first() {
    for _limpet_to; do
        if _limpet_number "$_limpet_to"; then return; fi
    done
    _limpet_to=0
}
_limpet_step='' _limpet_pmi='' _limpet_pmix='' _limpet_offered=''
if _limpet_number "${SLURM_STEP_NUM_TASKS-}" && _limpet_number "${SLURM_TASK_PID-}"; then
    _limpet_to=$$ # variables that are left over from another job are not believed
    while _limpet_number "$_limpet_to" && [ "$_limpet_to" -gt 1 ]; do
        if [ "$_limpet_to" = "$SLURM_TASK_PID" ]; then _limpet_step=1; break; fi
        { IFS= read -r _limpet_text <"/proc/$_limpet_to/stat"; } 2>/dev/null || break
        _limpet_text=${_limpet_text##*) } # the name before may hold anything
        _limpet_text=${_limpet_text#* } _limpet_to=${_limpet_text%% *}
    done
fi
if [ -n "${PMI_PORT+set}" ] || [ -S "/proc/$$/fd/${PMI_FD-}" ]; then
    _limpet_pmi=1 _limpet_offered='PMI-1, PMI-2'
fi
case ${PMIX_NAMESPACE+set}$IFS$_limpet_names in set*"$IFS"PMIX_SERVER*)
    _limpet_pmix=1 _limpet_offered="${_limpet_offered:+$_limpet_offered, }PMIx" ;;
esac
_limpet_starter=mpiexec
if [ -n "${OMPI_COMM_WORLD_SIZE+set}" ]; then _limpet_starter=mpirun
elif [ -n "${PALS_RANKID+set}" ]; then _limpet_starter=PALS
elif [ -n "$_limpet_step" ]; then
    # Slurm's own PMI-2 names the job; mpiexec's within a step does not.
    case $_limpet_pmi:${PMI_JOBID+set} in :* | *:set) _limpet_starter=srun ;; esac
fi
_limpet_first "${OMPI_COMM_WORLD_SIZE-}" "${PMI_SIZE-}" "${PALS_SIZE-}" \
    "${_limpet_step:+$SLURM_STEP_NUM_TASKS}"
_limpet_tasks="$_limpet_to tasks"
case $_limpet_to in 0) _limpet_tasks='several tasks' ;; esac
# Met, or nothing to meet: one task, or no parallel start at all.
case @SPOKEN@:$_limpet_pmi$_limpet_pmix$_limpet_step${PALS_RANKID+set}:$_limpet_to in
    ?*:*:* | *::* | *:1) ;;
    *)
        _limpet_first "${OMPI_COMM_WORLD_RANK-}" "${PMI_RANK-}" "${PMIX_RANK-}" \
            "${PALS_RANKID-}" "${_limpet_step:+${SLURM_PROCID-}}"
        # The first rank says all of it.
        if [ "$_limpet_to" -ne 0 ]; then _limpet_seldom _limpet_fail @MISMATCH@; fi
        _limpet_offered=${_limpet_offered:-nothing}
        case $_limpet_starter in
            srun) _limpet_seldom _limpet_fail @MISMATCH_SRUN@ ;;
            *) _limpet_seldom _limpet_fail @MISMATCH_OTHERS@ ;;
        esac
        ;;
esac
#end
"""


def mpi_parts(
    image: ImageSeen, host: HostSeen, request: Request, plan: MpiPlan
) -> tuple[dict[str, str], set[str]]:
    """What fills in `MPI`, and the word `mpi` where there is something to find out at a start."""
    policy = request.mpi or (image.facts.run if image.facts else Run()).mpi
    seen = (host.mpi.image if host.mpi else None) or (image.facts.mpi if image.facts else None)
    seen = seen or ImageMpi()
    if policy == "none" or (policy == "auto" and not seen.consumers):
        return {}, set()
    library = _library(host, seen, plan)
    kinds = set(library.pmi) if library else set()
    if "libpmi" in kinds:  # meets whatever the host's own does
        return {}, set()
    pmi = "$_limpet_pmi" if kinds & {"pmi1", "pmi2"} else ""
    pmix = "$_limpet_pmix" if "pmix" in kinds else ""
    more = (_DECIDED,) if policy == "auto" else ()
    said = {
        starter: str(
            explain_mismatch(
                library, tasks=_TASKS, launcher=_STARTER, offered=_OFFERED, srun=srun, more=more
            )
        ).splitlines()
        for starter, srun in (("SRUN", True), ("OTHERS", False))
    }
    return {
        "SPOKEN": f"{pmi}{pmix}",
        "MISMATCH": _quoted(said["SRUN"][:1]),
        "MISMATCH_SRUN": _quoted(said["SRUN"]),
        "MISMATCH_OTHERS": _quoted(said["OTHERS"]),
    }, {"mpi"}


def _library(host: HostSeen, seen: ImageMpi, plan: MpiPlan) -> Library | None:
    """The library that the programs will load, or the one that could not be exchanged."""
    sets = host.mpi.sets if host.mpi else ()
    chosen = [one.library for one in sets if plan.choice == "host" and one.name == plan.host]
    return chosen[0] if chosen else seen.library


def _quoted(lines: list[str]) -> str:
    text = " ".join(map(shlex.quote, lines))
    for mark, expansion in _EXPANSIONS.items():
        text = text.replace(mark, f"'\"{expansion}\"'")
    return text
