//! From a pushed commit, an archive or an image to a live release, as straight-line code.

mod archive;
mod make;
mod output;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use builder::{BuildError, Builder};
use model::{AppId, BuildId, LogSource, Pause, Timestamp};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::actors::By;
use crate::git::{repository, tip};
use crate::holds::locked;
use crate::live::Stages;
use crate::rollout::{Tally, unconfirmed};
use crate::store::{
    Action, App, Build, Change, Deploy, NewBuild, NewEvent, NewRelease, Release, Resource, Stamp, Status, StoreError,
};
use crate::{Actor, Controller, Error};
pub use archive::ArchiveRequest;
use archive::{Archive, NamedImage};
pub(crate) use output::Output;

/// Characters of a commit's subject that are kept.
const SUBJECT: usize = 200;
/// How often the output of a running release phase is looked at.
const POLL: Duration = Duration::from_millis(100);

/// A commit to deploy.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) app: AppId,
    /// Who pushed it.
    pub(crate) by: By,
    /// They want it even if the app is locked or frozen, and may.
    pub(crate) insists: bool,
    /// Why, in their words.
    pub(crate) reason: Option<String>,
    /// In full.
    pub(crate) id: String,
    /// The branch that it is pushed to, by its full name.
    pub(crate) branch: String,
    /// The commit that whoever pushed saw there; none if there was no such branch.
    pub(crate) before: Option<String>,
    /// Environment under which git finds its objects.
    pub(crate) env: BTreeMap<String, String>,
    /// How long the platform took to receive it.
    pub(crate) received: Duration,
}

/// What is built.
enum Code {
    Commit(Commit),
    Archive(Archive),
    Image(NamedImage),
}

impl Code {
    fn by(&self) -> &By {
        match self {
            Self::Commit(commit) => &commit.by,
            Self::Archive(archive) => &archive.by,
            Self::Image(image) => &image.by,
        }
    }

    fn insists(&self) -> bool {
        match self {
            Self::Commit(commit) => commit.insists,
            Self::Archive(archive) => archive.insists,
            Self::Image(image) => image.insists,
        }
    }

    fn reason(&self) -> Option<&str> {
        match self {
            Self::Commit(commit) => commit.reason.as_deref(),
            Self::Archive(_) | Self::Image(_) => None,
        }
    }

    /// The commit, or what its sender calls an archive or an image.
    fn version(&self) -> &str {
        match self {
            Self::Commit(commit) => &commit.id,
            Self::Archive(archive) => &archive.version,
            Self::Image(image) => &image.version,
        }
    }

    /// The version as people read it.
    fn title(&self) -> &str {
        match self {
            Self::Commit(_) | Self::Archive(_) => short(self.version()),
            Self::Image(image) => &image.version,
        }
    }

    /// Buildpacks of this build only.
    fn buildpacks(&self) -> Option<&Vec<String>> {
        match self {
            Self::Archive(archive) => archive.buildpacks.as_ref(),
            Self::Commit(_) | Self::Image(_) => None,
        }
    }

    fn received(&self) -> Duration {
        match self {
            Self::Commit(commit) => commit.received,
            Self::Archive(_) | Self::Image(_) => Duration::ZERO,
        }
    }
}

/// A build that runs: what a second push is told.
#[derive(Debug, Clone)]
pub(crate) struct Building {
    pub(crate) build: BuildId,
    commit: String,
    since: Timestamp,
    /// Ends it, unless it has made a release.
    cancelled: CancellationToken,
}

/// The only build of an app, until it is dropped.
struct Turn {
    controller: Arc<Controller>,
    app: AppId,
    build: BuildId,
    cancelled: CancellationToken,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.controller.live.building.lock().remove(&self.app);
    }
}

/// Why a deploy did not end with a live release.
pub(crate) enum Refused {
    /// For the person who pushed.
    Said(String),
    /// The same, of what is in the app's log already.
    Logged(String),
    Failed(Error),
}

