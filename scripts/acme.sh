#!/bin/bash
# Gets certificates from a real authority, acme2certifier, by a real router, and renews them.
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.46.3
venv=${XDG_CACHE_HOME:-$HOME/.cache}/platform/acme2certifier-$version
if [ ! -e "$venv/whole" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "acme2certifier==$version"
    touch "$venv/whole"
fi
export ACME_PYTHON=$venv/bin/python
exec cargo test -p controller --lib -- --ignored --exact --nocapture \
    acm::tests::an_authority_gives_certificates_by_every_challenge_and_they_are_renewed
