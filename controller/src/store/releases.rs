use model::{AppId, BuildId, Digest, ProcessType, ReleaseId, Timestamp};
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, FromRow, Row};

use super::contents::{Attached, Attachments, ConfigChanges, Contents, Formation, MountedVolume, Volumes};
use super::events::Write;
use super::formation::restore_formation;
use super::rollouts::{Ending, end_rollout};
use super::select::Select;
use super::standing::among;
use super::{Action, NewEvent, Resource, Stamp, Status, Store, StoreError, UserRef, row};
use crate::config_vars::ConfigVars;

/// A release: all that runs of an app, under a number. Only its status ever changes, and only once.
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
    /// Why, in the words of who made it.
    pub reason: Option<String>,
    /// Who made it.
    pub user: UserRef,
    /// What it runs; none until something was deployed.
    pub image: Option<Digest>,
    /// When its image was given up: it cannot run any more.
    pub image_removed_at: Option<Timestamp>,
    /// The build that made its image, if the platform built it.
    pub slug: Option<Slug>,
    /// The build that it deploys; none for config changes and rollbacks.
    pub build: Option<BuildId>,
    /// How its app was scaled when it was made; none if it is older than the platform's memory of that.
    pub formation: Option<Formation>,
    /// When it becomes current, the app's formation becomes its own.
    pub restores: bool,
    /// Which add-ons its app used when it was made; none if it is older than the platform's memory of that.
    pub attachments: Option<Attachments>,
    /// The volumes that its dynos mount.
    pub volumes: Volumes,
    /// What became of config vars against the release before; empty if it is older than the platform's memory of that.
    pub config_changes: ConfigChanges,
    /// A command runs before it becomes current.
    pub has_phase: bool,
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

/// The build that made an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slug {
    /// Its id.
    pub build: BuildId,
    /// The commit, in full.
    pub commit: String,
    /// First line of the commit's message, if that is known.
    pub subject: Option<String>,
}

impl Release {
    /// The volumes that dynos of a process type mount.
    pub fn mounts(&self, process_type: &ProcessType) -> impl Iterator<Item = &MountedVolume> {
        self.volumes.values().filter(move |volume| volume.process_type == *process_type)
    }
}

/// How a pending release ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It becomes current.
    Succeeded,
    /// It never will; the reason, for people.
    Failed(String),
}

impl<'r> FromRow<'r, AnyRow> for Release {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        let id = row::text(row, "id")?;
        let commit: Option<String> = row.try_get("commit_id")?;
        let slug = row::optional_text(row, "slug")?;
        let subject = row.try_get("subject")?;
        Ok(Self {
            id,
            app: row::text(row, "app_id")?,
            version: row::number(row, "version")?,
            description: row.try_get("description")?,
            reason: row.try_get("reason")?,
            user: UserRef { id: row::text(row, "user_id")?, email: row::text(row, "email")? },
            image: row::optional_text(row, "image")?,
            image_removed_at: row::optional_time(row, "image_removed_at")?,
            slug: slug.zip(commit).map(|(build, commit)| Slug { build, commit, subject }),
            build: row::optional_text(row, "build_id")?,
            formation: row::optional_json(row, "formation")?,
            restores: row::flag(row, "restores")?,
            attachments: row::optional_json(row, "attachments")?,
            volumes: row::optional_json(row, "volumes")?.unwrap_or_default(),
            config_changes: row::optional_json(row, "config_changes")?.unwrap_or_default(),
            has_phase: row::flag(row, "phase")?,
            status: row::text(row, "status")?,
            failure: row.try_get("failure")?,
            output_secret: row.try_get("output_secret")?,
            current: row::optional_text(row, "current_release_id")? == Some(id),
            created_at: row::time(row, "created_at")?,
            updated_at: row::time(row, "updated_at")?,
        })
    }
}

pub(super) const SELECT: Select = Select {
    columns: "r.id, r.app_id, r.version, r.description, r.reason, r.user_id, u.email, r.image, \
         i.removed_at AS image_removed_at, COALESCE(r.slug_id, r.build_id) AS slug, s.commit_id, s.subject, r.build_id, \
         r.formation, COALESCE(r.restores, 0) AS restores, r.attachments, r.volumes, r.config_changes, COALESCE(r.phase, 0) AS phase, \
         r.status, r.failure, r.output_secret, a.current_release_id, r.created_at, r.updated_at",
    from: ("releases", "r"),
    joins: "JOIN users u ON u.id = r.user_id JOIN apps a ON a.id = r.app_id LEFT JOIN images i ON i.digest = r.image \
         LEFT JOIN builds s ON s.id = COALESCE(r.slug_id, r.build_id)",
};

