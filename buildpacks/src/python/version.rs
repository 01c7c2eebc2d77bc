//! Which Python an app asks for: the stack's own, or one that has to be downloaded.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::install;
use crate::command::Run;
use crate::error::PackError;
use crate::files;
use crate::key::Key;
use crate::output;
use crate::pack::{Build, Use};

const VERSION_FILE: &str = ".python-version";
const RUNTIME_FILE: &str = "runtime.txt";

/// What the app asks for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    /// `3.13` or `3.13.1`
    version: String,
    file: &'static str,
}

/// A Python to build with.
pub(super) struct Interpreter {
    /// `3.13.1`
    pub(super) version: String,
    pub(super) program: PathBuf,
}

/// The stack's Python, if it is what the app asks for, or another one.
pub(super) fn choose(build: &Build) -> Result<Interpreter, PackError> {
    let own = Interpreter::at(PathBuf::from("python3"))?;
    let minor = minor_of(&own.version);
    let Some(asked) = asked(build.app(), minor)? else {
        output::heading(&format!("Using Python {} (no {VERSION_FILE}: the stack's own)", own.version));
        return Ok(own);
    };
    if minor_of(&asked.version) != minor {
        let other = download(build, &asked, minor)?;
        warn_of_the_old_way(&asked);
        output::heading(&format!("Using Python {} ({})", other.version, asked.file));
        return Ok(other);
    }
    warn_of_the_old_way(&asked);
    output::heading(&format!("Using Python {} ({})", own.version, asked.file));
    if asked.version != minor && asked.version != own.version {
        let Asked { version, file } = asked;
        output::warning(&format!(
            "{file} asks for {version}; the stack has {}. Ask for {minor} to end this warning.",
            own.version
        ));
    }
    Ok(own)
}

/// Only for a Python that can be had: the error says what to do about another.
fn warn_of_the_old_way(asked: &Asked) {
    if asked.file == RUNTIME_FILE {
        let minor = minor_of(&asked.version);
        output::warning(&format!(
            "{RUNTIME_FILE} is Heroku's old way. `git rm {RUNTIME_FILE}` and write {minor} into {VERSION_FILE}."
        ));
    }
}

impl Interpreter {
    fn at(program: PathBuf) -> Result<Self, PackError> {
        let ask = ["-c", "import platform; print(platform.python_version())"];
        let version = Run::new(Path::new("/"), &program.to_string_lossy(), ask).read()?;
        Ok(Self { version: version.trim().to_owned(), program })
    }
}

/// A Python that the stack does not have: uv knows where to get it.
fn download(build: &Build, asked: &Asked, available: &str) -> Result<Interpreter, PackError> {
    let key =
        Key::new("uv 1").with(asked.file, asked.version.as_bytes()).with("the architecture", build.arch().as_bytes());
    let layer = build.layer("python", Use::LaunchBuildCache, key)?;
    // A layer's `bin` is on the PATH (Buildpack spec, "Layer Paths").
    let (versions, bin) = (layer.path().join("versions"), layer.path().join("bin"));
    if !layer.is_kept {
        output::heading(&format!("Installing Python {} with uv", asked.version));
        let uv = install::installed(build, "uv")?;
        let arguments = ["python", "install", "--no-bin", "--install-dir"].map(OsStr::new).into_iter();
        let arguments = arguments.chain([versions.as_os_str(), OsStr::new(&asked.version)]);
        let explain = |_, _: &str| {
            Some(PackError::PythonVersion {
                requested: asked.version.clone(),
                available: available.to_owned(),
                file: asked.file,
                stack: build.stack(),
            })
        };
        Run::new(build.app(), &uv.to_string_lossy(), arguments).show_or_fail(explain)?;
        files::link(&folder_of_programs(&versions)?, &bin)?;
        layer.finish()?;
    }
    Interpreter::at(bin.join("python3"))
}

