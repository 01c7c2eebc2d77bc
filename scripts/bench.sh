#!/usr/bin/env bash
# Measures the release binary on a platform of its own and prints one table. Nothing here passes or fails.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
need_root "make bench"

work=$(mktemp -d /var/tmp/platform-bench.XXXXXX)
port=$((20000 + RANDOM % 10000))
export PREFIX=$work/prefix PLATFORM_HOME=$work/home PLATFORM_STACK_CACHE=$work/stack PLATFORM_PORT=$port PLATFORM_SUBNET=10.209.0.0/20
export PLATFORM_API=http://localhost:$port
# A user of its own, with the toolchain of ours.
export CARGO_HOME=${CARGO_HOME:-$HOME/.cargo} RUSTUP_HOME=${RUSTUP_HOME:-$HOME/.rustup}
export HOME=$work/user GIT_TERMINAL_PROMPT=0
platform=$PREFIX/bin/platform
hello=$PLATFORM_HOME/demo/hello
mkdir -p "$HOME"
git config --global user.name bench
git config --global user.email bench@localhost
git config --global init.defaultBranch main
clean_up() {
  stop_bare 2>/dev/null || true
  "$platform" down >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap clean_up EXIT

rows=()
row() { rows+=("$1|$2"); printf '  %-44s %s\n' "$1" "$2" >&2; }
now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.2f s", b - a }'; }

# pid_of ROLE, ticks PID (CPU time in clock ticks), rss PID
pid_of() { cut -d' ' -f1 "$("$platform" status --json | sed -n 's/.*"runtime_dir": *"\([^"]*\)".*/\1/p')/$1.pid"; }
ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }
rss() { awk '/^VmRSS/ { printf "%.1f MiB", $2 / 1024 }' "/proc/$1/status"; }

# demo LABEL: runs it, and makes a row of its time and one of the push in it
demo() {
  local start
  start=$(now)
  MAKE_TARGET=bench scripts/demo.sh >"$work/demo.log" 2>&1 || { cat "$work/demo.log" >&2; exit 1; }
  row "make demo, $1" "$(since "$start")"
}

# timing FILE: the phases of a push that the platform reported
timing() { sed -n 's/.*Timing: \(.*\S\) *$/\1/p' "$1"; }

# push FOLDER LABEL: pushes, and makes a row of the time and the phases
push() {
  local start
  start=$(now)
  git -C "$1" push platform main >"$work/push.log" 2>&1 || { cat "$work/push.log" >&2; exit 1; }
  row "push to live, $2" "$(since "$start")"
  row "  of which" "$(timing "$work/push.log")"
}

memory() { row "memory with $1: controller, router, host" "$(rss "$(pid_of controller)"), $(rss "$(pid_of router)"), $(rss "$(pid_of host)")"; }

# provision SERVICE LABEL CLIENT...: from the command to the first answer; the add-on's name is in $addon then
provision() {
  local start
  start=$(now)
  addon=$("$platform" addons:create "$1" -a hello 2>/dev/null)
  "$platform" "${@:3:1}" "$addon" -a hello "${@:4}" >/dev/null
  row "addons:create $1 to its first answer, $2" "$(since "$start")"
}

# The same PostgreSQL with the same settings, but in no container: no limits, no network but loopback.
start_bare() {
  local layer
  layer=$(sed -n 's/.*"layer": *"sha256:\([^"]*\)".*/\1/p' "$PLATFORM_HOME/stacks/postgres.json")
  mkdir -p "$work"/bare/{upper,work,root}
  mount -t overlay overlay -o "lowerdir=$PLATFORM_HOME/layers/$layer,upperdir=$work/bare/upper,workdir=$work/bare/work" "$work/bare/root"
  mount --bind /dev "$work/bare/root/dev"
  install -d -o "$(stat -c %u "$work/bare/root/var/lib/postgresql")" "$work/bare/root/data"
  in_bare env MEMORY_MIB=2048 PGUSER=bench PGPASSWORD=bench PGDATABASE=bench \
    sh -euc "$(sed 's/port=5432/port=15432/' controller/src/addons/postgres/server.sh)" >"$work/bare.log" 2>&1 &
  bare=$!
  until in_bare pg_isready -q -h 127.0.0.1 -p 15432; do sleep 0.2; done
}
in_bare() { chroot --userspec=postgres:postgres "$work/bare/root" "$@"; }
stop_bare() {
  [ -n "${bare:-}" ] || return 0
  # The server itself: the shell around it hears no SIGINT in the background.
  kill -INT "$(head -n 1 "$work/bare/root/data/cluster/postmaster.pid")" && wait "$bare"
  umount "$work/bare/root/dev" "$work/bare/root"
  bare=
}

# Reads transactions, and reads and writes; what is left of pgbench's report is its rate.
pgbench=/usr/lib/postgresql/17/bin/pgbench
loads="$pgbench -i -q -s 10 2>/dev/null >/dev/null && $pgbench -S -c 8 -j 2 -T 10 && $pgbench -c 8 -j 2 -T 10"
rates() { awk '/^tps/ { printf "%s%d/s", sep, $3; sep = ", " }'; }

MAKE_TARGET=bench scripts/deps.sh test
# Not a part of what is measured: most of it is the compiler.
cargo build --release --bin platform
demo "cold (program built; no stack, no state)"
row "  its push, the first of the Node sample" "$(timing "$work/demo.log")"
demo "warm (it runs already)"
memory "1 app"

for change in one another; do
  echo "// $change line" >>"$hello/server.js"
  git -C "$hello" commit -qam "$change line"
  push "$hello" "one-line change of the Node sample"
done

# new_repo NAME SOURCE: a repository with SOURCE in it, under $work
new_repo() {
  cp -r "$2" "$work/$1"
  git -C "$work/$1" init -q
  git -C "$work/$1" add -A
  git -C "$work/$1" commit -q -m first
}

# new_app NAME REPOSITORY: an app, to which `git push platform main` in that repository goes from now on
new_app() {
  "$platform" create "$1" --no-remote >/dev/null 2>&1
  git -C "$2" remote add platform "$PLATFORM_API/$1.git" 2>/dev/null || git -C "$2" remote set-url platform "$PLATFORM_API/$1.git"
}

# The router's own cost, on the answers of one instance: a small file from nginx.
new_repo static tests/fixtures/static-app
new_app static "$work/static"
git -C "$work/static" push -q platform main 2>/dev/null
router=$(pid_of router)
before=$(ticks "$router")
load=$(wrk -t1 -c64 -d10s -H "Host: static.localhost" "http://127.0.0.1:$port/")
after=$(ticks "$router")
requests=$(awk '/requests in/ { print $1 }' <<<"$load")
row "requests/s through the router to nginx" "$(awk '/Requests\/sec/ { print $2 }' <<<"$load")"
row "router CPU a request" "$(awk -v t=$((after - before)) -v hz="$(getconf CLK_TCK)" -v n="$requests" 'BEGIN { printf "%.1f µs", t / hz / n * 1e6 }')"

# again: from the death of the router to the next answer, by the table on disk
again() {
  local begun
  for _ in $(seq 11); do
    kill -9 "$(pid_of router)"
    begun=$(now)
    until curl -fs -o /dev/null -H "Host: static.localhost" "http://127.0.0.1:$port/"; do :; done
    awk -v a="$begun" -v b="$(now)" 'BEGIN { printf "%.0f\n", (b - a) * 1000 }'
    # Whoever dies within its first second is given a pause.
    sleep 1.1
  done | sort -n | sed -n '6s/$/ ms/p'
}
row "router killed (-9), until it answers again" "$(again)"

# The demo made the image of this one.
provision postgres:standard "its image there" pg:psql -c 'SELECT 1'
row "pgbench through the platform, read and mixed" "$("$platform" pg:psql "$addon" -a hello -c "\\! $loads" 2>/dev/null | rates)"
start_bare
row "pgbench on the same server bare" "$(in_bare env PGHOST=127.0.0.1 PGPORT=15432 PGUSER=bench PGPASSWORD=bench PGDATABASE=bench sh -c "$loads" 2>/dev/null | rates)"
stop_bare
provision redis "its image made" redis:cli -- PING
provision redis "its image there" redis:cli -- PING

new_repo probe tests/fixtures/probe-app
probe=$work/probe
for number in $(seq 3 50); do
  new_app "app-$number" "$probe"
  if [ "$number" = 3 ]; then push "$probe" "first push without dependencies"; else git -C "$probe" push -q platform main 2>/dev/null; fi
done
memory "50 apps"

# page PATH LABEL: the median time of 21 requests by somebody who is signed in, and the bytes of one
page() {
  local times bytes
  times=$(for _ in $(seq 21); do browse -o /dev/null -w '%{time_total}\n' "$PLATFORM_API$1"; done | sort -n | sed -n 11p)
  bytes=$(browse -o /dev/null -w '%{size_download}' "$PLATFORM_API$1")
  row "console with 1,000 apps, $2" "$(awk -v t="$times" -v b="$bytes" 'BEGIN { printf "%.1f ms, %.1f kB", t * 1000, b / 1000 }')"
}
browse() { curl -fsS --compressed -b "$work/cookies" -c "$work/cookies" "$@"; }
seq 51 1000 | xargs -P 2 -I{} "$platform" create "app-{}" --no-remote >/dev/null 2>&1
csrf=$(browse "$PLATFORM_API/console/sign-in" | sed -n 's/.*name="csrf" value="\([^"]*\)".*/\1/p')
browse -o /dev/null -d "csrf=$csrf" -d email=demo@localhost --data-urlencode "password@$PLATFORM_HOME/demo/password" "$PLATFORM_API/console/sign-in"
page /console/apps "list of apps"
page /console/apps/hello "an app"
page /console/apps/hello/activity "its activity"
page /console/apps/hello/config "its config vars"
page /console/apps/hello/logs "its log"

# each COMMAND...: the median time of 21 runs
each() {
  local begun
  for _ in $(seq 21); do
    begun=$(now)
    "$@" >/dev/null
    awk -v a="$begun" -v b="$(now)" 'BEGIN { printf "%.1f\n", (b - a) * 1000 }'
  done | sort -n | sed -n '11s/$/ ms/p'
}
row "platform --version" "$(each "$platform" --version)"
row "platform whoami, one request" "$(each "$platform" whoami)"
row "platform apps, 1,000 of them" "$(each "$platform" apps)"
row "git --version, for comparison" "$(each git --version)"

"$platform" down >/dev/null 2>&1
# The API over a database of 10,000 apps and 1,000,000 releases, on both kinds.
for kind in sqlite postgresql; do
  scripts/bench-api.sh "$platform" "$kind" >"$work/api.log"
  while IFS='|' read -r what value; do row "$what" "$value"; done <"$work/api.log"
done

printf '\n%s cores, %s memory, %s\n\n' "$(nproc)" "$(awk '/MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo)" "$(uname -sr)"
printf '%s\n' "${rows[@]}" | awk -F'|' '{ printf "%-50s %s\n", $1, $2 }'