impl<E: Into<Error>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Controller {
    /// Where the output of a build is kept.
    pub fn build_output(&self, app: AppId, build: BuildId) -> PathBuf {
        self.settings.home.join("builds").join(app.to_string()).join(format!("{build}.log"))
    }

    /// Builds and releases a commit, and waits until it is live or refused; true if it is live. Dropping the receiver of
    /// `client` changes nothing.
    pub(crate) async fn deploy(self: &Arc<Self>, commit: Commit, client: mpsc::Sender<String>) -> bool {
        let Ok(Some(app)) = self.store.app(commit.app).await else {
            return refuse(&client, " !     The app was removed meanwhile.").await;
        };
        if let Err(error) = self.may_deploy(&app, &commit).await {
            let lines: Vec<_> = error.to_string().lines().map(|line| format!(" !     {line}")).collect();
            return refuse(&client, &lines.join("\n")).await;
        }
        let id = BuildId::random(&*self.random);
        let turn = match self.take_turn(app.id, (id, &commit.id)) {
            Ok(turn) => turn,
            Err(running) => {
                let seconds = self.clock.now().since(running.since).as_secs();
                let text = format!(
                    " !     A build of {} is running: commit {}, for {seconds} s now. Wait until it is over and push again.",
                    app.name,
                    short(&running.commit)
                );
                return refuse(&client, &text).await;
            }
        };
        // git would find out when all is done, and refuse to move the branch to what is live by then.
        match tip(&repository(&self.settings, app.id), &commit.branch).await {
            Ok(tip) if tip != commit.before => {
                let text = " !     The branch was moved by another push meanwhile. Push again; `git fetch` shows what is there.";
                return refuse(&client, text).await;
            }
            Ok(_) => {}
            Err(error) => return refuse(&client, &format!(" !     The platform cannot run git: {error}.")).await,
        }
        if let Err(error) = self.note_build(id, &commit).await {
            return refuse(&client, &format!(" !     {error}")).await;
        }
        let output = self.output(app.id, id, Some(client));
        // All of a build is in it: too much for those who call this to carry.
        Box::pin(self.deploy_alone(&app, &Code::Commit(commit), (&turn, output))).await
    }

    /// Begins to build and release a commit that nobody waits for, and returns at once. When it is live, its branch moves to it.
    pub(crate) async fn start_deploy(self: &Arc<Self>, app: &App, commit: Commit) -> Result<Build, Error> {
        let id = BuildId::random(&*self.random);
        let turn = self.take_turn(app.id, (id, &commit.id)).map_err(|_| busy(app))?;
        let build = self.note_build(id, &commit).await?;
        let output = self.output(app.id, id, None);
        let (controller, app) = (Arc::clone(self), app.clone());
        tokio::spawn(async move {
            let code = Code::Commit(commit);
            if controller.deploy_alone(&app, &code, (&turn, output)).await
                && let Code::Commit(commit) = &code
            {
                controller.settle_branch(id, commit).await;
            }
        });
        Ok(build)
    }

    /// Notes a build of a commit before it begins.
    async fn note_build(&self, id: BuildId, commit: &Commit) -> Result<Build, Error> {
        let subject = subject(&repository(&self.settings, commit.app), commit).await;
        let (user, subject, source) = (commit.by.user.id, subject.as_deref(), None);
        let new = NewBuild { id, app: commit.app, user, commit: &commit.id, subject, source };
        let stamp = Stamp { by: Some(commit.by.clone()), now: self.clock.now(), insists: commit.insists };
        Ok(self.store.insert_build(new, &stamp).await?)
    }

    async fn may_deploy(&self, app: &App, commit: &Commit) -> Result<(), Error> {
        let actor = Actor { insists: commit.insists, ..self.pusher(&commit.by).await? };
        self.check_held(app, &actor).await?;
        self.live.ready().await
    }

