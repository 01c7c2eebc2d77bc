//! Reading releases, and going back to one. Config changes and deploys make theirs elsewhere.

use std::collections::BTreeMap;

use model::{AttachmentName, ReleaseId, Role};

use crate::changes::Changes;
use crate::store::{
    AddonState, App, AttachedAddon, Attachments, Change, Contents, NewRelease, Release, Stamp, Status, StoreError,
};
use crate::{Actor, Controller, Error, Origin, Via};

/// Most characters of a reason.
const REASON: usize = 500;
/// So often a rollback begins anew because somebody else was quicker.
const ATTEMPTS: usize = 20;
/// So many releases are named in a warning.
const NAMED: usize = 5;

/// How to go back.
#[derive(Debug, Clone, Default)]
pub struct RollbackWish {
    /// The app stays scaled as it is.
    pub keep_formation: bool,
    /// Why, for people.
    pub reason: Option<String>,
}

/// What going back to a release would do.
#[derive(Debug, Clone)]
pub struct RollbackPreview {
    /// What would change.
    pub changes: Changes,
    /// What to know before.
    pub warnings: Vec<Warning>,
}

/// What going back to a release did.
#[derive(Debug, Clone)]
pub struct RolledBack {
    /// The release that was made, or the present one if there was nothing to change.
    pub release: Release,
    /// Whether one was made.
    pub is_new: bool,
    /// What to know about it.
    pub warnings: Vec<Warning>,
}

/// What somebody should know who goes back to a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// What kind of thing: `phase_ran`, `phase_runs`, `addon_gone` or `addon_foreign`.
    pub id: &'static str,
    /// One sentence, for people.
    pub message: String,
}

/// What is there, and what would be there instead.
struct Plan {
    present: Contents,
    next: Contents,
    warnings: Vec<Warning>,
}

impl Controller {
    /// The release of an app that `reference` means: a version with or without `v`, or an id.
    pub async fn find_release(&self, app: &App, reference: &str) -> Result<Release, Error> {
        let found = match (reference.parse::<ReleaseId>(), reference.trim_start_matches('v').parse()) {
            (_, Ok(version)) => self.store.release_by_version(app.id, version).await?,
            (Ok(id), _) => self.store.release(id).await?.filter(|release| release.app == app.id),
            _ => None,
        };
        found.ok_or(Error::NotFound("release"))
    }

    /// What going back to a release would change, against what the next release would be otherwise.
    pub async fn preview_rollback(
        &self,
        (app, actor): (&App, &Actor),
        target: &Release,
        keep_formation: bool,
    ) -> Result<RollbackPreview, Error> {
        let plan = self.plan_rollback((app, actor), target, keep_formation).await?;
        let changes = self.changes_between(&plan.present, &plan.next).await?;
        Ok(RollbackPreview { changes, warnings: plan.warnings })
    }

    /// Makes a new release with what an earlier one held. Nothing is built. What comes from add-ons is as it is today: their
    /// credentials may have changed, and an add-on that is gone does not come back.
    pub async fn rollback(
        &self,
        (app, actor): (&App, &Actor),
        target: &Release,
        wish: &RollbackWish,
    ) -> Result<RolledBack, Error> {
        self.check_held(app, actor).await?;
        let reason = reason(wish.reason.as_deref())?;
        let words = (format!("Rollback to v{}", target.version), reason);
        self.go_back((app, actor), (target, wish.keep_formation), &words, &self.stamp(actor)).await
    }

    /// Goes back from a release that failed after it was live, by the platform itself. Neither locks nor freeze windows hold it: the
    /// deploy that it belongs to was begun.
    pub(crate) async fn return_to(
        &self,
        app: &App,
        (failed, target): (&Release, &Release),
        why: &str,
    ) -> Result<RolledBack, Error> {
        let user = self.store.user(failed.user.id).await?.ok_or(Error::NotFound("user"))?;
        let actor = Actor::new(user, Via::Machine, Origin::default());
        let words = (format!("Return to v{}", target.version), Some(why.chars().take(REASON).collect()));
        let back = self.go_back((app, &actor), (target, true), &words, &self.own_stamp()).await?;
        if back.is_new {
            return Ok(back);
        }
        // It was made before, by a controller that could not note it any more.
        let newest = self.store.newest_version(app.id).await?;
        let release = self.store.release_by_version(app.id, newest).await?.ok_or(Error::NotFound("release"))?;
        Ok(RolledBack { release, ..back })
    }

