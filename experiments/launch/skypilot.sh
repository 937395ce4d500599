#!/usr/bin/env bash
# Runs a command on several GPU nodes, or on a TPU slice, of any cloud with SkyPilot. It is a managed job: SkyPilot finds
# other nodes when these are preempted, and starts the command again.
#
#   experiments/launch/skypilot.sh --name=rlvr --accelerators=H100:8 [--nodes=2] [--bucket=gs://BUCKET] [--spot] \
#       [--dry_run] -- rlvr train --config=CONFIG --workdir=/mnt/runs/NAME
#
# --bucket is mounted as /mnt/runs on all nodes.

# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/common.sh"

NAME='' ACCELERATORS='' NODES=1 BUCKET='' SPOT=false
parse name accelerators nodes bucket spot -- "$@"
need NAME ACCELERATORS BUCKET

OPTIONS=()
if $SPOT; then OPTIONS=(--use-spot); fi
run sky jobs launch --yes --name="$NAME" --gpus="$ACCELERATORS" --num-nodes="$NODES" "${OPTIONS[@]}" \
  --env="BUCKET=$BUCKET" --env="COMMAND=${COMMAND[*]@Q}" "$(dirname "$0")/skypilot.yaml"
