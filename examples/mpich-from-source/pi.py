"""An approximation of pi, a part of the sum in each rank."""

from mpi4py import MPI

STEPS = 1_000_000

world = MPI.COMM_WORLD
width = 1 / STEPS
part = sum(4 / (1 + ((i + 0.5) * width) ** 2) for i in range(world.rank, STEPS, world.size))
total = world.reduce(part * width)
if world.rank == 0:
    print(f"pi is about {total:.6f}, said {world.size} ranks")
