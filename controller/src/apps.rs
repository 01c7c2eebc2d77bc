//! Making, changing and removing apps.

use model::{AppId, AppName, LogSource, Random, Role, TeamId};

use crate::store::{App, AppChange, DataChoice, NewApp, StoreError};
use crate::{Actor, Controller, Error};

/// Names that mean the platform itself.
const RESERVED: &[&str] = &["api", "console", "git", "www", "localhost"];

/// How often another name is tried when the chosen one is taken.
const NAME_ATTEMPTS: usize = 10;

/// What a user may say about a new app.
#[derive(Debug, Default)]
pub struct AppRequest {
    /// The name; without one the platform chooses.
    pub name: Option<String>,
    /// Name of a stack.
    pub stack: Option<String>,
    /// Name of the team that is to own it; without one, whoever makes it does.
    pub team: Option<String>,
}

/// What a user may change of an app; `None` leaves it.
#[derive(Debug, Default)]
pub struct AppUpdate {
    /// Another name; the default host name follows it.
    pub name: Option<String>,
    /// Maintenance on or off.
    pub maintenance: Option<bool>,
    /// Name of the stack of the next build.
    pub stack: Option<String>,
    /// Buildpacks in order; none means detect.
    pub buildpacks: Option<Vec<String>>,
}

impl Controller {
    /// Makes an app for a user.
    pub async fn create_app(&self, actor: &Actor, request: AppRequest) -> Result<App, Error> {
        self.check_stack(request.stack.as_deref())?;
        let team = match &request.team {
            Some(team) => Some(self.find_team(actor, team, Role::Operate).await?.id),
            None => None,
        };
        let app = match request.name {
            Some(name) => self.insert_app(actor, team, &parse_name(&name)?).await?,
            None => self.insert_named_app(actor, team).await?,
        };
        self.note(&app, actor, "Initial release: release v1");
        self.announce(app.id).await;
        Ok(app)
    }

    /// Changes an app.
    pub async fn update_app(&self, app: &App, actor: &Actor, update: AppUpdate) -> Result<App, Error> {
        self.check_stack(update.stack.as_deref())?;
        let name = update.name.as_deref().map(parse_name).transpose()?;
        if name.as_ref().is_some_and(|name| *name != app.name) {
            self.check_role(actor, app, Role::Admin).await?;
        }
        let buildpacks = update.buildpacks.as_deref();
        let change = AppChange { name: name.as_ref(), maintenance: update.maintenance, buildpacks };
        let changed = self.store.update_app(app, change, &self.stamp(actor)).await?;
        if changed.name != app.name {
            self.note(&changed, actor, &format!("Renamed from {} to {}", app.name, changed.name));
        }
        if changed.maintenance != app.maintenance {
            let state = if changed.maintenance { "on" } else { "off" };
            self.note(&changed, actor, &format!("Maintenance mode {state}"));
        }
        self.announce(app.id).await;
        Ok(changed)
    }

    /// Removes an app. It is gone at once; its instances and files follow as the rollout finds them without an app. If it has volumes,
    /// it must be said what becomes of them.
    pub async fn delete_app(&self, app: &App, actor: &Actor, volumes: Option<DataChoice>) -> Result<(), Error> {
        if volumes.is_none() {
            self.check_no_volumes(app).await?;
        }
        self.check_hosts_are_free(app).await?;
        self.store.delete_app(app, volumes, &self.stamp(actor)).await?;
        self.announce(app.id).await;
        self.live.litter.notify_one();
        self.addons.wake();
        Ok(())
    }

    /// A line of the platform in the app's log, `… by user somebody@example.com`.
    pub(crate) fn note(&self, app: &App, actor: &Actor, what: &str) {
        let line = format!("{what} by user {}", actor.user.email);
        self.logs.write(app.id, self.clock.now(), &LogSource::app("api"), &line);
    }

