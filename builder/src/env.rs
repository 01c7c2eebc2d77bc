//! The environment rules (Buildpack spec, "Environment"; Platform spec, "User-Provided Variables"). Values are bytes; nothing is
//! trimmed, quoted or evaluated.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// What of the lifecycle's own environment a buildpack sees.
const INHERITED: [&str; 14] = [
    "PATH",
    "LD_LIBRARY_PATH",
    "LIBRARY_PATH",
    "CPATH",
    "PKG_CONFIG_PATH",
    "HOME",
    "HOSTNAME",
    "CNB_STACK_ID",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// Variables that a layer's directories lengthen at build: user-provided values are put before theirs instead of replacing them.
const BUILD_PATHS: [(&str, &str); 5] = [
    ("bin", "PATH"),
    ("lib", "LD_LIBRARY_PATH"),
    ("lib", "LIBRARY_PATH"),
    ("include", "CPATH"),
    ("pkgconfig", "PKG_CONFIG_PATH"),
];

/// The same at launch.
const LAUNCH_PATHS: [(&str, &str); 2] = [("bin", "PATH"), ("lib", "LD_LIBRARY_PATH")];

/// What the platform tells the lifecycle and the app must not see.
const PLATFORM_ONLY: [&str; 5] =
    ["CNB_LAYERS_DIR", "CNB_APP_DIR", "CNB_PROCESS_TYPE", "CNB_PLATFORM_API", "CNB_DEPRECATION_MODE"];

/// An environment in the making.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Env(BTreeMap<OsString, OsString>);

/// What a file without a suffix does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plain {
    Override,
    Default,
}

impl Env {
    /// The part of `own` that detect and build start from.
    pub(crate) fn for_build(own: impl Iterator<Item = (OsString, OsString)>) -> Self {
        Self(own.filter(|(name, _)| INHERITED.iter().any(|inherited| name == inherited)).collect())
    }

    /// The part of `own` that a launched process starts from.
    pub(crate) fn for_launch(own: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let mut env = Self(own.filter(|(name, _)| !PLATFORM_ONLY.iter().any(|hidden| name == hidden)).collect());
        if let Some(path) = env.0.get_mut(OsStr::new("PATH")) {
            let ours = [Path::new("/cnb/process"), Path::new("/cnb/lifecycle")];
            let kept: Vec<PathBuf> = std::env::split_paths(path).filter(|dir| !ours.contains(&dir.as_path())).collect();
            if let Ok(joined) = std::env::join_paths(kept) {
                *path = joined;
            }
        }
        env
    }

    pub(crate) fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    pub(crate) fn set(&mut self, name: impl Into<OsString>, value: impl Into<OsString>) {
        self.0.insert(name.into(), value.into());
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&OsString, &OsString)> {
        self.0.iter()
    }

    /// Adds the user-provided variables of `<platform>/env`, one file each: they replace what buildpacks set, and go before it in
    /// path variables.
    pub(crate) fn add_user(&mut self, dir: &Path) -> io::Result<()> {
        for (name, value) in files(dir)? {
            if BUILD_PATHS.iter().any(|(_, variable)| name == *variable) {
                self.prepend(&name, &value, b":");
            } else {
                self.0.insert(name, value);
            }
        }
        Ok(())
    }

    /// Adds the operator's variables of `<build config>/env`.
    pub(crate) fn add_operator(&mut self, dir: &Path) -> io::Result<()> {
        self.add_files(dir, Plain::Default)
    }

    /// Adds one layer for the buildpacks that come after: its directories, then its files.
    pub(crate) fn add_build_layer(&mut self, layer: &Path) -> io::Result<()> {
        self.add_dirs(layer, &BUILD_PATHS);
        self.add_files(&layer.join("env"), Plain::Override)?;
        self.add_files(&layer.join("env.build"), Plain::Override)
    }

    /// Adds the launch layers of one buildpack: the directories of all of them first, then the files of all of them.
    pub(crate) fn add_launch_layers(&mut self, layers: &[PathBuf], process_type: Option<&str>) -> io::Result<()> {
        for layer in layers {
            self.add_dirs(layer, &LAUNCH_PATHS);
        }
        for layer in layers {
            self.add_files(&layer.join("env"), Plain::Override)?;
            self.add_files(&layer.join("env.launch"), Plain::Override)?;
            if let Some(process_type) = process_type {
                self.add_files(&layer.join("env.launch").join(process_type), Plain::Override)?;
            }
        }
        Ok(())
    }

