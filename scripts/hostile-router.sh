#!/usr/bin/env bash
# Lets hostile clients loose on the router and fails if others notice: slowhttptest, testssl.sh, 15,000 connections at rest, and h2spec where H2SPEC
# names the program, which no package has (https://github.com/summerwind/h2spec). Some minutes, on a machine that does little else.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
need_root "make hostile-router"

MAKE_TARGET=hostile-router scripts/deps.sh hostile
router=${ROUTER:-${CARGO_TARGET_DIR:-target}/release/examples/router}
[ -n "${ROUTER:-}" ] || cargo build --release --quiet -p router --example router
work=$(mktemp -d /var/tmp/platform-router.XXXXXX)
trap 'rm -rf "$work"' EXIT
# nginx leaves root's rights behind, and reads its file all the same.
chmod 755 "$work"
# In a network and with a table of hosts of its own.
printf '127.0.0.1 localhost bench.test\n' >"$work/hosts"
unshare --net --mount sh -ec 'ip link set lo up; mount --bind "$1/hosts" /etc/hosts; exec scripts/bench-router/hostile.py "$2" "$1"' sh "$work" "$router"
