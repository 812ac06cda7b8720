#!/bin/bash
# Dask over the nodes of a job: sbatch -N2 --ntasks-per-node=4 dask.sh DIR
# DIR has the launchers of an image with distributed and joblib (limpet wrap IMAGE DIR). If it has
# MPI, too: limpet wrap --mpi none, since these tasks do not meet by MPI.

env=${1:?the folder of launchers}
file=$PWD/dask-$SLURM_JOB_ID.json # the workers find the scheduler by it

srun -N1 -n1 --overlap "$env/bin/dask" scheduler --scheduler-file "$file" --port 0 --no-dashboard &
srun --overlap "$env/bin/dask" worker --scheduler-file "$file" --nthreads 1 --no-nanny \
    --no-dashboard --local-directory "${SLURM_TMPDIR:-$TMPDIR}" &
"$env/bin/python" dask_sum.py "$file" "$SLURM_NTASKS"
code=$?
[ $code = 0 ] || kill $(jobs -p)
wait
rm -f "$file"
exit $code