impl Store {
    /// Ends a pending release; false if it was not pending any more. A later release that is current already stays so.
    pub async fn finish_release(
        &self,
        release: &Release,
        (outcome, ending): (Outcome, &Ending),
        stamp: &Stamp,
    ) -> Result<bool, StoreError> {
        let (status, failure) = match outcome {
            Outcome::Succeeded => (Status::Succeeded, None),
            Outcome::Failed(reason) => (Status::Failed, Some(reason)),
        };
        let mut tx = self.begin(stamp).await?;
        // Locks the app: what is scaled meanwhile comes before or after.
        sqlx::query("UPDATE apps SET last_version = last_version WHERE id = $1")
            .bind(release.app.to_string())
            .execute(&mut *tx)
            .await?;
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
        end_rollout(&mut tx, release.id, (status, ending)).await?;
        let data = json!({ "version": release.version, "status": status.to_string(), "failure": failure });
        let (resource, id) = (Resource::Release, release.id.to_string());
        tx.record(NewEvent { app: Some(release.app), resource, id, action: Action::Update, data });
        if status == Status::Succeeded && make_current(&mut tx, release.id).await? && release.restores {
            restore_formation(&mut tx, release).await?;
        }
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

    /// The release whose phase's output this secret opens.
    pub async fn release_by_output(&self, secret: &str) -> Result<Option<Release>, StoreError> {
        let sql = format!("{SELECT} WHERE r.output_secret = $1");
        Ok(sqlx::query_as(&sql).bind(secret).fetch_optional(&self.pool).await?)
    }

    /// The newest release of an app that has something to run and did not fail.
    pub async fn newest_deployed(&self, app: AppId) -> Result<Option<Release>, StoreError> {
        let sql = format!(
            "{SELECT} WHERE r.app_id = $1 AND r.image IS NOT NULL AND r.status <> 'failed' ORDER BY r.version DESC LIMIT 1"
        );
        Ok(sqlx::query_as(&sql).bind(app.to_string()).fetch_optional(&self.pool).await?)
    }

    /// All releases of an app, the oldest first.
    pub async fn releases(&self, app: AppId) -> Result<Vec<Release>, StoreError> {
        let sql = format!("{SELECT} WHERE r.app_id = $1 ORDER BY r.version");
        Ok(sqlx::query_as(&sql).bind(app.to_string()).fetch_all(&self.pool).await?)
    }

    /// The releases that are not over, of some apps or of all, the oldest of each app first.
    pub async fn pending_releases(&self, apps: Option<&[AppId]>) -> Result<Vec<Release>, StoreError> {
        let among = among("r.app_id", apps);
        self.read(&format!("{SELECT} WHERE r.status = 'pending' AND {among} ORDER BY r.app_id, r.version")).await
    }

    /// The config vars of a release.
    pub async fn release_config(&self, id: ReleaseId) -> Result<ConfigVars, StoreError> {
        let sealed: Option<String> = sqlx::query_scalar("SELECT config FROM releases WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&self.pool)
            .await?;
        self.open_config(id, &sealed.ok_or(StoreError::Missing("Release"))?)
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

    /// Whether any release of an app has an image.
    pub async fn was_deployed(&self, app: AppId) -> Result<bool, StoreError> {
        // The newest first: what was deployed once stays so.
        let sql = "SELECT id FROM releases WHERE app_id = $1 AND image IS NOT NULL ORDER BY version DESC LIMIT 1";
        Ok(sqlx::query(sql).bind(app.to_string()).fetch_optional(&self.pool).await?.is_some())
    }

    pub(super) fn seal_config(&self, release: ReleaseId, config: &ConfigVars) -> Result<String, StoreError> {
        Ok(self.secrets.seal(&config_row(release), &serde_json::to_vec(config)?)?)
    }

    pub(super) fn open_config(&self, release: ReleaseId, sealed: &str) -> Result<ConfigVars, StoreError> {
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
             WHERE r.attached <> '{}' \
             AND (r.id = a.current_release_id OR r.status = 'pending' OR r.version > a.last_version - 10)",
        )
        .fetch_all(&self.pool)
        .await?;
        let read = |row: &AnyRow| Ok((row::text(row, "app_id")?, row::number(row, "version")?, read_attached(row)?));
        rows.iter().map(read).collect()
    }

    /// What a release holds. What is older than the platform's memory of formations and attachments has none of them.
    pub async fn contents(&self, release: &Release) -> Result<Contents, StoreError> {
        let sql = "SELECT r.id, r.config, r.attached, r.scopes, COALESCE(r.manifest, i.manifest) AS manifest \
                   FROM releases r LEFT JOIN images i ON i.digest = r.image WHERE r.id = $1";
        let row = sqlx::query(sql).bind(release.id.to_string()).fetch_optional(&self.pool).await?;
        let row = row.ok_or(StoreError::Missing("Release"))?;
        Ok(Contents {
            image: release.image.clone(),
            slug: release.slug.as_ref().map(|slug| slug.build),
            manifest: row.try_get("manifest")?,
            formation: release.formation.clone().unwrap_or_default(),
            attachments: release.attachments.clone().unwrap_or_default(),
            volumes: release.volumes.clone(),
            ..contents_of(self, &row)?
        })
    }

    /// The releases of an app that changed config vars, the newest first.
    pub async fn config_history(&self, app: AppId, count: u32) -> Result<Vec<Release>, StoreError> {
        let sql =
            format!("{SELECT} WHERE r.app_id = $1 AND r.config_changes <> '{{}}' ORDER BY r.version DESC LIMIT $2");
        Ok(sqlx::query_as(&sql).bind(app.to_string()).bind(i64::from(count)).fetch_all(&self.pool).await?)
    }

    /// The numbers of the releases after one, with another image than its own, that have a release phase.
    pub async fn phases_since(&self, release: &Release) -> Result<Vec<u64>, StoreError> {
        let versions: Vec<i64> = sqlx::query_scalar(
            "SELECT version FROM releases WHERE app_id = $1 AND version > $2 AND phase = 1 AND image <> $3 ORDER BY version",
        )
        .bind(release.app.to_string())
        .bind(i64::try_from(release.version).unwrap_or(i64::MAX))
        .bind(release.image.as_ref().map(ToString::to_string).unwrap_or_default())
        .fetch_all(&self.pool)
        .await?;
        Ok(versions.into_iter().filter_map(|version| version.try_into().ok()).collect())
    }
}

/// Config, what of it comes from attachments, and scopes.
pub(super) fn contents_of(store: &Store, row: &AnyRow) -> Result<Contents, StoreError> {
    Ok(Contents {
        config: store.open_config(row::text(row, "id")?, &row.try_get::<String, _>("config")?)?,
        attached: read_attached(row)?,
        scopes: row::optional_json(row, "scopes")?.unwrap_or_default(),
        ..Contents::default()
    })
}

/// Null in releases that are older than add-ons.
fn read_attached(row: &AnyRow) -> Result<Attached, StoreError> {
    Ok(row::optional_json(row, "attached")?.unwrap_or_default())
}

/// What the sealed config of a release is bound to.
fn config_row(release: ReleaseId) -> String {
    format!("releases/{release}/config")
}

/// The release with this id, as a transaction sees it.
pub(super) async fn release_in(tx: &mut AnyConnection, id: ReleaseId) -> Result<Option<Release>, StoreError> {
    let sql = format!("{SELECT} WHERE r.id = $1");
    Ok(sqlx::query_as(&sql).bind(id.to_string()).fetch_optional(tx).await?)
}

/// The newest pending release of an app that restores a formation.
pub(super) async fn pending_restore(tx: &mut AnyConnection, app: AppId) -> Result<Option<Release>, StoreError> {
    let sql = format!(
        "{SELECT} WHERE r.app_id = $1 AND r.status = 'pending' AND r.restores = 1 ORDER BY r.version DESC LIMIT 1"
    );
    Ok(sqlx::query_as(&sql).bind(app.to_string()).fetch_optional(tx).await?)
}

/// Makes a release the one that serves, unless a later one does; says whether it is now.
pub(super) async fn make_current(tx: &mut Write<'_>, id: ReleaseId) -> Result<bool, StoreError> {
    let now = tx.now();
    let made = sqlx::query(
        "UPDATE apps SET current_release_id = $1, released_at = $2 \
         WHERE id = (SELECT app_id FROM releases WHERE id = $1) \
         AND (SELECT version FROM releases WHERE id = $1) > \
             (SELECT version FROM releases WHERE id = apps.current_release_id)",
    )
    .bind(id.to_string())
    .bind(now)
    .execute(&mut **tx)
    .await?;
    if made.rows_affected() > 0 {
        super::jobs::outdate(tx, id).await?;
    }
    Ok(made.rows_affected() > 0)
}
