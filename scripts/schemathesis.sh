#!/bin/bash
# Lets Schemathesis make requests of all that the API says of itself, good ones and bad ones, to a controller whose engine is a
# fake, and fails if an answer is a failure or is not as described. The same requests every time.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

from_pypi schemathesis 4.32.5
export SCHEMATHESIS=$venv/bin/schemathesis SCHEMATHESIS_CONFIG=$PWD/scripts/schemathesis.toml
exec cargo test -p controller --lib -- --ignored --exact --nocapture \
    api::schemathesis::no_answer_is_a_failure_or_outside_the_schema
