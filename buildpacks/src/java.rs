//! Java and other languages of its virtual machine: apps built with Maven or Gradle. The stack's Debian has the JDKs.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use libcnb::data::launch::Process;

use crate::bill::{Bill, Registry};
use crate::command::Run;
use crate::error::PackError;
use crate::files;
use crate::output;
use crate::pack::{self, Build, Language, Packages};

mod gradle;
mod jdk;
mod maven;

use jdk::Wanted;

pub(crate) struct Java;

/// Finds out variables when a process starts: where the database is, in Java's words, and how much memory there is.
const LAUNCH: &str = include_str!("java/launch.py");
/// Finds the libraries in what was built.
const BILL: &str = include_str!("java/bill.py");

/// Who builds the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tool {
    Maven,
    Gradle,
}

impl Tool {
    /// Maven's file wins: it is the rule, and a build.gradle beside it is usually one's experiment.
    fn of(app: &Path) -> Option<Self> {
        let has = |names: &[&str]| names.iter().any(|name| app.join(name).is_file());
        if has(&maven::SIGNS) {
            Some(Self::Maven)
        } else if has(&gradle::SIGNS) {
            Some(Self::Gradle)
        } else {
            None
        }
    }
}

impl Language for Java {
    fn detect(&self, app: &Path) -> Result<(), String> {
        match Tool::of(app) {
            Some(_) => Ok(()),
            None => Err("Java: neither a pom.xml nor a build.gradle(.kts) at the top of the app".to_owned()),
        }
    }

    fn packages(&self, app: &Path) -> Packages {
        // What cannot be read stops the build, with a message, not its detection.
        let mut packages = Wanted::read(app).map(|wanted| wanted.packages()).unwrap_or_default();
        match Tool::of(app) {
            Some(Tool::Maven) if !app.join("mvnw").is_file() => packages.build.push("maven".to_owned()),
            Some(Tool::Gradle) if !app.join("gradlew").is_file() => packages.build.push("gradle".to_owned()),
            _ => {}
        }
        packages
    }

    fn build(&self, build: &Build) -> Result<Vec<Process>, PackError> {
        let app = build.app();
        let home = jdk::install(build, &Wanted::read(app)?)?;
        let kept = match Tool::of(app) {
            Some(Tool::Gradle) => gradle::build(build, &home)?,
            _ => maven::build(build, &home)?,
        };
        build.bill(bill(app, &kept)?.with_runtime("openjdk", &jdk::version(&home)?));
        let layer = build.launch_layer("runtime")?;
        layer.launch_script("java", LAUNCH)?;
        let (path, run) = (home.join("bin"), home.to_string_lossy());
        layer.launch_defaults(&[("JAVA_HOME", &run), ("LANG", "C.UTF-8")])?;
        // The JDK's programs are on the PATH by its packages, or else by this folder.
        files::link(&path, &layer.path().join("bin"))?;
        processes(app)
    }
}

/// The libraries that are in the app, of those that its builder keeps in a folder.
fn bill(app: &Path, kept: &Path) -> Result<Bill, PackError> {
    let folders = [app, kept].map(Path::as_os_str);
    let listed = Run::new(app, "python3", ["-c", BILL].map(OsStr::new).into_iter().chain(folders)).read()?;
    let libraries = listed.lines().filter_map(|line| line.rsplit_once(' '));
    Ok(Bill::of(Registry::Maven, libraries.map(|(name, version)| (name.to_owned(), version.to_owned()))))
}

/// A tool of the app's own, or else the stack's.
fn tool(app: &Path, wrapper: &str, own: &str, arguments: &[String]) -> Run {
    if app.join(wrapper).is_file() {
        // It may have lost its execute bit on Windows.
        let arguments = std::iter::once(format!("./{wrapper}")).chain(arguments.iter().cloned());
        Run::new(app, "sh", arguments)
    } else {
        Run::new(app, own, arguments)
    }
}

/// Words of a variable, as a shell without quotes would split them.
fn words(name: &str, default: &str) -> Vec<String> {
    let value = std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    value.as_deref().unwrap_or(default).split_whitespace().map(str::to_owned).collect()
}

