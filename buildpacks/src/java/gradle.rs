//! Gradle, by Heroku's rules.

use std::path::{Path, PathBuf};

use super::{tool, words};
use crate::error::PackError;
use crate::files;
use crate::output;
use crate::pack::Build;

/// A build of Gradle's.
pub(super) const SIGNS: [&str; 4] = ["build.gradle", "build.gradle.kts", "settings.gradle", "settings.gradle.kts"];
/// Frameworks whose `build` makes a program; its tests belong elsewhere.
const FRAMEWORKS: [&str; 3] = ["org.springframework.boot", "io.quarkus", "io.micronaut"];

/// `GRADLE_TASK`, or the task `stage` if there is one, or `build`. Returns where it keeps what it downloads.
pub(super) fn build(build: &Build, home: &Path) -> Result<PathBuf, PackError> {
    let app = build.app();
    let cache = build.kept_cache("gradle", "gradle 1")?;
    let has_wrapper = app.join("gradlew").is_file();
    if !has_wrapper {
        output::warning(
            "there is no Gradle wrapper, so the stack's own Gradle 4.4 builds the app. Run `gradle wrapper` on your machine and commit gradlew and gradle/wrapper.",
        );
    }
    let gradle = |arguments: &[String]| {
        let arguments = [&["--no-daemon".to_owned()], arguments].concat();
        tool(app, "gradlew", "gradle", &arguments).env("JAVA_HOME", home).env("GRADLE_USER_HOME", &cache)
    };
    let mut tasks = words("GRADLE_TASK", "");
    if tasks.is_empty() {
        let list = gradle(&["tasks", "--all", "--quiet"].map(str::to_owned)).read()?;
        tasks = usual(&list, &said(app)?);
    }
    let command = format!("{} {}", if has_wrapper { "./gradlew" } else { "gradle" }, tasks.join(" "));
    output::heading(&format!("Building with {command}"));
    gradle(&tasks).show_or_fail(|status, _| Some(PackError::JavaBuild { command, status, mirror: "GRADLE_OPTS" }))?;
    Ok(cache)
}

/// What the build files say.
fn said(app: &Path) -> Result<String, PackError> {
    let texts: Vec<_> = SIGNS[..2].iter().map(|name| files::read(app, name)).collect::<Result<_, _>>()?;
    Ok(texts.into_iter().flatten().collect())
}

fn usual(tasks: &str, build_file: &str) -> Vec<String> {
    let has_stage = tasks.lines().any(|line| line == "stage" || line.starts_with("stage "));
    if has_stage {
        vec!["stage".to_owned()]
    } else if FRAMEWORKS.iter().any(|framework| build_file.contains(framework)) {
        ["build", "-x", "test"].map(str::to_owned).to_vec()
    } else {
        vec!["build".to_owned()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_task_is_chosen_as_heroku_does() {
        assert_eq!(usual("build - Assembles\nstage - For Heroku\n", ""), ["stage"]);
        assert_eq!(usual("stageWar - x\n", "id 'org.springframework.boot' version '3'"), ["build", "-x", "test"]);
        assert_eq!(usual("", ""), ["build"]);
    }
}
