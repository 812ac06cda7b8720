"""Work for Dask's workers, by Dask itself and by joblib: dask_sum.py SCHEDULER_FILE WORKERS"""

import os
import sys
import time

import joblib
from distributed import Client


def where(number: int) -> str:
    time.sleep(0.05)
    return os.environ["SLURMD_NODENAME"]


with Client(scheduler_file=sys.argv[1], timeout="60s") as client:
    client.wait_for_workers(int(sys.argv[2]), timeout=60)
    nodes = client.gather(client.map(where, range(50)))
    print("dask ran on", sorted(set(nodes)))
    with joblib.parallel_config(backend="dask"):
        squares = joblib.Parallel()(joblib.delayed(pow)(number, 2) for number in range(100))
    print("joblib's sum", sum(squares))
    client.shutdown()
