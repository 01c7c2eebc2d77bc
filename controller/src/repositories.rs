//! Repositories elsewhere that apps are deployed from: a branch is fetched when somebody asks for it, or when the repository's
//! webhook says that it moved. What is fetched goes the way of a push.

mod fetch;
mod hook;
#[cfg(test)]
mod tests;

pub(crate) use hook::routes;

use std::sync::Arc;
use std::time::Duration;

use model::{BuildId, LogSource, RepositoryId, Role};
use url::Url;

use crate::actors::By;
use crate::builds::Commit;
use crate::git::{move_branch, parse_remote, plain, repository, tip};
use crate::store::{App, Build, Repository};
use crate::{Actor, Controller, Error, Origin};

/// The branch that is deployed unless another one is named.
const BRANCH: &str = "main";
/// Where what was fetched is deployed to, as if it had been pushed there.
const DEPLOY: &str = "refs/heads/main";
/// Longest name of a branch.
const MAX_BRANCH: usize = 200;
/// How often a webhook looks whether the build that it waits for is over.
const POLL: Duration = Duration::from_secs(1);

impl Repository {
    /// Its URL without what may be secret in it.
    pub fn shown_url(&self) -> String {
        Url::parse(&self.url).map(|url| plain(&url).to_string()).unwrap_or_default()
    }
}

impl Controller {
    /// The repository that an app is deployed from.
    pub async fn find_repository(&self, app: &App) -> Result<Repository, Error> {
        self.store.repository_of(app.id).await?.ok_or(Error::NotFound("repository"))
    }

    /// Where code hosts tell that a repository changed.
    pub fn hook_url(&self, repository: &Repository) -> String {
        format!("{}{}{}", self.settings.api_url(), hook::PATH, repository.id)
    }

    /// Makes an app be deployed from a branch elsewhere. Whoever links another URL or branch keeps the webhook.
    pub async fn link_repository(
        &self,
        app: &App,
        actor: &Actor,
        (url, branch): (&str, Option<&str>),
    ) -> Result<Repository, Error> {
        let parsed = parse_remote(url).ok_or_else(|| {
            let text = "url must be a URL of https, http or ssh, such as https://host/path or git@host:path";
            Error::Invalid(text.to_owned())
        })?;
        let branch = branch.unwrap_or(BRANCH);
        check_branch(branch)?;
        let (before, now) = (self.store.repository_of(app.id).await?, self.clock.now());
        let linked = Repository {
            id: before.as_ref().map_or_else(|| RepositoryId::random(&*self.random), |before| before.id),
            app: app.id,
            user: actor.user.to_ref(),
            url: parsed.to_string(),
            branch: branch.to_owned(),
            secret: before.as_ref().map_or_else(|| self.new_secret(), |before| before.secret.clone()),
            created_at: before.as_ref().map_or(now, |before| before.created_at),
            updated_at: now,
        };
        // Whoever mistypes it is to be told now, and not when something was pushed there.
        self.fetch(&linked).await?;
        self.store.set_repository(&linked, &self.stamp(actor)).await?;
        self.note(app, actor, &format!("Link {} of {}", linked.branch, linked.shown_url()));
        Ok(linked)
    }

    /// Lets an app be pushed to only, as before.
    pub async fn unlink_repository(&self, app: &App, actor: &Actor) -> Result<Repository, Error> {
        let linked = self.find_repository(app).await?;
        self.store.delete_repository(&linked, &self.stamp(actor)).await?;
        self.note(app, actor, &format!("Unlink {}", linked.shown_url()));
        Ok(linked)
    }

    /// Fetches the linked branch and begins to build it, unless it is what was deployed last.
    pub async fn deploy_linked(self: &Arc<Self>, app: &App, actor: &Actor) -> Result<Option<Build>, Error> {
        let linked = self.find_repository(app).await?;
        self.check_held(app, actor).await?;
        self.live.ready().await?;
        let began = self.clock.now();
        let id = self.fetch(&linked).await?;
        let failed = |source: std::io::Error| Error::System { action: "run git", source: source.into() };
        let before = tip(&repository(&self.settings, app.id), DEPLOY).await.map_err(failed)?;
        if before.as_deref() == Some(&*id) {
            return Ok(None);
        }
        let commit = Commit {
            app: app.id,
            by: actor.by(),
            insists: actor.insists,
            reason: None,
            id,
            branch: DEPLOY.to_owned(),
            before,
            env: std::collections::BTreeMap::new(),
            received: self.clock.now().since(began),
        };
        self.start_deploy(app, commit).await.map(Some)
    }

    /// Does what a webhook asks for: once the build that runs is over, the newest commit is built. Whoever asks meanwhile
    /// is served by that.
    fn follow(self: &Arc<Self>, linked: Repository, origin: Origin) {
        if !self.live.following.lock().insert(linked.app) {
            return;
        }
        let controller = Arc::clone(self);
        tokio::spawn(async move {
            while controller.live.building.lock().contains_key(&linked.app) {
                tokio::time::sleep(POLL).await;
            }
            // What comes from here on may be newer than what is fetched now.
            controller.live.following.lock().remove(&linked.app);
            if let Err(error) = controller.deploy_for(&linked, origin).await {
                let text = format!("{} was not deployed: {}", linked.shown_url(), crate::errors::chain(&error));
                controller.logs.write(linked.app, controller.clock.now(), &LogSource::app("build"), &text);
            }
        });
    }

    /// Deploys as whoever linked the repository, if they still may.
    async fn deploy_for(self: &Arc<Self>, linked: &Repository, origin: Origin) -> Result<(), Error> {
        let app = self.store.app(linked.app).await?.ok_or(Error::NotFound("app"))?;
        let by = By { user: linked.user.clone(), via: format!("repository {}", linked.id), origin };
        let actor = self.pusher(&by).await?;
        self.check_role(&actor, &app, Role::Deploy).await?;
        self.deploy_linked(&app, &actor).await.map(drop)
    }

    /// After a deploy: what is live is what the app's own repository has.
    pub(crate) async fn settle_branch(&self, build: BuildId, commit: &Commit) {
        let repository = repository(&self.settings, commit.app);
        if let Err(error) = move_branch(&repository, (&commit.branch, &commit.id), commit.before.as_deref()).await {
            tracing::warn!(build.id = %build, %error, "The branch of a deployed commit cannot be moved");
        }
    }
}

/// What git takes for a branch (git-check-ref-format(1)), but for what nobody has.
fn check_branch(name: &str) -> Result<(), Error> {
    let is_allowed = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '+' | '#');
    let is_part =
        |part: &str| !part.is_empty() && !part.starts_with(['.', '-']) && part.strip_suffix(".lock").is_none();
    let is_branch = name.len() <= MAX_BRANCH && name.chars().all(is_allowed) && name.split('/').all(is_part);
    if is_branch && !name.contains("..") && !name.ends_with('.') {
        return Ok(());
    }
    Err(Error::Invalid(format!("branch must be the name of a branch, such as {BRANCH}")))
}
