//! The machine's apt settings, translated for a stack of another release of Debian.

use std::path::{Path, PathBuf};

use crate::packages::{AptAccess, Machine};

/// Release of the stack.
pub(crate) const SUITE: &str = "trixie";

/// Debian's releases that a machine may run: their suites become those of the stack.
const SUITES: [&str; 5] = ["bullseye", "bookworm", "trixie", "forky", "stable"];

/// apt options that say how to reach a mirror. The others are about the machine that apt runs on.
const OPTIONS: [&str; 8] = [
    "Acquire::http",
    "Acquire::https",
    "Acquire::ftp",
    "Acquire::Retries",
    "Acquire::Check-Valid-Until",
    "Acquire::Check-Date",
    "Acquire::ForceIPv4",
    "Acquire::ForceIPv6",
];

/// Sources and options of this machine. A machine that does not run Debian has no source that is of use here.
pub(crate) fn from_host(machine: &Machine) -> AptAccess {
    let mut sources = Vec::new();
    for (path, text) in config_files(machine, "sources.list", "sources.list.d") {
        let is_deb822 = path.extension().is_some_and(|extension| extension == "sources");
        sources.extend(if is_deb822 { from_deb822(&text) } else { from_lines(&text) });
    }
    sources.dedup();
    let mut options = Vec::new();
    for (_, text) in config_files(machine, "apt.conf", "apt.conf.d") {
        options.extend(statements(&text).into_iter().filter(|statement| {
            OPTIONS.iter().any(|name| statement.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', ':'])))
        }));
    }
    AptAccess { sources, options }
}

/// `/etc/apt/<name>` and the files of `/etc/apt/<folder>`, in apt's order.
fn config_files(machine: &Machine, name: &str, folder: &str) -> Vec<(PathBuf, String)> {
    let etc = machine.root.join("etc/apt");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(etc.join(folder)).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| is_read_by_apt(path));
    paths.sort();
    paths.insert(0, etc.join(name));
    paths.into_iter().filter_map(|path| Some((path.clone(), std::fs::read_to_string(path).ok()?))).collect()
}

/// apt ignores files with other endings, `x.sources.disabled` for instance (sources.list(5), apt.conf(5)).
fn is_read_by_apt(path: &Path) -> bool {
    path.extension().is_none_or(|extension| ["sources", "list", "conf"].iter().any(|known| extension == *known))
}

/// `deb [options] URI suite component…`
fn from_lines(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| {
            let rest = line.trim().strip_prefix("deb ")?.trim();
            let rest = if rest.starts_with('[') { rest.split_once(']')?.1.trim() } else { rest };
            let mut words = rest.split_whitespace();
            let (uri, suite) = (words.next()?, words.next()?);
            source(uri, suite, &words.collect::<Vec<_>>())
        })
        .collect()
}

fn from_deb822(text: &str) -> Vec<String> {
    let mut sources = Vec::new();
    for stanza in text.split("\n\n") {
        let field = |name: &str| -> Vec<&str> {
            let lines = stanza.lines().filter(|line| !line.starts_with('#'));
            let mut fields = lines.filter_map(|line| line.split_once(':'));
            fields
                .find(|(key, _)| key.eq_ignore_ascii_case(name))
                .map_or_else(Vec::new, |(_, value)| value.split_whitespace().collect())
        };
        if !field("Types").contains(&"deb") || field("Enabled").contains(&"no") {
            continue;
        }
        for uri in field("URIs") {
            sources.extend(field("Suites").iter().filter_map(|suite| source(uri, suite, &field("Components"))));
        }
    }
    sources
}

/// The line for the stack's release; none for what is no mirror of Debian itself. Keyrings are left to mmdebstrap.
fn source(uri: &str, suite: &str, components: &[&str]) -> Option<String> {
    let (release, pocket) = suite.split_at(suite.find(['-', '/']).unwrap_or(suite.len()));
    let is_pocket = matches!(pocket, "" | "-updates" | "-security" | "/updates");
    let pocket = if pocket == "/updates" { "-security" } else { pocket };
    let is_debian = SUITES.contains(&release) && is_pocket && components.contains(&"main");
    is_debian.then(|| format!("deb {uri} {SUITE}{pocket} main"))
}

/// `A::B "c";` statements, those in `A { B "c"; };` blocks flattened to the same form.
fn statements(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut scopes: Vec<String> = Vec::new();
    let mut current = String::new();
    let mut quoted = false;
    let without_comments = text.lines().filter(|line| !line.trim_start().starts_with(['#', '/']));
    for character in without_comments.flat_map(|line| line.chars().chain(['\n'])) {
        match character {
            '"' => {
                quoted = !quoted;
                current.push(character);
            }
            '{' if !quoted => {
                scopes.push(current.trim().to_owned());
                current.clear();
            }
            '}' if !quoted => {
                scopes.pop();
                current.clear();
            }
            ';' if !quoted => {
                if !current.trim().is_empty() {
                    let path = scopes.iter().map(String::as_str).chain([current.trim()]).collect::<Vec<_>>();
                    found.push(format!("{};", path.join("::")));
                }
                current.clear();
            }
            '\n' => current.push(' '),
            _ => current.push(character),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_mirror_of_debian_is_used_for_the_stacks_release_whatever_the_machines_own_is() {
        let text = "Types: deb\n# a comment: x\nURIs: http://mirror.company/debian\nSuites: bookworm bookworm-updates bookworm-backports\n\
                    Components: main contrib\nSigned-By: /k.gpg\n\nTypes: deb\nURIs: http://mirror.company/security\n\
                    Suites: bookworm-security\nComponents: main\n\nTypes: deb\nURIs: http://other\nSuites: nodistro\nComponents: main\n";
        assert_eq!(
            from_deb822(text),
            [
                "deb http://mirror.company/debian trixie main",
                "deb http://mirror.company/debian trixie-updates main",
                "deb http://mirror.company/security trixie-security main",
            ]
        );
        let text = "# deb http://no bookworm main\ndeb [signed-by=/k.gpg arch=amd64] http://m/debian bookworm main contrib\n\
                    deb-src http://m/debian bookworm main\ndeb http://m/ubuntu noble main universe\n";
        assert_eq!(from_lines(text), ["deb http://m/debian trixie main"]);
    }

    #[test]
    fn how_to_reach_the_mirror_goes_along_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let conf = folder.path().join("etc/apt/apt.conf.d");
        std::fs::create_dir_all(&conf).unwrap();
        let text = "// comment\nAcquire { http { Proxy \"http://proxy:3128\"; }; Check-Valid-Until \"false\"; };\n\
                    DPkg::Post-Invoke { \"rm -f x; true\"; };\nAcquire::https::CaInfo \"/ca.pem\";\n";
        std::fs::write(conf.join("90company"), text).unwrap();
        std::fs::write(conf.join("91.disabled"), "Acquire::Retries \"9\";\n").unwrap();
        let machine = Machine { env: BTreeMap::new(), root: folder.path().to_owned() };
        assert_eq!(
            from_host(&machine).options,
            [
                "Acquire::http::Proxy \"http://proxy:3128\";",
                "Acquire::Check-Valid-Until \"false\";",
                "Acquire::https::CaInfo \"/ca.pem\";",
            ]
        );
    }
}
