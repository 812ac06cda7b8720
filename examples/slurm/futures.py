"""A pool of workers, one a rank: srun -N2 -n4 --mpi=pmi2 … python -m mpi4py.futures futures.py"""

import os

from mpi4py.futures import MPIPoolExecutor


def square(number: int) -> tuple[int, str]:
    return number**2, os.environ.get("SLURMD_NODENAME", "")


if __name__ == "__main__":
    with MPIPoolExecutor() as pool:
        done = list(pool.map(square, range(100)))
    print("sum", sum(result for result, _ in done), "on", sorted({node for _, node in done}))
