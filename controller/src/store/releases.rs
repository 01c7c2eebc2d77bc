use std::collections::BTreeMap;

use model::{AddonId, AppId, BuildId, ConfigVarName, Digest, Image, ReleaseId, Timestamp, UserId};
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, FromRow, Row};

use super::apps::release_made;
use super::{Action, NewEvent, Resource, Stamp, Status, Store, StoreError, UserRef, builds, row};
use crate::config_vars::ConfigVars;

/// A release: image, config and process types under a number. Only its status ever changes, and only once.
#[derive(Debug, Clone)]
pub struct Release {
    /// Its id.
    pub id: ReleaseId,
    /// Of which app.
    pub app: AppId,
    /// From 1, without gaps.
    pub version: u64,
    /// What it changes, for people.
    pub description: String,
    /// Who made it.
    pub user: UserRef,
    /// What it runs; none until something was deployed.
    pub image: Option<Digest>,
    /// The build that it deploys; none for config changes and rollbacks.
    pub build: Option<BuildId>,
    /// What became of it.
    pub status: Status,
    /// Why it failed, for people.
    pub failure: Option<String>,
    /// Opens the output of its release phase without a token.
    pub output_secret: String,
    /// It is the one that really serves.
    pub current: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its status last changed.
    pub updated_at: Timestamp,
}

/// The config vars that come from attachments, and of which add-on.
pub type Attached = BTreeMap<ConfigVarName, AddonId>;

/// How a pending release ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It becomes current.
    Succeeded,
    /// It never will; the reason, for people.
    Failed(String),
}

/// A release to make.
#[derive(Debug)]
pub struct NewRelease<'a> {
    /// Of which app.
    pub app: AppId,
    /// Who makes it.
    pub user: UserId,
    /// What it changes, for people.
    pub description: &'a str,
    /// What it changes.
    pub change: Change<'a>,
}

/// What a release changes against the one before.
#[derive(Debug)]
pub enum Change<'a> {
    /// Sets config vars, or unsets those without a value.
    Config(&'a BTreeMap<ConfigVarName, Option<String>>),
    /// Runs what a build made.
    Deploy(Deploy<'a>),
    /// Takes image and config of an earlier release. What comes from attachments stays as it is: an add-on that is gone does
    /// not come back.
    Rollback(ReleaseId),
    /// Makes these all the config vars that come from attachments.
    Attachments(&'a BTreeMap<ConfigVarName, (AddonId, String)>),
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
}

impl<'r> FromRow<'r, AnyRow> for Release {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        let id = row::text(row, "id")?;
        Ok(Self {
            id,
            app: row::text(row, "app_id")?,
            version: row::number(row, "version")?,
            description: row.try_get("description")?,
            user: UserRef { id: row::text(row, "user_id")?, email: row::text(row, "email")? },
            image: row::optional_text(row, "image")?,
            build: row::optional_text(row, "build_id")?,
            status: row::text(row, "status")?,
            failure: row.try_get("failure")?,
            output_secret: row.try_get("output_secret")?,
            current: row::optional_text(row, "current_release_id")? == Some(id),
            created_at: row::time(row, "created_at")?,
            updated_at: row::time(row, "updated_at")?,
        })
    }
}

pub(super) const SELECT: &str = "SELECT r.id, r.app_id, r.version, r.description, r.user_id, u.email, r.image, r.build_id, \
     r.status, r.failure, r.output_secret, a.current_release_id, r.created_at, r.updated_at FROM releases r \
     JOIN users u ON u.id = r.user_id JOIN apps a ON a.id = r.app_id";

/// A row of the table, as it is first written.
pub(super) struct NewRow<'a> {
    pub(super) id: ReleaseId,
    pub(super) app: AppId,
    pub(super) version: i64,
    pub(super) description: &'a str,
    pub(super) user: UserId,
    pub(super) image: Option<String>,
    pub(super) build: Option<BuildId>,
    pub(super) config: String,
    pub(super) attached: &'a Attached,
    pub(super) status: Status,
    pub(super) output_secret: String,
    pub(super) now: Timestamp,
}

