//! Which Python an app asks for, and whether the stack has it.

use std::path::Path;

use crate::command::Run;
use crate::error::PackError;
use crate::files;
use crate::output;
use crate::pack::Build;

const VERSION_FILE: &str = ".python-version";
const RUNTIME_FILE: &str = "runtime.txt";

/// What the app asks for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    /// `3.13` or `3.13.1`
    version: String,
    file: &'static str,
}

/// The version of the stack's Python, if it is what the app asks for.
pub(super) fn choose(build: &Build) -> Result<String, PackError> {
    let text = Run::new(build.app(), "python3", ["-c", "import platform; print(platform.python_version())"]).read()?;
    let there = text.trim().to_owned();
    let minor = minor_of(&there).to_owned();
    let Some(asked) = asked(build.app(), &minor)? else {
        output::heading(&format!("Using Python {there} (no {VERSION_FILE}: the stack's own)"));
        return Ok(there);
    };
    if minor_of(&asked.version) != minor {
        return Err(PackError::PythonVersion {
            requested: asked.version,
            available: minor,
            file: asked.file,
            stack: build.stack(),
        });
    }
    output::heading(&format!("Using Python {there} ({})", asked.file));
    if asked.version != minor && asked.version != there {
        let file = asked.file;
        output::warning(&format!(
            "{file} asks for {}; the stack has {there}. Ask for {minor} to end this warning.",
            asked.version
        ));
    }
    Ok(there)
}

fn asked(app: &Path, available: &str) -> Result<Option<Asked>, PackError> {
    for (file, prefix) in [(VERSION_FILE, ""), (RUNTIME_FILE, "python-")] {
        let Some(text) = files::read(app, file)? else { continue };
        let lines: Vec<&str> =
            text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        let version = match lines.as_slice() {
            [line] => line.strip_prefix(prefix).filter(|version| is_version(version)),
            _ => None,
        };
        let invalid = || PackError::PythonVersionFile {
            file,
            content: lines.join(", "),
            available: format!("{prefix}{available}"),
        };
        return Ok(Some(Asked { version: version.ok_or_else(invalid)?.to_owned(), file }));
    }
    Ok(None)
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
        write(RUNTIME_FILE, "python-3.13.2\n");
        assert_eq!(
            asked(app.path(), "3.13").unwrap().unwrap(),
            Asked { version: "3.13.2".to_owned(), file: RUNTIME_FILE }
        );
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
