#!/usr/bin/env bash
# A job of the air example was wrong. It is repaired while the process runs and reads a day again, of which it gives exactly what it
# would have given had it been right from the start. Nothing but the example and the program sidestream is needed; the folders
# data, right and out are made, and can be deleted afterwards.
set -euo pipefail
day=2013-03-10 next=2013-03-11 # of the readings, in UTC
mkdir -p right out

# How it should be: the right job, in a process of its own, until all is read.
SIDESTREAM_JOB_OUT=right sidestream run jobs/readings.yaml repaired --until-done --data-dir data/right --log-level warn

export SIDESTREAM_DATA_DIR=data/served SIDESTREAM_JOB_OUT=out
sidestream run jobs --log-level warn &
pid=$!
trap 'kill "$pid" 2>/dev/null; wait' EXIT
lines() { if [ -e "$1" ]; then wc -l <"$1"; else echo 0; fi; }
all=$(lines right/pm25.jsonl)
until [ "$(lines out/pm25.jsonl)" -ge "$all" ]; do kill -0 "$pid"; sleep 0.1; done
sidestream job wait pm25 --for ended -o name >/dev/null

echo "wrong:"
grep "\"start\":\"$day" out/pm25.jsonl | grep Dongsi

# The job is a file's: take it over, or change the file and send SIGHUP. Its window keeps the same state, so nothing is lost.
sidestream job apply repaired/pm25.yaml --adopt --probation 0s -o name >/dev/null

# Look first, then do it: the job begins the day with no state, reads it, and goes on from where it was.
sidestream replay readings --from $day --to $next --job pm25 --dry-run
sidestream replay readings --from $day --to $next --job pm25 -o name >/dev/null
stations=$(grep -c "\"start\":\"$day" right/pm25.jsonl)
until [ "$(lines out/pm25.jsonl)" -ge $((all + stations)) ]; do kill -0 "$pid"; sleep 0.1; done

echo "right:"
tail -n +$((all + 1)) out/pm25.jsonl | sort >again
grep "\"start\":\"$day" right/pm25.jsonl | sort | diff - again
grep Dongsi again
echo "the same, line by line: $(lines again)"
rm again
