#!/usr/bin/env bash
# Lets the faults of docs/faults.md happen on this machine and prints a row for each: fault, right again after, lost. Nothing here
# passes or fails by a figure.
set -euo pipefail
cd "$(dirname "$0")/.."
{
    cargo test --quiet --package platform --test e2e -- faults:: --nocapture --test-threads 1
    cargo test --quiet --package router --test router -- ports:: --nocapture
} 2>&1 | grep -ao '| [a-z].* |$'
