#!/usr/bin/env bash
# Measures how many containers of jobs this machine starts a second, on a platform of its own: BURST runs of one job are asked for at once, of
# `true`, and it is looked how long it takes until all are over. `bench-jobs.sh [PROGRAM]`; BURST is 200 and AT_ONCE (setting jobs_at_once) is
# 16 if not said. Nothing here passes or fails.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
need_root "make bench-jobs"

burst=${BURST:-200} at_once=${AT_ONCE:-16}
bench_platform jobs 10.206.0.0/20 "$@"
export PLATFORM_JOBS_AT_ONCE=$at_once

quietly "$platform" up --detach
quietly "$platform" stack:update --if-missing
quietly "$platform" users:create dev@localhost --login
cd "$HOME"
quietly "$platform" create bench-jobs
# One after the other is what a list of runs shows; several jobs of 100 runs each are enough for any burst.
jobs=$(((burst + 99) / 100))
for job in $(seq "$jobs"); do
  quietly "$platform" jobs:add "burst-$job" manual true --set queue=1000 --set parallel=1000 --set late_after=1h -a bench-jobs
done
token=$("$platform" auth:token)
begun=$EPOCHREALTIME
for run in $(seq "$burst"); do
  printf 'url = "%s/apps/bench-jobs/jobs/burst-%s/runs"\noutput = /dev/null\n' "$PLATFORM_API" $((run % jobs + 1))
done >"$work/requests"
curl -sf -X POST -H "Authorization: Bearer $token" -K "$work/requests"
asked=$EPOCHREALTIME
# over: how many runs are over, and how many of them did not succeed
over() {
  local job
  for job in $(seq "$jobs"); do "$platform" jobs:runs "burst-$job" -n 200 --json -a bench-jobs; done | python3 -c '
import json, sys
text, runs, at = sys.stdin.read(), [], 0
while text[at:].strip():
    at += len(text[at:]) - len(text[at:].lstrip())
    found, at = json.JSONDecoder().raw_decode(text, at)
    runs += found
over = [run["state"] for run in runs if run["ended_at"]]
print(len(over), sum(state != "succeeded" for state in over))'
}
until read -r done_ bad < <(over) && [ "$done_" -ge "$burst" ]; do sleep 0.1; done
ended=$EPOCHREALTIME
awk -v n="$burst" -v at="$at_once" -v bad="$bad" -v a="$begun" -v b="$asked" -v c="$ended" 'BEGIN {
  printf "%d runs, %d at once, %d failed: asked for in %.1f s, over after %.1f s: %.1f containers a second\n", n, at, bad, b - a, c - a, n / (c - a) }'