/// What the build made that can be started, and how its framework is told about the port.
fn processes(app: &Path) -> Result<Vec<Process>, PackError> {
    let Some((jar, option)) = program(app) else {
        if !app.join("Procfile").is_file() {
            output::warning(
                "no program was found that could be started. Say in a Procfile what does: web: java -jar target/app.jar",
            );
        }
        return Ok(Vec::new());
    };
    Ok(vec![pack::shell_process("web", &format!("exec java {option} $JAVA_OPTS -jar {}", jar.display()))?])
}

/// The program of a framework that serves HTTP, relative to the app.
fn program(app: &Path) -> Option<(PathBuf, &'static str)> {
    for quarkus in ["target/quarkus-app/quarkus-run.jar", "build/quarkus-app/quarkus-run.jar"] {
        if app.join(quarkus).is_file() {
            return Some((PathBuf::from(quarkus), "-Dquarkus.http.host=0.0.0.0 -Dquarkus.http.port=$PORT"));
        }
    }
    let files = ["pom.xml", "build.gradle", "build.gradle.kts"];
    let said: String = files.iter().filter_map(|name| files::read(app, name).ok().flatten()).collect();
    let option = if said.contains("org.springframework.boot") {
        "-Dserver.port=$PORT"
    } else if said.contains("io.micronaut") {
        "-Dmicronaut.server.port=$PORT"
    } else {
        return None;
    };
    ["target", "build/libs"].iter().find_map(|folder| Some((Path::new(folder).join(jar(&app.join(folder))?), option)))
}

