#!/usr/bin/env bash
# Trains on several machines by Slurm, which starts every process itself:
#
#   sbatch --nodes 2 --ntasks-per-node 8 --gpus-per-node 8 examples/machines/slurm.sh vice photos --out runs/photos
#
# Two minutes before its time is over Slurm asks the processes to stop; they save, and the job is put into the queue
# again, as it is after a machine has failed. Then the run goes on from its newest checkpoint. Ask for GPUs by
# --gpus-per-node and not by --gpus-per-task, which hides the GPUs of the others from a process.
#SBATCH --job-name=selfseg
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
set -uo pipefail

# --kill-on-bad-exit: when one process has failed the others wait for it in vain.
srun --kill-on-bad-exit=1 "${PYTHON:-python}" -m selfseg train "$@"
code=$?
if [ "$code" -eq 75 ]; then # stopped by a signal, everything is saved
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
