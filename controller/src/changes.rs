//! What one release has that another has not.

use std::collections::BTreeSet;

use model::{AttachmentName, BuildId, Digest, ProcessType};

use crate::store::{AttachedAddon, ConfigChanges, Contents, Formation, ProcessScale, Release, Slug};
use crate::{Controller, Error};

/// What changes from some contents to others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Other code; none if both run the same image.
    pub code: Option<CodeChange>,
    /// Config vars by name, never their values.
    pub config: ConfigChanges,
    /// Add-ons that are used under another name, or no more.
    pub attachments: Vec<AttachmentChange>,
    /// Process types that are scaled otherwise.
    pub formation: Vec<FormationChange>,
    /// Process types that come, go, or run another command.
    pub process_types: Vec<ProcessChange>,
}

/// Other code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeChange {
    /// What the first was built from, if that is known.
    pub from: Option<Slug>,
    /// What the second was built from, if that is known.
    pub to: Option<Slug>,
}

/// Another use of an add-on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachmentChange {
    /// The attachment.
    pub name: AttachmentName,
    /// What it stands for in the first.
    pub from: Option<AttachedAddon>,
    /// What it stands for in the second.
    pub to: Option<AttachedAddon>,
}

/// A process type that is scaled otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormationChange {
    /// Which.
    pub process_type: ProcessType,
    /// In the first.
    pub from: Option<ProcessScale>,
    /// In the second.
    pub to: Option<ProcessScale>,
}

/// A process type that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessChange {
    /// Which.
    pub process_type: ProcessType,
    /// The command of the first, as people read it.
    pub from: Option<String>,
    /// The command of the second.
    pub to: Option<String>,
}

impl Changes {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Controller {
    /// What changes from one release of an app to another.
    pub async fn changes(&self, old: &Release, new: &Release) -> Result<Changes, Error> {
        let (mut before, after) = (self.store.contents(old).await?, self.store.contents(new).await?);
        // What was not remembered has not changed.
        if old.formation.is_none() {
            before.formation.clone_from(&after.formation);
        }
        if old.attachments.is_none() {
            before.attachments.clone_from(&after.attachments);
        }
        self.changes_between(&before, &after).await
    }

    /// What changes from some contents to others.
    pub(crate) async fn changes_between(&self, before: &Contents, after: &Contents) -> Result<Changes, Error> {
        let mut changes = Changes {
            config: before.config_changes(after),
            attachments: attachments(before, after),
            formation: formation(&before.formation, &after.formation),
            ..Changes::default()
        };
        if before.image != after.image {
            changes.code = Some(CodeChange { from: self.slug(before.slug).await?, to: self.slug(after.slug).await? });
            let (old, new) = (self.commands(before.image.as_ref()).await?, self.commands(after.image.as_ref()).await?);
            changes.process_types = processes(&old, &new);
        }
        Ok(changes)
    }

    async fn slug(&self, build: Option<BuildId>) -> Result<Option<Slug>, Error> {
        let Some(build) = build else { return Ok(None) };
        let build = self.store.build(build).await?;
        Ok(build.map(|build| Slug { build: build.id, commit: build.commit, subject: build.subject }))
    }

    async fn commands(&self, image: Option<&Digest>) -> Result<Vec<(ProcessType, String)>, Error> {
        let Some(digest) = image else { return Ok(Vec::new()) };
        let image = self.store.image(digest).await?.ok_or(Error::NotFound("image"))?;
        Ok(image.processes.iter().map(|process| (process.process_type.clone(), process.display())).collect())
    }
}

fn attachments(before: &Contents, after: &Contents) -> Vec<AttachmentChange> {
    let names: BTreeSet<_> = before.attachments.keys().chain(after.attachments.keys()).collect();
    let change = |name: &AttachmentName| {
        let (from, to) = (before.attachments.get(name), after.attachments.get(name));
        let same = from.map(|it| it.addon) == to.map(|it| it.addon);
        (!same).then(|| AttachmentChange { name: name.clone(), from: from.cloned(), to: to.cloned() })
    };
    names.into_iter().filter_map(change).collect()
}

/// A process type that is not there is as good as one that does not run.
fn formation(before: &Formation, after: &Formation) -> Vec<FormationChange> {
    let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let runs = |scale: Option<&ProcessScale>| scale.filter(|scale| scale.quantity > 0).cloned();
    let change = |name: &ProcessType| {
        let (from, to) = (before.get(name), after.get(name));
        let same = from == to || (runs(from).is_none() && runs(to).is_none());
        (!same).then(|| FormationChange { process_type: name.clone(), from: from.cloned(), to: to.cloned() })
    };
    names.into_iter().filter_map(change).collect()
}

fn processes(before: &[(ProcessType, String)], after: &[(ProcessType, String)]) -> Vec<ProcessChange> {
    let find = |all: &[(ProcessType, String)], name: &ProcessType| {
        all.iter().find(|(process_type, _)| process_type == name).map(|(_, command)| command.clone())
    };
    let names: BTreeSet<_> = before.iter().chain(after).map(|(name, _)| name).collect();
    let change = |name: &ProcessType| {
        let (from, to) = (find(before, name), find(after, name));
        (from != to).then(|| ProcessChange { process_type: name.clone(), from, to })
    };
    names.into_iter().filter_map(change).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::store::ConfigChange;
    use crate::testing::TestController;

    #[tokio::test]
    async fn what_a_release_changes_is_told_by_name_and_commit() {
        let test = TestController::new().await;
        let controller = &test.controller;
        let user = test.user("ada@example.com").await;
        let (app, actor) = (test.app(&user, "shown").await, test.actor(&user));
        let patch = |vars: &[(&str, Option<&str>)]| -> BTreeMap<String, Option<String>> {
            vars.iter().map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned))).collect()
        };
        let first = patch(&[("KEPT", Some("1")), ("EDITED", Some("1")), ("GONE", Some("1"))]);
        let old = controller.set_config(&app, &actor, &first).await.expect("set").expect("a release");
        let second = patch(&[("EDITED", Some("2")), ("GONE", None), ("NEW", Some("secret"))]);
        controller.set_config(&app, &actor, &second).await.expect("set");
        let new = test.deploy(&app, &["web", "worker"]).await;
        let changes = controller.changes(&old, &new).await.expect("readable");
        let named = |name: &str, change| (name.parse().expect("a name"), change);
        let config = ConfigChanges::from([
            named("EDITED", ConfigChange::Changed),
            named("GONE", ConfigChange::Removed),
            named("NEW", ConfigChange::Added),
        ]);
        assert_eq!(changes.config, config);
        let code = changes.code.expect("other code");
        assert!(code.from.is_none());
        let commit = code.to.expect("known");
        assert_eq!((&commit.commit[..8], commit.subject.as_deref()), ("1a2b3c4d", Some("Count")));
        let processes: Vec<_> =
            changes.process_types.iter().map(|it| (it.process_type.as_str(), it.to.as_deref())).collect();
        assert_eq!(processes, [("web", Some("run web")), ("worker", Some("run worker"))]);
        let formation: Vec<_> = changes.formation.iter().map(|it| it.process_type.as_str()).collect();
        assert_eq!(formation, ["web"], "what does not run is nothing new");
        assert!(controller.changes(&new, &new).await.expect("readable").is_empty());
    }
}
