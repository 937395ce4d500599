#!/usr/bin/env bash
# Runs a command in several processes on this machine's CPU, to try a run of several hosts, and starts them again if
# they end with an error.
#
#   experiments/launch/local.sh --processes=2 [--devices=1] [--port=8476] [--restarts=0] [--dry_run] -- \
#       rlvr train --config=quickstart --workdir=runs/two
#
# --devices is the number of virtual devices of each process.

# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/common.sh"

PROCESSES='' DEVICES=1 PORT=8476 RESTARTS=0
parse processes devices port restarts -- "$@"
need PROCESSES

# All processes at once; the status is that of the first one that failed.
start_all() {
  local i pids=() status=0
  for ((i = 0; i < PROCESSES; i++)); do
    "${COMMAND[@]}" --coordinator="127.0.0.1:$PORT" --num_processes="$PROCESSES" --process_id="$i" &
    pids+=($!)
  done
  trap 'kill -TERM "${pids[@]}" 2>/dev/null' TERM
  for i in "${pids[@]}"; do
    wait "$i" || status=${status/#0/$?}
  done
  return "$status"
}

export JAX_PLATFORMS=cpu XLA_FLAGS="${XLA_FLAGS:-} --xla_force_host_platform_device_count=$DEVICES"
if $DRY_RUN; then
  for ((i = 0; i < PROCESSES; i++)); do
    run env JAX_PLATFORMS=cpu XLA_FLAGS="$XLA_FLAGS" "${COMMAND[@]}" --coordinator="127.0.0.1:$PORT" \
      --num_processes="$PROCESSES" --process_id="$i"
  done
else
  supervise true start_all
fi
