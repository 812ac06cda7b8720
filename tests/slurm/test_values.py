"""What is read from variables and words, and the script that comes of them."""

from __future__ import annotations

import shlex

import pytest

from limpet.actions.mpi import MpiReport
from limpet.actions.sbatch import choose_mpi
from limpet.core.errors import HostError, UsageError
from limpet.core.mpi import Consumer, HostSet, ImageMpi, Library, Pairing
from limpet.core.mpi_plan import choose_for_srun
from limpet.core.sbatch import parse_batch, render_batch
from limpet.core.seen import Siblings
from limpet.core.share import find_siblings, tasks_on_node
from limpet.core.slurm import (
    NodeCopy,
    StagePlan,
    explain_failure,
    parse_job,
    parse_nodes,
    plan_stage,
)

STEP = {"SLURM_STEP_TASKS_PER_NODE": "2(x2),1", "SLURM_NODEID": "1", "SLURM_LOCALID": "1"}


@pytest.mark.parametrize(
    ("text", "node", "count"),
    [("4", "0", 4), ("2(x3),1", "2", 2), ("2(x3),1", "3", 1), ("2", "1", 0), ("?", "0", 0)],
)
def test_ranks_on_this_node(text: str, node: str, count: int) -> None:
    assert tasks_on_node(text, node) == count


def test_only_what_starts_ranks_makes_siblings() -> None:
    assert find_siblings(7, "slurmstepd", STEP) == Siblings(parent=7, count=2, rank=1)
    assert find_siblings(7, "bash", STEP) is None
    assert find_siblings(7, "slurmstepd", {**STEP, "SLURM_NODEID": "2"}) is None
    hydra = {**STEP, "MPI_LOCALNRANKS": "3", "MPI_LOCALRANKID": "0"}
    assert find_siblings(7, "hydra_pmi_proxy", hydra) == Siblings(parent=7, count=3, rank=0)


def test_a_job_of_the_environment() -> None:
    assert parse_job({"SLURM_JOB_ID": "3", "SLURM_JOB_NUM_NODES": "2"}).nodes == 2
    for environment in ({}, {"SLURM_JOB_ID": "3"}, {"SLURM_JOB_ID": "x", "SLURM_NNODES": "1"}):
        with pytest.raises(HostError):
            parse_job(environment)


def test_what_nodes_say() -> None:
    nodes = parse_nodes("welcome\nlimpet-node n2 room 100\nlimpet-node n1 have\nlimpet-node !\n")
    assert [node.node for node in nodes] == ["n1", "n2"]
    plan = plan_stage(nodes, 2, "/local", 200_000)
    assert (plan.have, plan.need) == (("n1",), ())
    assert "has 0.1 MB of room on n2" in plan.apart[0].reason
    assert plan_stage(nodes, 2, "/local", 1000) == StagePlan(have=("n1",), need=("n2",))
    assert "only 2 of 3" in plan_stage(nodes, 3, "/local", 1000).apart[0].reason
    for state, word in (("missing", "written on n9"), ("damaged", "on n9 is damaged")):
        plan = plan_stage([NodeCopy(node="n9", state=state)], 1, "/local", 1)
        assert not plan.have and not plan.need
        assert word in plan.apart[0].reason


def test_failures_are_explained() -> None:
    assert "MUNGE" in explain_failure("srun", "srun: error: Munge encode failed").why
    assert explain_failure("srun", "one\ntwo\nthree\nfour").why == "two\nthree\nfour"


def test_options_of_sbatch_pass_and_ours_do_not() -> None:
    words = ["--nodes", "4", "-A", "proj", "--exclusive", "--comment=a b", "-o", "x.sh", "-N8"]
    batch = parse_batch([*words, "--submit", "--", "python", "--", "-o"])
    assert batch.options == (
        ("--nodes", "4"),
        ("-A", "proj"),
        ("--exclusive", None),
        ("--comment", "a b"),
        ("-N", "8"),
    )
    assert (batch.script, batch.submit, batch.command) == ("x.sh", True, ("python", "--", "-o"))
    assert batch.nodes == 4
    assert batch.staged


@pytest.mark.parametrize("words", [[], ["python"], ["--"], ["x", "--", "y"], ["-o", "--", "y"]])
def test_words_that_are_no_job(words: list[str]) -> None:
    with pytest.raises(UsageError):
        parse_batch(words)


@pytest.mark.parametrize(("nodes", "flags", "staged"), [
    ("2", [], False), ("3", [], True), ("1-4", [], True), ("2", ["--stage"], True),
    ("9", ["--no-stage"], False),
])  # fmt: skip
def test_staging_is_for_several_nodes(nodes: str, flags: list[str], staged: bool) -> None:
    batch = parse_batch(["--nodes", nodes, *flags, "--", "true"])
    text = render_batch(batch, image="/a b.sif", limpet="limpet", start="true", mpi="")
    assert ("limpet stage" in text) is staged
    assert "image='/a b.sif'" in text
    start = '"$launchers"/bin/x'
    words = {"image": "/a b.sif", "limpet": "limpet", "start": start, "mpi": ""}
    text = render_batch(batch, **words, launchers="/my env")
    assert "launchers='/my env'\n" in text
    assert ("&& launchers=$staged" in text) is staged


def test_a_script_cannot_hold_a_line_break() -> None:
    batch = parse_batch(["--comment", "a\nb", "--", "true"])
    with pytest.raises(UsageError):
        render_batch(batch, image="x", limpet="limpet", start=shlex.quote("true"), mpi="")


MPICH = Library(path="/m", soname="libmpi.so.12", family="mpich", product="MPICH",
                pmi=("pmi1", "pmi2"))  # fmt: skip
OPEN = Library(path="/o", soname="libmpi.so.40", family="openmpi", product="Open MPI",
               pmi=("pmix",))  # fmt: skip
USER = Consumer(name="mpi4py", needs={"libmpi.so.12": (), "libmpi.so.40": ()})


def kind_for(
    library: Library | None, slurm: tuple[str, ...], *, policy: str = "auto", host: bool = False
) -> str:
    mpi = ImageMpi(libraries=(library,) if library else (), consumers=(USER,))
    sets = (HostSet(name="site", library=MPICH),) if host else ()
    pairings = tuple(Pairing(name=one.name, works=True) for one in sets)
    chosen, flag = choose_for_srun(policy, mpi, sets, pairings, slurm)
    return choose_mpi(
        MpiReport(image="x", mpi=mpi, libc=None, sets=sets, pairings=pairings, slurm=slurm,
                  tasks=None, chosen=chosen, flag=flag)
    )  # fmt: skip


def test_how_an_mpi_is_started() -> None:
    assert kind_for(MPICH, ("none", "pmi2")) == "pmi2"
    assert kind_for(OPEN, ("none", "pmix_v4", "pmi2")) == "pmix_v4"
    assert kind_for(None, ("pmi2",)) == ""
    assert kind_for(OPEN, ("pmi2",), host=True) == "pmi2"  # the host's MPICH, as a start does
    assert kind_for(None, ("pmi2",), host=True) == "pmi2"
    assert kind_for(MPICH, ("pmi2",), policy="none") == ""
    with pytest.raises(UsageError, match="speaks PMIx, which this Slurm does not offer"):
        kind_for(OPEN, ("none", "pmi2"))


def test_how_an_mpi_is_started_on_a_machine_without_slurm() -> None:
    assert kind_for(MPICH, ()) == "pmi2"
    assert kind_for(OPEN, ()) == "pmix"
    assert kind_for(None, ()) == ""
