#!/usr/bin/env bash
# Measures the release binary on a platform of its own and prints one table. Nothing here passes or fails.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --release --bin platform
platform=${CARGO_TARGET_DIR:-target}/release/platform
work=$(mktemp -d /var/tmp/platform-bench.XXXXXX)
port=$((20000 + RANDOM % 10000))
export PLATFORM_HOME=$work/home PLATFORM_LISTEN=127.0.0.1:$port PLATFORM_API=http://localhost:$port PLATFORM_SUBNET=10.209.0.0/20
export HOME=$work/user GIT_TERMINAL_PROMPT=0
mkdir -p "$PLATFORM_HOME" "$HOME"
git config --global user.name bench
git config --global user.email bench@localhost
git config --global init.defaultBranch main
trap '"$platform" down >/dev/null 2>&1 || true; rm -rf "$work"' EXIT

rows=()
row() { rows+=("$1|$2"); printf '  %-44s %s\n' "$1" "$2" >&2; }
now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.2f s", b - a }'; }

# pid_of ROLE, ticks PID (CPU time in clock ticks), rss PID
pid_of() { cut -d' ' -f1 "$("$platform" status --json | sed -n 's/.*"runtime_dir": *"\([^"]*\)".*/\1/p')/$1.pid"; }
ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }
rss() { awk '/^VmRSS/ { printf "%.1f MiB", $2 / 1024 }' "/proc/$1/status"; }

# new_app NAME SOURCE: a repository with SOURCE in it, and an app for it
new_app() {
  cp -r "$2" "$work/$1"
  git -C "$work/$1" init -q
  git -C "$work/$1" add -A
  git -C "$work/$1" commit -q -m first
  "$platform" create "$1" >/dev/null
  git -C "$work/$1" remote add platform "$PLATFORM_API/$1.git"
}

# push NAME LABEL: pushes, and makes a row of the time and the phases the platform reports
push() {
  local start output
  start=$(now)
  output=$(git -C "$work/$1" push platform main 2>&1) || { echo "$output" >&2; exit 1; }
  row "push to live, $2" "$(since "$start")"
  row "  of which" "$(sed -n 's/.*Timing: //p' <<<"$output")"
}

start=$(now); "$platform" up --detach >/dev/null; "$platform" stack:update --if-missing >/dev/null
row "up and stack, cold" "$(since "$start")"
"$platform" users:create bench@localhost --login >/dev/null
"$platform" down >/dev/null; start=$(now); "$platform" up --detach >/dev/null; "$platform" stack:update --if-missing >/dev/null
row "up and stack, warm" "$(since "$start")"

new_app node-sample samples/node
push node-sample "Node sample, first push"
echo "// one line" >>"$work/node-sample/server.js"
git -C "$work/node-sample" commit -qam second
push node-sample "Node sample, one-line change"

new_app probe tests/fixtures/probe-app
push probe "app without dependencies, first push"

row "memory with 2 apps: controller, router, host" "$(rss "$(pid_of controller)"), $(rss "$(pid_of router)"), $(rss "$(pid_of host)")"

# The router's own cost, on the static answer of one instance.
router=$(pid_of router)
before=$(ticks "$router")
load=$(wrk -t1 -c64 -d10s -H "Host: node-sample.localhost" "http://127.0.0.1:$port/")
after=$(ticks "$router")
requests=$(awk '/requests in/ { print $1 }' <<<"$load")
row "requests/s through the router to the Node sample" "$(awk '/Requests\/sec/ { print $2 }' <<<"$load")"
row "router CPU a request" "$(awk -v t=$((after - before)) -v hz="$(getconf CLK_TCK)" -v n="$requests" 'BEGIN { printf "%.1f µs", t / hz / n * 1e6 }')"

for number in $(seq 1 48); do
  "$platform" create "many-$number" >/dev/null
  git -C "$work/probe" push -q "$PLATFORM_API/many-$number.git" main 2>/dev/null
done
row "memory with 50 apps: controller, router, host" "$(rss "$(pid_of controller)"), $(rss "$(pid_of router)"), $(rss "$(pid_of host)")"

printf '\n%s cores, %s memory, %s\n\n' "$(nproc)" "$(awk '/MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo)" "$(uname -sr)"
printf '%s\n' "${rows[@]}" | awk -F'|' '{ printf "%-50s %s\n", $1, $2 }'
