#!/bin/sh
# Starts nginx with the configuration beside this program, and what only a starting dyno knows.
set -e
here=$(dirname "$0")/..
umask 077
folder=$(mktemp -d)
if grep -q 'PASSWORDS;$' "$here/nginx.conf"; then
  if [ -z "$BASIC_AUTH_USERNAME" ] || [ -z "$BASIC_AUTH_PASSWORD" ]; then
    echo 'static.json: basic_auth wants the config vars BASIC_AUTH_USERNAME and BASIC_AUTH_PASSWORD' >&2
    exit 1
  fi
  hash=$(printf '%s' "$BASIC_AUTH_PASSWORD" | openssl passwd -6 -stdin)
  printf '%s:%s\n' "$BASIC_AUTH_USERNAME" "$hash" > "$folder/passwords"
fi
awk -v port="${PORT:-5000}" -v passwords="$folder/passwords" -f "$here/start.awk" "$here/nginx.conf" > "$folder/nginx.conf"
exec nginx -e stderr -c "$folder/nginx.conf"
