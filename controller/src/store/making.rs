//! Making a release: one transaction that locks its app, looks at what there is, and writes what is to be.

use std::collections::BTreeMap;

use model::{AddonId, AppId, AttachmentId, BuildId, ConfigVarName, Image, ProcessType, ReleaseId, Timestamp, UserId};
use serde_json::{Value, json};
use sqlx::{AnyConnection, Row};

use super::addons::{attached, attached_addons};
use super::apps::release_made;
use super::contents::{AttachedAddon, Attachments, Contents, Scope};
use super::events::Write;
use super::formation::{formation_in, restore_formation};
use super::locks::lock_in;
use super::releases::{Release, contents_of, make_current, release_in};
use super::volumes::{NewVolume, VolumeChange, change_volume, mounted_volumes};
use super::{Action, ConfigChange, ConfigChanges, Stamp, Start, Status, Store, StoreError, builds, row};
use crate::config_vars::MAX_TOTAL_BYTES;

/// What is kept of a manifest that says nothing.
const NOTHING_KEPT: &str = "{}";

/// A release to make.
#[derive(Debug)]
pub struct NewRelease<'a> {
    /// Of which app.
    pub app: AppId,
    /// Who makes it.
    pub user: UserId,
    /// What it changes, for people.
    pub description: &'a str,
    /// Why, in the words of who makes it.
    pub reason: Option<&'a str>,
    /// What it changes.
    pub change: Change<'a>,
}

/// What a release changes against the one before.
#[derive(Debug)]
pub enum Change<'a> {
    /// Sets config vars, or unsets those without a value; then gives some in one place only, or everywhere again.
    Config(&'a BTreeMap<ConfigVarName, Option<String>>, &'a BTreeMap<ConfigVarName, Option<Scope>>),
    /// Runs what a build made.
    Deploy(Deploy<'a>),
    /// Puts other contents in the place of those that somebody saw. What is used of add-ons changes with it.
    Replace {
        /// What there was; if it is not there any more, [`StoreError::Stale`].
        seen: &'a Contents,
        /// What is to be.
        next: &'a Contents,
    },
    /// Nothing: its dynos are to begin anew.
    Anew,
    /// Changes what its dynos have on disk that outlives them.
    Volumes(VolumeChange<'a>),
    /// Makes these all the config vars that come from attachments.
    Attachments {
        /// What was used when they were thought out; if it is not so any more, [`StoreError::Stale`].
        seen: &'a Attachments,
        /// The config vars.
        vars: &'a BTreeMap<ConfigVarName, (AddonId, String)>,
    },
}

/// A build's result.
#[derive(Debug)]
pub struct Deploy<'a> {
    /// Which build; it succeeds in the same transaction.
    pub build: BuildId,
    /// What it made.
    pub image: &'a Image,
    /// `id@version` of the buildpacks that took part.
    pub buildpacks: &'a [String],
    /// Bytes of the layers that the app adds to the run image.
    pub size_bytes: u64,
    /// What process types begin with that the app did not have before.
    pub starts: &'a BTreeMap<ProcessType, Start>,
    /// What is kept of the app's manifest, as JSON.
    pub manifest: Option<&'a str>,
    /// Volumes that its manifest names and the app did not have before.
    pub volumes: &'a [NewVolume],
}

/// What the next release of an app starts from.
struct Base {
    contents: Contents,
    /// The formation of the contents is not that of the app yet: a release that restores it is pending.
    restores: bool,
}

/// A row of the table, as it is first written.
struct NewRow<'a> {
    id: ReleaseId,
    app: AppId,
    version: i64,
    description: &'a str,
    reason: Option<&'a str>,
    user: UserId,
    build: Option<BuildId>,
    contents: &'a Contents,
    restores: bool,
    changes: &'a ConfigChanges,
    status: Status,
}

