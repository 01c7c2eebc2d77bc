use model::{AppId, BuildId, Image, ReleaseId, Timestamp, UserId};
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{FromRow, Row};

use super::select::Select;
use super::{Action, NewEvent, Resource, Stamp, Status, Store, StoreError, UserRef, row};

/// One run of the buildpacks over one commit.
#[derive(Debug, Clone)]
pub struct Build {
    /// Its id.
    pub id: BuildId,
    /// Of which app.
    pub app: AppId,
    /// Who started it.
    pub user: UserRef,
    /// The commit, in full; of an archive, what its sender calls it, which may be nothing.
    pub commit: String,
    /// Where an archive came from, without what may be secret in it; none for a push.
    pub source_url: Option<String>,
    /// The checksum that the archive had to have.
    pub source_checksum: Option<String>,
    /// First line of the commit's message, if that is known.
    pub subject: Option<String>,
    /// What became of it.
    pub status: Status,
    /// `id@version` of the buildpacks that took part; empty until it succeeded.
    pub buildpacks: Vec<String>,
    /// Bytes of the layers that the app adds to the run image, once it succeeded.
    pub size_bytes: Option<u64>,
    /// The release that deploys it.
    pub release: Option<ReleaseId>,
    /// Opens its output without a token.
    pub output_secret: String,
    /// When it began.
    pub created_at: Timestamp,
    /// When it ended.
    pub updated_at: Timestamp,
}

/// A build to note before it starts.
#[derive(Debug)]
pub struct NewBuild<'a> {
    /// Its id.
    pub id: BuildId,
    /// Of which app.
    pub app: AppId,
    /// Who starts it.
    pub user: UserId,
    /// The commit, in full.
    pub commit: &'a str,
    /// First line of the commit's message.
    pub subject: Option<&'a str>,
    /// URL and checksum of an archive.
    pub source: Option<(&'a str, Option<&'a str>)>,
}

impl<'r> FromRow<'r, AnyRow> for Build {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        let size: Option<i64> = row.try_get("size_bytes")?;
        Ok(Self {
            id: row::text(row, "id")?,
            app: row::text(row, "app_id")?,
            user: UserRef { id: row::text(row, "user_id")?, email: row::text(row, "email")? },
            commit: row.try_get("commit_id")?,
            source_url: row.try_get("source_url")?,
            source_checksum: row.try_get("source_checksum")?,
            subject: row.try_get("subject")?,
            status: row::text(row, "status")?,
            buildpacks: row::json(row, "buildpacks")?,
            size_bytes: size.and_then(|size| u64::try_from(size).ok()),
            release: row::optional_text(row, "release_id")?,
            output_secret: row.try_get("output_secret")?,
            created_at: row::time(row, "created_at")?,
            updated_at: row::time(row, "updated_at")?,
        })
    }
}

pub(super) const SELECT: Select = Select {
    columns: "b.id, b.app_id, b.user_id, u.email, b.commit_id, b.subject, b.source_url, b.source_checksum, b.status, \
         b.buildpacks, b.size_bytes, r.id AS release_id, b.output_secret, b.created_at, b.updated_at",
    from: ("builds", "b"),
    joins: "JOIN users u ON u.id = b.user_id LEFT JOIN releases r ON r.build_id = b.id",
};

impl Store {
    /// Notes a build that is about to start. It succeeds with [`super::Change::Deploy`].
    pub async fn insert_build(&self, new: NewBuild<'_>, stamp: &Stamp) -> Result<Build, StoreError> {
        let mut tx = self.begin(stamp).await?;
        sqlx::query(
            "INSERT INTO builds (id, app_id, user_id, commit_id, subject, source_url, source_checksum, status, buildpacks, \
             output_secret, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, 'pending', '[]', $8, $9, $9)",
        )
        .bind(new.id.to_string())
        .bind(new.app.to_string())
        .bind(new.user.to_string())
        .bind(new.commit)
        .bind(new.subject)
        .bind(new.source.map(|(url, _)| url))
        .bind(new.source.and_then(|(_, checksum)| checksum))
        .bind(self.new_secret())
        .bind(tx.now())
        .execute(&mut *tx)
        .await?;
        tx.record(changed(new.app, new.id, Action::Create, json!({ "status": "pending", "commit": new.commit })));
        tx.commit().await?;
        self.build(new.id).await?.ok_or(StoreError::Missing("Build"))
    }

    /// Ends a pending build without a result; false if it was not pending any more.
    pub async fn fail_build(&self, app: AppId, id: BuildId, stamp: &Stamp) -> Result<bool, StoreError> {
        let mut tx = self.begin(stamp).await?;
        let ended =
            sqlx::query("UPDATE builds SET status = 'failed', updated_at = $1 WHERE id = $2 AND status = 'pending'")
                .bind(tx.now())
                .bind(id.to_string())
                .execute(&mut *tx)
                .await?;
        if ended.rows_affected() == 0 {
            return Ok(false);
        }
        tx.record(changed(app, id, Action::Update, json!({ "status": "failed" })));
        tx.commit().await?;
        Ok(true)
    }

    /// The build with this id.
    pub async fn build(&self, id: BuildId) -> Result<Option<Build>, StoreError> {
        let sql = format!("{SELECT} WHERE b.id = $1");
        Ok(sqlx::query_as(&sql).bind(id.to_string()).fetch_optional(&self.pool).await?)
    }

    /// The build whose output this secret opens.
    pub async fn build_by_output(&self, secret: &str) -> Result<Option<Build>, StoreError> {
        let sql = format!("{SELECT} WHERE b.output_secret = $1");
        Ok(sqlx::query_as(&sql).bind(secret).fetch_optional(&self.pool).await?)
    }

    /// The image that a build made; none if it failed, or nothing runs it any more.
    pub async fn image_of_build(&self, id: BuildId) -> Result<Option<Image>, StoreError> {
        let sql = "SELECT i.document FROM releases r JOIN images i ON i.digest = r.image WHERE r.build_id = $1";
        let document: Option<String> = sqlx::query_scalar(sql).bind(id.to_string()).fetch_optional(&self.pool).await?;
        Ok(document.map(|document| serde_json::from_str(&document)).transpose()?)
    }

    /// An app's builds, the oldest first.
    pub async fn builds(&self, app: AppId) -> Result<Vec<Build>, StoreError> {
        let sql = format!("{SELECT} WHERE b.app_id = $1 ORDER BY b.created_at, b.id");
        Ok(sqlx::query_as(&sql).bind(app.to_string()).fetch_all(&self.pool).await?)
    }

    /// The builds of all apps that are not over.
    pub async fn pending_builds(&self) -> Result<Vec<Build>, StoreError> {
        let sql = format!("{SELECT} WHERE b.status = 'pending' ORDER BY b.created_at, b.id");
        Ok(sqlx::query_as(&sql).fetch_all(&self.pool).await?)
    }
}

pub(super) fn changed(app: AppId, build: BuildId, action: Action, data: serde_json::Value) -> NewEvent {
    NewEvent { app: Some(app), resource: Resource::Build, id: build.to_string(), action, data }
}
