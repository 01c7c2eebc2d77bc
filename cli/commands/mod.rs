//! The words of the command line: every command with its help, one file per topic.

use std::fmt::Write;

use clap::{ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::context::Context;
use crate::error::Result;

mod access;
mod account;
mod addons;
mod apps;
mod auth;
mod authorizations;
mod backups;
mod buildpacks;
mod builds;
mod certs;
mod certs_auto;
mod completion;
mod config;
mod copy;
mod credentials;
mod data;
mod database;
mod disk;
mod domains;
mod drains;
mod egress;
mod events;
mod features;
mod git;
mod heroku;
mod inside;
mod instead;
mod invitations;
mod jobs;
mod keys;
mod links;
mod locks;
mod logs;
mod man;
mod metrics;
mod pipelines;
mod platform;
mod port;
mod ps;
mod releases;
mod reload;
mod repository;
mod rollback;
mod rollouts;
mod routing;
mod run;
mod runs;
mod sbom;
mod scaling;
mod sizes;
mod stack;
mod tcp;
mod teams;
mod two_factor;
mod users;
mod validate;
mod volumes;
mod webhooks;

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

/// Makes the enum of all commands, and the topics of the front page, from one list: a command's name, its other names, and the
/// struct with its arguments, whose documentation is its help and whose `run` does it.
macro_rules! commands {
    (
        $(
            #[doc = $topic:literal]
            $($name:literal [$($alias:literal),*] $variant:ident($arguments:ty),)*
        )*
        hidden: $($hidden:literal $secret:ident($secrets:ty),)*
    ) => {
        #[derive(Debug, Subcommand)]
        enum Command {
            $($(#[command(name = $name, visible_aliases = names([$($alias),*]))] $variant($arguments),)*)*
            $(#[command(name = $hidden, hide = true)] $secret($secrets),)*
        }

        /// The front page of the help: what each group of commands is for.
        const TOPICS: &[(&str, &[&str])] = &[$(($topic, &[$($name),*])),*];

        impl Command {
            fn run(self, cx: &Context) -> Result<u8> {
                match self {
                    $($(Self::$variant(command) => command.run(cx).map(Ending::status),)*)*
                    $(Self::$secret(command) => command.run(cx).map(Ending::status),)*
                }
            }
        }
    };
}

/// What a command that did not fail ends with.
trait Ending {
    /// The exit status.
    fn status(self) -> u8;
}

impl Ending for () {
    fn status(self) -> u8 {
        0
    }
}

impl Ending for u8 {
    fn status(self) -> u8 {
        self
    }
}

/// Gives an empty list a type, too.
fn names<const N: usize>(names: [&'static str; N]) -> [&'static str; N] {
    names
}

commands! {
    /// Getting in
    "login" ["auth:login"] Login(auth::Login),
    "logout" ["auth:logout"] Logout(auth::Logout),
    "whoami" ["auth:whoami"] Whoami(auth::Whoami),
    "account" [] Account(account::Show),
    "account:update" [] AccountUpdate(account::Update),
    "account:password" [] AccountPassword(account::Password),
    "account:delete" [] AccountDelete(account::Delete),
    "sessions" [] Sessions(account::Sessions),
    "sessions:destroy" ["sessions:revoke"] SessionsDestroy(account::EndSessions),
    "auth:token" [] AuthToken(auth::Token),
    "keys" [] Keys(keys::List),
    "keys:add" [] KeysAdd(keys::Add),
    "keys:remove" [] KeysRemove(keys::Remove),
    "keys:clear" [] KeysClear(keys::Clear),
    "authorizations" [] Authorizations(authorizations::List),
    "authorizations:create" [] AuthorizationsCreate(authorizations::Create),
    "authorizations:info" [] AuthorizationsInfo(authorizations::Info),
    "authorizations:update" [] AuthorizationsUpdate(authorizations::Update),
    "authorizations:rotate" [] AuthorizationsRotate(authorizations::Rotate),
    "authorizations:revoke" ["authorizations:destroy"] AuthorizationsRevoke(authorizations::Revoke),
    "2fa" ["twofactor", "auth:2fa"] TwoFactor(two_factor::Show),
    "2fa:enable" [] TwoFactorEnable(two_factor::Enable),
    "2fa:disable" ["twofactor:disable", "auth:2fa:disable"] TwoFactorDisable(two_factor::Disable),
    "2fa:recovery-codes" ["2fa:gen-recovery-codes"] TwoFactorCodes(two_factor::Codes),
    "heroku" [] Heroku(heroku::Heroku),
    "completion" ["autocomplete"] Completion(completion::Completion),

    /// Apps
    "apps" ["list", "apps:list"] Apps(apps::List),
    "create" ["apps:create"] Create(apps::Create),
    "info" ["apps:info"] Info(apps::Info),
    "open" ["apps:open"] Open(apps::Open),
    "apps:disk" [] AppsDisk(disk::OfApp),
    "rename" ["apps:rename"] Rename(apps::Rename),
    "destroy" ["apps:destroy", "apps:delete"] Destroy(apps::Destroy),
    "git:remote" [] GitRemote(git::Remote),

    /// What runs
    "ps" [] Ps(ps::List),
    "ps:scale" ["scale", "dyno:scale"] PsScale(ps::Scale),
    "ps:restart" ["restart", "dyno:restart"] PsRestart(ps::Restart),
    "ps:stop" ["stop", "kill", "ps:kill", "dyno:stop", "dyno:kill"] PsStop(ps::Stop),
    "ps:type" ["resize", "ps:resize", "dyno:type", "dyno:resize"] PsType(ps::Type),
    "ps:autoscale" [] PsAutoscale(scaling::Autoscale),
    "ps:autoscale:enable" [] PsAutoscaleEnable(scaling::AutoscaleEnable),
    "ps:autoscale:disable" [] PsAutoscaleDisable(scaling::AutoscaleDisable),
    "ps:sleep" [] PsSleep(scaling::Sleep),
    "ps:sleep:off" [] PsSleepOff(scaling::SleepOff),
    "ps:sizes" [] PsSizes(sizes::List),
    "ps:sizes:add" [] PsSizesAdd(sizes::Add),
    "ps:sizes:update" [] PsSizesUpdate(sizes::Update),
    "ps:sizes:remove" [] PsSizesRemove(sizes::Remove),
    "ps:wait" [] PsWait(ps::Wait),
    "ps:exec" [] PsExec(inside::Exec),
    "ps:copy" [] PsCopy(copy::Copy),
    "ps:forward" [] PsForward(port::Forward),
    "run" [] Run(run::Run),
    "run:detached" [] RunDetached(run::Detached),
    "run:inside" [] RunInside(inside::RunInside),
    "run:list" [] RunList(runs::List),
    "run:info" [] RunInfo(runs::Info),
    "run:stop" [] RunStop(runs::Stop),
    "jobs" ["cron", "cron:list"] Jobs(jobs::List),
    "jobs:info" ["cron:info", "cron:report"] JobsInfo(jobs::Info),
    "jobs:add" ["cron:add"] JobsAdd(jobs::Add),
    "jobs:update" ["cron:update", "cron:set"] JobsUpdate(jobs::Update),
    "jobs:remove" ["cron:remove"] JobsRemove(jobs::Remove),
    "jobs:suspend" ["cron:suspend"] JobsSuspend(jobs::Suspend),
    "jobs:resume" ["cron:resume"] JobsResume(jobs::Resume),
    "jobs:run" ["cron:run"] JobsRun(jobs::RunNow),
    "jobs:stop" ["cron:stop"] JobsStop(jobs::Stop),
    "jobs:runs" ["cron:runs"] JobsRuns(jobs::Runs),
    "jobs:runs:info" ["cron:runs:info"] JobsRunsInfo(jobs::RunInfo),
    "jobs:logs" ["cron:logs"] JobsLogs(jobs::JobLogs),
    "logs" [] Logs(logs::Logs),
    "metrics" [] Metrics(metrics::Show),
    "metrics:paths" [] MetricsPaths(metrics::Paths),
    "drains" [] Drains(drains::List),
    "drains:add" [] DrainsAdd(drains::Add),
    "drains:remove" [] DrainsRemove(drains::Remove),

    /// What it runs with
    "config" [] Config(config::List),
    "config:get" [] ConfigGet(config::Get),
    "config:set" ["config:add"] ConfigSet(config::Set),
    "config:unset" ["config:remove"] ConfigUnset(config::Unset),
    "config:history" [] ConfigHistory(config::History),

    /// What it uses
    "addons" [] Addons(addons::List),
    "addons:services" [] AddonsServices(addons::Services),
    "addons:plans" [] AddonsPlans(addons::Plans),
    "addons:create" ["addons:add"] AddonsCreate(addons::Create),
    "addons:info" ["pg:info", "pg", "redis:info", "redis"] AddonsInfo(addons::Info),
    "addons:attach" [] AddonsAttach(addons::Attach),
    "addons:detach" [] AddonsDetach(addons::Detach),
    "addons:upgrade" ["addons:downgrade"] AddonsUpgrade(addons::Upgrade),
    "addons:wait" ["pg:wait", "redis:wait"] AddonsWait(addons::Wait),
    "addons:restart" [] AddonsRestart(addons::Restart),
    "addons:destroy" ["addons:remove"] AddonsDestroy(addons::Destroy),
    "pg:psql" ["psql"] PgPsql(data::Psql),
    "pg:backups" [] PgBackups(backups::List),
    "pg:backups:capture" [] PgBackupsCapture(backups::Capture),
    "pg:backups:restore" [] PgBackupsRestore(backups::Restore),
    "pg:backups:download" [] PgBackupsDownload(backups::Download),
    "pg:backups:delete" [] PgBackupsDelete(backups::Delete),
    "redis:cli" [] RedisCli(data::RedisCli),
    "volumes" [] Volumes(volumes::List),
    "volumes:create" ["volumes:adopt"] VolumesCreate(volumes::Create),
    "volumes:resize" [] VolumesResize(volumes::Resize),
    "volumes:snapshot" [] VolumesSnapshot(volumes::Take),
    "volumes:snapshots" [] VolumesSnapshots(volumes::Snapshots),
    "volumes:snapshots:remove" [] VolumesSnapshotsRemove(volumes::Remove),
    "volumes:restore" [] VolumesRestore(volumes::Restore),
    "volumes:download" [] VolumesDownload(volumes::Download),
    "volumes:detach" [] VolumesDetach(volumes::Detach),
    "volumes:destroy" [] VolumesDestroy(volumes::Destroy),
    "links" [] Links(links::List),
    "links:add" [] LinksAdd(links::Add),
    "links:remove" [] LinksRemove(links::Remove),
    "egress" [] Egress(egress::Show),
    "egress:set" [] EgressSet(egress::Set),
    "egress:clear" [] EgressClear(egress::Clear),

    /// Who works on it
    "access" [] Access(access::List),
    "access:add" ["sharing:add"] AccessAdd(access::Add),
    "access:update" [] AccessUpdate(access::Update),
    "access:remove" ["sharing:remove"] AccessRemove(access::Remove),
    "leave" ["apps:leave"] Leave(access::Leave),
    "apps:transfer" ["sharing:transfer"] AppsTransfer(access::TransferApp),
    "apps:transfers" [] AppsTransfers(access::Transfers),
    "apps:transfer:accept" [] AppsTransferAccept(access::Accept),
    "apps:transfer:decline" [] AppsTransferDecline(access::Decline),
    "apps:transfer:cancel" [] AppsTransferCancel(access::Cancel),
    "pipelines" [] Pipelines(pipelines::List),
    "pipelines:create" [] PipelinesCreate(pipelines::Create),
    "pipelines:add" [] PipelinesAdd(pipelines::Add),
    "pipelines:update" [] PipelinesUpdate(pipelines::Update),
    "pipelines:remove" [] PipelinesRemove(pipelines::Remove),
    "pipelines:info" [] PipelinesInfo(pipelines::Info),
    "pipelines:rename" [] PipelinesRename(pipelines::Rename),
    "pipelines:destroy" [] PipelinesDestroy(pipelines::Destroy),
    "teams" [] Teams(teams::List),
    "teams:create" [] TeamsCreate(teams::Create),
    "teams:rename" [] TeamsRename(teams::Rename),
    "teams:destroy" [] TeamsDestroy(teams::Destroy),
    "members" [] Members(teams::Members),
    "members:add" ["members:set"] MembersAdd(teams::Add),
    "members:invite" [] MembersInvite(teams::Invite),
    "members:invitations" [] MembersInvitations(invitations::OfTeam),
    "members:invitations:revoke" [] MembersInvitationsRevoke(invitations::RevokeOfTeam),
    "members:remove" [] MembersRemove(teams::Remove),

    /// What was deployed
    "validate" [] Validate(validate::Validate),
    "releases" [] Releases(releases::List),
    "releases:info" [] ReleasesInfo(releases::Info),
    "releases:diff" [] ReleasesDiff(rollback::Diff),
    "releases:output" [] ReleasesOutput(releases::Output),
    "releases:export" ["builds:export"] ReleasesExport(releases::Export),
    "rollback" ["releases:rollback"] Rollback(rollback::Rollback),
    "rollouts" [] Rollouts(rollouts::List),
    "rollouts:info" [] RolloutsInfo(rollouts::Info),
    "rollouts:continue" [] RolloutsContinue(rollouts::Continue),
    "rollouts:abort" [] RolloutsAbort(rollouts::Abort),
    "rollouts:policy" [] RolloutsPolicy(rollouts::Policy),
    "routing" [] Routing(routing::Routing),
    "routing:purge" [] RoutingPurge(routing::Purge),
    "buildpacks" [] Buildpacks(buildpacks::List),
    "buildpacks:set" [] BuildpacksSet(buildpacks::Set),
    "buildpacks:add" [] BuildpacksAdd(buildpacks::Add),
    "buildpacks:remove" [] BuildpacksRemove(buildpacks::Remove),
    "buildpacks:clear" [] BuildpacksClear(buildpacks::Clear),
    "buildpacks:search" [] BuildpacksSearch(buildpacks::Search),
    "buildpacks:info" [] BuildpacksInfo(buildpacks::Info),
    "stack" ["apps:stacks"] Stack(stack::List),
    "stack:rebase" [] StackRebase(stack::Rebase),
    "stack:set" ["apps:stacks:set"] StackSet(stack::Set),
    "builds" [] Builds(releases::Builds),
    "builds:create" [] BuildsCreate(builds::Create),
    "builds:info" [] BuildsInfo(builds::Info),
    "builds:output" [] BuildsOutput(builds::Output),
    "builds:cancel" [] BuildsCancel(builds::Cancel),
    "builds:cache:purge" [] BuildsCachePurge(builds::CachePurge),
    "repository" [] Repository(repository::Info),
    "repository:link" [] RepositoryLink(repository::Link),
    "repository:unlink" [] RepositoryUnlink(repository::Unlink),
    "repository:deploy" [] RepositoryDeploy(repository::Deploy),
    "credentials" [] Credentials(credentials::List),
    "credentials:set" ["registry:login", "git:auth"] CredentialsSet(credentials::Set),
    "credentials:remove" ["registry:logout"] CredentialsRemove(credentials::Remove),
    "builds:sbom" [] BuildsSbom(sbom::Show),
    "lock" ["apps:lock"] Lock(locks::Lock),
    "lock:info" ["apps:lock:info"] LockInfo(locks::Info),
    "unlock" ["apps:unlock"] Unlock(locks::Unlock),
    "freezes" [] Freezes(locks::List),
    "freezes:add" [] FreezesAdd(locks::Add),
    "freezes:remove" [] FreezesRemove(locks::Remove),
    "events" ["activity"] Events(events::List),
    "audit" [] Audit(events::Audit),
    "features" ["labs"] Features(features::List),
    "features:info" ["labs:info"] FeaturesInfo(features::Info),
    "features:enable" ["labs:enable"] FeaturesEnable(features::Enable),
    "features:disable" ["labs:disable"] FeaturesDisable(features::Disable),
    "webhooks" [] Webhooks(webhooks::List),
    "webhooks:add" [] WebhooksAdd(webhooks::Add),
    "webhooks:info" [] WebhooksInfo(webhooks::Info),
    "webhooks:update" [] WebhooksUpdate(webhooks::Update),
    "webhooks:remove" [] WebhooksRemove(webhooks::Remove),
    "webhooks:deliveries" [] WebhooksDeliveries(webhooks::Deliveries),
    "webhooks:deliveries:info" [] WebhooksDeliveriesInfo(webhooks::DeliveryInfo),
    "webhooks:deliveries:redeliver" [] WebhooksRedeliver(webhooks::Redeliver),

    /// Where it answers
    "domains" [] Domains(domains::List),
    "domains:add" [] DomainsAdd(domains::Add),
    "domains:info" [] DomainsInfo(domains::Info),
    "domains:remove" [] DomainsRemove(domains::Remove),
    "domains:clear" [] DomainsClear(domains::Clear),
    "tcp" [] Tcp(tcp::List),
    "tcp:add" [] TcpAdd(tcp::Add),
    "tcp:remove" [] TcpRemove(tcp::Remove),
    "certs" [] Certs(certs::List),
    "certs:add" [] CertsAdd(certs::Add),
    "certs:info" [] CertsInfo(certs::Info),
    "certs:update" [] CertsUpdate(certs::Update),
    "certs:remove" [] CertsRemove(certs::Remove),
    "certs:auto" [] CertsAuto(certs_auto::Show),
    "certs:auto:enable" [] CertsAutoEnable(certs_auto::Enable),
    "certs:auto:disable" [] CertsAutoDisable(certs_auto::Disable),
    "certs:auto:refresh" [] CertsAutoRefresh(certs_auto::Refresh),
    "certs:auto:wait" [] CertsAutoWait(certs_auto::Wait),
    "maintenance" [] Maintenance(apps::Maintenance),
    "maintenance:on" [] MaintenanceOn(apps::MaintenanceOn),
    "maintenance:off" [] MaintenanceOff(apps::MaintenanceOff),

    /// The platform itself
    "up" [] Up(platform::Up),
    "reload" [] Reload(reload::Reload),
    "down" [] Down(platform::Down),
    "status" [] Status(platform::Status),
    "disk" [] Disk(disk::OfPlatform),
    "gc" [] Gc(disk::Collect),
    "stack:update" [] StackUpdate(stack::Update),
    "users" [] Users(users::List),
    "users:create" [] UsersCreate(users::Create),
    "users:invite" [] UsersInvite(users::Invite),
    "users:invitations" [] UsersInvitations(invitations::List),
    "users:invitations:revoke" [] UsersInvitationsRevoke(invitations::Revoke),
    "users:suspend" [] UsersSuspend(users::Suspend),
    "users:restore" [] UsersRestore(users::Restore),
    "users:promote" [] UsersPromote(users::Promote),
    "users:delete" [] UsersDelete(users::Delete),
    "migrate" [] Migrate(database::Migrate),
    "secrets:rotate" [] SecretsRotate(database::RotateSecrets),
    "man" [] Man(man::Pages),

    hidden:
    "git:credentials" GitCredentials(git::CredentialHelper),
    "role" Role(platform::Serve),
}

const EXIT_STATUS: &str = "\
Exit status: 0 done; 1 failed or refused; 2 wrong usage; 3 not logged in; 4 platform not reachable. `run` passes on the
status of its command.";

impl Cli {
    /// Reads the command line; prints help or a complaint and ends the program if that is all it asks for.
    pub(crate) fn from_command_line() -> Result<Self> {
        let parsed = Self::described().try_get_matches().and_then(|matches| Self::from_arg_matches(&matches));
        parsed.map_err(|error| instead::explain(&error, &Self::described()).unwrap_or_else(|| error.exit()))
    }

    /// Does what was asked for; returns the exit status.
    pub(crate) fn run(self) -> Result<u8> {
        let cx = Context::new(self.api, self.json);
        self.command.run(&cx).map_err(|error| cx.explain(error))
    }

    /// The command line as clap knows it, with the commands grouped by topic on the front page.
    fn described() -> clap::Command {
        let command = Self::command();
        let heading = command.get_styles().get_header();
        // Writing to a String cannot fail.
        let mut page = String::new();
        for (topic, names) in TOPICS {
            let _ = writeln!(page, "{heading}{}:{heading:#}", topic.trim());
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
