# What the scripts share. Sourced, not run: the caller stands in the repository and has `set -euo pipefail`.

# A toolchain that rustup put into a home is not on everybody's PATH.
[ -d "${CARGO_HOME:-$HOME/.cargo}/bin" ] && PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
# Ours answers on this machine; a company's proxy does not know the way there.
export no_proxy="${no_proxy:+$no_proxy,}localhost,.localhost,127.0.0.1,::1" NO_PROXY="${NO_PROXY:+$NO_PROXY,}localhost,.localhost,127.0.0.1,::1"

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
  bold=$'\e[1m' green=$'\e[32m' red=$'\e[31m' grey=$'\e[90m' plain=$'\e[0m'
else
  bold='' green='' red='' grey='' plain=''
fi

title() { printf '%s==>%s %s%s%s\n' "$green" "$plain" "$bold" "$*" "$plain"; }
say() { printf '    %s\n' "$*"; }
# die WHAT [WHAT-TO-DO]
die() {
  printf '%sError:%s %s\n' "$red" "$plain" "$1" >&2
  [ $# -lt 2 ] || printf '  what now: %s\n' "$2" >&2
  exit 1
}

# need_root COMMAND
need_root() { [ "$(id -u)" = 0 ] || die "This needs root: it starts containers." "sudo $1"; }

# step TITLE COMMAND...: runs the command with its output in a log; shows the time and, on a terminal, the last line.
step() {
  local what=$1 log status=0 started=$SECONDS width
  shift
  log=$(mktemp "${TMPDIR:-/tmp}/platform-step.XXXXXX")
  title "$what"
  "$@" >"$log" 2>&1 </dev/null &
  local job=$!
  # A background job does not hear Ctrl-C by itself.
  trap 'kill "$job" 2>/dev/null || true; exit 130' INT TERM
  width=$(tput cols 2>/dev/null || echo 80)
  while kill -0 "$job" 2>/dev/null; do
    sleep 0.5
    progress "$log" $((SECONDS - started)) "$width"
  done
  wait "$job" || status=$?
  trap - INT TERM
  [ -t 1 ] && printf '\r\e[K'
  if [ "$status" != 0 ]; then
    printf '%s\n' "${red}    failed after $((SECONDS - started)) s; its last lines:${plain}" >&2
    tail -n 30 "$log" | sed 's/^/    | /' >&2
    die "$what: \`$*\` failed with status $status." "The whole output is in $log"
  fi
  rm -f "$log"
  say "${grey}done in $((SECONDS - started)) s${plain}"
}

# progress LOG SECONDS WIDTH
progress() {
  local last
  last=$(tail -c 400 "$1" | tr '\r' '\n' | sed 's/\x1b\[[0-9;]*[A-Za-z]//g' | awk 'NF { line = $0 } END { print line }')
  if [ -t 1 ]; then
    printf '\r\e[K%s' "$(printf '    %4s s  %s' "$2" "$last" | cut -c "1-$(($3 - 1))")"
  elif [ $(($2 % 30)) = 0 ] && [ "$2" != "${shown:-0}" ]; then
    shown=$2
    say "$2 s: $last"
  fi
}

# from_pypi PACKAGE VERSION [PACKAGE==VERSION...]: these packages, in a folder that is kept. Sets `venv`.
from_pypi() {
  venv=${XDG_CACHE_HOME:-$HOME/.cache}/platform/$1-$2
  [ ! -e "$venv/whole" ] || return 0
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check "$1==$2" "${@:3}"
  touch "$venv/whole"
}
# free_port: one of this machine's that nobody listens at
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
# wait_for_port PORT: until somebody listens at it, 10 s at most
wait_for_port() {
  for _ in $(seq 100); do
    (: <>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return
    sleep 0.1
  done
  die "Nobody listens at port $1."
}
# Where cargo puts the release binary.
built_binary() { echo "${CARGO_TARGET_DIR:-target}/release/platform"; }

# bench_platform NAME SUBNET [PROGRAM]: a platform for a measurement, on this network; it is not started. Sets `platform` (the program, built
# anew if none is named), `work` (a folder that goes in the end, as the platform does) and `port`, and makes a user with a git of its own.
bench_platform() {
  MAKE_TARGET=bench scripts/deps.sh test
  if [ $# = 2 ]; then cargo build --release --bin platform; fi
  platform=$(readlink -f "${3:-$(built_binary)}")
  work=$(mktemp -d "/var/tmp/platform-bench-$1.XXXXXX")
  chmod 755 "$work"
  port=$((20000 + RANDOM % 10000))
  local name
  for name in $(compgen -v PLATFORM_); do [ "$name" = PLATFORM_STACK_CACHE ] || unset "$name"; done
  export PLATFORM_HOME=$work/home PLATFORM_LISTEN=127.0.0.1:$port PLATFORM_SSH_LISTEN= PLATFORM_TLS_LISTEN=off PLATFORM_SUBNET=$2
  export PLATFORM_API=http://localhost:$port HOME=$work/user GIT_TERMINAL_PROMPT=0
  mkdir -p "$HOME"
  git config --global user.name bench
  git config --global user.email bench@localhost
  git config --global init.defaultBranch main
  trap end_bench_platform EXIT
}
end_bench_platform() {
  "$platform" down >/dev/null 2>&1 || true
  rm -rf "$work"
}
# quietly COMMAND...: what it says is seen only if it fails
quietly() { "$@" >"$work/said" 2>&1 || { cat "$work/said" >&2; exit 1; }; }
# percentile P: of the numbers that come in
percentile() { sort -n | awk -v p="$1" '{ v[NR] = $1 } END { n = int(NR * p / 100 + 0.999); print v[n < 1 ? 1 : n] }'; }