    async fn go_back(
        &self,
        (app, actor): (&App, &Actor),
        (target, keep_formation): (&Release, bool),
        (description, reason): &(String, Option<String>),
        stamp: &Stamp,
    ) -> Result<RolledBack, Error> {
        for _ in 0..ATTEMPTS {
            let plan = self.plan_rollback((app, actor), target, keep_formation).await?;
            let new = NewRelease {
                app: app.id,
                user: actor.user.id,
                description,
                reason: reason.as_deref(),
                change: Change::Replace { seen: &plan.present, next: &plan.next },
            };
            let made = match self.store.create_release(new, stamp).await {
                Err(StoreError::Stale) => continue,
                made => made?,
            };
            let is_new = made.is_some();
            let release = match made {
                Some(release) => {
                    self.note(app, actor, &format!("{description}: release v{}", release.version));
                    // Add-ons first: they let the app through before its release is started.
                    self.addons.wake();
                    self.changed.app(app.id);
                    release
                }
                None => self.current_release(app).await?,
            };
            return Ok(RolledBack { release, is_new, warnings: plan.warnings });
        }
        Err(Error::Conflict(format!("{} is being changed by others all the time. Try again.", app.name)))
    }

    /// The release that an app runs.
    pub async fn current_release(&self, app: &App) -> Result<Release, Error> {
        let app = self.store.app(app.id).await?.ok_or(Error::NotFound("app"))?;
        self.store.release(app.current_release).await?.ok_or(Error::NotFound("release"))
    }

    async fn plan_rollback(
        &self,
        (app, actor): (&App, &Actor),
        target: &Release,
        keep_formation: bool,
    ) -> Result<Plan, Error> {
        if !is_eligible(target, self.store.was_deployed(app.id).await?) {
            let version = target.version;
            let message = match target.status {
                Status::Succeeded if target.image_removed_at.is_some() => format!(
                    "Cannot roll back to v{version}: its image was removed. An app keeps its newest {}; to have an older one \
                     again, push its commit{}",
                    self.settings.kept_images,
                    target.slug.as_ref().map(|slug| format!(" {}", slug.commit)).unwrap_or_default()
                ),
                Status::Failed => format!("Cannot roll back to v{version}: it failed"),
                Status::Pending => format!("Cannot roll back to v{version}: it is not over yet"),
                Status::Succeeded => format!("Cannot roll back to v{version}: it has nothing to run"),
            };
            return Err(Error::Invalid(message));
        }
        let present = self.store.present(app.id).await?;
        let then = self.store.contents(target).await?;
        let mut warnings = self.phase_warnings(target, &present).await?;
        let wanted = match &target.attachments {
            Some(wanted) => self.usable((wanted, &present.attachments), (app, actor), &mut warnings).await?,
            None => present.attachments.clone(),
        };
        let mut vars = BTreeMap::new();
        for (name, it) in &wanted {
            let Some(addon) = self.store.addon(it.addon).await? else { continue };
            let own = self.attachment_vars(name, &addon).await?.into_iter();
            vars.extend(own.map(|(name, value)| (name, (addon.id, value))));
        }
        // What is on disk has no past: snapshots of it are restored for themselves.
        let volumes = present.volumes.clone();
        let mut next = Contents { attachments: wanted, formation: present.formation.clone(), volumes, ..then.clone() };
        next.attach(&vars);
        if !keep_formation {
            next.formation.extend(then.formation);
        }
        for volume in next.volumes.values() {
            if let Some(scale) = next.formation.get_mut(&volume.process_type) {
                scale.quantity = scale.quantity.min(1);
            }
        }
        if next.image == present.image {
            // Two builds may make the same image.
            next.slug = present.slug;
        }
        Ok(Plan { present, next, warnings })
    }

