"""All ranks write parts of one file and read their neighbour's: MPI-IO to a shared folder."""

import sys
from array import array

from mpi4py import MPI

PART = 100_000

ranks = MPI.COMM_WORLD
mine = array("d", [ranks.rank] * PART)
file = MPI.File.Open(ranks, sys.argv[1], MPI.MODE_CREATE | MPI.MODE_RDWR)
file.Write_at_all(ranks.rank * PART * mine.itemsize, mine)
file.Sync()
ranks.Barrier()
neighbour = (ranks.rank + 1) % ranks.size
theirs = array("d", bytes(PART * mine.itemsize))
file.Read_at_all(neighbour * PART * theirs.itemsize, theirs)
file.Close()
right = ranks.allreduce(set(theirs) == {neighbour}, op=MPI.LAND)
if ranks.rank == 0:
    print("all read what their neighbours wrote:", right)