/// `<versions>/cpython-<version>-<platform>/bin`. A name without the patch version may be there too, as a link to it.
fn folder_of_programs(versions: &Path) -> Result<PathBuf, PackError> {
    let entries = fs::read_dir(versions).map_err(files::failed("read", versions))?;
    let mut folders = entries.flatten().map(|entry| entry.path()).filter(|path| !path.is_symlink());
    let found = folders.find(|folder| folder.join("bin/python3").exists());
    let missing = || PackError::Internal(format!("no Python in {}", versions.display()));
    Ok(found.ok_or_else(missing)?.join("bin"))
}

/// What the first of these names: `.python-version`, `runtime.txt`, `Pipfile.lock`.
fn asked(app: &Path, available: &str) -> Result<Option<Asked>, PackError> {
    for (file, prefix) in [(VERSION_FILE, ""), (RUNTIME_FILE, "python-")] {
        let Some(text) = files::read(app, file)? else { continue };
        let lines: Vec<&str> =
            text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        let version = match lines.as_slice() {
            [line] => line.strip_prefix(prefix),
            _ => None,
        };
        // Cloud Foundry's `python-3.13.x` and `python-3.x`.
        let version = match version {
            Some("3.x") if file == RUNTIME_FILE => Some(available),
            version if file == RUNTIME_FILE => version.map(|version| version.strip_suffix(".x").unwrap_or(version)),
            version => version,
        };
        let version = version.filter(|version| is_version(version));
        let invalid = || PackError::PythonVersionFile {
            file,
            content: lines.join(", "),
            available: format!("{prefix}{available}"),
        };
        return Ok(Some(Asked { version: version.ok_or_else(invalid)?.to_owned(), file }));
    }
    of_pipfile(app)
}

/// What `python_full_version` or `python_version` of the Pipfile became when it was locked.
fn of_pipfile(app: &Path) -> Result<Option<Asked>, PackError> {
    const FILE: &str = "Pipfile.lock";
    let Some(text) = files::read(app, FILE)? else { return Ok(None) };
    let lock: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| PackError::Malformed { file: FILE, reason: error.to_string() })?;
    let requires = &lock["_meta"]["requires"];
    let version = ["python_full_version", "python_version"].iter().find_map(|key| requires[key].as_str());
    Ok(version.filter(|version| is_version(version)).map(|version| Asked { version: version.to_owned(), file: FILE }))
}

/// Two or three numbers.
fn is_version(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    matches!(parts.len(), 2 | 3)
        && parts.iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

fn minor_of(version: &str) -> &str {
    version.match_indices('.').nth(1).map_or(version, |(at, _)| &version[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_either_file_and_nonsense_is_refused() {
        let app = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(app.path().join(name), text).unwrap();
        assert_eq!(asked(app.path(), "3.13").unwrap(), None);
        write("Pipfile.lock", r#"{"_meta": {"requires": {"python_version": "3.12"}}}"#);
        assert_eq!(
            asked(app.path(), "3.13").unwrap().unwrap(),
            Asked { version: "3.12".to_owned(), file: "Pipfile.lock" }
        );
        write(RUNTIME_FILE, "python-3.13.2\n");
        assert_eq!(
            asked(app.path(), "3.13").unwrap().unwrap(),
            Asked { version: "3.13.2".to_owned(), file: RUNTIME_FILE }
        );
        for (text, expected) in [("python-3.12.x", "3.12"), ("python-3.x", "3.13")] {
            write(RUNTIME_FILE, text);
            assert_eq!(asked(app.path(), "3.13").unwrap().unwrap().version, expected);
        }
        write(VERSION_FILE, "# why\n\n3.14\n");
        assert_eq!(
            asked(app.path(), "3.13").unwrap().unwrap(),
            Asked { version: "3.14".to_owned(), file: VERSION_FILE }
        );
        for text in ["", "latest", "3.13\n3.12", "python-3.13", "3", "3.13.x"] {
            write(VERSION_FILE, text);
            let error = asked(app.path(), "3.13").unwrap_err().to_string();
            assert!(error.starts_with(".python-version does not name a Python version"), "{error}");
        }
    }

    #[test]
    fn the_minor_version_is_what_counts() {
        assert_eq!(minor_of("3.13.5"), "3.13");
        assert_eq!(minor_of("3.13"), "3.13");
    }
}
