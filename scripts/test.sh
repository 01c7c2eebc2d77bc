#!/usr/bin/env bash
# Formatting, lints and every test. What CI runs.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
need_root "make test"

MAKE_TARGET=test scripts/deps.sh test
title "Formatting"
cargo fmt --all --check
title "Lints"
cargo clippy --workspace --all-targets -- -D warnings
step "Installing Playwright, for tests/console" npm --prefix tests/console ci --no-audit --no-fund
step "Installing the program heroku, for tests/heroku" npm --prefix tests/heroku ci --no-audit --no-fund
title "Tests"
cargo test --workspace
title "Requests that Schemathesis makes up"
scripts/schemathesis.sh
title "Certificates from a real authority"
scripts/acme.sh
title "TLS as sslyze sees it"
scripts/sslyze.sh
title "WebSockets as kosoku sees them"
scripts/kosoku.sh
title "An app as gRPC calls it"
scripts/grpc.sh
title "Tests of the controller on PostgreSQL"
PLATFORM_TEST_DATABASE=postgresql cargo test -p controller --lib
