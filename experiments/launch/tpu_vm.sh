#!/usr/bin/env bash
# Runs a command on all hosts of a TPU VM slice: creates the slice, installs this clone on it, and starts the command on
# every host; if it ends with an error, or the slice is preempted, both are made again and the run continues.
#
#   experiments/launch/tpu_vm.sh --name=rlvr --zone=us-west4-a --type=v5litepod-16 --version=v2-alpha-tpuv5-lite \
#       --nfs=10.0.0.2:/share [--spot] [--restarts=10] [--dry_run] -- rlvr train --config=CONFIG --workdir=/mnt/runs/NAME
#
# --nfs is a share, of Filestore for example, that all hosts mount as /mnt/runs.

# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/common.sh"

NAME='' ZONE='' TYPE='' VERSION='' NFS='' SPOT=false RESTARTS=10
parse name zone type version nfs spot restarts -- "$@"
need NAME ZONE TYPE VERSION NFS

TPU=(gcloud compute tpus tpu-vm)
ARCHIVE=${TMPDIR:-/tmp}/$NAME.tar.gz

on_all_hosts() {
  run "${TPU[@]}" ssh "$NAME" --zone="$ZONE" --worker=all --command="$1"
}

state() {
  "${TPU[@]}" describe "$NAME" --zone="$ZONE" --format='value(state)' 2>/dev/null || true
}

# Makes the slice if there is none that works, and installs the committed files of this clone.
prepare() {
  local now=''
  $DRY_RUN || now=$(state)
  if [ "$now" != READY ]; then
    [ -z "$now" ] || run "${TPU[@]}" delete "$NAME" --zone="$ZONE" --quiet
    local spot=()
    if $SPOT; then spot=(--spot); fi
    run "${TPU[@]}" create "$NAME" --zone="$ZONE" --accelerator-type="$TYPE" --version="$VERSION" "${spot[@]}"
  fi
  run git -C "$(dirname "$0")/../.." archive --format=tar.gz --output="$ARCHIVE" HEAD
  run "${TPU[@]}" scp "$ARCHIVE" "$NAME:rlvr_jax.tar.gz" --zone="$ZONE" --worker=all
  on_all_hosts "set -e; mkdir -p rlvr_jax; tar -xzf rlvr_jax.tar.gz -C rlvr_jax; cd rlvr_jax
python3 -m pip install --quiet --user uv; python3 -m uv venv --quiet --allow-existing --python=3.11
python3 -m uv pip install --quiet --constraint=constraints.txt --editable='.[tpu]'
mountpoint --quiet /mnt/runs || { sudo apt-get install --quiet --yes nfs-common; sudo mkdir -p /mnt/runs
sudo mount -t nfs $NFS /mnt/runs; sudo chmod 777 /mnt/runs; }"
}

prepare
supervise prepare on_all_hosts "cd rlvr_jax; source .venv/bin/activate; exec ${COMMAND[*]@Q} --coordinator=auto"