impl Store {
    /// Makes the next release of an app; none if `change` changes nothing. It is pending if it has anything to run,
    /// otherwise it succeeded and is current at once.
    ///
    /// It starts from the config of the newest release, whatever became of that one: a config var that was set stays set even
    /// if the app did not boot with it. And from the image of the newest release that did not fail.
    pub async fn create_release(&self, new: NewRelease<'_>, stamp: &Stamp) -> Result<Option<Release>, StoreError> {
        let mut tx = self.begin(stamp).await?;
        let version: i64 =
            sqlx::query_scalar("UPDATE apps SET last_version = last_version + 1 WHERE id = $1 RETURNING last_version")
                .bind(new.app.to_string())
                .fetch_optional(&mut *tx)
                .await?
                .ok_or(StoreError::Missing("App"))?;
        // What the platform does by itself was begun before.
        if stamp.by.is_some()
            && !stamp.insists
            && let Some(lock) = lock_in(&mut tx, new.app).await?
        {
            return Err(StoreError::Locked(lock.into()));
        }
        let before = self.base(&mut tx, new.app).await?;
        let (next, build) = self.changed(&mut tx, (new.app, &before.contents), &new.change).await?;
        if build.is_none() && next == before.contents && !matches!(new.change, Change::Anew) {
            return Ok(None);
        }
        let changes = before.contents.config_changes(&next);
        let is_rescaled = matches!(new.change, Change::Replace { .. }) && next.formation != before.contents.formation;
        let id = ReleaseId::random(&*self.random);
        let row = NewRow {
            id,
            app: new.app,
            version,
            description: new.description,
            reason: new.reason,
            user: new.user,
            build,
            restores: before.restores || is_rescaled,
            changes: &changes,
            status: if next.image.is_some() { Status::Pending } else { Status::Succeeded },
            contents: &next,
        };
        self.insert_release(&mut tx, &row).await?;
        let mut data = told(&row);
        if stamp.insists {
            data["forced"] = json!(true);
        }
        tx.record(release_made(new.app, id, data));
        if row.status == Status::Succeeded {
            make_current(&mut tx, id).await?;
            if let Some(made) = release_in(&mut tx, id).await?.filter(|made| made.restores) {
                restore_formation(&mut tx, &made).await?;
            }
        }
        tx.commit().await?;
        self.release(id).await
    }

    /// Writes down the first, empty release of an app.
    pub(super) async fn insert_first_release(
        &self,
        tx: &mut Write<'_>,
        (app, id): (AppId, ReleaseId),
        user: UserId,
    ) -> Result<(), StoreError> {
        let row = NewRow {
            id,
            app,
            version: 1,
            description: "Initial release",
            reason: None,
            user,
            build: None,
            contents: &Contents::default(),
            restores: false,
            changes: &ConfigChanges::new(),
            status: Status::Succeeded,
        };
        self.insert_release(tx, &row).await?;
        tx.record(release_made(app, id, told(&row)));
        Ok(())
    }

    /// What the next release of an app would hold if nothing changed.
    pub async fn present(&self, app: AppId) -> Result<Contents, StoreError> {
        // Reads only: what is not committed is undone.
        let mut tx = self.pool.begin().await?;
        Ok(self.base(&mut tx, app).await?.contents)
    }

    async fn base(&self, tx: &mut AnyConnection, app: AppId) -> Result<Base, StoreError> {
        let sql = "SELECT id, config, attached, scopes FROM releases WHERE app_id = $1 ORDER BY version DESC LIMIT 1";
        let newest = sqlx::query(sql).bind(app.to_string()).fetch_optional(&mut *tx).await?;
        let newest = newest.ok_or(StoreError::Missing("App"))?;
        let code = sqlx::query(
            "SELECT r.image, COALESCE(r.slug_id, r.build_id) AS slug, COALESCE(r.manifest, i.manifest) AS manifest \
             FROM releases r LEFT JOIN images i ON i.digest = r.image \
             WHERE r.app_id = $1 AND r.status <> 'failed' ORDER BY r.version DESC LIMIT 1",
        )
        .bind(app.to_string())
        .fetch_optional(&mut *tx)
        .await?;
        let (image, slug, manifest) = match &code {
            Some(code) => {
                (row::optional_text(code, "image")?, row::optional_text(code, "slug")?, code.try_get("manifest")?)
            }
            None => (None, None, None),
        };
        let (formation, restores) = formation_in(tx, app).await?;
        let attachments = attached_addons(tx, app).await?.into_iter().map(|(_, name, addon)| (name, addon)).collect();
        let volumes = mounted_volumes(tx, app).await?;
        let contents =
            Contents { image, slug, manifest, attachments, formation, volumes, ..contents_of(self, &newest)? };
        Ok(Base { contents, restores })
    }

