#!/usr/bin/env bash
# Runs a command on TPU slices of a GKE cluster with XPK: builds and pushes the image, and submits a workload that GKE
# starts again when it fails or is preempted.
#
#   experiments/launch/gke_xpk.sh --name=rlvr --cluster=CLUSTER --project=PROJECT --zone=us-west4-a \
#       --type=v5litepod-16 --image=us-docker.pkg.dev/PROJECT/REPOSITORY/rlvr_jax:1 [--restarts=10] [--notice=120] \
#       [--dry_run] -- rlvr train --config=CONFIG --workdir=/mnt/runs/NAME
#
# All pods need one folder for the workdir: attach a Filestore instance to the cluster once, as docs/hosts.md shows.
# --notice is the number of seconds that a preempted pod has to save.

# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/common.sh"

NAME='' CLUSTER='' PROJECT='' ZONE='' TYPE='' IMAGE='' RESTARTS=10 NOTICE=120
parse name cluster project zone type image restarts notice -- "$@"
need NAME CLUSTER PROJECT ZONE TYPE IMAGE

run docker build --build-arg=ACCELERATOR=tpu --tag="$IMAGE" "$(dirname "$0")/../.."
run docker push "$IMAGE"
run xpk workload create --workload="$NAME" --cluster="$CLUSTER" --project="$PROJECT" --zone="$ZONE" \
  --tpu-type="$TYPE" --docker-image="$IMAGE" --max-restarts="$RESTARTS" --restart-on-user-code-failure \
  --termination-grace-period-seconds="$NOTICE" --command="exec ${COMMAND[*]@Q} --coordinator=auto"
