#!/usr/bin/env bash
# Measures the API of a whole platform over a large database: `bench-api.sh PROGRAM sqlite|postgresql`, one `label|value` a line.
#
# The apps and their newest releases are made through the API; only the releases before those, and their events, are written
# by SQL (bench-api.sql). Then the platform starts anew, and wrk asks it through its router, as clients do.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
need_root "make bench"

program=$(readlink -f "$1") kind=$2
apps=${BENCH_APPS:-10000} versions=100 clients=4 seconds=${BENCH_SECONDS:-4}
work=$(mktemp -d /var/tmp/platform-bench-api.XXXXXX)
port=$((20000 + RANDOM % 10000))
for name in $(compgen -v PLATFORM_); do [ "$name" = PLATFORM_STACK_CACHE ] || unset "$name"; done
export PLATFORM_HOME=$work/home PLATFORM_LISTEN=127.0.0.1:$port PLATFORM_SSH_LISTEN= PLATFORM_TLS_LISTEN=off PLATFORM_SUBNET=10.208.0.0/20
export PLATFORM_REQUESTS_PER_HOUR=1000000000 PLATFORM_API=http://localhost:$port
export HOME=$work/user
api=http://127.0.0.1:$port
mkdir -p "$PLATFORM_HOME" "$HOME"
chmod 755 "$work"

row() { printf '%s, 10,000 apps, 1,000,000 releases: %s|%s\n' "$label" "$1" "$2"; }
note() { printf '    %s %s\n' "$(date +%T)" "$*" >&2; }
clean_up() {
  "$program" down >/dev/null 2>&1 || true
  [ "$kind" = sqlite ] || as_postgres pg_ctl -s -D "$work/pg" -m immediate stop >/dev/null 2>&1 || true
  [ -n "${BENCH_KEEP:-}" ] || rm -rf "$work"
}
trap clean_up EXIT

# A server as Debian makes it: durable, with the sizes that it has by itself.
pg_bin=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
as_postgres() { (cd / && runuser -u postgres -- env PATH="$pg_bin:$PATH" "$@"); }
start_postgresql() {
  install -d -o postgres "$work/pg"
  as_postgres initdb -D "$work/pg" -U postgres --auth=trust --locale=C -E UTF8 >/dev/null
  as_postgres pg_ctl -s -w -D "$work/pg" -l "$work/pg/log" -o "-k $work/pg -c listen_addresses=" start
  as_postgres createdb -h "$work/pg" -U postgres platform
  export PLATFORM_DATABASE="postgres://postgres@localhost/platform?host=$work/pg"
}

# sql: runs what comes in
case $kind in
  sqlite)
    label=SQLite
    sql() {
      python3 -c '
import sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.executescript("PRAGMA cache_size = -1000000; PRAGMA synchronous = OFF; BEGIN;" + sys.stdin.read() + "COMMIT;")
' "$PLATFORM_HOME/platform.db"
    }
    ;;
  postgresql)
    label=PostgreSQL
    start_postgresql
    sql() { as_postgres psql -q -h "$work/pg" -U postgres -d platform -v ON_ERROR_STOP=1 -1 >/dev/null; }
    ;;
esac

