#!/usr/bin/env bash
# One slow partition: raising the parallelism does not help, spreading its records does. The change is made while the job runs,
# and its windows go on. Nothing but this folder and the program sidestream is needed; the folder "data" is made.
set -euo pipefail
export SIDESTREAM_DATA_DIR=data

sidestream run jobs --log-level warn &
pid=$!
trap 'kill "$pid" 2>/dev/null; wait' EXIT
until [ -n "$(sidestream bus tail counts --from 0 -n 1 -o name 2>/dev/null)" ]; do kill -0 "$pid"; sleep 0.1; done

# Which subtasks of the expensive step have had anything to do.
at_work() {
	sidestream job get slow -o json | tr -d ' \n' | grep -o '"task":"[^"]*expensive[^"]*","index":[0-9]*,"in":[0-9]*' | grep -cv '"in":0$' || true
}

echo "subtasks at work: $(at_work)"
sidestream job diff rebalanced/slow.yaml --adopt | sed -n 1,2p # all of it is read: a pipe that closes early would end the script
sidestream job apply rebalanced/slow.yaml --adopt --wait --probation 1s -o name >/dev/null
until [ "$(at_work)" -ge 4 ]; do kill -0 "$pid"; sleep 0.1; done
echo "subtasks at work, rebalanced: $(at_work)"
sidestream top -n 1
