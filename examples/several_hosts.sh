#!/usr/bin/env bash
# One training run on several hosts, by torchrun: give this command on each of them, at about the same time.
#
#   HOSTS=2 FIRST=node1 GPUS=8 examples/several_hosts.sh pretrain swinv2_giant_192px --data DATA --out RUN machine.parallel=fsdp
#
#   HOSTS   how many hosts take part
#   FIRST   name or address of one of them, the same on all; the processes meet there, at port PORT (29500)
#   GPUS    processes on this host: one for each of its GPUs
#   JOB     any word, the same on all hosts; only where two runs meet at the same place
#
# DATA must hold the same images on every host, under the same name. RUN lies on a disk that all hosts see.
# A process that is lost is started again, all others with it, up to RESTARTS times (3): the run goes on from its newest
# checkpoint, to the end it would have had.
set -euo pipefail

: "${HOSTS:?how many hosts take part}" "${FIRST:?name or address of one of the hosts}" "${GPUS:?processes on this host}"

exec torchrun \
  --nnodes "$HOSTS" \
  --nproc-per-node "$GPUS" \
  --rdzv-backend c10d \
  --rdzv-endpoint "$FIRST:${PORT:-29500}" \
  --rdzv-id "${JOB:-simmim}" \
  --max-restarts "${RESTARTS:-3}" \
  -m simmim "$@" --resume
