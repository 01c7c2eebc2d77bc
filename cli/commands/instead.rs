//! What Heroku's program has and this one has not: whoever types it is told what to do instead.

use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::context::similar;
use crate::error::CliError;

/// Names of commands, or of whole topics, and what to do instead. The longest name that fits counts.
const INSTEAD: &[(&str, &str)] = &[
    ("accounts", "`platform login --api URL` logs in to several platforms; --api or PLATFORM_API chooses one of them."),
    (
        "addons:docs",
        "docs/addons.md of the platform is about its add-ons; `platform addons:plans SERVICE` lists their plans.",
    ),
    (
        "addons:open",
        "Add-ons have no pages of their own. `platform pg:psql` and `platform redis:cli` open their clients.",
    ),
    (
        "addons:rename",
        "The name of an add-on stays. What an app calls it can change: addons:detach, then `addons:attach NAME --as OTHER`.",
    ),
    ("apps:diff", "`platform releases:info` shows what a release changed; `git diff` compares the code."),
    ("apps:errors", "`platform logs --source heroku | grep code=` shows the errors that the router answered with."),
    ("apps:favorites", "There are no favourites; `platform apps` lists your apps."),
    ("buildpacks:versions", REGISTRY),
    (
        "certs:generate",
        "`openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out cert.pem -subj /CN=HOST` makes one.",
    ),
    ("ci", "There is no test runner yet: let your own CI push to the platform when its tests pass."),
    ("clients", "There are no OAuth clients; programs use tokens."),
    ("commands", "`platform --help` lists every command."),
    ("container", "Apps are built by buildpacks from what you push with git; there is no image registry."),
    ("dashboard", "The console is at the platform's own address, `platform status` says where."),
    (
        "data",
        "`platform addons` lists databases, `platform addons:create postgres` makes one, `platform pg:psql` opens it.",
    ),
    ("config:edit", "`platform config:set NAME=VALUE` sets one; several lines come from a file: NAME=\"$(cat FILE)\"."),
    ("domains:update", "A certificate is chosen by the names in it: `platform certs:add CERT KEY`."),
    ("domains:wait", "The platform answers for a domain at once; its DNS is yours to point here."),
    ("apps:join", JOIN),
    ("git:clone", "`git clone` the git address that `platform info` shows."),
    ("join", JOIN),
    ("local", "Run the Procfile here with any of its runners, such as `foreman start`."),
    ("mcp", "There is no MCP server; every command prints JSON with --json."),
    ("notifications", "`platform events` lists what happened."),
    ("orgs", "They are called teams: `platform teams`."),
    (
        "pg",
        "`platform pg:psql` opens the database, where SQL does this; `platform addons:info` shows its plan and its state.",
    ),
    (
        "pg:backups:cancel",
        "A backup cannot be stopped once it has begun; `platform pg:backups:delete` removes it when it is done.",
    ),
    ("pg:backups:schedule", SCHEDULE),
    ("pg:backups:schedules", SCHEDULE),
    ("pg:backups:unschedule", SCHEDULE),
    ("pg:backups:url", "`platform pg:backups:download` brings a backup to this machine."),
    ("pg:credentials", "`platform config:get DATABASE_URL` shows address, user and password."),
    ("pg:copy", COPY),
    ("pg:pull", COPY),
    ("pg:push", COPY),
    ("pg:promote", "`platform addons:detach DATABASE`, then `platform addons:attach NAME --as DATABASE`."),
    (
        "pg:reset",
        "`platform addons:destroy DATABASE`, then `platform addons:create postgres`, gives an empty database.",
    ),
    ("pg:upgrade", "Every database runs the version that the platform's stack has."),
    ("pipelines", "That is not possible yet. `platform help pipelines` lists what is."),
    (
        "pipelines:promote",
        "There are no promotions yet: push the same commit to the next app, `git push production main`.",
    ),
    ("plugins", "There are no plugins."),
    ("ps:socks", FORWARD),
    ("redis", "`platform redis:cli` opens it; `platform addons:info REDIS` shows its plan and its state."),
    ("regions", "A platform is one region: where its machine is."),
    ("releases:retry", "`platform rollback vN` with the release's own number runs it again."),
    ("repl", "Use your shell: `platform completion` lets it complete commands."),
    ("reviewapps", "There are no review apps yet: `platform create my-app-pr-1`, then push the branch to its main."),
    (
        "spaces",
        "There are no private spaces: apps do not reach each other, only the add-ons that are attached to them.",
    ),
    ("drains:get", "Spaces have no drains; `platform drains` lists those of an app."),
    ("drains:set", "Spaces have no drains; `platform drains:add` adds one to an app."),
    ("trusted-ips", "There are no private spaces, and so no addresses that are trusted in them."),
    ("telemetry", "There are no telemetry drains yet; `platform drains:add` sends the log elsewhere."),
    ("update", "Install the new version over this one: `make install` in its source."),
    ("usage", "Nothing here is billed."),
    (
        "webhooks:events",
        "`platform webhooks:deliveries` lists what webhooks were told, `platform events` all that happened.",
    ),
    ("version", "`platform --version` says which this is."),
];