    fn add_dirs(&mut self, layer: &Path, variables: &[(&str, &str)]) {
        for (dir, variable) in variables {
            let dir = layer.join(dir);
            if dir.is_dir() {
                self.prepend(OsStr::new(variable), dir.as_os_str(), b":");
            }
        }
    }

    /// Applies the files of one directory, in the order of their names; the suffix after the first dot says how.
    fn add_files(&mut self, dir: &Path, plain: Plain) -> io::Result<()> {
        let files = files(dir)?;
        for (file, value) in &files {
            let (name, suffix) = split_suffix(file);
            let delimiter = || {
                let file = [name.as_bytes(), b".delim"].concat();
                files.get(OsStr::from_bytes(&file)).map(|value| value.as_bytes().to_owned()).unwrap_or_default()
            };
            match (suffix, plain) {
                (b"override", _) | (b"", Plain::Override) => self.set(name, value),
                (b"default", _) | (b"", Plain::Default) => self.set_default(name, value),
                (b"append", _) => self.append(name, value, &delimiter()),
                (b"prepend", _) => self.prepend(name, value, &delimiter()),
                _ => {}
            }
        }
        Ok(())
    }

    fn set_default(&mut self, name: &OsStr, value: &OsStr) {
        if self.0.get(name).is_none_or(|old| old.is_empty()) {
            self.set(name, value);
        }
    }

    fn append(&mut self, name: &OsStr, value: &OsStr, delimiter: &[u8]) {
        let joined = self.0.get(name).map(|old| join(old, value, delimiter));
        self.set(name, joined.unwrap_or_else(|| value.to_owned()));
    }

    fn prepend(&mut self, name: &OsStr, value: &OsStr, delimiter: &[u8]) {
        let joined = self.0.get(name).map(|old| join(value, old, delimiter));
        self.set(name, joined.unwrap_or_else(|| value.to_owned()));
    }
}

fn join(first: &OsStr, second: &OsStr, delimiter: &[u8]) -> OsString {
    match (first.is_empty(), second.is_empty()) {
        (true, _) => second.to_owned(),
        (_, true) => first.to_owned(),
        _ => OsString::from_vec([first.as_bytes(), delimiter, second.as_bytes()].concat()),
    }
}

fn split_suffix(file: &OsStr) -> (&OsStr, &[u8]) {
    let bytes = file.as_bytes();
    match bytes.iter().position(|byte| *byte == b'.') {
        Some(dot) => (OsStr::from_bytes(&bytes[..dot]), &bytes[dot + 1..]),
        None => (file, b""),
    }
}

/// The regular files of a directory (symlinks followed) and their contents; empty if there is no such directory.
fn files(dir: &Path) -> io::Result<BTreeMap<OsString, OsString>> {
    let entries = match dir.read_dir() {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(BTreeMap::new());
        }
        entries => entries?,
    };
    let mut found = BTreeMap::new();
    for entry in entries {
        let entry = entry?;
        if entry.path().is_file() {
            found.insert(entry.file_name(), OsString::from_vec(std::fs::read(entry.path())?));
        }
    }
    Ok(found)
}

