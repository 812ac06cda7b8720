"""Each rank writes an HDF5 file of its own; a virtual dataset shows them as one.

h5py's wheels have no parallel HDF5: files of their own need none, and no lock on a shared folder.

    srun -N2 -n4 --mpi=pmi2 … python h5py_parts.py FOLDER
"""

import sys
from pathlib import Path

import h5py
import numpy as np
from mpi4py import MPI

PART = 100_000

ranks = MPI.COMM_WORLD
folder = Path(sys.argv[1])
if ranks.rank == 0:
    folder.mkdir(exist_ok=True)
ranks.Barrier()
with h5py.File(folder / f"part-{ranks.rank}.h5", "w") as file:
    file["values"] = np.full(PART, ranks.rank, "f8")
ranks.Barrier()
if ranks.rank == 0:
    layout = h5py.VirtualLayout((ranks.size, PART), "f8")
    for rank in range(ranks.size):
        layout[rank] = h5py.VirtualSource(f"part-{rank}.h5", "values", (PART,))
    with h5py.File(folder / "all.h5", "w") as file:
        file.create_virtual_dataset("values", layout)
ranks.Barrier()
with h5py.File(folder / "all.h5") as file:
    theirs = file["values"][(ranks.rank + 1) % ranks.size]
right = ranks.allreduce(bool((theirs == (ranks.rank + 1) % ranks.size).all()), op=MPI.LAND)
if ranks.rank == 0:
    print("all read what their neighbours wrote:", right)
