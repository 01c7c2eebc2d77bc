exec pg_dump --format=custom --no-owner --no-acl --file="$1"