/// The subdirectories of a buildpack's layers directory, in the order of their names.
pub(crate) fn layer_dirs(buildpack: &Path) -> io::Result<Vec<PathBuf>> {
    let mut dirs = Vec::new();
    match buildpack.read_dir() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(dirs),
        entries => {
            for entry in entries? {
                dirs.push(entry?.path());
            }
        }
    }
    dirs.retain(|dir| dir.is_dir());
    dirs.sort();
    Ok(dirs)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        dir
    }

    fn env(pairs: &[(&str, &str)]) -> Env {
        Env(pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
    }

    #[test]
    fn suffixes_do_what_they_say_and_unknown_ones_nothing() {
        let layer = tree(&[
            ("env/PLAIN", "new"),
            ("env/OVER.override", "new"),
            ("env/DEF.default", "new"),
            ("env/DEF2.default", "new"),
            ("env/APP.append", "b"),
            ("env/PRE.prepend", "b"),
            ("env/PRE.delim", ", "),
            ("env/UNKNOWN.foo", "x"),
        ]);
        let old = [("PLAIN", "old"), ("OVER", "old"), ("DEF", "old"), ("DEF2", ""), ("APP", "a"), ("PRE", "a")];
        let mut env = env(&old);
        env.add_build_layer(layer.path()).unwrap();
        let show = |name| env.get(name).map(|value| value.to_str().unwrap());
        assert_eq!(show("PLAIN"), Some("new"));
        assert_eq!(show("OVER"), Some("new"));
        assert_eq!(show("DEF"), Some("old"));
        assert_eq!(show("DEF2"), Some("new"));
        assert_eq!(show("APP"), Some("ab"));
        assert_eq!(show("PRE"), Some("b, a"));
        assert_eq!(show("UNKNOWN"), None);
    }

    #[test]
    fn a_delimiter_serves_its_own_directory_only() {
        let layer = tree(&[("env/X.delim", "-"), ("env/X.append", "1"), ("env.build/X.append", "2")]);
        let mut env = env(&[("X", "0")]);
        env.add_build_layer(layer.path()).unwrap();
        assert_eq!(env.get("X").unwrap(), "0-12");
    }

    #[test]
    fn user_variables_replace_values_and_precede_paths_byte_for_byte() {
        let platform = tree(&[("A", "one\n"), ("PATH", "/mine")]);
        let mut env = env(&[("A", "buildpack"), ("PATH", "/bin")]);
        env.add_user(platform.path()).unwrap();
        assert_eq!(env.get("A").unwrap(), "one\n");
        assert_eq!(env.get("PATH").unwrap(), "/mine:/bin");
    }

    #[test]
    fn operator_variables_are_defaults_unless_they_say_otherwise() {
        let config = tree(&[("A", "operator"), ("B", "operator"), ("C.override", "operator")]);
        let mut env = env(&[("A", "user"), ("C", "user")]);
        env.add_operator(config.path()).unwrap();
        assert_eq!(env.get("A").unwrap(), "user");
        assert_eq!(env.get("B").unwrap(), "operator");
        assert_eq!(env.get("C").unwrap(), "operator");
    }

    #[test]
    fn at_launch_files_come_after_all_directories_and_by_process_type() {
        let layers = tree(&[
            ("a/bin/x", ""),
            ("a/env.launch/PATH.prepend", "/first"),
            ("a/env.launch/PATH.delim", ":"),
            ("a/env.launch/web/ONLY", "web"),
            ("b/bin/x", ""),
            ("b/env.build/NOT", "x"),
        ]);
        let root = layers.path().display();
        let mut env = env(&[("PATH", "/bin")]);
        env.add_launch_layers(&layer_dirs(layers.path()).unwrap(), Some("web")).unwrap();
        assert_eq!(env.get("PATH").unwrap().to_str().unwrap(), format!("/first:{root}/b/bin:{root}/a/bin:/bin"));
        assert_eq!(env.get("ONLY").unwrap(), "web");
        assert_eq!(env.get("NOT"), None);
    }

    #[test]
    fn a_launched_process_does_not_see_the_platforms_own_variables() {
        let hidden = ["LAYERS_DIR", "APP_DIR", "PROCESS_TYPE", "PLATFORM_API", "DEPRECATION_MODE"];
        let hidden = hidden.map(|name| (format!("CNB_{name}"), "x"));
        let own = [("PATH", "/cnb/process:/cnb/lifecycle:/usr/bin"), ("PORT", "5000")];
        let own = own
            .map(|(name, value)| (name.to_owned(), value))
            .into_iter()
            .chain(hidden)
            .map(|(name, value)| (name.into(), value.into()));
        assert_eq!(Env::for_launch(own), env(&[("PATH", "/usr/bin"), ("PORT", "5000")]));
    }

    #[test]
    fn a_buildpack_inherits_only_the_listed_variables() {
        let listed = "PATH LD_LIBRARY_PATH LIBRARY_PATH CPATH PKG_CONFIG_PATH HOME HOSTNAME CNB_STACK_ID \
                      HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy";
        let others = "SECRET CNB_LAYERS_DIR CNB_REGISTRY_AUTH PLATFORM_PACKAGES USER LANG SSL_CERT_FILE";
        let own = listed.split_whitespace().chain(others.split_whitespace()).map(|name| (name.into(), "x".into()));
        let expected: Vec<(&str, &str)> = listed.split_whitespace().map(|name| (name, "x")).collect();
        assert_eq!(Env::for_build(own), env(&expected));
    }
}