/// What a new release starts from.
struct Base {
    config: ConfigVars,
    attached: Attached,
    image: Option<String>,
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
        let mut base = self.base(&mut tx, new.app).await?;
        let mut build = None;
        let mut data = json!({ "version": version, "description": new.description });
        match new.change {
            Change::Config(vars) => {
                if let Some(name) = vars.keys().find(|name| base.attached.contains_key(name)) {
                    return Err(StoreError::Attached(name.clone()));
                }
                if !base.config.apply(vars) {
                    return Ok(None);
                }
                let names = |set: bool| {
                    vars.iter().filter(move |(_, value)| value.is_some() == set).map(|(name, _)| name.as_str())
                };
                data["config_set"] = names(true).collect();
                data["config_unset"] = names(false).collect();
            }
            Change::Attachments(vars) => {
                if !base.attach(vars) {
                    return Ok(None);
                }
            }
            Change::Deploy(deploy) => {
                self.take_image(&mut tx, new.app, &deploy, stamp.now).await?;
                tx.record(builds::changed(new.app, deploy.build, Action::Update, json!({ "status": "succeeded" })));
                base.image = Some(deploy.image.digest.to_string());
                build = Some(deploy.build);
            }
            Change::Rollback(target) => base = self.copy_of(&mut tx, new.app, (target, base)).await?,
        }
        let id = ReleaseId::random(&*self.random);
        let status = if base.image.is_some() { Status::Pending } else { Status::Succeeded };
        let row = NewRow {
            id,
            app: new.app,
            version,
            description: new.description,
            user: new.user,
            image: base.image,
            build,
            config: self.seal_config(id, &base.config)?,
            attached: &base.attached,
            status,
            output_secret: self.new_secret(),
            now: stamp.now,
        };
        insert_release(&mut tx, row).await?;
        if status == Status::Succeeded {
            make_current(&mut tx, id, stamp.now).await?;
        }
        tx.record(release_made(new.app, id, data));
        tx.commit().await?;
        self.release(id).await
    }

    /// Ends a pending release; false if it was not pending any more. A later release that is current already stays so.
    pub async fn finish_release(&self, release: &Release, outcome: Outcome, stamp: &Stamp) -> Result<bool, StoreError> {
        let (status, failure) = match outcome {
            Outcome::Succeeded => (Status::Succeeded, None),
            Outcome::Failed(reason) => (Status::Failed, Some(reason)),
        };
        let mut tx = self.begin(stamp).await?;
        let changed = sqlx::query(
            "UPDATE releases SET status = $1, failure = $2, updated_at = $3 WHERE id = $4 AND status = 'pending'",
        )
        .bind(status.to_string())
        .bind(&failure)
        .bind(tx.now())
        .bind(release.id.to_string())
        .execute(&mut *tx)
        .await?;
        if changed.rows_affected() == 0 {
            return Ok(false);
        }
        if status == Status::Succeeded {
            make_current(&mut tx, release.id, stamp.now).await?;
        }
        let data = json!({ "version": release.version, "status": status.to_string(), "failure": failure });
        let (resource, id) = (Resource::Release, release.id.to_string());
        tx.record(NewEvent { app: Some(release.app), resource, id, action: Action::Update, data });
        tx.commit().await?;
        Ok(true)
    }

    /// The release with this id.
    pub async fn release(&self, id: ReleaseId) -> Result<Option<Release>, StoreError> {
        let sql = format!("{SELECT} WHERE r.id = $1");
        Ok(sqlx::query_as(&sql).bind(id.to_string()).fetch_optional(&self.pool).await?)
    }

    /// The release of an app with this number.
    pub async fn release_by_version(&self, app: AppId, version: u64) -> Result<Option<Release>, StoreError> {
        let sql = format!("{SELECT} WHERE r.app_id = $1 AND r.version = $2");
        let version = i64::try_from(version).unwrap_or(i64::MAX);
        Ok(sqlx::query_as(&sql).bind(app.to_string()).bind(version).fetch_optional(&self.pool).await?)
    }

    /// All releases of an app, the oldest first.
    pub async fn releases(&self, app: AppId) -> Result<Vec<Release>, StoreError> {
        let sql = format!("{SELECT} WHERE r.app_id = $1 ORDER BY r.version");
        Ok(sqlx::query_as(&sql).bind(app.to_string()).fetch_all(&self.pool).await?)
    }

    /// The releases of all apps that are not over, the oldest of each app first.
    pub async fn pending_releases(&self) -> Result<Vec<Release>, StoreError> {
        let sql = format!("{SELECT} WHERE r.status = 'pending' ORDER BY r.app_id, r.version");
        Ok(sqlx::query_as(&sql).fetch_all(&self.pool).await?)
    }

    /// The config vars of a release.
    pub async fn release_config(&self, id: ReleaseId) -> Result<ConfigVars, StoreError> {
        let sealed: Option<String> = sqlx::query_scalar("SELECT config FROM releases WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&self.pool)
            .await?;
        self.open_config(id, &sealed.ok_or(StoreError::Missing("Release"))?)
    }

    /// The config vars that going back to a release would make.
    pub async fn config_after_rollback(&self, app: AppId, target: ReleaseId) -> Result<ConfigVars, StoreError> {
        // Reads only: what is not committed is undone.
        let mut tx = self.pool.begin().await?;
        let newest = self.base(&mut tx, app).await?;
        Ok(self.copy_of(&mut tx, app, (target, newest)).await?.config)
    }

    /// The config vars of an app: those of its newest release, whatever became of it.
    pub async fn config(&self, app: AppId) -> Result<ConfigVars, StoreError> {
        let newest = sqlx::query("SELECT id, config FROM releases WHERE app_id = $1 ORDER BY version DESC LIMIT 1")
            .bind(app.to_string())
            .fetch_optional(&self.pool)
            .await?
            .ok_or(StoreError::Missing("App"))?;
        self.open_config(row::text(&newest, "id")?, &newest.try_get::<String, _>("config")?)
    }

    /// The image with this digest.
    pub async fn image(&self, digest: &Digest) -> Result<Option<Image>, StoreError> {
        let document: Option<String> = sqlx::query_scalar("SELECT document FROM images WHERE digest = $1")
            .bind(digest.as_str())
            .fetch_optional(&self.pool)
            .await?;
        Ok(document.map(|document| serde_json::from_str(&document)).transpose()?)
    }

    /// Forgets the images of releases that are gone; answers with all others.
    pub async fn prune_images(&self) -> Result<Vec<Image>, StoreError> {
        sqlx::query("DELETE FROM images WHERE digest NOT IN (SELECT image FROM releases WHERE image IS NOT NULL)")
            .execute(&self.pool)
            .await?;
        let documents: Vec<String> = sqlx::query_scalar("SELECT document FROM images").fetch_all(&self.pool).await?;
        Ok(documents.iter().map(|document| serde_json::from_str(document)).collect::<Result<_, _>>()?)
    }

    /// The image of an app's newest release that did not fail.
    pub async fn newest_image(&self, app: AppId) -> Result<Option<Image>, StoreError> {
        let document: Option<String> = sqlx::query_scalar(
            "SELECT i.document FROM releases r JOIN images i ON i.digest = r.image \
             WHERE r.app_id = $1 AND r.status <> 'failed' ORDER BY r.version DESC LIMIT 1",
        )
        .bind(app.to_string())
        .fetch_optional(&self.pool)
        .await?;
        Ok(document.map(|document| serde_json::from_str(&document)).transpose()?)
    }

    /// Whether any release of an app has an image.
    pub async fn was_deployed(&self, app: AppId) -> Result<bool, StoreError> {
        let sql = "SELECT count(*) FROM releases WHERE app_id = $1 AND image IS NOT NULL";
        let count: i64 = sqlx::query_scalar(sql).bind(app.to_string()).fetch_one(&self.pool).await?;
        Ok(count > 0)
    }

    pub(super) fn seal_config(&self, release: ReleaseId, config: &ConfigVars) -> Result<String, StoreError> {
        Ok(self.secrets.seal(&config_row(release), &serde_json::to_vec(config)?)?)
    }

    fn open_config(&self, release: ReleaseId, sealed: &str) -> Result<ConfigVars, StoreError> {
        Ok(serde_json::from_slice(&self.secrets.unseal(&config_row(release), sealed)?)?)
    }

    /// What comes from attachments in the newest release of an app, whatever became of it.
    pub async fn attached(&self, app: AppId) -> Result<Attached, StoreError> {
        let newest = sqlx::query("SELECT attached FROM releases WHERE app_id = $1 ORDER BY version DESC LIMIT 1")
            .bind(app.to_string())
            .fetch_optional(&self.pool)
            .await?
            .ok_or(StoreError::Missing("App"))?;
        read_attached(&newest)
    }

    /// The releases, of the newest few of each app, in which something comes from attachments.
    pub async fn attached_releases(&self) -> Result<Vec<(AppId, u64, Attached)>, StoreError> {
        let rows = sqlx::query(
            "SELECT r.app_id, r.version, r.attached FROM releases r JOIN apps a ON a.id = r.app_id \
             WHERE r.attached IS NOT NULL AND r.attached <> '{}' \
             AND (r.id = a.current_release_id OR r.status = 'pending' OR r.version > a.last_version - 10)",
        )
        .fetch_all(&self.pool)
        .await?;
        let read = |row: &AnyRow| Ok((row::text(row, "app_id")?, row::number(row, "version")?, read_attached(row)?));
        rows.iter().map(read).collect()
    }

    async fn base(&self, tx: &mut AnyConnection, app: AppId) -> Result<Base, StoreError> {
        let newest =
            sqlx::query("SELECT id, config, attached FROM releases WHERE app_id = $1 ORDER BY version DESC LIMIT 1")
                .bind(app.to_string())
                .fetch_one(&mut *tx)
                .await?;
        let image = sqlx::query_scalar::<_, Option<String>>(
            "SELECT image FROM releases WHERE app_id = $1 AND status <> 'failed' ORDER BY version DESC LIMIT 1",
        )
        .bind(app.to_string())
        .fetch_optional(&mut *tx)
        .await?
        .flatten();
        let config = self.open_config(row::text(&newest, "id")?, &newest.try_get::<String, _>("config")?)?;
        Ok(Base { config, attached: read_attached(&newest)?, image })
    }

    /// What `release` was, but with the attachments of `newest`.
    async fn copy_of(
        &self,
        tx: &mut AnyConnection,
        app: AppId,
        (release, newest): (ReleaseId, Base),
    ) -> Result<Base, StoreError> {
        let target = sqlx::query("SELECT image, config, attached FROM releases WHERE id = $1 AND app_id = $2")
            .bind(release.to_string())
            .bind(app.to_string())
            .fetch_optional(&mut *tx)
            .await?
            .ok_or(StoreError::Missing("Release"))?;
        let config = self.open_config(release, &target.try_get::<String, _>("config")?)?;
        let mut base = Base { config, attached: read_attached(&target)?, image: target.try_get("image")? };
        let today = |(name, addon): (&ConfigVarName, &AddonId)| {
            let value = newest.config.get(name).unwrap_or_default().to_owned();
            (name.clone(), (*addon, value))
        };
        base.attach(&newest.attached.iter().map(today).collect());
        Ok(base)
    }

    /// Ends the build, keeps its image, and gives process types that are new a place in the formation.
    async fn take_image(
        &self,
        tx: &mut AnyConnection,
        app: AppId,
        deploy: &Deploy<'_>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let ended = sqlx::query(
            "UPDATE builds SET status = 'succeeded', buildpacks = $1, size_bytes = $2, updated_at = $3 \
             WHERE id = $4 AND app_id = $5 AND status = 'pending'",
        )
        .bind(serde_json::to_string(deploy.buildpacks)?)
        .bind(i64::try_from(deploy.size_bytes).unwrap_or(i64::MAX))
        .bind(now.as_millis())
        .bind(deploy.build.to_string())
        .bind(app.to_string())
        .execute(&mut *tx)
        .await?;
        if ended.rows_affected() == 0 {
            return Err(StoreError::Missing("Pending build"));
        }
        sqlx::query("INSERT INTO images (digest, document, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
            .bind(deploy.image.digest.as_str())
            .bind(serde_json::to_string(deploy.image)?)
            .bind(now.as_millis())
            .execute(&mut *tx)
            .await?;
        for process in &deploy.image.processes {
            self.insert_process_type(tx, app, &process.process_type, now).await?;
        }
        Ok(())
    }
}

