#!/usr/bin/env bash
# Measures what a request costs the router, everything on, as a ratio to haproxy (without a log) in the same run. ROUNDS, 7 if not said;
# CASES of scripts/bench-router/measure.py (`1 KiB|TLS`, `tables`, `changes`); PROXY_CORE and LOAD_CORE, 0 and 1. Nothing here passes or fails.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
need_root "make bench-router"

MAKE_TARGET=bench-router scripts/deps.sh router
cargo build --release --quiet -p router --example router
work=$(mktemp -d /var/tmp/platform-router.XXXXXX)
trap 'rm -rf "$work"' EXIT
# nginx leaves root's rights behind, and reads its file all the same.
chmod 755 "$work"
# In a network of its own: packet filters of this machine would be measured as well.
unshare --net sh -ec 'ip link set lo up; exec "$@"' sh scripts/bench-router/measure.py "${CARGO_TARGET_DIR:-target}/release/examples/router" "$work"
