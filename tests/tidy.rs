//! The rules of the house, as tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Longest file and function, in lines, tests excluded.
const FILE_LIMIT: usize = 600;
const FUNCTION_LIMIT: usize = 80;

/// Who may import whom.
const ROOMS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("manifest", &["model"]),
    ("engine", &["model"]),
    ("engine/containerd", &["engine", "model"]),
    ("builder", &["engine", "model"]),
    ("buildpacks", &[]),
    ("router", &["model"]),
    ("controller", &["builder", "engine", "manifest", "model", "router"]),
    ("web", &["controller", "model"]),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> =
        ["cli", "model", "manifest", "engine", "builder", "buildpacks", "router", "controller", "web", "tests"]
            .map(|room| root().join(room))
            .into();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the house").flatten() {
            let path = entry.path();
            if path.is_dir() && !path.ends_with("fixtures") && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files
}

/// A file without its tests.
fn product(path: &Path) -> String {
    let text = std::fs::read_to_string(path).expect("readable");
    text.split("#[cfg(test)]\nmod ").next().unwrap_or_default().to_owned()
}

fn is_test(path: &Path) -> bool {
    let text = path.to_string_lossy();
    text.contains("/tests/")
        || text.ends_with("tests.rs")
        || text.ends_with("testing.rs")
        || text.ends_with("conformance.rs")
}

fn report(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{rule}:\n  {}", offences.join("\n  "));
}

#[test]
fn rooms_import_only_what_lies_below_them() {
    let names: Vec<&str> = ROOMS.iter().map(|(room, _)| *room).collect();
    let mut offences = Vec::new();
    for (room, allowed) in ROOMS {
        let manifest = std::fs::read_to_string(root().join(room).join("Cargo.toml")).expect("a manifest");
        let dependencies =
            manifest.split("[dependencies]").nth(1).unwrap_or_default().split("\n[").next().unwrap_or_default();
        for line in dependencies.lines() {
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            let known = names.contains(&name) || ["platform", "engine-containerd"].contains(&name);
            if known && !allowed.contains(&name) {
                offences.push(format!("{room} imports {name}"));
            }
        }
    }
    report("lower rooms never call up (ARCHITECTURE.md)", &offences);
}

#[test]
fn only_the_server_names_an_engine() {
    let offences: Vec<String> = sources()
        .into_iter()
        .filter(|path| {
            !path.starts_with(root().join("engine"))
                && !path.ends_with("cli/server.rs")
                && !path.ends_with("tests/tidy.rs")
        })
        .filter(|path| product(path).contains("engine_containerd"))
        .map(|path| path.display().to_string())
        .collect();
    report("only cli/server.rs knows which engine runs", &offences);
}

#[test]
fn sql_lives_in_the_store() {
    let is_sql =
        |line: &str| ["\"SELECT ", "\"INSERT ", "\"UPDATE ", "\"DELETE "].iter().any(|verb| line.contains(verb));
    let offences: Vec<String> = sources()
        .into_iter()
        .filter(|path| {
            !path.starts_with(root().join("controller/src/store")) && !path.starts_with(root().join("tests"))
        })
        .filter(|path| product(path).lines().any(is_sql))
        .map(|path| path.display().to_string())
        .collect();
    report("SQL text only in controller/src/store", &offences);
}

#[test]
fn files_are_short() {
    let offences: Vec<String> = sources()
        .into_iter()
        .filter(|path| !is_test(path))
        .map(|path| (product(&path).lines().count(), path))
        .filter(|(lines, _)| *lines > FILE_LIMIT)
        .map(|(lines, path)| format!("{} has {lines} lines", path.display()))
        .collect();
    report(&format!("files have at most {FILE_LIMIT} lines"), &offences);
}

#[test]
fn functions_are_short() {
    let mut offences = Vec::new();
    for path in sources().into_iter().filter(|path| !is_test(path)) {
        let text = product(&path);
        let mut open: Option<(String, usize, usize)> = None;
        for (number, line) in text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let is_head = ["fn ", "async fn ", "pub fn ", "pub async fn ", "pub(crate) fn ", "pub(super) fn "]
                .iter()
                .any(|head| line.trim_start().starts_with(head));
            if open.is_none() && is_head && !line.trim_end().ends_with(['}', ';']) {
                open = Some((line.trim().to_owned(), number, indent));
            } else if let Some((head, start, depth)) = &open
                && line.trim_end() == format!("{}}}", " ".repeat(*depth))
            {
                if number - start > FUNCTION_LIMIT {
                    offences.push(format!("{}: {} lines: {head}", path.display(), number - start));
                }
                open = None;
            }
        }
    }
    report(&format!("functions have at most {FUNCTION_LIMIT} lines"), &offences);
}

#[test]
fn no_module_is_forgotten() {
    let mut folders: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    // cargo finds examples by itself.
    for path in sources().into_iter().filter(|path| !path.parent().is_some_and(|folder| folder.ends_with("examples"))) {
        folders.entry(path.parent().expect("a folder").to_owned()).or_default().push(path);
    }
    let mut offences = Vec::new();
    for (folder, files) in &folders {
        let siblings: String = files.iter().map(|path| std::fs::read_to_string(path).expect("readable")).collect();
        let parent = folder.with_extension("rs");
        let text = siblings + &std::fs::read_to_string(&parent).unwrap_or_default();
        for file in files {
            let stem = file.file_stem().expect("a name").to_string_lossy();
            if !["lib", "main", "mod", "build"].contains(&&*stem) && !text.contains(&format!("mod {stem};")) {
                offences.push(file.display().to_string());
            }
        }
    }
    report("every file belongs to a module", &offences);
}