/// The one that can be started of the jars in a folder.
fn jar(folder: &Path) -> Option<String> {
    let is_program = |name: &String| {
        let Some(stem) = name.strip_suffix(".jar") else { return false };
        let others = ["-sources", "-javadoc", "-tests", "-plain"];
        !others.iter().any(|end| stem.ends_with(end)) && !stem.starts_with("original-")
    };
    // A shaded jar holds what the plain one needs.
    let mut jars: Vec<String> = files::names(folder).into_iter().filter(is_program).collect();
    jars.sort_by_key(|name| !(name.ends_with("-all.jar") || name.ends_with("-runner.jar")));
    jars.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct App(tempfile::TempDir);

    impl App {
        fn new(files: &[(&str, &str)]) -> Self {
            let app = Self(tempfile::tempdir().unwrap());
            for (name, text) in files {
                let path = app.0.path().join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            app
        }

        fn web(&self) -> Option<String> {
            processes(self.0.path()).unwrap().first().map(|process| process.args.join(" "))
        }
    }

    #[test]
    fn libraries_are_found_in_what_was_built() {
        let kept = App::new(&[
            ("repository/org/slf4j/slf4j-api/2.0.9/slf4j-api-2.0.9.jar", ""),
            ("repository/org/unused/unused/1.0/unused-1.0.jar", ""),
            ("caches/modules-2/files-2.1/com.h2/h2/2.2/abc/h2-2.2.jar", ""),
        ]);
        let app = App::new(&[("target/dependency/h2-2.2.jar", ""), ("target/broken.jar", "no archive")]);
        let make = "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1], 'w'); z.writestr('BOOT-INF/lib/slf4j-api-2.0.9.jar', '')
z.writestr('META-INF/maven/a.b/c/pom.properties', 'artifactId=c\\nversion=3.1\\n'); z.close()";
        let jar = app.0.path().join("target/app.jar");
        Run::new(app.0.path(), "python3", ["-c", make, &jar.to_string_lossy()]).show().unwrap();
        let expected = [("a.b/c", "3.1"), ("com.h2/h2", "2.2"), ("org.slf4j/slf4j-api", "2.0.9")];
        let expected = expected.map(|(name, version)| (name.to_owned(), version.to_owned()));
        assert_eq!(bill(app.0.path(), kept.0.path()).unwrap(), Bill::of(Registry::Maven, expected));
    }

    #[test]
    fn the_tool_and_its_packages_follow_the_files() {
        for (files, packages) in [
            (vec![("pom.xml", "")], Some(vec!["openjdk-21-jdk-headless", "maven"])),
            (vec![("pom.xml", ""), ("mvnw", "")], Some(vec!["openjdk-21-jdk-headless"])),
            (vec![("build.gradle.kts", ""), ("gradlew", "")], Some(vec!["openjdk-21-jdk-headless"])),
            (vec![("settings.gradle", "")], Some(vec!["openjdk-21-jdk-headless", "gradle"])),
            (vec![("README.md", "")], None),
        ] {
            let app = App::new(&files);
            assert_eq!(Java.detect(app.0.path()).is_ok(), packages.is_some(), "{files:?}");
            if let Some(packages) = packages {
                assert_eq!(Java.packages(app.0.path()).build, packages, "{files:?}");
            }
        }
    }

    /// What the script tells the launcher.
    fn told(env: &[(&str, &str)]) -> std::collections::BTreeMap<String, String> {
        let mut command = std::process::Command::new("bash");
        command.args(["-c", "python3 -c \"$SCRIPT\" 3>&1 >&2"]).env_clear().env("PATH", "/usr/bin:/bin");
        let output = command.env("SCRIPT", LAUNCH).envs(env.iter().copied()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        toml::from_str(&String::from_utf8(output.stdout).unwrap()).unwrap()
    }

    #[test]
    fn databases_are_told_in_javas_words_unless_the_user_did() {
        let url = "postgres://me:p%40ss@db:5432/shop?sslmode=require";
        let jdbc = "jdbc:postgresql://db:5432/shop?sslmode=require&user=me&password=p%40ss";
        let found = told(&[("DATABASE_URL", url), ("SPRING_DATASOURCE_URL", "own"), ("COLOR_URL", "mysql://u:p@h/d")]);
        assert_eq!(found["JDBC_DATABASE_URL"], jdbc);
        assert_eq!(
            (found["JDBC_DATABASE_USERNAME"].as_str(), found["JDBC_DATABASE_PASSWORD"].as_str()),
            ("me", "p@ss")
        );
        assert!(!found.contains_key("SPRING_DATASOURCE_URL"));
        assert_eq!(found["COLOR_JDBC_URL"], "jdbc:mysql://h/d?user=u&password=p");
        assert!(found["JAVA_TOOL_OPTIONS"].starts_with("-Xmx"));

        let found = told(&[("REDIS_URL", "redis://h"), ("DATABASE_URL", "not a url"), ("JAVA_TOOL_OPTIONS", "-Xmx1g")]);
        assert_eq!(found["SPRING_DATA_REDIS_URL"], "redis://h");
        assert!(!found.contains_key("JDBC_DATABASE_URL") && !found.contains_key("JAVA_TOOL_OPTIONS"), "{found:?}");
    }

    #[test]
    fn frameworks_are_started_on_the_port() {
        let spring = ("pom.xml", "<groupId>org.springframework.boot</groupId>");
        let app = App::new(&[
            spring,
            ("target/app-1.jar", ""),
            ("target/app-1-sources.jar", ""),
            ("target/original-app.jar", ""),
        ]);
        assert_eq!(app.web().unwrap(), "exec java -Dserver.port=$PORT $JAVA_OPTS -jar target/app-1.jar");
        let app = App::new(&[
            ("build.gradle", "id 'io.micronaut.application'"),
            ("build/libs/a-plain.jar", ""),
            ("build/libs/a-all.jar", ""),
        ]);
        assert_eq!(app.web().unwrap(), "exec java -Dmicronaut.server.port=$PORT $JAVA_OPTS -jar build/libs/a-all.jar");
        let app = App::new(&[("pom.xml", ""), ("target/quarkus-app/quarkus-run.jar", "")]);
        assert!(app.web().unwrap().contains("-Dquarkus.http.port=$PORT"));
        assert_eq!(App::new(&[("pom.xml", ""), ("target/app.jar", "")]).web(), None);
    }
}