    /// Ends a build that runs and has not made a release yet.
    pub async fn cancel_build(&self, app: &App, actor: &Actor, build: &Build) -> Result<(), Error> {
        let running = self.live.building.lock().get(&app.id).filter(|running| running.build == build.id).cloned();
        let Some(running) = running.filter(|_| build.status == Status::Pending) else {
            return Err(Error::Invalid("This build is over: it cannot be cancelled".to_owned()));
        };
        let data = serde_json::json!({ "cancelled": true });
        let event = NewEvent {
            app: Some(app.id),
            resource: Resource::Build,
            id: build.id.to_string(),
            action: Action::Update,
            data,
        };
        self.store.record(&self.stamp(actor), event).await?;
        self.note(app, actor, "Cancel build");
        running.cancelled.cancel();
        Ok(())
    }

    /// Forgets what builds of an app kept for the next one.
    pub async fn purge_build_cache(&self, app: &App, actor: &Actor) -> Result<(), Error> {
        if self.live.building.lock().contains_key(&app.id) {
            return Err(busy(app));
        }
        let failed = |source: BuildError| Error::System { action: "purge the build cache", source: source.into() };
        self.builder.purge_cache(app.id).await.map_err(failed)?;
        let data = serde_json::json!({ "build_cache": "purged" });
        let (resource, action) = (Resource::App, Action::Update);
        let event = NewEvent { app: Some(app.id), resource, id: app.id.to_string(), action, data };
        self.store.record(&self.stamp(actor), event).await?;
        self.note(app, actor, "Purge the build cache");
        Ok(())
    }

    /// Begins to build an app, unless a build of it runs.
    fn take_turn(self: &Arc<Self>, app: AppId, (build, commit): (BuildId, &str)) -> Result<Turn, Building> {
        match self.live.building.lock().entry(app) {
            Entry::Occupied(running) => Err(running.get().clone()),
            Entry::Vacant(free) => {
                let cancelled = CancellationToken::new();
                let (commit, since) = (commit.to_owned(), self.clock.now());
                free.insert(Building { build, commit, since, cancelled: cancelled.clone() });
                Ok(Turn { controller: Arc::clone(self), app, build, cancelled })
            }
        }
    }

    /// Where the lines of a build go.
    fn output(self: &Arc<Self>, app: AppId, id: BuildId, client: Option<mpsc::Sender<String>>) -> Output {
        Output::new(Arc::clone(self), app, client).into_file(&self.build_output(app, id))
    }

    async fn deploy_alone(self: &Arc<Self>, app: &App, code: &Code, (turn, mut output): (&Turn, Output)) -> bool {
        let id = turn.build;
        let Err(refused) = self.build_and_release(app, code, turn, &mut output).await else { return true };
        let is_logged = matches!(refused, Refused::Logged(_));
        let text = match refused {
            Refused::Said(text) | Refused::Logged(text) => text,
            Refused::Failed(error) => {
                let text = crate::errors::chain(&error);
                tracing::error!(app.name = %app.name, build.id = %id, error = text, "A deploy failed");
                format!(
                    "The platform could not go on: {text}.\nNothing was changed. Push again; if it happens again, ask the operator."
                )
            }
        };
        // A build that has made a release is over already; this is for all others.
        if let Err(error) = self.store.fail_build(app.id, id, &self.own_stamp()).await {
            tracing::error!(build.id = %id, error = &error as &dyn std::error::Error, "A failed build could not be noted");
        }
        output.show("").await;
        for line in text.lines() {
            let line = format!(" !     {line}");
            if is_logged { output.show(&line).await } else { output.line(&line).await }
        }
        output.show("").await;
        false
    }

