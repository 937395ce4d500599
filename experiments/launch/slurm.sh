#!/usr/bin/env bash
# Submits a command to Slurm: one process for each GPU of several nodes. Slurm sends SIGTERM before the time limit and on
# preemption; the run saves its state, and the job is queued again and continues.
#
#   experiments/launch/slurm.sh --name=rlvr --nodes=2 --gpus=8 [--time=24:00:00] [--partition=NAME] [--notice=180] \
#       [--restarts=10] [--dry_run] -- rlvr train --config=CONFIG --workdir=/shared/runs/NAME
#
# --gpus is their number on each node, --notice the seconds between SIGTERM and the end.

# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/common.sh"

NAME='' NODES='' GPUS='' TIME=24:00:00 PARTITION='' NOTICE=180 RESTARTS=10
parse name nodes gpus time partition notice restarts -- "$@"
need NAME NODES GPUS

OPTIONS=()
[ -z "$PARTITION" ] || OPTIONS=(--partition="$PARTITION")
# 143: the state is saved after SIGTERM. A failed task ends the others, and the job with its status.
STEP="srun --kill-on-bad-exit=1 ${COMMAND[*]@Q} --coordinator=auto
status=\$?
case \$status in 0 | 2) exit \$status ;; esac
[ \"\${SLURM_RESTART_COUNT:-0}\" -ge $RESTARTS ] || scontrol requeue \"\$SLURM_JOB_ID\"
exit \$status"
run sbatch --job-name="$NAME" --nodes="$NODES" --ntasks-per-node="$GPUS" --gpus-per-node="$GPUS" --time="$TIME" \
  --signal="TERM@$NOTICE" --requeue --open-mode=append "${OPTIONS[@]}" --wrap="$STEP"
