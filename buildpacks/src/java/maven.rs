//! Maven, by Heroku's rules.

use std::path::{Path, PathBuf};

use super::{tool, words};
use crate::command::Run;
use crate::error::PackError;
use crate::output;
use crate::pack::Build;

/// A project of Maven's, in any language in which one can be written.
pub(super) const SIGNS: [&str; 8] =
    ["pom.xml", "pom.atom", "pom.clj", "pom.groovy", "pom.rb", "pom.scala", "pom.yaml", "pom.yml"];

/// `mvn clean install` without tests, or what `MAVEN_CUSTOM_GOALS` and `MAVEN_CUSTOM_OPTS` say. Returns where it keeps what it
/// downloads.
pub(super) fn build(build: &Build, home: &Path) -> Result<PathBuf, PackError> {
    let app = build.app();
    let kept = build.kept_cache("maven", "maven 1")?;
    let goals = words("MAVEN_CUSTOM_GOALS", "clean install");
    let mut arguments = vec!["-B".to_owned(), format!("-Dmaven.repo.local={}", kept.join("repository").display())];
    arguments.extend(settings(app)?);
    arguments.extend(words("MAVEN_CUSTOM_OPTS", "-DskipTests"));
    arguments.extend(goals.iter().cloned());
    let name = if app.join("mvnw").is_file() { "./mvnw" } else { "mvn" };
    let command = format!("{name} {}", goals.join(" "));
    output::heading(&format!("Building with {command}"));
    tool(app, "mvnw", "mvn", &arguments)
        .env("JAVA_HOME", home)
        .env("MAVEN_USER_HOME", kept.join("wrapper"))
        .show_or_fail(|status, _| Some(PackError::JavaBuild { command, status, mirror: "MAVEN_SETTINGS_URL" }))?;
    Ok(kept)
}

/// Where repositories are: a file that is named, one that is fetched, or settings.xml of the app.
fn settings(app: &Path) -> Result<Vec<String>, PackError> {
    let path = if let Ok(path) = std::env::var("MAVEN_SETTINGS_PATH") {
        path
    } else if let Ok(url) = std::env::var("MAVEN_SETTINGS_URL") {
        let path = std::env::temp_dir().join("maven-settings.xml").to_string_lossy().into_owned();
        Run::new(app, "curl", ["-fsSL", "--retry", "3", "--output", &path, &url]).show()?;
        path
    } else if app.join("settings.xml").is_file() {
        "settings.xml".to_owned()
    } else {
        return Ok(Vec::new());
    };
    Ok(vec!["-s".to_owned(), path])
}
