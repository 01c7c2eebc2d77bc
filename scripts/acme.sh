#!/bin/bash
# Gets certificates from a real authority, acme2certifier, by a real router, and renews them.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

from_pypi acme2certifier 0.46.3
export ACME_PYTHON=$venv/bin/python
exec cargo test -p controller --lib -- --ignored --exact --nocapture \
    acm::tests::an_authority_gives_certificates_by_every_challenge_and_they_are_renewed
