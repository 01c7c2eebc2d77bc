//! `rollback` and `releases:diff`: what changes from one release to another, before anything does.

use clap::Args;
use serde_json::json;

use super::releases::{before_current, finished, newest, no_releases, version_of};
use crate::client::{self, Change, Changes, Release, RollbackPreview, Scale, Slug};
use crate::context::{self, AppArg, Context, ReleaseArg};
use crate::error::{CliError, Result};
use crate::output::{Color, Output};

/// Go back to an earlier release
///
/// Makes a new release with what the old one held: code, config vars, add-on attachments, process types and how they were
/// scaled. Nothing is built. What would change is shown first, names only, and on a terminal you are asked. Without an
/// argument, the one before the current one is taken.
///
/// Data is not rolled back: neither what add-ons hold, nor what release commands did to it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform rollback
  $ platform rollback v12 -a my-app
  $ platform rollback v12 --keep-formation --reason 'checkout is slow' --yes")]
pub(crate) struct Rollback {
    /// The release to go back to, such as v12
    release: Option<String>,
    /// Leave the app scaled as it is
    #[arg(long)]
    keep_formation: bool,
    /// Why, for whoever reads the releases
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    app: ReleaseArg,
}

impl Rollback {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app_to_release(&self.app)?;
        let old: Release = match &self.release {
            Some(release) => {
                client::typed(&client.get(&["apps", &name, "releases", &version_of(release)?.to_string()])?)?
            }
            None => before_current(&client, &name)?,
        };
        let version = old.version.to_string();
        let mut preview: RollbackPreview =
            client::typed(&client.get(&["apps", &name, "releases", &version, "rollback"])?)?;
        if self.keep_formation {
            preview.changes.formation.clear();
        }
        let lines = lines(cx.out, &preview.changes);
        cx.out.note(&format!("Going back to v{version} ({}) changes:", old.description));
        for line in &lines {
            cx.out.note(&format!("  {line}"));
        }
        if lines.is_empty() {
            cx.out.note(&format!("  nothing: {name} is what v{version} was"));
        }
        for warning in &preview.warnings {
            cx.out.note(&cx.out.paint.color(Color::DarkYellow, &format!("Warning: {}", warning.message)));
        }
        if !self.yes && !lines.is_empty() && context::can_ask() && !context::agrees("Go on?")? {
            return Err(CliError::failed("Nothing was done"));
        }
        let mut wish = json!({ "release": old.id, "keep_formation": self.keep_formation });
        if let Some(reason) = &self.reason {
            wish["reason"] = json!(reason);
        }
        let (made, value) = cx.out.step(&format!("Rolling {name} back to v{version}"), || {
            let made = client.post(&["apps", &name, "releases"], &wish)?;
            finished(&client, &name, made)
        })?;
        let told = |warning: &&client::Warning| !preview.warnings.iter().any(|told| told.message == warning.message);
        for warning in made.warnings.iter().filter(told) {
            cx.out.note(&cx.out.paint.color(Color::DarkYellow, &format!("Warning: {}", warning.message)));
        }
        cx.show(&value, |out| {
            if lines.is_empty() {
                return out.line(format!("Nothing changed; v{} is the current release", made.version));
            }
            out.line(format!("v{} is what v{version} was: {}", made.version, old.description))
        })
    }
}

/// Show what changed from one release to another
///
/// Code, names of config vars, add-on attachments, process types and how they were scaled; never a value. Without a second
/// release, the newest is taken.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform releases:diff v3 v5
  $ platform releases:diff v3 -a my-app --json")]
pub(crate) struct Diff {
    /// The release to begin with, such as v3
    from: String,
    /// The release to end with, such as v5
    to: Option<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Diff {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let from = version_of(&self.from)?;
        let to = match &self.to {
            Some(to) => version_of(to)?,
            None => {
                newest(&client, &name, 1)?.first().map(|release| release.version).ok_or_else(|| no_releases(&name))?
            }
        };
        let path = ["apps", &name, "releases", &from.to_string(), "diff", &to.to_string()];
        let value = client.get(&path)?;
        cx.show(&value, |out| {
            let lines = lines(out, &client::typed(&value)?);
            if lines.is_empty() {
                out.note(&format!("v{from} and v{to} of {name} hold the same."));
            }
            lines.iter().try_for_each(|line| out.line(line))
        })
    }
}

