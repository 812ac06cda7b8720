"""The cluster of these tests itself: it comes up whatever other programs do with ports."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from tests import cluster as clusters
from tests.cluster import missing_programs, start_cluster
from tests.ports import Ports, claim_ports

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(bool(missing_programs()), reason="needs slurm-wlm and munge"),
    pytest.mark.xdist_group("slurm"),
]


def test_a_claimed_port_is_nobody_elses() -> None:
    claims = [claim_ports() for _ in range(20)]
    ports = [port for one in claims for port in one.numbers]
    for one in claims:
        one.claim.close()
    assert len(set(ports)) == len(ports)


@pytest.mark.parametrize("daemon", ["slurmctld", "n3"])
def test_a_port_that_was_taken_meanwhile(daemon: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a program has taken it after it was found free, the cluster comes up on others."""
    claimed: list[Ports] = []
    with closing(socket.socket()) as program:

        def claim() -> Ports:
            claimed.append(claim_ports())
            if len(claimed) == 1:
                place = 0 if daemon == "slurmctld" else 3
                program.bind(("", claimed[0].numbers[place]))
                program.listen()
            return claimed[-1]

        monkeypatch.setattr(clusters, "claim_ports", claim)
        with start_cluster() as cluster:
            assert cluster.run("srun", "-w", "n3", "hostname").stdout == "n3\n"
    assert len(claimed) == 2
