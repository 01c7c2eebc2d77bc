//! requirements.txt, as far as its key cares: which other files it reads, and whether it installs something of the app itself.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use crate::error::PackError;
use crate::files;

/// What a requirements file depends on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Requirements {
    /// It and every file that it names, relative to the app.
    pub(super) files: BTreeSet<String>,
    /// Something in the app is itself installed.
    pub(super) is_local: bool,
}

/// Reads `name` and all that it includes.
pub(super) fn read(app: &Path, name: &str) -> Result<Requirements, PackError> {
    let mut found = Requirements::default();
    let mut waiting = vec![name.to_owned()];
    while let Some(name) = waiting.pop() {
        if !found.files.insert(name.clone()) {
            continue;
        }
        let text = files::read(app, &name)?.unwrap_or_default();
        let folder = Path::new(&name).parent().unwrap_or(Path::new(""));
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            match included(line) {
                Some(other) => waiting.extend(inside(&folder.join(other))),
                None => found.is_local = found.is_local || is_local(line),
            }
        }
    }
    Ok(found)
}

/// The file that a line such as `-r base.txt` or `--constraint=limits.txt` names.
fn included(line: &str) -> Option<&str> {
    let options = ["-r", "--requirement", "-c", "--constraint"];
    let rest = options.iter().rev().find_map(|option| line.strip_prefix(option))?;
    let file = rest.trim_start_matches(['=', ' ', '\t']);
    // What follows is a comment.
    let file = file.split(" #").next().unwrap_or(file).trim();
    (!file.is_empty()).then_some(file)
}

/// Whether a line names a folder or file instead of a package: `.`, `./lib`, `-e .`, `x @ file:./x`.
fn is_local(line: &str) -> bool {
    let target = ["-e", "--editable"].iter().find_map(|option| line.strip_prefix(option));
    let target = target.unwrap_or(line).trim_start_matches(['=', ' ', '\t']);
    let is_wheel = !target.contains("://") && Path::new(target).extension().is_some_and(|end| end == "whl");
    is_wheel || target.starts_with('.') || target.starts_with('/') || target.contains("file:")
}

/// The path without `.` and `..`; none if it leaves the app.
fn inside(path: &Path) -> Option<String> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            Component::ParentDir if clean.pop() => {}
            _ => return None,
        }
    }
    clean.to_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_include_each_other_are_all_found_once() {
        let app = tempfile::tempdir().unwrap();
        std::fs::create_dir(app.path().join("requirements")).unwrap();
        let write = |name: &str, text: &str| std::fs::write(app.path().join(name), text).unwrap();
        write("requirements.txt", "# -r no.txt\n-r requirements/base.txt\n--constraint=limits.txt # why\n");
        write("requirements/base.txt", "-r ../requirements.txt\nflask\n-r../more.txt\n-r ../../outside.txt\n");
        let found = read(app.path(), "requirements.txt").unwrap();
        let files: Vec<&str> = found.files.iter().map(String::as_str).collect();
        assert_eq!(files, ["limits.txt", "more.txt", "requirements.txt", "requirements/base.txt"]);
        assert!(!found.is_local);
    }

    #[test]
    fn lines_that_install_something_of_the_app_are_known() {
        for line in [".", "./lib", "-e .", "--editable=./x", "x @ file:./x", "../y", "vendor/z-1.0-py3-none-any.whl"] {
            assert!(is_local(line), "{line}");
        }
        for line in
            ["flask==3.1", "-e git+ssh://host/x#egg=x", "x @ https://host/x.tar.gz", "--index-url https://host/"]
        {
            assert!(!is_local(line), "{line}");
        }
    }
}
