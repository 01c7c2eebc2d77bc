# Makes nginx's configuration of a starting dyno: puts in the port, the password file, config vars and proxies.
function fail(text) { print "static.json: " text > "/dev/stderr"; failed = 1; exit 1 }

# The line with every ${NAME} replaced. A value must not end the quotes that it is put into.
function expand(line,   name, value) {
  while (match(line, /\$\{[A-Za-z0-9_]+\}/)) {
    name = substr(line, RSTART + 2, RLENGTH - 3)
    if (!(name in ENVIRON)) fail("the config var " name " is not set")
    value = ENVIRON[name]
    if (value ~ /["\\${};\n]/) fail("the config var " name " has a character that may not be there")
    line = substr(line, 1, RSTART - 1) value substr(line, RSTART + RLENGTH)
  }
  return line
}

# A proxy's host is looked up again and again, so nginx gets it as a variable, and its path apart.
function proxy(path, origin,   base) {
  if (!match(origin, /^https?:\/\/[^\/]+/)) fail("the origin of the proxy " path " is no URL: " origin)
  base = substr(origin, 1, RLENGTH)
  print "    location ^~ \"" path "\" {"
  print "      set $origin \"" base "\";"
  print "      rewrite \"^" path "(.*)$\" \"" substr(origin, RLENGTH + 1) "$1\" break;"
  print "      proxy_pass $origin;"
  print "      proxy_ssl_server_name on;"
  print "      proxy_http_version 1.1;"
  print "      proxy_set_header X-Forwarded-Host $host;"
  print "    }"
}

BEGIN {
  while ((getline line < "/etc/resolv.conf") > 0) if (split(line, words, /[ \t]+/) > 1 && words[1] == "nameserver") server = server " " words[2]
}
{
  line = expand($0)
  if (line ~ /^    PROXY /) { split(line, parts, "\""); proxy(parts[2], parts[4]); next }
  sub(/listen PORT;/, "listen " port ";", line)
  sub(/PASSWORDS;/, passwords ";", line)
  print line
  if (line ~ /^http \{/ && server != "") print "  resolver" server " ipv6=off;"
}
END { exit failed }
