#!/usr/bin/env bash
# Lets sslyze look at the router's TLS, and fails if it is not what Mozilla recommends (`intermediate`) or open to a known attack.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

from_pypi sslyze 6.3.1
cargo build --quiet -p router --example router
work=$(mktemp -d)
trap 'kill "$router" 2>/dev/null || true; rm -rf "$work"' EXIT
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=localhost -addext subjectAltName=DNS:localhost \
    -keyout "$work/key.pem" -out "$work/certificate.pem" 2>/dev/null
port=$(free_port)
"${CARGO_TARGET_DIR:-target}/debug/examples/router" serve --folder "$work" --listen 127.0.0.1:0 --tls-listen "127.0.0.1:$port" \
    --certificate "$work/certificate.pem" --certificate "$work/key.pem" 2>/dev/null &
router=$!
wait_for_port "$port"
"$venv/bin/sslyze" --mozilla_config=intermediate "localhost:$port" >"$work/report" 2>/dev/null || true
grep -q 'SCANS COMPLETED' "$work/report" || { cat "$work/report"; exit 1; }
# No public authority has signed this certificate: that finding alone has to be there.
findings=$(sed -n '/COMPLIANCE AGAINST/,$p' "$work/report" | grep '^ *\*' || true)
if [[ $findings != *"certificate_path_validation: "* || $(wc -l <<<"$findings") != 1 ]]; then
    cat "$work/report"
    exit 1
fi
echo "sslyze: nothing but the certificate, which is of nobody's"
