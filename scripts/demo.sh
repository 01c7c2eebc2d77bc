#!/usr/bin/env bash
# From a bare machine to an app that was pushed with git and answers on its URL. Run it again as often as you like.
#
# PLATFORM_HOME   where the platform keeps its state; default /var/lib/platform
# PLATFORM_PORT   its port; default 8080
# PREFIX          the program goes to $PREFIX/bin; default /usr/local
# Any other setting of the platform (cli/settings.rs) is passed on.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
need_root "make demo"

begun=$SECONDS
port=${PLATFORM_PORT:-8080}
unset PLATFORM_PORT
export PLATFORM_HOME=${PLATFORM_HOME:-/var/lib/platform}
export PLATFORM_LISTEN=${PLATFORM_LISTEN:-127.0.0.1:$port,[::1]:$port}
export PLATFORM_API=${PLATFORM_URL:-http://${PLATFORM_DOMAIN:-localhost}:$port}
platform=${PREFIX:-/usr/local}/bin/platform
app=hello
source=$PLATFORM_HOME/demo/$app
log=$PLATFORM_HOME/platform.log
password=$PLATFORM_HOME/demo/password

MAKE_TARGET=demo scripts/deps.sh run
step "Building the release binary" cargo build --release --bin platform

# Its API asks who we are.
is_up() { curl -s "$PLATFORM_API/account" | grep -Eq '"id": ?"unauthorized"'; }

# A program that runs is replaced whole, and the platform started again from the new one. Apps do not notice.
if ! cmp -s "$(built_binary)" "$platform"; then
  if is_up; then step "Stopping the older platform" "$platform" down; fi
  install -D -m 755 "$(built_binary)" "$platform"
fi

start() {
  "$platform" up --detach
  for _ in $(seq 120); do
    if is_up; then return; fi
    sleep 0.5
  done
  echo "It does not answer on $PLATFORM_API."
  return 1
}
mkdir -p "$PLATFORM_HOME"
is_up || step "Starting the platform" start
step "Making the stack: the base images for builds and apps" "$platform" stack:update --if-missing

if ! "$platform" whoami >/dev/null 2>&1; then
  title "Creating the first user"
  (umask 077 && mkdir -p "$PLATFORM_HOME/demo" && od -An -N12 -tx1 /dev/urandom | tr -d ' \n' >"$password")
  "$platform" users:create demo@localhost --password --login <"$password" | sed 's/^/    /'
fi

# The sample is copied, so that this repository gets no second life as the app's.
mkdir -p "$source"
cp -r samples/node/. "$source"
in_source() { git -C "$source" -c user.name=demo -c user.email=demo@localhost -c init.defaultBranch=main "$@"; }
if [ ! -d "$source/.git" ]; then in_source init -q; fi
in_source add -A
in_source diff --cached --quiet || in_source commit -q -m "Say hello"

if ! "$platform" info -a $app >/dev/null 2>&1; then
  title "\$ platform create $app"
  "$platform" create $app --no-remote | sed 's/^/    /'
fi
(cd "$source" && "$platform" git:remote -a $app >/dev/null)

if ! "$platform" config:get DATABASE_URL -a $app >/dev/null 2>&1; then
  step "\$ platform addons:create postgres" "$platform" addons:create postgres -a $app
fi

title "\$ git push platform main"
pushed=$SECONDS
in_source push platform main
say "${grey}done in $((SECONDS - pushed)) s${plain}"

title "\$ platform ps:scale web=2"
"$platform" ps:scale web=2 -a $app | sed 's/^/    /'

url=$("$platform" open -a $app)
for _ in 1 2; do
  title "\$ curl $url"
  curl -fsS --retry 3 --retry-connrefused "$url" | sed 's/^/    /'
done

cat <<END

${bold}The app is live: $url${plain}   (after $((SECONDS - begun)) s)

  Console     $PLATFORM_API/   (demo@localhost, password in $password)
  API         $PLATFORM_API
  Source      $source
  Log         $log

Try next:
  cd $source
  platform ps                                  # what runs
  platform logs --tail                         # what it says
  platform config:set GREETING='Hello, you!'   # a new release; look at the URL again
  platform releases && platform rollback       # and back
  platform pg:psql -c 'TABLE visits'           # its database
  platform run bash                            # a shell in a dyno
  platform --help

\`make down\` stops everything and keeps its state.
END
