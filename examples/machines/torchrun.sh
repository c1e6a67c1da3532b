#!/usr/bin/env bash
# Trains on several machines by torchrun. Start the same command on each of them:
#
#   examples/machines/torchrun.sh vice photos --out /shared/runs/photos
#
# The machine of RENDEZVOUS keeps the list of who takes part; it must stay. Any of the others may go and come back:
# those that are left go on from the newest checkpoint, and so they do with one that joins. The images and --out must
# lie in the same place for all machines. Settings, by environment variables:
#
#   RENDEZVOUS=host:port   the first machine; the default is this one, port 29500
#   NODES=1:2              how few machines may train and how many at most
#   PROCESSES=1            on this machine: as many as it has GPUs, or gpu
#   RESTARTS=10            how often torchrun begins again after a failure
#   RDZV_CONF=             further settings of the rendezvous, e.g. last_call_timeout=10
set -euo pipefail

# torch shares one store between torchrun and the processes. A machine that joins later waits for an address that is
# never written there (seen with torch 2.15), so they get a store of their own with every start.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1

exec "${PYTHON:-python}" -m torch.distributed.run \
  --nnodes "${NODES:-1:2}" --nproc-per-node "${PROCESSES:-1}" --max-restarts "${RESTARTS:-10}" \
  --rdzv-backend c10d --rdzv-endpoint "${RENDEZVOUS:-$(hostname):29500}" --rdzv-id "${RDZV_ID:-selfseg}" \
  ${RDZV_CONF:+--rdzv-conf "$RDZV_CONF"} --shutdown-timeout "${SHUTDOWN:-120}" \
  -m selfseg train "$@"
