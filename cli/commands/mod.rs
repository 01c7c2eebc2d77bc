//! The words of the command line: every command with its help, one file per topic.

use std::fmt::Write;

use clap::{ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::context::Context;
use crate::error::Result;

mod addons;
mod apps;
mod auth;
mod backups;
mod completion;
mod config;
mod data;
mod domains;
mod git;
mod logs;
mod platform;
mod ps;
mod releases;
mod run;
mod stack;
mod users;

/// The Heroku that anyone can run: `git push platform main`, and the app is live
#[derive(Debug, Parser)]
#[command(name = "platform", version, max_term_width = 110, color = ColorChoice::Auto)]
pub(crate) struct Cli {
    /// Address of the platform; without it, the one logged in to last
    #[arg(long, global = true, env = "PLATFORM_API", hide_env = true, value_name = "URL", display_order = 100)]
    api: Option<String>,
    /// Print JSON for programs instead of words for people
    #[arg(long, global = true, display_order = 100)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(visible_alias = "auth:login")]
    Login(auth::Login),
    #[command(visible_alias = "auth:logout")]
    Logout(auth::Logout),
    #[command(visible_alias = "auth:whoami")]
    Whoami(auth::Whoami),
    #[command(name = "git:remote")]
    GitRemote(git::Remote),
    #[command(name = "git:credentials", hide = true)]
    GitCredentials(git::CredentialHelper),
    #[command(visible_alias = "list")]
    Apps(apps::List),
    #[command(visible_alias = "apps:create")]
    Create(apps::Create),
    #[command(visible_alias = "apps:info")]
    Info(apps::Info),
    #[command(visible_alias = "apps:rename")]
    Rename(apps::Rename),
    #[command(visible_alias = "apps:open")]
    Open(apps::Open),
    #[command(visible_alias = "apps:destroy")]
    Destroy(apps::Destroy),
    Config(config::List),
    #[command(name = "config:get")]
    ConfigGet(config::Get),
    #[command(name = "config:set")]
    ConfigSet(config::Set),
    #[command(name = "config:unset", visible_alias = "config:remove")]
    ConfigUnset(config::Unset),
    Ps(ps::List),
    #[command(name = "ps:scale", visible_alias = "scale")]
    PsScale(ps::Scale),
    #[command(name = "ps:restart", visible_alias = "restart")]
    PsRestart(ps::Restart),
    Run(run::Run),
    Logs(logs::Logs),
    Releases(releases::List),
    #[command(name = "releases:info")]
    ReleasesInfo(releases::Info),
    #[command(visible_alias = "releases:rollback")]
    Rollback(releases::Rollback),
    Builds(releases::Builds),
    Domains(domains::List),
    #[command(name = "domains:add")]
    DomainsAdd(domains::Add),
    #[command(name = "domains:remove")]
    DomainsRemove(domains::Remove),
    Addons(addons::List),
    #[command(name = "addons:services")]
    AddonsServices(addons::Services),
    #[command(name = "addons:plans")]
    AddonsPlans(addons::Plans),
    #[command(name = "addons:create")]
    AddonsCreate(addons::Create),
    #[command(name = "addons:info")]
    AddonsInfo(addons::Info),
    #[command(name = "addons:attach")]
    AddonsAttach(addons::Attach),
    #[command(name = "addons:detach")]
    AddonsDetach(addons::Detach),
    #[command(name = "addons:restart")]
    AddonsRestart(addons::Restart),
    #[command(name = "addons:destroy")]
    AddonsDestroy(addons::Destroy),
    #[command(name = "pg:psql")]
    PgPsql(data::Psql),
    #[command(name = "pg:backups")]
    PgBackups(backups::List),
    #[command(name = "pg:backups:capture")]
    PgBackupsCapture(backups::Capture),
    #[command(name = "pg:backups:restore")]
    PgBackupsRestore(backups::Restore),
    #[command(name = "pg:backups:download")]
    PgBackupsDownload(backups::Download),
    #[command(name = "pg:backups:delete")]
    PgBackupsDelete(backups::Delete),
    #[command(name = "redis:cli")]
    RedisCli(data::RedisCli),
    Maintenance(apps::Maintenance),
    #[command(name = "maintenance:on")]
    MaintenanceOn(apps::MaintenanceOn),
    #[command(name = "maintenance:off")]
    MaintenanceOff(apps::MaintenanceOff),
    #[command(name = "users:create")]
    UsersCreate(users::Create),
    Up(platform::Up),
    Down(platform::Down),
    Status(platform::Status),
    #[command(name = "stack:update")]
    StackUpdate(stack::Update),
    Completion(completion::Completion),
    #[command(hide = true)]
    Role(platform::Serve),
}

/// The front page of the help: what each group of commands is for.
const TOPICS: &[(&str, &[&str])] = &[
    ("Getting in", &["login", "logout", "whoami", "completion"]),
    ("Apps", &["apps", "create", "info", "open", "rename", "destroy", "git:remote"]),
    ("What runs", &["ps", "ps:scale", "ps:restart", "run", "logs"]),
    ("What it runs with", &["config", "config:get", "config:set", "config:unset"]),
    (
        "What it uses",
        &[
            "addons",
            "addons:services",
            "addons:plans",
            "addons:create",
            "addons:info",
            "addons:attach",
            "addons:detach",
            "addons:restart",
            "addons:destroy",
            "pg:psql",
            "pg:backups",
            "pg:backups:capture",
            "pg:backups:restore",
            "pg:backups:download",
            "pg:backups:delete",
            "redis:cli",
        ],
    ),
    ("What was deployed", &["releases", "releases:info", "rollback", "builds"]),
    (
        "Where it answers",
        &["domains", "domains:add", "domains:remove", "maintenance", "maintenance:on", "maintenance:off"],
    ),
    ("The platform itself", &["up", "down", "status", "stack:update", "users:create"]),
];

const EXIT_STATUS: &str = "\
Exit status: 0 done; 1 failed or refused; 2 wrong usage; 3 not logged in; 4 platform not reachable. `run` passes on the
status of its command.";

impl Cli {
    /// Reads the command line; prints help or a complaint and ends the program if that is all it asks for.
    pub(crate) fn from_command_line() -> Self {
        let matches = Self::described().get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }

    /// Does what was asked for; returns the exit status.
    pub(crate) fn run(self) -> Result<u8> {
        let cx = Context::new(self.api, self.json);
        self.command.run(&cx)
    }

    /// The command line as clap knows it, with the commands grouped by topic on the front page.
    fn described() -> clap::Command {
        let command = Self::command();
        let heading = command.get_styles().get_header();
        // Writing to a String cannot fail.
        let mut page = String::new();
        for (topic, names) in TOPICS {
            let _ = writeln!(page, "{heading}{topic}:{heading:#}");
            for name in *names {
                let about =
                    command.find_subcommand(name).and_then(clap::Command::get_about).cloned().unwrap_or_default();
                let _ = writeln!(page, "  {name:<20} {about}");
            }
            page.push('\n');
        }
        let template = format!(
            "{{about}}\n\n{{usage-heading}} {{usage}}\n\n{page}{heading}Options:{heading:#}\n{{options}}\n\n\
             `platform COMMAND --help` explains a command, with examples.\n{EXIT_STATUS}\n"
        );
        command.help_template(clap::builder::StyledStr::from(template))
    }
}

impl Command {
    fn run(self, cx: &Context) -> Result<u8> {
        match self {
            Self::Login(command) => command.run(cx)?,
            Self::Logout(command) => command.run(cx)?,
            Self::Whoami(command) => command.run(cx)?,
            Self::GitRemote(command) => command.run(cx)?,
            Self::GitCredentials(command) => command.run(cx)?,
            Self::Apps(command) => command.run(cx)?,
            Self::Create(command) => command.run(cx)?,
            Self::Info(command) => command.run(cx)?,
            Self::Rename(command) => command.run(cx)?,
            Self::Open(command) => command.run(cx)?,
            Self::Destroy(command) => command.run(cx)?,
            Self::Config(command) => command.run(cx)?,
            Self::ConfigGet(command) => command.run(cx)?,
            Self::ConfigSet(command) => command.run(cx)?,
            Self::ConfigUnset(command) => command.run(cx)?,
            Self::Ps(command) => command.run(cx)?,
            Self::PsScale(command) => command.run(cx)?,
            Self::PsRestart(command) => command.run(cx)?,
            Self::Run(command) => return command.run(cx),
            Self::Logs(command) => command.run(cx)?,
            Self::Releases(command) => command.run(cx)?,
            Self::ReleasesInfo(command) => command.run(cx)?,
            Self::Rollback(command) => command.run(cx)?,
            Self::Builds(command) => command.run(cx)?,
            Self::Domains(command) => command.run(cx)?,
            Self::DomainsAdd(command) => command.run(cx)?,
            Self::DomainsRemove(command) => command.run(cx)?,
            Self::Addons(command) => command.run(cx)?,
            Self::AddonsServices(command) => command.run(cx)?,
            Self::AddonsPlans(command) => command.run(cx)?,
            Self::AddonsCreate(command) => command.run(cx)?,
            Self::AddonsInfo(command) => command.run(cx)?,
            Self::AddonsAttach(command) => command.run(cx)?,
            Self::AddonsDetach(command) => command.run(cx)?,
            Self::AddonsRestart(command) => command.run(cx)?,
            Self::AddonsDestroy(command) => command.run(cx)?,
            Self::PgPsql(command) => return command.run(cx),
            Self::PgBackups(command) => command.run(cx)?,
            Self::PgBackupsCapture(command) => command.run(cx)?,
            Self::PgBackupsRestore(command) => command.run(cx)?,
            Self::PgBackupsDownload(command) => command.run(cx)?,
            Self::PgBackupsDelete(command) => command.run(cx)?,
            Self::RedisCli(command) => return command.run(cx),
            Self::Maintenance(command) => command.run(cx)?,
            Self::MaintenanceOn(command) => command.run(cx)?,
            Self::MaintenanceOff(command) => command.run(cx)?,
            Self::UsersCreate(command) => command.run(cx)?,
            Self::Up(command) => command.run(cx)?,
            Self::Down(command) => command.run(cx)?,
            Self::Status(command) => return command.run(cx),
            Self::StackUpdate(command) => command.run(cx)?,
            Self::Completion(command) => command.run(cx)?,
            Self::Role(command) => command.run()?,
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::described().debug_assert();
    }

    #[test]
    fn the_front_page_lists_every_command() {
        let command = Cli::described();
        let visible: Vec<_> =
            command.get_subcommands().filter(|sub| !sub.is_hide_set()).map(clap::Command::get_name).collect();
        let mut listed: Vec<_> = TOPICS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        for name in &visible {
            assert!(listed.contains(name), "{name} is on no topic of the front page");
        }
        listed.retain(|name| !visible.contains(name));
        assert!(listed.is_empty(), "no such commands: {listed:?}");
    }

    #[test]
    fn every_command_explains_itself_with_examples() {
        for command in Cli::described().get_subcommands().filter(|sub| !sub.is_hide_set()) {
            let name = command.get_name();
            assert!(command.get_about().is_some(), "{name} does not say what it does");
            let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(examples.contains(&format!("platform {name}")), "{name} has no example");
        }
    }

    #[test]
    fn help_texts() {
        let mut cli = Cli::described().term_width(110);
        cli.build();
        insta::assert_snapshot!("platform", cli.render_help().to_string());
        for command in cli.get_subcommands_mut().filter(|command| command.get_name() != "help") {
            let name = command.get_name().replace(':', "_");
            insta::assert_snapshot!(name, command.render_long_help().to_string());
        }
    }
}
