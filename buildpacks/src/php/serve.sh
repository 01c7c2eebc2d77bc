#!/bin/bash
# heroku-php-apache2, heroku-php-nginx: starts PHP's FPM and a web server before it, with Heroku's options. Ends when either does.
set -eu

name=$(basename "$0")
usage() {
  cat >&2 <<END
Usage: $name [options] [<document root>]

  -C <file>  included in the web server's configuration of this site
  -c <file>  the web server's whole configuration
  -F <file>  included in FPM's pool, as lines such as php_value[memory_limit] = 256M
  -f <file>  FPM's whole configuration
  -i <file>  php.ini
  -l <file>  also show this log; may be given more than once
  -p <port>  in place of \$PORT
  -v         say what is started
END
  exit 2
}

include='' config='' pool_include='' pool_config='' ini='' verbose='' logs=()
while getopts ':C:c:F:f:i:l:p:hv' option; do
  case $option in
    C) include=$OPTARG ;;
    c) config=$OPTARG ;;
    F) pool_include=$OPTARG ;;
    f) pool_config=$OPTARG ;;
    i) ini=$OPTARG ;;
    l) logs+=("$OPTARG") ;;
    p) PORT=$OPTARG ;;
    v) verbose=1 ;;
    *) usage ;;
  esac
done
shift $((OPTIND - 1))
[ $# -le 1 ] || usage
export PORT=${PORT:-5000}
root=$(realpath -m "${1:-.}")
[ -d "$root" ] || { echo "$name: there is no folder $root to serve" >&2; exit 1; }
for file in "$include" "$config" "$pool_include" "$pool_config" "$ini"; do
  [ -z "$file" ] || [ -r "$file" ] || { echo "$name: cannot read $file" >&2; exit 1; }
done

tmp=$(mktemp -d "/tmp/$name.XXXXXX")
# A configuration that is a PHP program is what it prints.
rendered() {
  case $1 in
    '') ;;
    *.php) php "$1" > "$tmp/$2"; echo "$tmp/$2" ;;
    *) realpath "$1" ;;
  esac
}
include=$(rendered "$include" include.conf)
config=$(rendered "$config" server.conf)
pool_include=$(rendered "$pool_include" fpm.include.conf)
pool_config=$(rendered "$pool_config" fpm.conf)

# Programs that want the name of a log file get a pipe that leads here: a file in /tmp would grow for ever.
mkfifo "$tmp/log"
cat <> "$tmp/log" >&2 &
for log in "${logs[@]}"; do
  touch "$log"
  tail --quiet --follow=name --retry --lines=0 "$log" >&2 &
done

# As many workers as fit: the dyno's memory by one request's.
megabytes() {
  case $1 in
    *[gG]) echo $((${1%?} * 1024)) ;;
    *[mM]) echo "${1%?}" ;;
    *[kK]) echo $((${1%?} / 1024)) ;;
    *) echo $((${1:-0} / 1048576)) ;;
  esac
}
memory_limit=$(sed -n 's/^[[:space:]]*\(php_\(admin_\)\?value\[memory_limit\]\|memory_limit\)[[:space:]]*=[[:space:]]*"\?\([0-9]\+[kKmMgG]\?\).*/\3/p' \
  ${ini:+"$ini"} ${pool_include:+"$pool_include"} "$root/.user.ini" 2> /dev/null | tail -n 1)
if [ -z "${WEB_CONCURRENCY:-}" ] || [ -n "${WEB_CONCURRENCY_SET_BY:-}" ]; then
  memory=$(awk '/^MemTotal:/ { print int($2 / 1024) }' /proc/meminfo)
  for file in /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes; do
    limit=
    [ ! -r "$file" ] || read -r limit < "$file" || :
    case $limit in
      '' | *[!0-9]*) ;;
      *) [ $((limit / 1048576)) -ge "$memory" ] || memory=$((limit / 1048576)) ;;
    esac
  done
  each=$(megabytes "${memory_limit:-128M}")
  WEB_CONCURRENCY=$((memory / (each > 0 ? each : 128)))
  [ "$WEB_CONCURRENCY" -ge 1 ] || WEB_CONCURRENCY=1
  [ "$WEB_CONCURRENCY" -le 200 ] || WEB_CONCURRENCY=200
  export WEB_CONCURRENCY
fi

socket=$tmp/fpm.sock
if [ -z "$pool_config" ]; then
  pool_config=$tmp/fpm.conf
  cat > "$pool_config" <<END
[global]
pid = $tmp/fpm.pid
error_log = $tmp/log
log_level = warning
daemonize = no
[www]
listen = $socket
pm = static
pm.max_children = $WEB_CONCURRENCY
clear_env = no
catch_workers_output = yes
decorate_workers_output = no
${pool_include:+include = $pool_include}
END
fi

