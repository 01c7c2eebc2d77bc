//! Which JDK an app asks for: one of the stack's Debian, or one from a mirror that is named.

use std::path::{Path, PathBuf};

use crate::command::Run;
use crate::error::PackError;
use crate::files;
use crate::key::Key;
use crate::output;
use crate::pack::{Build, Packages, Use};

const FILE: &str = "system.properties";
const PROPERTY: &str = "java.runtime.version";
/// Debian's versions; the first one is for apps that ask for none.
const OFFERED: [&str; 2] = ["21", "25"];
/// Names an archive of a JDK, with `{version}` and `{arch}` in it.
const MIRROR: &str = "JDK_MIRROR";

/// What the app asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// `21`
    major: String,
    /// As it is written.
    written: Option<String>,
}

impl Wanted {
    /// `java.runtime.version` in system.properties, in any of the forms that Heroku knows: `21`, `1.8`, `zulu-17.0.2`.
    pub(super) fn read(app: &Path) -> Result<Self, PackError> {
        let text = files::read(app, FILE)?.unwrap_or_default();
        Ok(match value(&text) {
            Some(written) => Self { major: major(written).to_owned(), written: Some(written.to_owned()) },
            None => Self { major: OFFERED[0].to_owned(), written: None },
        })
    }

    /// Debian's packages of it; none for a version that Debian does not have.
    pub(super) fn packages(&self) -> Packages {
        if !self.is_offered() {
            return Packages::default();
        }
        let package = |part: &str| vec![format!("openjdk-{}-{part}-headless", self.major)];
        Packages { run: package("jre"), build: package("jdk") }
    }

    fn is_offered(&self) -> bool {
        OFFERED.contains(&self.major.as_str())
    }
}

/// The value of the property (Java's own rules for such files, as far as anybody uses them here).
fn value(properties: &str) -> Option<&str> {
    let lines = properties.lines().map(str::trim).filter(|line| !line.starts_with(['#', '!']));
    let mut pairs = lines.filter_map(|line| line.split_once(['=', ':']));
    pairs.find(|(name, _)| name.trim() == PROPERTY).map(|(_, value)| value.trim())
}

/// `17` of `zulu-17.0.2`, `8` of `1.8.0_302`.
fn major(version: &str) -> &str {
    let number = version.rsplit_once('-').map_or(version, |(_, number)| number);
    let number = number.strip_prefix("1.").unwrap_or(number);
    number.split(['.', '_', '+']).next().unwrap_or(number)
}

/// The folder of the JDK.
pub(super) fn install(build: &Build, wanted: &Wanted) -> Result<PathBuf, PackError> {
    let why = wanted.written.as_ref().map_or_else(
        || format!("there is no {FILE}: the stack's usual one"),
        |written| format!("{FILE} says {written}"),
    );
    if wanted.is_offered() {
        output::heading(&format!("Using OpenJDK {} ({why})", wanted.major));
        return Ok(PathBuf::from(format!("/usr/lib/jvm/java-{}-openjdk-{}", wanted.major, build.arch())));
    }
    let unavailable = |_| PackError::JavaVersion {
        requested: wanted.written.clone().unwrap_or_default(),
        available: OFFERED.join(" and "),
    };
    let mirror = std::env::var(MIRROR).map_err(unavailable)?;
    let url = mirror.replace("{version}", &wanted.major).replace("{arch}", build.arch());
    let key = Key::new("jdk 1").with("JDK version", wanted.major.as_bytes()).with(MIRROR, url.as_bytes());
    let layer = build.layer("jdk", Use::LaunchBuildCache, key)?;
    if !layer.is_kept {
        output::heading(&format!("Downloading a JDK {} ({why})", wanted.major));
        // The URL is an argument of the script, so nothing in it is read as shell.
        let script =
            "set -o pipefail; curl -fsSL \"$1\" | tar --extract --gzip --strip-components=1 --directory \"$2\"";
        let folder = layer.path();
        let explain = |status, _: &str| Some(PackError::JavaDownload { url: url.clone(), status });
        Run::new(Path::new("/"), "bash", ["-c", script, "bash", &url, &folder.to_string_lossy()])
            .show_or_fail(explain)?;
        layer.finish()?;
    }
    Ok(layer.path())
}

/// The version of a JDK, as the file `release` of it says: `JAVA_VERSION="21.0.8"`.
pub(super) fn version(home: &Path) -> Result<String, PackError> {
    let text = files::read(home, "release")?.unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("JAVA_VERSION="));
    Ok(line.unwrap_or_default().trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_what_the_jdk_says_of_itself() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("release"), "IMPLEMENTOR=\"Debian\"\nJAVA_VERSION=\"21.0.8\"\n").unwrap();
        assert_eq!(version(home.path()).unwrap(), "21.0.8");
    }

    #[test]
    fn versions_are_taken_where_heroku_users_write_them() {
        let app = tempfile::tempdir().unwrap();
        assert_eq!(Wanted::read(app.path()).unwrap().packages().run, ["openjdk-21-jre-headless"]);
        for (text, major, is_offered) in [
            ("java.runtime.version=25", "25", true),
            ("# java.runtime.version=1\n java.runtime.version = 1.8 \n", "8", false),
            ("maven.version=3.9.4\njava.runtime.version: zulu-21.0.2", "21", true),
            ("java.runtime.version=openjdk-17", "17", false),
            ("java.runtime.version=1.8.0_302", "8", false),
        ] {
            std::fs::write(app.path().join(FILE), text).unwrap();
            let wanted = Wanted::read(app.path()).unwrap();
            assert_eq!((wanted.major.as_str(), wanted.is_offered()), (major, is_offered), "{text}");
            assert_eq!(wanted.packages() == Packages::default(), !is_offered, "{text}");
        }
    }
}