    async fn build_and_release(
        self: &Arc<Self>,
        app: &App,
        code: &Code,
        turn: &Turn,
        output: &mut Output,
    ) -> Result<(), Refused> {
        let began = Instant::now();
        let (id, user) = (turn.build, code.by().user.id);
        let stamp = || Stamp { by: Some(code.by().clone()), now: self.clock.now(), insists: code.insists() };
        let (built, manifest, mut stages) = tokio::select! {
            made = self.make(app, code, id, output) => made?,
            () = turn.cancelled.cancelled() => {
                // Its container runs on until somebody ends it.
                if let Err(error) = self.engine.kill(&Builder::oneoff(app.id, id)).await {
                    tracing::warn!(build.id = %id, %error, "The container of a cancelled build cannot be ended");
                }
                return Err(Refused::Said("The build was cancelled.".to_owned()));
            }
        };

        let released = Instant::now();
        let (starts, kept) = (Self::starts(&manifest, &self.sizes().await?), Self::kept(&manifest)?);
        let volumes = self.declared_volumes(app, &manifest, output).await?;
        let deploy = Deploy {
            build: id,
            image: &built.image,
            buildpacks: &built.buildpacks,
            size_bytes: built.size_bytes,
            starts: &starts,
            manifest: kept.as_deref(),
            volumes: &volumes,
        };
        let description = format!("Deploy {}", code.title()).trim_end().to_owned();
        let change = Change::Deploy(deploy);
        let new = NewRelease { app: app.id, user, description: &description, reason: code.reason(), change };
        let created = self.store.create_release(new, &stamp()).await;
        if created.is_err() {
            self.give_up_disks(&volumes).await;
        }
        let release = match created {
            Err(StoreError::Missing("App")) => return Err(gone()),
            // It was locked while this was built.
            Err(StoreError::Locked(lock)) => return Err(Refused::Said(locked(&lock))),
            Err(error @ (StoreError::OneDyno { .. } | StoreError::Overlap(_) | StoreError::Taken(_))) => {
                return Err(Refused::Said(Error::from(error).to_string()));
            }
            created => created?.ok_or(Error::NotFound("release"))?,
        };
        self.changed.app(release.app);
        output.line(&format!("-----> Releasing v{}", release.version)).await;
        self.say_what_volumes_mean(&release, output).await?;
        let rollout = self.follow_release(&release, output).await?;
        self.say_rollout(&release, output).await?;
        let known: Duration = rollout.iter().map(|(_, time)| *time).sum();
        stages.push(("release", released.elapsed().saturating_sub(known)));
        stages.extend(rollout);

        Self::say_what_is_left(&manifest, &built.image, output).await;
        let host = self.settings.default_host(&app.name).map_err(|error| Error::Invalid(error.to_string()))?;
        output.line(&format!("       Released v{}, {}", release.version, megabytes(built.size_bytes))).await;
        output.line(&format!("       {}/ deployed to platform", self.settings.public_url(&host))).await;
        output.line(&format!("       Timing: {}", timing(&stages, code.received() + began.elapsed()))).await;
        let script = manifest.postdeploy.as_ref().map(|script| &script.value);
        Ok(self.postdeploy((app, &release), script, output).await?)
    }

    /// Files of commits that are being built. Nothing in it outlives the process.
    pub(crate) fn checkouts(&self) -> PathBuf {
        self.settings.home.join("checkouts")
    }

    /// Waits until a release is live, and shows what its release phase prints meanwhile.
    async fn follow_release(&self, release: &Release, output: &mut Output) -> Result<Stages, Refused> {
        let path = self.release_output(release.app, release.id);
        let mut shown = 0;
        let mut settled = std::pin::pin!(self.live.settled(release.id));
        let stages = loop {
            tokio::select! {
                stages = &mut settled => break stages,
                () = tokio::time::sleep(POLL) => {}
            }
            shown += output.show_file(&path, shown).await;
            self.store.release(release.id).await?.ok_or_else(gone)?;
            // Its steps may take hours, and the next push waits for this one.
            if self.store.rollout(release.id).await?.is_some_and(|rollout| rollout.percent().is_some()) {
                return Ok(Stages::new());
            }
        };
        output.show_file(&path, shown).await;
        let ended = self.store.release(release.id).await?.ok_or_else(gone)?;
        match ended.status {
            Status::Succeeded => Ok(stages),
            _ => Err(Refused::Logged(ended.failure.unwrap_or_else(|| "The release failed.".to_owned()))),
        }
    }

