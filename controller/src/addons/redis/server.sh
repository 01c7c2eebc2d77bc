# The password in a file, since everybody on the machine sees the arguments of a process.
umask 077
printf 'requirepass %s\n' "$REDISCLI_AUTH" >/tmp/redis.conf
# A quarter of the memory is left for clients and for the copy that rewriting the log makes.
exec redis-server /tmp/redis.conf --dir /data --bind '*' --port 6379 --protected-mode no \
  --appendonly yes --appendfsync everysec --save '' \
  --maxmemory $((MEMORY_MIB * 3 / 4))mb --maxmemory-policy noeviction
