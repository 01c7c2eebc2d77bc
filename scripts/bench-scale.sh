#!/usr/bin/env bash
# Measures the control plane alone, with an engine in memory, at 2,500, 25,000 and 250,000 instances (SCALE_APPS: numbers of apps,
# each with five). One `label|value` a line. Nothing here passes or fails.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo test --release --quiet --package controller --lib rollout::tests::scale::figures -- --ignored --nocapture | grep '|'