    async fn phase_warnings(&self, target: &Release, present: &Contents) -> Result<Vec<Warning>, Error> {
        let mut warnings = Vec::new();
        let ran = self.store.phases_since(target).await?;
        if target.image != present.image && !ran.is_empty() {
            let names: Vec<_> = ran.iter().rev().take(NAMED).rev().map(|version| format!("v{version}")).collect();
            let earlier = if ran.len() > NAMED { "… " } else { "" };
            let message = format!(
                "A release command ran since v{}, with other code ({earlier}{}). What it did, such as migrations of a database, is \
                 not undone.",
                target.version,
                names.join(", ")
            );
            warnings.push(Warning { id: "phase_ran", message });
        }
        if target.has_phase {
            let message = format!("The release command of v{} runs again before it serves.", target.version);
            warnings.push(Warning { id: "phase_runs", message });
        }
        Ok(warnings)
    }

    /// Of the attachments that a release had, those that are possible today. Where one is not, what is there now stays.
    async fn usable(
        &self,
        (wanted, present): (&Attachments, &Attachments),
        (app, actor): (&App, &Actor),
        warnings: &mut Vec<Warning>,
    ) -> Result<Attachments, Error> {
        let mut usable = Attachments::new();
        for (name, it) in wanted {
            let now = present.get(name);
            if let Some(now) = now.filter(|now| now.addon == it.addon) {
                usable.insert(name.clone(), now.clone());
                continue;
            }
            match self.attachable(it, (app, actor)).await? {
                Ok(addon) => drop(usable.insert(name.clone(), addon)),
                Err((id, why)) => {
                    warnings.push(Warning { id, message: format!("{}: {why}; {}.", name, instead(name, now)) });
                    usable.extend(now.map(|now| (name.clone(), now.clone())));
                }
            }
        }
        Ok(usable)
    }

    /// An add-on as it is today, or why the app cannot use it again.
    async fn attachable(
        &self,
        it: &AttachedAddon,
        (app, actor): (&App, &Actor),
    ) -> Result<Result<AttachedAddon, (&'static str, String)>, Error> {
        let addon = self.store.addon(it.addon).await?;
        let alive = |state| matches!(state, AddonState::Provisioned | AddonState::Provisioning);
        let Some(addon) = addon.filter(|addon| alive(addon.state)) else {
            return Ok(Err(("addon_gone", format!("the add-on {} is gone", it.name))));
        };
        if addon.app != app.id {
            let owner = self.store.app(addon.app).await?;
            let allowed = match &owner {
                Some(owner) => self.check_role(actor, owner, Role::Operate).await,
                None => Err(Error::NotFound("app")),
            };
            match allowed {
                Ok(_) => {}
                Err(Error::NotFound(_) | Error::Forbidden(_)) => {
                    let why = format!("the add-on {} belongs to an app on which you have no such right", it.name);
                    return Ok(Err(("addon_foreign", why)));
                }
                Err(error) => return Err(error),
            }
        }
        let plan = format!("{}:{}", addon.kind, addon.plan);
        Ok(Ok(AttachedAddon { addon: addon.id, name: addon.name, plan }))
    }
}

/// What becomes of an attachment that cannot be what it was.
fn instead(name: &AttachmentName, now: Option<&AttachedAddon>) -> String {
    match now {
        Some(now) => format!("{name} stays {}", now.name),
        None => "it is not attached".to_owned(),
    }
}

/// Whether one can go back to this release: it served, and it has something that can still run unless nothing was ever
/// deployed.
pub fn is_eligible(release: &Release, app_was_deployed: bool) -> bool {
    let has_what_it_needs = release.image.is_some() || !app_was_deployed;
    release.status == Status::Succeeded && has_what_it_needs && release.image_removed_at.is_none()
}

/// A reason as a release keeps it: one line; none if there is nothing in it.
pub(crate) fn reason(text: Option<&str>) -> Result<Option<String>, Error> {
    let Some(text) = text else { return Ok(None) };
    let line: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let length = line.chars().count();
    if length > REASON {
        return Err(Error::Invalid(format!("reason has {length} characters; at most {REASON} are possible")));
    }
    Ok(Some(line).filter(|line| !line.is_empty()))
}

#[cfg(test)]
mod tests;
