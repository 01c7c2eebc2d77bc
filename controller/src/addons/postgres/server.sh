cd /data
programs=$(echo /usr/lib/postgresql/*/bin)

# The first start makes the cluster beside its place. It counts only once it is whole and on the disk.
if [ ! -d cluster ]; then
  rm -rf making
  # Its order of text is PostgreSQL's own: it does not change with the system's libraries, under indexes that are there.
  "$programs/initdb" --pgdata=making --username=postgres --encoding=UTF8 --locale-provider=builtin --locale=C.UTF-8 \
    --auth-local=trust --auth-host=scram-sha-256 --data-checksums --no-sync --no-instructions
  # In this mode a line is a statement.
  "$programs/postgres" --single -D making -c fsync=off postgres >/dev/null <<END
CREATE ROLE "$PGUSER" LOGIN CREATEDB PASSWORD '$PGPASSWORD'
CREATE DATABASE "$PGDATABASE" OWNER "$PGUSER"
END
  # Within the container there is nobody but the server; from outside, only the role has a password.
  printf 'local all all trust\nhost all all all scram-sha-256\n' >making/pg_hba.conf
  sync -f making
  mv making cluster
  sync -f .
fi

# For clients that insist on TLS (`sslmode=require`), as apps from Heroku do. Nobody signed it: it keeps secrets, and proves nothing.
if [ ! -f server.crt ]; then
  openssl req -quiet -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days 36500 -subj /CN=postgres \
    -keyout server.key -out making.crt
  sync -f .
  mv making.crt server.crt
fi

# Keepalives: a client whose machine went away, or whose network was shut, holds its connection and its locks for two minutes.
# No JIT: its compiler is not in the image. sysv: /dev/shm is small, and what parallel queries share has no bound.
exec "$programs/postgres" -D cluster -c listen_addresses='*' -c port=5432 -c unix_socket_directories=/tmp \
  -c shared_buffers=$((MEMORY_MIB / 4))MB -c effective_cache_size=$((MEMORY_MIB / 2))MB \
  -c maintenance_work_mem=$((MEMORY_MIB / 16))MB -c max_connections=100 -c dynamic_shared_memory_type=sysv -c jit=off \
  -c tcp_keepalives_idle=60 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=6 \
  -c ssl=on -c ssl_cert_file=/data/server.crt -c ssl_key_file=/data/server.key \
  -c log_checkpoints=off -c log_line_prefix=
