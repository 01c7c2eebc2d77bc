//! `validate`.

use std::io;
use std::path::{Path, PathBuf};

use buildpacks::procfile;
use clap::Args;
use manifest::{APP_JSON, Files, HEROKU_YML, Problem, Severity, Spot};
use serde_json::json;

use crate::context::Context;
use crate::error::{CliError, Result};
use crate::output::Color;

const PROCFILE: &str = "Procfile";
/// Other ways to choose buildpacks, which a build does not read.
const UNREAD: [&str; 2] = [".buildpacks", "project.toml"];

/// Check app.json, heroku.yml and Procfile, as a push would, without a platform
///
/// Prints a line for each mistake: `file:line:column: message`. Exit status 1 if a push would be refused for one of them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform validate
  $ platform validate path/to/app
  $ platform validate --json | jq '.problems[].message'")]
pub(crate) struct Validate {
    /// Folder of the app
    #[arg(default_value = ".", hide_default_value = true)]
    folder: PathBuf,
}

impl Validate {
    pub(crate) fn run(self, cx: &Context) -> Result<u8> {
        if !self.folder.is_dir() {
            return Err(CliError::usage(format!("{} is not a folder", self.folder.display())));
        }
        let found = Sources::read(&self.folder)?;
        let problems = found.problems();
        let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
        let report = json!({ "valid": errors == 0, "files": found.names(), "problems": problems });
        cx.show(&report, |out| {
            for problem in &problems {
                let color = if problem.severity == Severity::Error { Color::DarkRed } else { Color::DarkYellow };
                let (place, message) = place_and_message(&self.folder, problem);
                out.line(format!("{} {message}", out.paint.color(color, &place)))?;
            }
            out.note(&summary(&found.names(), errors, problems.len() - errors));
            Ok(())
        })?;
        Ok(u8::from(errors > 0))
    }
}

/// The files of an app that are checked.
#[derive(Default)]
struct Sources {
    app_json: Option<Vec<u8>>,
    heroku_yml: Option<Vec<u8>>,
    procfile: Option<Vec<u8>>,
    unread: Vec<&'static str>,
}

impl Sources {
    fn read(folder: &Path) -> Result<Self> {
        Ok(Self {
            app_json: read(folder, APP_JSON)?,
            heroku_yml: read(folder, HEROKU_YML)?,
            procfile: read(folder, PROCFILE)?,
            unread: UNREAD.into_iter().filter(|name| folder.join(name).is_file()).collect(),
        })
    }

    fn names(&self) -> Vec<&'static str> {
        let files = [(APP_JSON, &self.app_json), (HEROKU_YML, &self.heroku_yml), (PROCFILE, &self.procfile)];
        files.into_iter().filter(|(_, bytes)| bytes.is_some()).map(|(name, _)| name).collect()
    }

    fn problems(&self) -> Vec<Problem> {
        let files = Files { app_json: self.app_json.as_deref(), heroku_yml: self.heroku_yml.as_deref() };
        let (manifest, mut problems) = manifest::read(files);
        problems.extend(controller::setup::check(&manifest, &[], None));
        problems.extend(self.procfile.as_deref().map(in_procfile).unwrap_or_default());
        let unread = |file: &&'static str| Problem {
            file,
            spot: Spot::START,
            severity: Severity::Warning,
            message: format!("not read here: choose buildpacks with `platform buildpacks:set`, or in {APP_JSON}"),
        };
        problems.extend(self.unread.iter().map(unread));
        problems.sort_by_key(|problem| (problem.file, problem.spot));
        problems
    }
}

fn read(folder: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    let path = folder.join(name);
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CliError::failed(format!("Cannot read {}", path.display())).because(&error)),
    }
}

fn in_procfile(bytes: &[u8]) -> Vec<Problem> {
    let problem =
        |line, severity, message| Problem { file: PROCFILE, spot: Spot { line, column: 1 }, severity, message };
    let Ok(text) = std::str::from_utf8(bytes) else {
        return vec![problem(1, Severity::Error, "it is not UTF-8 text".to_owned())];
    };
    let of = |remark: procfile::Remark| {
        let severity = if remark.fatal { Severity::Error } else { Severity::Warning };
        problem(remark.line, severity, remark.message)
    };
    procfile::check(text).into_iter().map(of).collect()
}

/// `app/app.json:3:5:` and the rest of the line.
fn place_and_message(folder: &Path, problem: &Problem) -> (String, String) {
    let text = problem.to_string();
    let (place, message) = text.split_once(": ").unwrap_or((&text, ""));
    let folder = folder.strip_prefix(".").unwrap_or(folder);
    (format!("{}:", folder.join(place).display()), message.to_owned())
}

fn summary(files: &[&str], errors: usize, warnings: usize) -> String {
    let count = |number: usize, what: &str| match number {
        1 => format!("1 {what}"),
        number => format!("{number} {what}s"),
    };
    match (files, errors, warnings) {
        ([], 0, _) => format!("There is none of {APP_JSON}, {HEROKU_YML}, {PROCFILE}: nothing to check."),
        (files, 0, 0) => format!("{}: nothing to complain of", files.join(", ")),
        (files, errors, warnings) => {
            format!("{}: {}, {}", files.join(", "), count(errors, "error"), count(warnings, "warning"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_an_app_is_checked() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        assert_eq!(summary(&Sources::read(folder.path()).unwrap().names(), 0, 0), summary(&[], 0, 0));
        write(APP_JSON, "{\n  \"addons\": [\"mysql\"],\n  \"evn\": {}\n}");
        write(HEROKU_YML, "build:\n  docker:\n    web: Dockerfile\n");
        write(PROCFILE, "web: x\nworker\n");
        write("project.toml", "");
        let app = Sources::read(folder.path()).unwrap();
        let said: Vec<_> = app.problems().iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(said.join("\n"));
        let place = place_and_message(Path::new("shop"), &app.problems()[0]).0;
        assert_eq!(place, "shop/Procfile:2:1:");
    }
}