apache() {
  modules=(mpm_event authn_core authn_file authz_core authz_host authz_user auth_basic access_compat alias autoindex deflate dir
    env expires ext_filter filter headers include mime negotiation proxy proxy_fcgi remoteip reqtimeout rewrite setenvif status)
  for module in "${modules[@]}"; do
    [ ! -e "/usr/lib/apache2/modules/mod_$module.so" ] ||
      echo "LoadModule ${module}_module /usr/lib/apache2/modules/mod_$module.so"
  done
  cat <<END
ServerRoot "$tmp"
ServerName localhost
ServerTokens Prod
Listen $PORT
PidFile "$tmp/server.pid"
DefaultRuntimeDir "$tmp"
ErrorLog "$tmp/log"
LogLevel warn
TypesConfig /etc/mime.types
AddOutputFilterByType DEFLATE text/html text/plain text/css text/javascript application/javascript application/json image/svg+xml
SetEnvIf X-Forwarded-Proto "^https$" HTTPS=on
<Directory />
  AllowOverride None
  Require all denied
</Directory>
<VirtualHost *:$PORT>
  DocumentRoot "$root"
  DirectoryIndex index.php index.html index.htm
  <Directory "$root">
    Options FollowSymLinks
    AllowOverride All
    Require all granted
  </Directory>
  <Files ".ht*">
    Require all denied
  </Files>
  <Proxy "unix:$socket|fcgi://heroku-fcgi">
    ProxySet connectiontimeout=5 timeout=600
  </Proxy>
  <FilesMatch "\.php$">
    <If "-f %{REQUEST_FILENAME}">
      SetHandler "proxy:unix:$socket|fcgi://heroku-fcgi"
    </If>
  </FilesMatch>
  ${include:+Include "$include"}
</VirtualHost>
END
}

nginx_site() {
  # What a config of the app's usually names.
  local fastcgi='include /etc/nginx/fastcgi_params;
      fastcgi_split_path_info ^(.+\.php)(/.*)$;
      fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;
      fastcgi_param PATH_INFO $fastcgi_path_info;
      fastcgi_param HTTPS $forwarded_https if_not_empty;
      fastcgi_buffers 256 4k;
      fastcgi_read_timeout 600s;
      fastcgi_pass heroku-fcgi;'
  cat <<END
daemon off;
pid $tmp/server.pid;
error_log $tmp/log warn;
worker_processes 1;
events { worker_connections 1024; }
http {
  include /etc/nginx/mime.types;
  default_type application/octet-stream;
  access_log off;
  sendfile on;
  gzip on;
  gzip_types text/plain text/css text/javascript application/javascript application/json image/svg+xml;
  server_tokens off;
  client_max_body_size 0;
  client_body_temp_path $tmp/body;
  proxy_temp_path $tmp/proxy;
  fastcgi_temp_path $tmp/fastcgi;
  uwsgi_temp_path $tmp/uwsgi;
  scgi_temp_path $tmp/scgi;
  map \$http_x_forwarded_proto \$forwarded_https { default ''; https on; }
  upstream heroku-fcgi { server unix:$socket max_fails=3 fail_timeout=3s; }
  server {
    listen $PORT;
    server_name localhost;
    root "$root";
    index index.php index.html index.htm;
    port_in_redirect off;
    ${include:+include "$include";}
    location ~ /\.(?!well-known) { deny all; }
    location @heroku-fcgi {
      $fastcgi
    }
    location ~ \.php(/|\$) {
      try_files \$fastcgi_script_name =404;
      $fastcgi
    }
  }
}
END
}

if [ "$name" = heroku-php-nginx ]; then
  [ -n "$config" ] || { config=$tmp/server.conf; nginx_site > "$config"; }
  server=(nginx -c "$config" -e "$tmp/log")
else
  [ -n "$config" ] || { config=$tmp/server.conf; apache > "$config"; }
  server=(apache2 -DFOREGROUND -f "$config")
fi

[ -z "$verbose" ] || echo "$name: ${server[*]}, and $WEB_CONCURRENCY workers of PHP, serve $root" >&2
php-fpm8.4 --nodaemonize --fpm-config "$pool_config" ${ini:+--php-ini "$ini"} &
pool=$!
# A request that came before FPM listens would be answered with an error. A pool of the app's own may listen elsewhere.
for _ in {1..100}; do
  [ ! -S "$socket" ] && grep -q "$socket" "$pool_config" && kill -0 "$pool" 2> /dev/null || break
  sleep 0.05
done
"${server[@]}" &
# One without the other is of no use: the platform starts both anew.
wait -n || :
exit 1
