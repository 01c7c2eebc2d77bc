#!/usr/bin/env bash
# Stops what `make demo` started, and says what is kept.
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
step "Stopping the platform and its apps" "$platform" down
say "Kept in $PLATFORM_HOME ($(du -sh "$PLATFORM_HOME" 2>/dev/null | cut -f1)): apps, releases, config vars, repositories, images, logs, the stack."
say "\`make demo\` starts it again. To forget everything: rm -rf $PLATFORM_HOME"
