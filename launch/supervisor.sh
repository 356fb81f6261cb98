#!/usr/bin/env bash
# Keeps one run on this machine going, after the connection that began it has ended:
#   supervisor.sh start FOLDER RESTARTS PAUSE AT_END COMMAND...
#   supervisor.sh state|follow|stop FOLDER
# A run that was preempted (exit code 143) starts again, one that crashed does so RESTARTS times, each
# after PAUSE seconds; one that is done (0) or was asked for wrongly (2) does not. AT_END is shell
# that runs when no more will be started, but not after `stop`; it sees the last exit code as $code.
# FOLDER holds lock, pid, command, log and, when the run has ended, code.
set -u

action=$1 folder=$2
shift 2
mkdir -p "$folder"
wait_seconds=180 # that `stop` gives a run to save

say() { echo "launch: $(date -u +%Y-%m-%dT%H:%M:%SZ) $*"; }

# One line, which launch.tpu reads.
state() {
  if ! flock --nonblock "$folder/lock" true; then
    echo "launch-state: running $(cat "$folder/command")"
  elif [ -e "$folder/code" ]; then
    echo "launch-state: ended with exit code $(cat "$folder/code")"
  elif [ -e "$folder/command" ]; then
    echo 'launch-state: interrupted'
  else
    echo 'launch-state: no run'
  fi
}

start() {
  exec 9>>"$folder/lock"
  if ! flock --nonblock 9; then
    state
    return
  fi
  local restarts=$1 pause=$2 at_end=$3
  shift 3
  rm -f "$folder/code" "$folder/pid"
  printf '%s\n' "$*" >"$folder/command"
  # What has begun before stays in the log.
  nohup setsid bash "$0" loop "$folder" "$restarts" "$pause" "$at_end" "$@" \
    >>"$folder/log" 2>&1 </dev/null &
  until [ -s "$folder/pid" ]; do sleep 0.1; done
  echo "launch-state: begun $*"
}

# Sets code to what a process ends with; a signal that this shell catches ends `wait` early.
wait_for() {
  local ended
  code=
  while :; do
    interrupted=
    wait "$1"
    ended=$?
    if [ "$ended" -eq 127 ] && [ -n "$code" ]; then break; fi
    code=$ended
    if [ -z "$interrupted" ]; then break; fi
  done
}

loop() {
  local restarts=$1 pause=$2 at_end=$3 child='' stopped='' crashes=0
  shift 3
  trap 'stopped=yes interrupted=yes; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null' TERM
  echo "$$" >"$folder/pid"
  while :; do
    say "begins: $*"
    "$@" 9>&- &
    child=$!
    wait_for "$child"
    child=''
    say "ended with exit code $code"
    if [ -n "$stopped" ] || [ "$code" -eq 0 ] || [ "$code" -eq 2 ]; then break; fi
    if [ "$code" -ne 143 ]; then
      if [ "$crashes" -ge "$restarts" ]; then
        say "it has crashed $((crashes + 1)) times, and is not started again"
        break
      fi
      crashes=$((crashes + 1))
    fi
    say "starts again in $pause s"
    sleep "$pause" 9>&- &
    child=$!
    wait_for "$child"
    child=''
    if [ -n "$stopped" ]; then
      code=143
      break
    fi
  done
  echo "$code" >"$folder/code"
  if [ -z "$stopped" ] && [ -n "$at_end" ]; then
    export code folder
    bash -c "$at_end" 9>&-
  fi
}

follow() {
  touch "$folder/log"
  tail --follow=name --lines=+1 --sleep-interval=0.2 \
    --pid="$(cat "$folder/pid" 2>/dev/null || echo "$$")" "$folder/log"
  state
}

stop() {
  if flock --nonblock "$folder/lock" true; then
    state
    return
  fi
  kill -TERM "$(cat "$folder/pid")"
  flock --wait "$wait_seconds" "$folder/lock" true
  state
}

case "$action" in
  start | state | loop | follow | stop) "$action" "$@" ;;
  *)
    echo "unknown action $action" >&2
    exit 2
    ;;
esac