const COPY: &str =
    "`platform pg:backups:capture` and `pg:backups:download` on one side, `pg:backups:restore FILE` on the other.";
const FORWARD: &str =
    "`platform ps:forward PORT` reaches a port of a dyno; `platform ps:exec` runs a program where all are in reach.";
const JOIN: &str =
    "Whoever is in a team works on its apps already; `platform access` shows who else does, and who can let you in.";
const REGISTRY: &str =
    "The platform has one version of each of its buildpacks: `platform buildpacks:search` shows them.";
const SCHEDULE: &str = "Backups are not scheduled yet: let cron run `platform pg:backups:capture -a APP`.";

/// What to do instead of a command that only Heroku has.
pub(super) fn advice(command: &str) -> Option<&'static str> {
    let fits = |name: &str| command.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'));
    let fitting = INSTEAD.iter().filter(|(name, _)| fits(name));
    fitting.max_by_key(|(name, _)| name.len()).map(|(_, advice)| *advice)
}

/// A complaint of the argument parser in our words, if it is about a command that is not there.
pub(super) fn explain(error: &clap::Error, cli: &Command) -> Option<CliError> {
    if error.kind() != ErrorKind::InvalidSubcommand {
        return None;
    }
    let Some(ContextValue::String(command)) = error.get(ContextKind::InvalidSubcommand) else { return None };
    let error = CliError::usage(format!("There is no command `{command}` here"));
    Some(match (advice(command), meant(command, cli)) {
        (Some(advice), _) => error.hint(advice),
        (None, Some(meant)) => {
            error.hint(format!("Did you mean `platform {meant}`? `platform --help` lists every command."))
        }
        (None, None) => error.hint("`platform --help` lists every command."),
    })
}

/// The command that may be meant, by any of its names.
fn meant<'a>(command: &str, cli: &'a Command) -> Option<&'a str> {
    let shown = cli.get_subcommands().filter(|command| !command.is_hide_set());
    let names = shown.flat_map(|command| std::iter::once(command.get_name()).chain(command.get_visible_aliases()));
    similar(command, names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::Cli;

    /// Every command of Heroku's program and its other names, one a line (heroku 11.10.0).
    const HEROKU: &str = include_str!("heroku.txt");

    #[test]
    fn every_command_of_heroku_is_there_or_answered() {
        let cli = Cli::described();
        let is_there = |name: &&str| cli.find_subcommand(name).is_some();
        let unanswered: Vec<_> = HEROKU.lines().filter(|name| !is_there(name) && advice(name).is_none()).collect();
        assert!(unanswered.is_empty(), "neither there nor answered: {unanswered:?}");
    }

    #[test]
    fn the_longest_name_that_fits_gives_the_advice() {
        assert_eq!(advice("pg:reset"), advice("pg:reset:now"));
        assert!(advice("pg:reset").unwrap().contains("addons:destroy"));
        assert!(advice("pg:bloat").unwrap().contains("pg:psql"));
        assert_eq!(advice("pgbouncer"), None);
        assert_eq!(advice("aps"), None);
        let cli = Cli::described();
        assert_eq!((meant("aps", &cli), meant("ps:scael", &cli)), (Some("apps"), Some("ps:scale")));
        assert_eq!(meant("nothing-like-it", &cli), None);
    }
}
