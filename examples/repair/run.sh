#!/usr/bin/env bash
# A job that was wrong is repaired while it runs, and reads again what it had read wrong. Nothing but this folder and the
# program sidestream is needed; the folder "data" is made, and can be deleted afterwards.
set -euo pipefail
export SIDESTREAM_DATA_DIR=data

sidestream run jobs --log-level warn &
pid=$!
trap 'kill "$pid" 2>/dev/null; wait' EXIT
until sidestream job wait minutes --for caught-up --timeout 1s -o name >/dev/null 2>&1; do kill -0 "$pid"; sleep 0.1; done
until [ -n "$(sidestream bus tail readings --from 6 -n 1 -o name 2>/dev/null)" ]; do kill -0 "$pid"; sleep 0.1; done # all lines are read

echo "wrong:"
sidestream job wait minutes --for caught-up -o name >/dev/null
until [ "$(sidestream bus tail hot-minutes -n 100 -o name 2>/dev/null | wc -l)" -ge 3 ]; do kill -0 "$pid"; sleep 0.1; done
sidestream bus tail hot-minutes -n 100 -o value

# The job is a file's: take it over, or change the file and send SIGHUP. Its window keeps the same state, so nothing is lost.
sidestream job diff repaired/minutes.yaml --adopt
sidestream job apply repaired/minutes.yaml --adopt --probation 0s -o name >/dev/null

# Look first, then do it: places, state and watermarks are set back in one change.
before=$(sidestream bus tail hot-minutes -n 100 -o name | wc -l)
sidestream replay readings --from 2026-01-31T12:00:00Z --job minutes --dry-run -o json | grep '"records"'
sidestream replay readings --from 2026-01-31T12:00:00Z --job minutes -o name >/dev/null
sidestream job wait minutes --for caught-up -o name >/dev/null
until [ "$(sidestream bus tail hot-minutes -n 100 -o name | wc -l)" -ge $((before + 3)) ]; do kill -0 "$pid"; sleep 0.1; done

echo "right:"
sidestream bus tail hot-minutes --from "$before" -n 100 -o value