/// What changes, one line each.
fn lines(out: Output, changes: &Changes) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(Change { from, to }) = &changes.code {
        lines.push(format!("~ code: {} → {}", commit(from.as_ref()), commit(to.as_ref())));
    }
    for var in &changes.config_vars {
        let sign = match var.change.as_str() {
            "added" => "+",
            "removed" => "-",
            _ => "~",
        };
        lines.push(format!("{sign} config var {}", var.name));
    }
    for change in &changes.attachments {
        let name = &change.name;
        lines.push(match (&change.from, &change.to) {
            (Some(from), Some(to)) => format!("~ attachment {name}: {} → {}", from.addon.name, to.addon.name),
            (Some(from), None) => format!("- attachment {name} ({})", from.addon.name),
            (None, to) => format!("+ attachment {name} ({})", to.as_ref().map_or("", |to| &to.addon.name)),
        });
    }
    for change in &changes.process_types {
        let name = &change.process_type;
        lines.push(match (&change.from, &change.to) {
            (Some(from), Some(to)) => format!("~ process type {name}: {from} → {to}"),
            (Some(_), None) => format!("- process type {name}"),
            (None, to) => format!("+ process type {name}: {}", to.as_deref().unwrap_or_default()),
        });
    }
    for change in &changes.formation {
        let (from, to) = (scale(change.from.as_ref()), scale(change.to.as_ref()));
        lines.push(format!("~ formation {}: {from} → {to}", change.process_type));
    }
    lines.iter().map(|line| painted(out, &crate::output::harmless(line))).collect()
}

fn painted(out: Output, line: &str) -> String {
    let color = match line.chars().next() {
        Some('+') => Color::DarkGreen,
        Some('-') => Color::DarkRed,
        _ => Color::DarkYellow,
    };
    out.paint.color(color, line)
}

fn commit(slug: Option<&Slug>) -> String {
    let Some(slug) = slug else { return "none".to_owned() };
    let short = slug.commit.get(..8).unwrap_or(&slug.commit);
    match &slug.commit_description {
        Some(subject) => format!("{short} ({subject})"),
        None => short.to_owned(),
    }
}

fn scale(scale: Option<&Scale>) -> String {
    scale.map_or_else(|| "none".to_owned(), |scale| format!("{}:{}", scale.quantity, scale.size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_change_is_one_line() {
        let changes = json!({
            "code": { "from": { "commit": "1a2b3c4d5e", "commit_description": "Count" }, "to": null },
            "config_vars": [
                { "name": "NEW", "change": "added" },
                { "name": "OLD", "change": "removed" },
                { "name": "OTHER", "change": "changed" },
            ],
            "attachments": [
                { "name": "DATABASE", "from": { "addon": { "name": "pg-1" } }, "to": { "addon": { "name": "pg-2" } } },
                { "name": "REDIS", "from": { "addon": { "name": "redis-1" } }, "to": null },
                { "name": "MAIL", "from": null, "to": { "addon": { "name": "mail-1" } } },
            ],
            "process_types": [
                { "type": "clock", "from": null, "to": "bin/clock" },
                { "type": "web", "from": "bin/a", "to": "bin/b\u{1b}[2J" },
                { "type": "worker", "from": "bin/w", "to": null },
            ],
            "formation": [
                { "type": "web", "from": { "quantity": 2, "size": "Basic" }, "to": { "quantity": 1, "size": "Eco" } },
            ],
        });
        let changes: Changes = client::typed(&changes).unwrap();
        let mut out = Output::detect();
        out.paint = crate::output::Paint::plain();
        let expected = [
            "~ code: 1a2b3c4d (Count) → none",
            "+ config var NEW",
            "- config var OLD",
            "~ config var OTHER",
            "~ attachment DATABASE: pg-1 → pg-2",
            "- attachment REDIS (redis-1)",
            "+ attachment MAIL (mail-1)",
            "+ process type clock: bin/clock",
            "~ process type web: bin/a → bin/b [2J",
            "- process type worker",
            "~ formation web: 2:Basic → 1:Eco",
        ];
        assert_eq!(lines(out, &changes), expected);
    }
}
