# Fills a fresh database, and only when that succeeded puts it in the place of the live one, in one transaction.
dump=$1
fresh=platform_restore_$2
replaced=platform_replaced_$2

admin() { psql --dbname=postgres --no-psqlrc --quiet --tuples-only --set=ON_ERROR_STOP=1 "$@"; }
clear() {
  admin <<'END'
SELECT format('DROP DATABASE %I WITH (FORCE)', datname) FROM pg_database WHERE datname ~ '^platform_(restore|replaced)_' \gexec
END
}

if ! pg_restore --list "$dump" >/dev/null; then
  echo "This is no dump in pg_dump's custom format, or it is damaged."
  exit 1
fi
# What a restore left that was killed.
clear
trap clear EXIT
admin --command="CREATE DATABASE $fresh"
pg_restore --no-owner --no-acl --exit-on-error --dbname="$fresh" "$dump"

# Clients come back at once when they are sent away. Renaming keeps new ones out and waits five seconds for the last to go.
for attempt in 1 2 3 4 5; do
  if admin <<END
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '$PGDATABASE' \g /dev/null
BEGIN;
ALTER DATABASE "$PGDATABASE" RENAME TO $replaced;
ALTER DATABASE $fresh RENAME TO "$PGDATABASE";
COMMIT;
END
  then
    exit 0
  fi
done
echo "Clients could not be sent away; the data is as it was."
exit 1