    /// Says of a release that is live what its owner should know.
    async fn say_rollout(&self, release: &Release, output: &mut Output) -> Result<(), Error> {
        let rollout = self.store.rollout(release.id).await?;
        if rollout.as_ref().is_some_and(|rollout| rollout.unconfirmed) {
            output.show(&format!(" !     {}", unconfirmed(release.version))).await;
        }
        if let Some(rollout) = &rollout
            && rollout.live_at.is_some()
            && rollout.replaces.is_some()
        {
            let Tally { requests, lost, .. } = self.rollout_traffic(rollout).await?;
            output.line(&format!("       Lost {} of {} requests meanwhile", grouped(lost), grouped(requests))).await;
        }
        if let Some(rollout) = rollout
            && let Some(percent) = rollout.percent()
        {
            let then = match rollout.policy.pause {
                Pause::For(_) => format!("goes on every {}", rollout.policy.get("pause")),
                Pause::UntilContinued => "waits for `platform rollouts:continue`".to_owned(),
            };
            let version = rollout.version;
            output.line(&format!("       v{version} is a canary with {percent} % of the requests; it {then}")).await;
            output.line("       `platform rollouts:info` shows how far it is, `platform rollouts:abort` ends it").await;
        }
        Ok(())
    }

    /// Ends what an earlier controller left half done: builds that nobody runs any more, and every one-off that is not
    /// detached, since nobody holds their other end. Pending releases are not touched: the rollout carries on with them.
    pub(crate) async fn clean_up(&self) -> Result<(), Error> {
        let mut kept = self.recover_runs().await?;
        kept.extend(self.recover_jobs().await?);
        for oneoff in self.engine.oneoffs().await?.iter().filter(|oneoff| !kept.contains(oneoff)) {
            self.engine.kill(oneoff).await?;
        }
        let _ = tokio::fs::remove_dir_all(self.checkouts()).await;
        let failed = |source: BuildError| Error::System { action: "clear what builds left", source: source.into() };
        self.builder.recover().await.map_err(failed)?;
        for build in self.store.pending_builds().await? {
            let text = "The platform restarted during the build. Push again.";
            self.logs.write(build.app, self.clock.now(), &LogSource::app("build"), text);
            self.store.fail_build(build.app, build.id, &self.own_stamp()).await?;
        }
        Ok(())
    }
}

/// One build of an app runs at a time.
fn busy(app: &App) -> Error {
    Error::Conflict(format!("A build of {} is running. Wait until it is over, or cancel it.", app.name))
}

fn gone() -> Refused {
    Refused::Said("The app was removed meanwhile.".to_owned())
}

/// The first line of a commit's message. What people will know it by, and nothing that a build could fail for.
async fn subject(repository: &Path, commit: &Commit) -> Option<String> {
    let mut git = tokio::process::Command::new("git");
    git.envs(&commit.env).arg("--git-dir").arg(repository).args(["log", "-1", "--format=%s", &commit.id, "--"]);
    let output = git.output().await.ok().filter(|output| output.status.success())?;
    let subject: String = String::from_utf8_lossy(&output.stdout).trim().chars().take(SUBJECT).collect();
    Some(subject).filter(|subject| !subject.is_empty())
}

async fn refuse(client: &mpsc::Sender<String>, text: &str) -> bool {
    let _ = client.send(text.to_owned()).await;
    false
}

fn short(commit: &str) -> &str {
    commit.get(..8).unwrap_or(commit)
}

/// `12,431`
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000)
}

/// The stages that matter, on one line: those that took the tenth part of the slowest or more.
fn timing(stages: &Stages, total: Duration) -> String {
    let slowest = stages.iter().map(|(_, time)| *time).max().unwrap_or_default();
    let matters = |(_, time): &&(&str, Duration)| *time >= slowest / 10;
    let parts = stages.iter().filter(matters).map(|(name, time)| format!("{name} {:.2}", time.as_secs_f64()));
    format!("{:.2} s: {}", total.as_secs_f64(), parts.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests;
