#!/usr/bin/env bash
# Stops what `make demo` started; the program says what is kept.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
need_root "make down"

export PLATFORM_HOME=${PLATFORM_HOME:-/var/lib/platform}
platform=${PREFIX:-/usr/local}/bin/platform
[ -x "$platform" ] || platform=$(built_binary)
if [ ! -x "$platform" ] || [ ! -d "$PLATFORM_HOME" ]; then
  say "Nothing to stop: there is no platform here."
  exit 0
fi
"$platform" down
echo "\`make demo\` starts the demo again."
