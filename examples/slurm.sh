#!/usr/bin/env bash
# One training run under Slurm, on as many hosts as the job has; it goes back to the queue when its time is up.
#
#   sbatch --nodes 9 examples/slurm.sh pretrain swinv2_giant_192px --data DATA --out RUN machine.parallel=fsdp
#
# Five minutes before the end Slurm sends SIGTERM to every process: the run finishes its step and saves, and this script asks
# for the job to be queued again. It then goes on where it was, to the end it would have had without a break.
#SBATCH --job-name simmim
#SBATCH --ntasks-per-node 1
#SBATCH --gpus-per-node 8
#SBATCH --cpus-per-task 96
#SBATCH --time 24:00:00
#SBATCH --signal TERM@300
#SBATCH --requeue
#SBATCH --open-mode append
#SBATCH --output %x-%j.txt
set -uo pipefail

HOSTS=$SLURM_JOB_NUM_NODES
FIRST=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
PORT=$((20000 + SLURM_JOB_ID % 20000))
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=240 # seconds that torchrun gives a run to save itself; by itself it gives 30

srun --kill-on-bad-exit 1 torchrun \
  --nnodes "$HOSTS" \
  --nproc-per-node "${SLURM_GPUS_ON_NODE:-8}" \
  --rdzv-backend c10d \
  --rdzv-endpoint "$FIRST:$PORT" \
  --rdzv-id "$SLURM_JOB_ID" \
  --max-restarts 3 \
  -m simmim "$@" --resume
ended=$?

# Not complete, and this very job was asked to stop: once more. What failed for another reason is left to a person.
remaining=$(squeue --noheader --jobs "$SLURM_JOB_ID" --format %L)
case "$ended:$remaining" in
  0:*) echo "complete" ;;
  *:[0-5]:[0-9][0-9] | *:[0-9]) scontrol requeue "$SLURM_JOB_ID" ;;
  *) exit "$ended" ;;
esac