    /// The contents after a change, and the build that it deploys.
    async fn changed(
        &self,
        tx: &mut Write<'_>,
        (app, before): (AppId, &Contents),
        change: &Change<'_>,
    ) -> Result<(Contents, Option<BuildId>), StoreError> {
        let mut next = before.clone();
        match change {
            Change::Anew => {}
            Change::Config(vars, scopes) => set_config(&mut next, vars, scopes)?,
            Change::Attachments { seen, vars } => {
                if before.attachments != **seen {
                    return Err(StoreError::Stale);
                }
                next.attach(vars);
            }
            Change::Deploy(deploy) => {
                self.take_image(tx, app, deploy).await?;
                tx.record(builds::changed(app, deploy.build, Action::Update, json!({ "status": "succeeded" })));
                (next.image, next.slug) = (Some(deploy.image.digest.clone()), Some(deploy.build));
                next.manifest = Some(deploy.manifest.unwrap_or(NOTHING_KEPT).to_owned());
                for volume in deploy.volumes {
                    change_volume(tx, app, &VolumeChange::Add(volume)).await?;
                }
                next.formation = formation_in(tx, app).await?.0;
                next.volumes = mounted_volumes(tx, app).await?;
                return Ok((next, Some(deploy.build)));
            }
            Change::Volumes(change) => {
                change_volume(tx, app, change).await?;
                next.volumes = mounted_volumes(tx, app).await?;
            }
            Change::Replace { seen, next: wanted } => {
                if before != *seen {
                    return Err(StoreError::Stale);
                }
                next = (*wanted).clone();
                // It may have been given up since somebody looked.
                if let Some(image) = &next.image
                    && !Self::can_run(tx, image).await?
                {
                    return Err(StoreError::Stale);
                }
                self.replace_attachments(tx, app, &next.attachments).await?;
            }
        }
        Ok((next, None))
    }

    /// Ends the build, keeps its image, and gives process types that are new a place in the formation.
    async fn take_image(&self, tx: &mut Write<'_>, app: AppId, deploy: &Deploy<'_>) -> Result<(), StoreError> {
        let now = tx.now();
        let ended = sqlx::query(
            "UPDATE builds SET status = 'succeeded', buildpacks = $1, size_bytes = $2, updated_at = $3 \
             WHERE id = $4 AND app_id = $5 AND status = 'pending'",
        )
        .bind(serde_json::to_string(deploy.buildpacks)?)
        .bind(i64::try_from(deploy.size_bytes).unwrap_or(i64::MAX))
        .bind(now)
        .bind(deploy.build.to_string())
        .bind(app.to_string())
        .execute(&mut **tx)
        .await?;
        if ended.rows_affected() == 0 {
            return Err(StoreError::Missing("Pending build"));
        }
        Self::keep_image(tx, (deploy.image, deploy.manifest), now).await?;
        let default = Start::default();
        for name in deploy.image.processes.iter().map(|process| &process.process_type) {
            let start = deploy.starts.get(name).unwrap_or(&default);
            self.insert_process_type(tx, app, (name, start), Timestamp::from_millis(now)).await?;
        }
        Ok(())
    }

    /// Ends the use of add-ons that are not wanted, and begins that of those that are.
    async fn replace_attachments(
        &self,
        tx: &mut Write<'_>,
        app: AppId,
        wanted: &Attachments,
    ) -> Result<(), StoreError> {
        let present = attached_addons(tx, app).await?;
        let is_wanted = |(_, name, it): &&(AttachmentId, _, AttachedAddon)| {
            wanted.get(name).is_some_and(|wanted| wanted.addon == it.addon)
        };
        for (id, name, it) in present.iter().filter(|it| !is_wanted(it)) {
            let sql = "DELETE FROM addon_attachments WHERE id = $1";
            sqlx::query(sql).bind(id.to_string()).execute(&mut **tx).await?;
            tx.record(attached((app, *id), Action::Destroy, (name, &it.name)));
        }
        let now = Timestamp::from_millis(tx.now());
        for (name, it) in wanted {
            if present.iter().filter(is_wanted).any(|(_, there, _)| there == name) {
                continue;
            }
            // An add-on that was removed since somebody looked cannot be used again.
            let sql = "UPDATE addons SET updated_at = updated_at WHERE id = $1 AND state <> 'deprovisioning'";
            if sqlx::query(sql).bind(it.addon.to_string()).execute(&mut **tx).await?.rows_affected() == 0 {
                return Err(StoreError::Stale);
            }
            let id = self.insert_attachment_row(tx, (it.addon, app, name), now).await?;
            tx.record(attached((app, id), Action::Create, (name, &it.name)));
        }
        Ok(())
    }

