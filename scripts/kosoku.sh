#!/usr/bin/env bash
# Has kosoku play the cases of Autobahn's test suite of WebSockets with an app, directly and through the router, and fails if there is a difference.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

from_pypi kosoku 0.1.0 websockets==17.4
cargo build --quiet -p router --example router
work=$(mktemp -d)
jobs=()
trap 'kill "${jobs[@]}" 2>/dev/null || true; rm -rf "$work"' EXIT
app=$(free_port)
"$venv/bin/python" - "$app" 2>/dev/null <<'PYTHON' &
import asyncio, sys
from websockets.asyncio.server import serve

async def echo(socket):
    async for message in socket:
        await socket.send(message)

async def main():
    async with serve(echo, "127.0.0.1", int(sys.argv[1]), max_size=None) as server:
        await server.serve_forever()

asyncio.run(main())
PYTHON
jobs+=($!)
router=$(free_port)
"${CARGO_TARGET_DIR:-target}/debug/examples/router" serve --folder "$work" --listen "127.0.0.1:$router" --hosts 1 --host localhost \
    --upstream "127.0.0.1:$app" 2>/dev/null &
jobs+=($!)
wait_for_port "$app"
is_routed() { curl --silent --output /dev/null --write-out '%{http_code}' "http://localhost:$router/" | grep -q 426; }
for _ in $(seq 100); do is_routed && break || sleep 0.1; done
is_routed || die "The router does not route to the app."
cat >"$work/compare.py" <<'PYTHON'
import json, sys

def cases(path):
    (results,) = json.load(open(path)).values()
    return {case: {key: result.get(key) for key in ("behavior", "behaviorClose", "remoteCloseCode")} for case, result in results.items()}

direct, routed = (cases(path) for path in sys.argv[1:3])
differences = open(sys.argv[3], "w")
for case in direct | routed:
    if direct.get(case) != routed.get(case):
        print(case)
        print(f"{case}: {direct.get(case)} directly, {routed.get(case)} through the router", file=differences)
PYTHON
# Left out: large messages, whose cases are about speed, and compression, which is between client and app.
played=(-x '9.*' -x '12.*' -x '13.*')
# Of some an app says one thing or the other, as their bytes come together or not: those that differ are played again.
for _ in 1 2 3 4 5; do
    for port in "$app" "$router"; do
        rm -rf "${work:?}/$port"
        "$venv/bin/kosoku" -p 4 "${played[@]}" -o "$work/$port" "localhost:$port" >"$work/said" 2>&1 || true
        [ -e "$work/$port/index.json" ] || { cat "$work/said" >&2; exit 1; }
    done
    "$venv/bin/python" "$work/compare.py" "$work/$app/index.json" "$work/$router/index.json" "$work/differences" >"$work/different"
    mapfile -t different <"$work/different"
    if [ ${#different[@]} = 0 ]; then
        echo "kosoku: every case is the same through the router as directly"
        exit
    fi
    played=()
    for case in "${different[@]}"; do played+=(-i "$case"); done
done
cat "$work/differences" >&2
exit 1
