#!/usr/bin/python3
"""What Java programs want to know when a process starts: the database's URL in JDBC's form, and how much memory to use.

Run by the launcher (Buildpack spec, "exec.d"). What the user set wins.
"""

import json
import os
import urllib.parse

KINDS = {"postgres": "postgresql", "postgresql": "postgresql", "mysql": "mysql", "mysql2": "mysql", "mariadb": "mariadb"}
PARTS = ("URL", "USERNAME", "PASSWORD")


def jdbc(url):
    """The URL, user and password of a database, or nothing for what is no URL of one."""
    parts = urllib.parse.urlsplit(url)
    kind = KINDS.get(parts.scheme)
    if not kind or not parts.hostname:
        return None
    host = "[%s]" % parts.hostname if ":" in parts.hostname else parts.hostname
    port = ":%d" % parts.port if parts.port else ""
    user = urllib.parse.unquote(parts.username or "")
    password = urllib.parse.unquote(parts.password or "")
    query = urllib.parse.parse_qsl(parts.query, keep_blank_values=True)
    query += [(name, value) for name, value in [("user", user), ("password", password)] if value]
    query = "?" + urllib.parse.urlencode(query) if query else ""
    return "jdbc:%s://%s%s%s%s" % (kind, host, port, parts.path, query), user, password


def database_variables(env):
    found = {}
    for name, value in env.items():
        if not name.endswith("_URL") or name.endswith("_JDBC_URL"):
            continue
        try:
            made = jdbc(value)
        except ValueError:
            continue
        if made:
            prefix = "JDBC_DATABASE" if name == "DATABASE_URL" else name[: -len("_URL")] + "_JDBC"
            found.update((prefix + "_" + part, value) for part, value in zip(PARTS, made))
    # Providers whose variable stands for the database when there is no DATABASE_URL.
    for prefix in ("JAWSDB", "JAWSDB_MARIA", "CLEARDB_DATABASE"):
        if "JDBC_DATABASE_URL" not in found and prefix + "_JDBC_URL" in found:
            found.update(("JDBC_DATABASE_" + part, found[prefix + "_JDBC_" + part]) for part in PARTS)
    if "JDBC_DATABASE_URL" in found and env.get("DISABLE_SPRING_DATASOURCE_URL") != "true":
        found.update(("SPRING_DATASOURCE_" + part, found["JDBC_DATABASE_" + part]) for part in PARTS)
    if "REDIS_URL" in env and env.get("DISABLE_SPRING_REDIS_URL") != "true":
        found["SPRING_REDIS_URL"] = found["SPRING_DATA_REDIS_URL"] = env["REDIS_URL"]
    return found


def memory_megabytes():
    with open("/proc/meminfo") as meminfo:
        memory = next(int(line.split()[1]) // 1024 for line in meminfo if line.startswith("MemTotal:"))
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(path) as limit:
                memory = min(memory, int(limit.read()) // 1048576)
        except (OSError, ValueError):
            pass
    return memory


def heap_options(memory):
    """Heroku's shares: what the heap leaves is for threads, code and buffers."""
    if memory <= 512:
        return "-Xmx%dm -Xss512k -XX:CICompilerCount=2" % max(memory * 300 // 512, 32)
    if memory <= 1024:
        return "-Xmx%dm -XX:CICompilerCount=2" % (memory * 671 // 1024)
    return "-Xmx%dm" % (memory * 4 // 5)


def main():
    env = dict(os.environ)
    told = {name: value for name, value in database_variables(env).items() if name not in env}
    own = env.get("JAVA_TOOL_OPTIONS", "")
    # The last of two options counts, so the user's come last. With a heap of their own nothing is added.
    if "-Xmx" not in own + env.get("JAVA_OPTS", "") and "RAMPercentage" not in own:
        told["JAVA_TOOL_OPTIONS"] = " ".join([heap_options(memory_megabytes()), "-Dfile.encoding=UTF-8", own]).strip()
    with os.fdopen(3, "w") as out:
        for name, value in told.items():
            # A JSON string is a TOML string too.
            out.write("%s = %s\n" % (json.dumps(name), json.dumps(value)))


if __name__ == "__main__":
    main()
