#!/usr/bin/env bash
# Makes the pictures in docs/screenshots anew: a platform of its own, apps with a history, a real browser.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
need_root "make screenshots"

MAKE_TARGET=screenshots scripts/deps.sh screenshots
port=${PLATFORM_PORT:-18484}
unset PLATFORM_PORT
export PLATFORM_HOME=${SCREENSHOTS_HOME:-/var/lib/platform-screenshots}
export PLATFORM_LISTEN=127.0.0.1:$port PLATFORM_API=http://localhost:$port
export PLATFORM_SUBNET=${PLATFORM_SUBNET:-10.215.0.0/16}
export PLATFORM_STACK_CACHE=${PLATFORM_STACK_CACHE:-/var/cache/platform-tests/stack}
step "Building the binary" cargo build --bin platform
platform=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/debug/platform
step "Installing Playwright" npm --prefix tests/console ci --no-audit --no-fund

clean() {
  "$platform" down >/dev/null 2>&1 || true
  rm -rf "$PLATFORM_HOME"
}
trap clean EXIT
clean
mkdir -p "$PLATFORM_HOME/user"
title "Starting a platform"
started=$("$platform" up --detach 2>&1)
step "Making the stack" "$platform" stack:update --if-missing

# The first user is made in the browser, from the link that only root is told.
export CONSOLE_URL=$PLATFORM_API CONSOLE_EMAIL=ada@example.com CONSOLE_PASSWORD=correct-horse
CONSOLE_SETUP=$(grep -o 'http[^ ]*/console/setup?token=[0-9a-f]*' <<<"$started")
export CONSOLE_SETUP
shots() { step "Looking at $1" node tests/console/screenshots.mjs "$@"; }
shots first

export HOME=$PLATFORM_HOME/user GIT_CONFIG_NOSYSTEM=1 GIT_TERMINAL_PROMPT=0
login() { printf '%s\n' "$CONSOLE_PASSWORD" | "$platform" login --email "$CONSOLE_EMAIL"; }
login >/dev/null
git config --global user.name Ada
git config --global user.email "$CONSOLE_EMAIL"
git config --global init.defaultBranch main

# new APP FOLDER: an app with a copy of that folder as its repository
new() {
  "$platform" create "$1" --no-remote
  cp -r "$2" "$HOME/$1"
  git -C "$HOME/$1" init -q
  git -C "$HOME/$1" remote add platform "$PLATFORM_API/$1.git"
  commit "$1" "${3:-First version}"
}
commit() {
  git -C "$HOME/$1" add -A
  git -C "$HOME/$1" commit -q -m "$2"
}
push() { git -C "$HOME/$1" push -q platform main; }
visit() {
  for path in / /products /cart /products/41; do
    curl -s -o /dev/null -H "Host: $1.localhost" "http://127.0.0.1:$port$path" || true
  done
}

seed() {
  new storefront samples/node "Open the shop"
  printf 'web: node server.js\nworker: node worker.js\n' >"$HOME/storefront/Procfile"
  printf 'setInterval(() => console.log("sent 3 newsletters, 0 left"), 2000);\n' >"$HOME/storefront/worker.js"
  commit storefront "Send newsletters"
  push storefront
  "$platform" config:set -a storefront GREETING='Welcome to the shop' STRIPE_KEY=sk_test_4eC39HqLyjWD LOG_LEVEL=info
  sed -i 's/own platform/own shop/' "$HOME/storefront/server.js"
  commit storefront "Greet by name"
  push storefront
  printf 'throw new Error("no DATABASE_URL");\n' >"$HOME/storefront/server.js"
  commit storefront "Keep orders in a database"
  push storefront || true
  "$platform" config:set -a storefront MAIL_FROM=shop@example.com
  printf '%s\n' '-----BEGIN PRIVATE KEY-----' MC4CAQAwBQYDK2VwBCIEIJ '-----END PRIVATE KEY-----' >"$HOME/key"
  "$platform" config:set -a storefront "SIGNING_KEY=$(cat "$HOME/key")" LOG_LEVEL=debug
  "$platform" ps:scale -a storefront web=3 worker=1
  "$platform" addons:create postgres -a storefront
  "$platform" addons:create redis -a storefront
  "$platform" pg:backups:capture -a storefront
  "$platform" jobs:add -a storefront newsletter '0 8 * * 1-5' "node -e 'console.log(42, \"sent\")'" --set timezone=Europe/Berlin
  "$platform" jobs:add -a storefront prune @daily "node -e 'process.exit(3)'"
  "$platform" jobs:run -a storefront newsletter
  "$platform" jobs:run -a storefront prune
  "$platform" domains:add -a storefront www.example.com
  visit storefront
  for name in docs status-page; do
    new $name tests/fixtures/static-app "Write it down"
    push $name
  done
  "$platform" maintenance:on -a status-page
  "$platform" create landing --no-remote
  new billing tests/fixtures/python-app "Charge cards"
  push billing
  "$platform" ps:scale -a billing web=0
}
step "Pushing apps" seed
visit storefront
shots pages
step "Making them small" pngquant --force --ext .png --speed 1 --quality 60-95 docs/screenshots/*.png
du -sh docs/screenshots
