//! How many processes a web server should start: Heroku's `WEB_CONCURRENCY`, by the memory that the dyno has.
//!
//! That is known only when a dyno starts, so these are scripts that the launcher runs (Buildpack spec, "exec.d"). What the user
//! set wins, and what the buildpack before this one set does not: the app's own language comes last.

/// Reads the dyno's memory in megabytes: its control group's limit (version 2, then 1), and never more than the machine's.
const MEMORY: &str = r#"#!/bin/sh
set -eu
memory=$(awk '/^MemTotal:/ { print int($2 / 1024) }' /proc/meminfo)
for file in /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes; do
  limit=
  [ ! -r "$file" ] || read -r limit < "$file" || :
  case $limit in
    ''|*[!0-9]*) ;;
    *) limit=$((limit / 1048576)); [ "$limit" -ge "$memory" ] || memory=$limit ;;
  esac
done
set_by=${WEB_CONCURRENCY_SET_BY:-}
tell() { printf '%s = "%s"\n' "$1" "$2" >&3; }
"#;

/// One process for `WEB_MEMORY` megabytes, from 1 to 200.
const NODE: &str = r#"
memory=${MEMORY_AVAILABLE:-$memory}
if [ "$memory" -gt 16384 ]; then each=2048; else each=512; fi
each=${WEB_MEMORY:-$each}
count=$((memory / each))
[ "$count" -ge 1 ] || count=1
[ "$count" -le 200 ] || count=200
tell MEMORY_AVAILABLE "$memory"
tell WEB_MEMORY "$each"
[ -n "${WEB_CONCURRENCY:-}" ] && [ -z "$set_by" ] || { tell WEB_CONCURRENCY "$count"; tell WEB_CONCURRENCY_SET_BY heroku/nodejs; }
"#;

/// One process for 256 megabytes, and no more than two for each core and one.
const PYTHON: &str = r#"
count=$((memory / 256))
most=$((2 * $(nproc) + 1))
[ "$count" -le "$most" ] || count=$most
[ "$count" -ge 1 ] || count=1
tell DYNO_RAM "$memory"
[ -n "${WEB_CONCURRENCY:-}" ] && [ -z "$set_by" ] || { tell WEB_CONCURRENCY "$count"; tell WEB_CONCURRENCY_SET_BY heroku/python; }
"#;

/// The script of a Node.js app.
pub(crate) fn for_node() -> String {
    format!("{MEMORY}{NODE}")
}

/// The script of a Python app.
pub(crate) fn for_python() -> String {
    format!("{MEMORY}{PYTHON}")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// What a script tells in a dyno whose files say this, with these variables set.
    fn told(script: &str, files: &[(&str, &str)], variables: &[(&str, &str)]) -> String {
        let dyno = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = dyno.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let root = dyno.path().display().to_string();
        let script = script.replace("/sys/", &format!("{root}/sys/")).replace("/proc/", &format!("{root}/proc/"));
        let script = script.replace("$(nproc)", "2").replace(">&3", "");
        let mut command = Command::new("sh");
        command.args(["-c", &script]).env_clear().env("PATH", "/usr/bin:/bin").envs(variables.iter().copied());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().replace('"', "").lines().collect::<Vec<_>>().join(", ")
    }

    const MACHINE: (&str, &str) = ("proc/meminfo", "MemTotal: 33554432 kB\nMemFree: 1 kB\n");
    const V2: &str = "sys/fs/cgroup/memory.max";
    const V1: &str = "sys/fs/cgroup/memory/memory.limit_in_bytes";
    const NODE_SAYS: &str = "WEB_CONCURRENCY_SET_BY = heroku/nodejs";

    #[test]
    fn a_node_app_is_told_how_many_processes_fit() {
        for (file, content, memory, each, count) in [
            (V2, "536870912\n", 512, 512, 1),
            (V2, "2147483648\n", 2048, 512, 4),
            (V1, "1073741824\n", 1024, 512, 2),
            (V2, "max\n", 32768, 2048, 16),
            (V1, "9223372036854771712\n", 32768, 2048, 16),
            (V2, "104857600", 100, 512, 1),
        ] {
            let expected =
                format!("MEMORY_AVAILABLE = {memory}, WEB_MEMORY = {each}, WEB_CONCURRENCY = {count}, {NODE_SAYS}");
            assert_eq!(told(&for_node(), &[MACHINE, (file, content)], &[]), expected, "{content}");
        }
    }

    #[test]
    fn what_the_user_set_wins() {
        let files = [MACHINE, (V2, "2147483648\n")];
        let own = told(&for_node(), &files, &[("WEB_CONCURRENCY", "9")]);
        assert_eq!(own, "MEMORY_AVAILABLE = 2048, WEB_MEMORY = 512");
        let own = told(&for_node(), &files, &[("WEB_MEMORY", "1024")]);
        assert_eq!(own, format!("MEMORY_AVAILABLE = 2048, WEB_MEMORY = 1024, WEB_CONCURRENCY = 2, {NODE_SAYS}"));
        assert_eq!(told(&for_python(), &files, &[("WEB_CONCURRENCY", "9")]), "DYNO_RAM = 2048");
    }

    #[test]
    fn a_python_app_is_told_by_its_memory_and_cores_even_after_node() {
        let after_node = [("WEB_CONCURRENCY", "1"), ("WEB_CONCURRENCY_SET_BY", "heroku/nodejs")];
        for (content, memory, count) in [("536870912", 512, 2), ("4294967296", 4096, 5), ("1048576", 1, 1)] {
            let expected =
                format!("DYNO_RAM = {memory}, WEB_CONCURRENCY = {count}, WEB_CONCURRENCY_SET_BY = heroku/python");
            assert_eq!(told(&for_python(), &[MACHINE, (V2, content)], &after_node), expected);
        }
    }
}