is_up() { [ "$(curl -s -o /dev/null -w '%{http_code}' "$api/account")" = 401 ]; }
start() {
  "$program" up --detach >/dev/null 2>&1
  until is_up; do sleep 0.05; done
}
pid_of() { cut -d' ' -f1 "$("$program" status --json | sed -n 's/.*"runtime_dir": *"\([^"]*\)".*/\1/p')/$1.pid"; }
rss() { awk '/^VmRSS/ { printf "%.0f MiB", $2 / 1024 }' "/proc/$(pid_of "$1")/status"; }
ticks() { awk '{ print $14 + $15 }' "/proc/$(pid_of "$1")/stat"; }
memory() { row "memory of controller and router, $1" "$(rss controller), $(rss router)"; }

# fill: the apps, each with config vars, so that its second release is its current one
fill() {
  seq -f '%05.0f' 0 $((apps - 1)) >"$work/names"
  local vars='{"DATABASE_POOL":"20","LOG_LEVEL":"info","FEATURE_FLAGS":"search,export,beta","SMTP_HOST":"smtp.example.com","SMTP_PASSWORD":"correct-horse-battery-staple","SESSION_SECRET":"0123456789abcdef0123456789abcdef0123456789abcdef","API_URL":"https://api.example.com/v2/","NODE_ENV":"production"}'
  auth="Authorization: Bearer $token"
  note "making $apps apps"
  requests POST /apps '{"name":"app-&"}'
  requests PATCH '/apps/app-&/config-vars' "$vars"
  head -n 20 "$work/names" >"$work/some" && mv "$work/some" "$work/names"
  requests POST '/apps/app-&/collaborators' '{"user":"small@localhost"}'
}

# requests METHOD PATH BODY: one for each of the names, which stands for &
requests() {
  awk -v method="$1" -v path="$2" -v body="$3" -v url="$api" -v auth="$auth" '
    function filled(text,  result) { result = text; gsub(/&/, $1, result); gsub(/"/, "\\\"", result); return result }
    { if (NR > 1) print "next"
      printf "url = \"%s%s\"\nrequest = \"%s\"\nheader = \"%s\"\nheader = \"Content-Type: application/json\"\ndata = \"%s\"\n", url, filled(path), method, auth, filled(body)
      print "fail\nsilent\nshow-error\noutput = \"/dev/null\"" }' "$work/names" >"$work/requests"
  curl --no-progress-meter --parallel --parallel-max 8 --config "$work/requests"
}

# measure LABEL KIND [TOKEN]: requests of a kind (bench-api.lua) by one client, and by as many as keep the machine busy
measure() {
  local said=
  for count in 1 "$clients"; do
    said+="${said:+; }$(ask "$2" "$seconds" "$count" "${3:-$token}" | awk '/^result/ { printf "%.2f ms, %.2f ms (%d/s)", $2, $3, $4 }')"
  done
  row "$1, p50 and p99 of 1 client; of $clients" "$said"
}
# write LABEL KIND CLIENTS
write() {
  row "$1" "$(ask "$2" 10 "$3" "$token" | awk '/^result/ { printf "%d/s; p50 and p99 %.1f ms, %.1f ms", $4, $2, $3 }')"
}
ask() {
  wrk -t1 -c"$3" -d"${2}s" --timeout 30s -s scripts/bench-api.lua "$api" -- "$1" "$apps" "$versions" "$4" >"$work/wrk.log"
  grep -q '^result .* 0$' "$work/wrk.log" || { cat "$work/wrk.log" >&2; exit 1; }
  cat "$work/wrk.log"
}

# page LABEL PATH
page() {
  local times
  times=$(for _ in $(seq 21); do browse -o /dev/null -w '%{time_total}\n' "$api$2"; done | sort -n | sed -n 11p)
  row "console, $1" "$(awk -v t="$times" 'BEGIN { printf "%.1f ms", t * 1000 }')"
}
browse() { curl -fsS --compressed -b "$work/cookies" -c "$work/cookies" "$@"; }

note "a platform on $label"
start
# new_user NAME: makes one, and leaves their token in $new
new_user() {
  "$program" users:create "$1@localhost" --password --login <<<"a long password of the bench" >/dev/null 2>&1
  new=$("$program" auth:token 2>/dev/null)
}
# The first keeps the platform and may see everything; the second has all those apps, the third looks at twenty of them.
new_user operator
new_user small
small=$new
new_user bench
token=$new
begun=$(date +%s.%N)
fill
note "writing their history"
"$program" down >/dev/null 2>&1
sed "s/:versions/$versions/g" scripts/bench-api.sql | sql
[ "$kind" = sqlite ] || as_postgres psql -q -h "$work/pg" -U postgres -d platform -c 'VACUUM ANALYZE'
row "making all that" "$(awk -v a="$begun" -v b="$(date +%s.%N)" 'BEGIN { printf "%.0f s", b - a }')"
[ -z "${BENCH_KEEP:-}" ] || { note "kept in $work"; echo "$token" >"$work/token"; }

begun=$(date +%s.%N)
start
row "start of the whole platform to its first answer" "$(awk -v a="$begun" -v b="$(date +%s.%N)" 'BEGIN { printf "%.2f s", b - a }')"
kill -9 "$(pid_of controller)"
begun=$(date +%s.%N)
sleep 0.02
until is_up; do sleep 0.02; done
row "controller killed, to its next answer" "$(awk -v a="$begun" -v b="$(date +%s.%N)" 'BEGIN { printf "%.2f s", b - a }')"
sleep 5
memory "after start"
before=$(ticks controller)
sleep 60
row "CPU of the controller while nobody asks" "$(awk -v t=$(($(ticks controller) - before)) -v hz="$(getconf CLK_TCK)" 'BEGIN { printf "%.1f %%", t / hz / 60 * 100 }')"

measure "GET what costs least (/regions/us)" region
measure "GET /apps, 200 of them" apps
measure "GET /apps, 200 from the middle" middle
measure "GET /apps/{app}" app
measure "GET /apps/{app}/releases, all 100" releases
measure "GET /apps/{app}/releases, the newest 15" newest
measure "GET /apps/{app}/releases/{n}" release
measure "GET /apps/{app}/config-vars" config
measure "GET /apps/{app}/builds" builds
measure "GET /apps/{app}/formation" formation
measure "GET /apps/{app}/domains" domains
measure "GET /apps/{app}/dynos" dynos
measure "GET /apps/{app}/addons" addons
measure "GET /apps/{app}/collaborators" collaborators
measure "GET /apps/{app}/events, the newest 50" events_of_app
measure "GET /events, the newest 50" events
measure "GET /events of who sees 20 apps" events "$small"
measure "GET /apps of who sees 20" apps "$small"
row "GET /apps, all 10,000 in 50 parts" "$(all_apps=$(date +%s.%N); range='name ..; max=200'; count=0; while [ -n "$range" ]; do count=$((count + 1)); range=$(curl -fsS -o /dev/null -D - -H "Authorization: Bearer $token" -H "Range: $range" "$api/apps" | tr -d '\r' | sed -n 's/^[Nn]ext-[Rr]ange: //p'); done; awk -v a="$all_apps" -v b="$(date +%s.%N)" -v n="$count" 'BEGIN { printf "%.2f s, %d parts", b - a, n }')"

csrf=$(browse "$api/console/sign-in" | sed -n 's/.*name="csrf" value="\([^"]*\)".*/\1/p')
browse -o /dev/null -d "csrf=$csrf" -d email=bench@localhost -d "password=a long password of the bench" "$api/console/sign-in"
page "list of apps" /console/apps
page "search in it" '/console/apps?q=app-0777'
page "an app" "/console/apps/$(printf app-%05d $((apps / 2)))"
page "its activity" "/console/apps/$(printf app-%05d $((apps / 2)))/activity"
memory "after reading"

write "PATCH config-vars of different apps by 8 clients" write_config 8
write "PATCH config-vars of one app by 8 clients" write_one 8
write "PATCH config-vars by 1 client" write_config 1
write "POST /apps by 8 clients" create 8
row "fsync of 4 KiB on this disk" "$(python3 -c '
import os, sys, time
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
began, count = time.time(), 0
while time.time() - began < 5:
    os.write(file, b"x" * 4096); os.fdatasync(file); count += 1
print(f"{count / (time.time() - began):.0f}/s")' "$work/fsync")"
memory "after writing"
