#!/usr/bin/env bash
# Measures how many small web processes one machine carries, on a platform of its own: `bench-density.sh [PROGRAM]`; INSTANCES of
# them, 500 if not said, of APPS apps, 5 if not said. Nothing here passes or fails, but every instance must have answered.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
need_root "make bench-density"

instances=${INSTANCES:-500} apps=${APPS:-5}
bench_platform density 10.206.0.0/20 "$@"

row() { printf '%-64s %s\n' "$1" "$2"; }
available() { awk '/^MemAvailable/ { print $2 }' /proc/meminfo; }
mib() { awk -v k="$1" 'BEGIN { printf "%.2f MiB", k / 1024 }'; }
# addresses: of every instance that is up, as `IP:PORT` a line
addresses() {
  curl -fsS --unix-socket "$runtime/host.sock" http://host/workloads |
    python3 -c 'import json, sys; [print(i["address"]) for w in json.load(sys.stdin) for i in w["instances"] if i["state"] == "up"]'
}
account() { python3 scripts/bench-density/account.py "$PLATFORM_HOME" "$platform"; }

quietly "$platform" up --detach
quietly "$platform" stack:update --if-missing
quietly "$platform" users:create bench@localhost --password --login <<<"a long password of bench"
runtime=$("$platform" status --json | sed -n 's/.*"runtime_dir": *"\([^"]*\)".*/\1/p')
cp -r tests/fixtures/static-app "$work/site"
cat >"$work/site/app.json" <<'JSON'
{"healthchecks": {"web": [{"type": "liveness", "path": "/", "wait": 10}]}}
JSON
git -C "$work/site" init -q
git -C "$work/site" add -A
git -C "$work/site" commit -q -m first
for number in $(seq "$apps"); do
  quietly "$platform" create "site-$number" --no-remote
  quietly git -C "$work/site" push "$PLATFORM_API/site-$number.git" main
  quietly "$platform" ps:scale web=0 -a "site-$number"
done
until [ "$(addresses | wc -l)" = 0 ]; do sleep 0.5; done
sleep 5
before=$(available)
account >"$work/before"

begun=$EPOCHREALTIME
for number in $(seq "$apps"); do quietly "$platform" ps:scale web=$((instances / apps)) -a "site-$number"; done
until [ "$(addresses | wc -l)" -ge "$instances" ]; do sleep 0.2; done
row "$instances instances of $apps apps, from the command to all up" \
  "$(awk -v a="$begun" -v b="$EPOCHREALTIME" -v n="$instances" 'BEGIN { printf "%.1f s, %.1f a second", b - a, n / (b - a) }')"

answered=$(addresses | xargs -P 8 -I{} curl -s -m 10 -o /dev/null -w '%{http_code}\n' 'http://{}/' | grep -c '^200$')
row "of these answered, each asked by itself" "$answered of $instances"
[ "$answered" = "$instances" ] || die "Not every instance answered."
for number in $(seq "$apps"); do
  asked=$(wrk -t1 -c16 -d3s -H "Host: site-$number.localhost" "http://127.0.0.1:$port/")
  failed=$(awk '/Non-2xx|Socket errors/ { n++ } END { print n + 0 }' <<<"$asked")
  row "through the router to site-$number" "$(awk '/requests in/ { print $1 " answered" }' <<<"$asked"), $failed kinds of failures"
done

# What was measured must not be what starting them left behind.
sleep 30
account >"$work/first"
sleep 60
account >"$work/last"
after=$(available)
of() { awk -v name="$2" -v field="$3" '$1 == name { print $field; found = 1 } END { if (!found) print 0 }' "$work/$1"; }
row "memory of one instance: its own processes" "$(mib $(($(of last app 2) / instances)))"
row "memory of one instance beyond that, by what the machine has left" "$(mib $(((before - after - $(of last app 2)) / instances)))"
for name in shim host controller router containerd; do
  row "  $name: memory before, with all of them; CPU while nothing happens" \
    "$(mib "$(of before $name 2)"), $(mib "$(of last $name 2)"); $(awk -v t=$(($(of last $name 3) - $(of first $name 3))) -v hz="$(getconf CLK_TCK)" 'BEGIN { printf "%.2f %% of a core", t / hz / 60 * 100 }')"
done
row "  the apps themselves, CPU while only their health is asked for" \
  "$(awk -v t=$(($(of last app 3) - $(of first app 3))) -v hz="$(getconf CLK_TCK)" 'BEGIN { printf "%.2f %% of a core", t / hz / 60 * 100 }')"