    async fn insert_app(&self, actor: &Actor, team: Option<TeamId>, name: &AppName) -> Result<App, StoreError> {
        let id = AppId::random(&*self.random);
        let stack = &self.settings.stack;
        self.store.create_app(NewApp { id, name, owner: actor.user.id, team, stack }, &self.stamp(actor)).await
    }

    async fn insert_named_app(&self, actor: &Actor, team: Option<TeamId>) -> Result<App, Error> {
        for _ in 0..NAME_ATTEMPTS {
            match self.insert_app(actor, team, &parse_name(&choose_name(&*self.random))?).await {
                Err(StoreError::Taken(_)) => {}
                result => return Ok(result?),
            }
        }
        Err(Error::Conflict("No free name was found. Try again, or choose a name.".to_owned()))
    }

    /// There is one stack; Heroku's own names mean it too, since clients send them unasked.
    fn check_stack(&self, stack: Option<&str>) -> Result<(), Error> {
        match stack {
            Some(stack) if stack != self.settings.stack && stack != "cedar" && !stack.starts_with("heroku-") => {
                Err(Error::Invalid(format!("stack {stack:?} does not exist; available is {}", self.settings.stack)))
            }
            _ => Ok(()),
        }
    }
}

fn parse_name(name: &str) -> Result<AppName, Error> {
    let parsed: AppName = name.parse().map_err(|rule: model::NameError| Error::Invalid(rule.to_string()))?;
    if RESERVED.contains(&name) {
        return Err(Error::Invalid(format!("Name {name} is reserved")));
    }
    Ok(parsed)
}

/// Like `quiet-harbor-41730`.
pub(crate) fn choose_name(random: &dyn Random) -> String {
    const FIRST: &[&str] = &[
        "amber", "bold", "brisk", "calm", "clear", "cool", "early", "fair", "fresh", "gentle", "glad", "golden",
        "keen", "light", "lively", "lucid", "mellow", "merry", "nimble", "noble", "plain", "proud", "quick", "quiet",
        "rapid", "silent", "silver", "steady", "sunny", "swift", "vivid", "warm",
    ];
    const SECOND: &[&str] = &[
        "anchor", "beacon", "bridge", "brook", "canyon", "cedar", "cliff", "cloud", "coast", "comet", "delta", "dune",
        "field", "fjord", "forest", "garden", "glacier", "harbor", "hill", "island", "lagoon", "lake", "maple",
        "meadow", "mesa", "ocean", "orchard", "pine", "reef", "river", "summit", "valley",
    ];
    let mut bytes = [0; 4];
    random.fill(&mut bytes);
    let first = FIRST[usize::from(bytes[0]) % FIRST.len()];
    let second = SECOND[usize::from(bytes[1]) % SECOND.len()];
    format!("{first}-{second}-{:05}", u16::from_be_bytes([bytes[2], bytes[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestController;

    #[tokio::test]
    async fn names_are_chosen_checked_and_free_again_after_deletion() {
        let test = TestController::new().await;
        let controller = &test.controller;
        let user = test.actor(&test.user("ada@example.com").await);
        let named = |name: &str| AppRequest { name: Some(name.to_owned()), stack: None, team: None };
        for bad in ["api", "Bad_Name!", "x"] {
            assert!(matches!(controller.create_app(&user, named(bad)).await, Err(Error::Invalid(_))), "{bad}");
        }
        let chosen = controller.create_app(&user, AppRequest::default()).await.expect("an app");
        assert_eq!(chosen.name.as_str().split('-').count(), 3);
        let app = controller.create_app(&user, named("mine")).await.expect("an app");
        assert!(matches!(controller.create_app(&user, named("mine")).await, Err(Error::Invalid(_))), "taken");
        let rename = AppUpdate { name: Some("mine".to_owned()), ..AppUpdate::default() };
        assert!(matches!(controller.update_app(&chosen, &user, rename).await, Err(Error::Invalid(_))), "taken");
        controller.delete_app(&app, &user, None).await.expect("deleted");
        controller.create_app(&user, named("mine")).await.expect("free again");
    }
}
