#!/usr/bin/env bash
# Measures what a request pays that finds its app asleep, on a platform of its own: the time of its answer, and that without the app's own
# boot. `bench-wake.sh [PROGRAM]`; WAKES of them, 50 if not said. Nothing here passes or fails.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
need_root "make bench-wake"

wakes=${WAKES:-50}
bench_platform wake 10.208.0.0/20 "$@"

# dyno FILTER: of the app's only dyno
dyno() { "$platform" ps -a sleeper --json | python3 -c "import json, sys; dynos = json.load(sys.stdin); print($1)"; }

"$platform" up --detach >/dev/null 2>&1
"$platform" stack:update --if-missing >/dev/null 2>&1
"$platform" users:create bench@localhost --password --login <<<"a long password of the bench" >/dev/null 2>&1
cp -r tests/fixtures/probe-app "$work/sleeper"
git -C "$work/sleeper" init -q
git -C "$work/sleeper" add -A
git -C "$work/sleeper" commit -qm first
quietly "$platform" create sleeper --no-remote
quietly git -C "$work/sleeper" push "$PLATFORM_API/sleeper.git" main
quietly "$platform" ps:sleep 1s -a sleeper

for number in $(seq "$wakes"); do
  until [ "$(dyno 'len(dynos) == 1 and dynos[0]["state"] == "idle"')" = True ]; do sleep 0.1; done
  # Its container may still be on its way out.
  sleep 1
  total=$(curl -s -o /dev/null -w '%{http_code} %{time_total}' -H "Host: sleeper.localhost" "http://127.0.0.1:$port/")
  boot=$(dyno 'dynos[0]["health"]["boot_ms"]')
  echo "$total $boot" | awk '$1 != 200 { exit 1 } { printf "%.0f %s %.0f\n", $2 * 1000, $3, $2 * 1000 - $3 }' >>"$work/times"
  tail -1 "$work/times" | awk -v n="$number" '{ printf "  %s: %s ms, its boot %s ms, the rest %s ms\n", n, $1, $2, $3 }' >&2
done

printf '\n%s cores, %s memory, %s; %s wakes\n\n' "$(nproc)" "$(awk '/MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo)" "$(uname -sr)" "$wakes"
for column in "1 from the request to its answer" "2 of that, the app's own boot" "3 wake without the boot"; do
  number=${column%% *}
  printf '%-40s p50 %s ms, p99 %s ms\n' "${column#* }" "$(awk -v c="$number" '{ print $c }' "$work/times" | percentile 50)" \
    "$(awk -v c="$number" '{ print $c }' "$work/times" | percentile 99)"
done