impl Base {
    /// Makes `vars` all that comes from attachments; says whether that changed anything.
    fn attach(&mut self, vars: &BTreeMap<ConfigVarName, (AddonId, String)>) -> bool {
        let gone = self.attached.keys().filter(|name| !vars.contains_key(name)).map(|name| (name.clone(), None));
        let set = vars.iter().map(|(name, (_, value))| (name.clone(), Some(value.clone())));
        let changed = self.config.apply(&gone.chain(set).collect());
        let attached: Attached = vars.iter().map(|(name, (addon, _))| (name.clone(), *addon)).collect();
        let moved = self.attached != attached;
        self.attached = attached;
        changed || moved
    }
}

/// Null in releases that are older than add-ons.
fn read_attached(row: &AnyRow) -> Result<Attached, StoreError> {
    let document: Option<String> = row.try_get("attached")?;
    Ok(document.map(|document| serde_json::from_str(&document)).transpose()?.unwrap_or_default())
}

/// What the sealed config of a release is bound to.
fn config_row(release: ReleaseId) -> String {
    format!("releases/{release}/config")
}

pub(super) async fn insert_release(tx: &mut AnyConnection, row: NewRow<'_>) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO releases (id, app_id, version, description, user_id, image, build_id, config, attached, \
         status, output_secret, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12)",
    )
    .bind(row.id.to_string())
    .bind(row.app.to_string())
    .bind(row.version)
    .bind(row.description)
    .bind(row.user.to_string())
    .bind(row.image)
    .bind(row.build.map(|build| build.to_string()))
    .bind(row.config)
    .bind(serde_json::to_string(row.attached)?)
    .bind(row.status.to_string())
    .bind(row.output_secret)
    .bind(row.now.as_millis())
    .execute(&mut *tx)
    .await?;
    Ok(())
}

async fn make_current(tx: &mut AnyConnection, id: ReleaseId, now: Timestamp) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE apps SET current_release_id = $1, released_at = $2 \
         WHERE id = (SELECT app_id FROM releases WHERE id = $1) \
         AND (SELECT version FROM releases WHERE id = $1) > \
             (SELECT version FROM releases WHERE id = apps.current_release_id)",
    )
    .bind(id.to_string())
    .bind(now.as_millis())
    .execute(&mut *tx)
    .await?;
    Ok(())
}