    async fn insert_release(&self, tx: &mut Write<'_>, row: &NewRow<'_>) -> Result<(), StoreError> {
        let (contents, now) = (row.contents, tx.now());
        let phase = match &contents.image {
            Some(image) => has_phase(tx, image.as_str()).await?,
            None => false,
        };
        sqlx::query(
            "INSERT INTO releases (id, app_id, version, description, reason, user_id, image, slug_id, build_id, config, \
             attached, scopes, attachments, formation, restores, config_changes, phase, status, output_secret, created_at, \
             updated_at, manifest, volumes) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, \
             $18, $19, $20, $20, $21, $22)",
        )
        .bind(row.id.to_string())
        .bind(row.app.to_string())
        .bind(row.version)
        .bind(row.description)
        .bind(row.reason)
        .bind(row.user.to_string())
        .bind(contents.image.as_ref().map(ToString::to_string))
        .bind(contents.slug.map(|slug| slug.to_string()))
        .bind(row.build.map(|build| build.to_string()))
        .bind(self.seal_config(row.id, &contents.config)?)
        .bind(serde_json::to_string(&contents.attached)?)
        .bind(serde_json::to_string(&contents.scopes)?)
        .bind(serde_json::to_string(&contents.attachments)?)
        .bind(serde_json::to_string(&contents.formation)?)
        .bind(i64::from(row.restores))
        .bind(serde_json::to_string(row.changes)?)
        .bind(i64::from(phase))
        .bind(row.status.to_string())
        .bind(self.new_secret())
        .bind(now)
        .bind(contents.manifest.as_deref())
        .bind(serde_json::to_string(&contents.volumes)?)
        .execute(&mut **tx)
        .await?;
        Ok(())
    }
}

/// What the event of a new release says.
fn told(row: &NewRow<'_>) -> Value {
    let mut data = json!({ "version": row.version, "description": row.description });
    if let Some(reason) = row.reason {
        data["reason"] = json!(reason);
    }
    let names = |removed: bool| {
        let is_wanted = move |change: &ConfigChange| (*change == ConfigChange::Removed) == removed;
        row.changes.iter().filter(move |(_, change)| is_wanted(change)).map(|(name, _)| name.as_str())
    };
    for (key, removed) in [("config_set", false), ("config_unset", true)] {
        if names(removed).next().is_some() {
            data[key] = names(removed).collect();
        }
    }
    data
}

fn set_config(
    next: &mut Contents,
    vars: &BTreeMap<ConfigVarName, Option<String>>,
    scopes: &BTreeMap<ConfigVarName, Option<Scope>>,
) -> Result<(), StoreError> {
    if let Some(name) = vars.keys().find(|name| next.attached.contains_key(name)) {
        return Err(StoreError::Attached(name.clone()));
    }
    next.config.apply(vars);
    for (name, scope) in scopes {
        if next.config.get(name).is_none() {
            return Err(StoreError::NoConfigVar(name.clone()));
        }
        match scope {
            Some(scope) => next.scopes.insert(name.clone(), *scope),
            None => next.scopes.remove(name),
        };
    }
    next.forget_scopes();
    let bytes = next.config.total_bytes();
    let grows = vars.values().any(Option::is_some);
    if grows && bytes > MAX_TOTAL_BYTES { Err(StoreError::ConfigSize(bytes)) } else { Ok(()) }
}

async fn has_phase(tx: &mut AnyConnection, image: &str) -> Result<bool, StoreError> {
    let sql = "SELECT document FROM images WHERE digest = $1";
    let document: String = sqlx::query_scalar(sql).bind(image).fetch_one(&mut *tx).await?;
    let image: Image = serde_json::from_str(&document)?;
    Ok(image.processes.iter().any(|process| process.process_type.as_str() == "release"))
}
