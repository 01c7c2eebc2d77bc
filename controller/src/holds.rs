//! What holds an app's next release back: a lock that somebody set, or a time in which nothing is deployed.
//!
//! Held are pushes, builds, rollbacks, config vars and add-ons: whatever makes a release. What keeps the present release
//! alive is not: scaling, restarts, maintenance, domains. Whoever is admin of the app may insist ([`Actor::insists`]).

use model::{Freeze, FreezeId, Role};

use crate::releases::reason;
use crate::store::{App, AppScope, FreezeWindow, Lock};
use crate::{Actor, Controller, Error};

/// Most freeze windows of one app, of one team, and of the platform.
const MAX_WINDOWS: usize = 50;

/// How whoever may do so goes on all the same.
const INSIST: &str = "An admin of the app can go on all the same: --force, or `git push -o force`.";

impl Controller {
    /// Locks an app, or gives its lock another message.
    pub async fn lock(&self, app: &App, actor: &Actor, message: Option<&str>) -> Result<Lock, Error> {
        let message = reason(message)?;
        let lock = Lock { app: app.id, by: actor.user.to_ref(), message, created_at: self.clock.now() };
        self.store.set_lock(&lock, &self.stamp(actor)).await?;
        self.note(app, actor, "Lock");
        Ok(lock)
    }

    /// The lock of an app.
    pub async fn find_lock(&self, app: &App) -> Result<Lock, Error> {
        self.store.lock(app.id).await?.ok_or(Error::NotFound("lock"))
    }

    /// Ends the lock of an app.
    pub async fn unlock(&self, app: &App, actor: &Actor) -> Result<Lock, Error> {
        let lock = self.find_lock(app).await?;
        self.store.delete_lock(&lock, &self.stamp(actor)).await?;
        self.note(app, actor, "Unlock");
        Ok(lock)
    }

    /// Adds a freeze window, such as `fri 16:00 - mon 08:00 Europe/Berlin`.
    pub async fn freeze(
        &self,
        actor: &Actor,
        scope: AppScope,
        (period, why): (&str, Option<&str>),
    ) -> Result<FreezeWindow, Error> {
        let period: Freeze = period.parse()?;
        let (id, now) = (FreezeId::random(&*self.random), self.clock.now());
        if period.is_over(now) {
            return Err(Error::Invalid(format!("period {period} is over already")));
        }
        if self.store.freezes(&scope).await?.len() >= MAX_WINDOWS {
            return Err(Error::Invalid(format!("At most {MAX_WINDOWS} freeze windows are possible")));
        }
        let window = FreezeWindow { id, scope, period, reason: reason(why)?, by: actor.user.to_ref(), created_at: now };
        self.store.insert_freeze(&window, &self.stamp(actor)).await?;
        Ok(window)
    }

    /// The freeze window of a scope with this id.
    pub async fn find_freeze(&self, scope: &AppScope, id: &str) -> Result<FreezeWindow, Error> {
        let all = self.store.freezes(scope).await?;
        all.into_iter().find(|window| window.id.to_string() == id).ok_or(Error::NotFound("freeze window"))
    }

    /// Ends a freeze window.
    pub async fn unfreeze(&self, actor: &Actor, window: &FreezeWindow) -> Result<(), Error> {
        Ok(self.store.delete_freeze(window, &self.stamp(actor)).await?)
    }

    /// Why the app's next release has to wait, for people; none if it has not to.
    pub async fn held(&self, app: &App) -> Result<Option<String>, Error> {
        if let Some(lock) = self.store.lock(app.id).await? {
            return Ok(Some(locked(&lock)));
        }
        let now = self.clock.now();
        let windows = self.store.freezes_over(app).await?;
        let until = |window: FreezeWindow| window.period.end_of(now).map(|end| (window, end));
        let last = windows.into_iter().filter_map(until).max_by_key(|(_, end)| *end);
        Ok(last.map(|(window, end)| frozen(&window, &window.period.local(end))))
    }

    /// Refuses what makes a release while the app is held, unless somebody who may insists.
    pub(crate) async fn check_held(&self, app: &App, actor: &Actor) -> Result<(), Error> {
        let Some(why) = self.held(app).await? else { return Ok(()) };
        if !actor.insists {
            return Err(Error::Held(format!("{why}\n{INSIST}")));
        }
        self.check_role(actor, app, Role::Admin).await.map(drop)
    }
}

/// What somebody is told whom a lock stops.
pub(crate) fn locked(lock: &Lock) -> String {
    let message = lock.message.as_ref().map_or_else(String::new, |message| format!(": {message}"));
    format!(
        "This app was locked by {} at {}{}.\nNothing is deployed or configured until it is unlocked: `platform unlock`, with the \
         role manage.",
        lock.by.email, lock.created_at, message
    )
}

fn frozen(window: &FreezeWindow, until: &str) -> String {
    let whose = match &window.scope {
        AppScope::App(_) => "This app is".to_owned(),
        AppScope::Team(team) => format!("The apps of the team {} are", team.name),
        AppScope::Platform => "All apps of this platform are".to_owned(),
    };
    let reason = window.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    format!("{whose} frozen until {until}{reason}.\nNothing is deployed or configured in {}.", window.period)
}
