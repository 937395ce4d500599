# Shared by the launch scripts: flags, dry runs, and restarts. Sourced, not executed.
# shellcheck shell=bash
set -euo pipefail

DRY_RUN=false
COMMAND=() # after --

# Prints the comment at the top of the calling script, and exits with the status $1.
usage() {
  sed -n '2,/^$/ s/^# \{0,1\}//p' "$0"
  exit "$1"
}

# Sets a variable for each --name=value (--num_processes=2 sets NUM_PROCESSES), true for --name, and COMMAND.
# The names that are allowed come first, then --, then the arguments of the script.
parse() {
  local allowed=() name
  while [ "$1" != -- ]; do allowed+=("$1") && shift; done
  shift
  while [ $# -gt 0 ] && [ "$1" != -- ]; do
    name=${1%%=*}
    name=${name#--}
    [ "$name" != help ] || usage 0
    case " ${allowed[*]} dry_run " in
      *" $name "*) ;;
      *) echo "error: there is no flag $1; flags: ${allowed[*]/#/--} --dry_run" >&2 && exit 2 ;;
    esac
    case $1 in
      *=*) printf -v "${name^^}" %s "${1#*=}" ;;
      *) printf -v "${name^^}" %s true ;;
    esac
    shift
  done
  [ $# -lt 2 ] || COMMAND=("${@:2}")
  [ ${#COMMAND[@]} -gt 0 ] || { echo "error: give the command after --, see --help" >&2 && exit 2; }
}

# Stops unless all variables of these flags are set.
need() {
  local name
  for name in "$@"; do
    [ -n "${!name:-}" ] || { echo "error: --${name,,}=... must be given, see --help" >&2 && exit 2; }
  done
}

# Runs a command, or only prints it in a dry run.
run() {
  if $DRY_RUN; then
    printf '%q ' "$@" && echo
  else
    "$@"
  fi
}

# Runs a command until it succeeds, at most 1 + RESTARTS times; $1 prepares a restart. A bad config (status 2) and
# Ctrl-C (130) are not tried again.
supervise() {
  local prepare=$1 status=0 restart
  shift
  for ((restart = 0; restart <= RESTARTS; restart++)); do
    [ "$restart" = 0 ] || "$prepare"
    "$@" && return 0 || status=$?
    [ "$status" != 2 ] && [ "$status" != 130 ] || break
    echo "note: the run ended with status $status; restart $((restart + 1)) of at most $RESTARTS" >&2
  done
  return "$status"
}
