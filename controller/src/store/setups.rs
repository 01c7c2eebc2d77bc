//! What is known of an app's first deploy.

use model::{AppId, ReleaseId};

use super::{Store, StoreError};

impl Store {
    /// Whether a release with something to run ever was current.
    pub async fn was_live(&self, app: AppId) -> Result<bool, StoreError> {
        let sql = "SELECT count(*) FROM releases WHERE app_id = $1 AND image IS NOT NULL AND status = 'succeeded'";
        let count: i64 = sqlx::query_scalar(sql).bind(app.to_string()).fetch_one(&self.pool).await?;
        Ok(count > 0)
    }

    /// Notes whether a postdeploy script is to run once the app is live. Nothing that anybody is told of: the script itself is.
    pub async fn set_postdeploy_due(&self, app: AppId, is_due: bool) -> Result<(), StoreError> {
        sqlx::query("UPDATE apps SET postdeploy_due = $1 WHERE id = $2")
            .bind(i64::from(is_due))
            .bind(app.to_string())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Whether a postdeploy script is to run once the app is live.
    pub async fn is_postdeploy_due(&self, app: AppId) -> Result<bool, StoreError> {
        let sql = "SELECT COALESCE(postdeploy_due, 0) FROM apps WHERE id = $1";
        let due: Option<i64> = sqlx::query_scalar(sql).bind(app.to_string()).fetch_optional(&self.pool).await?;
        Ok(due == Some(1))
    }

    /// What is kept of the manifest that a release's code came with, as JSON; none if it says nothing.
    pub async fn manifest_of(&self, release: ReleaseId) -> Result<Option<String>, StoreError> {
        let sql = "SELECT COALESCE(r.manifest, i.manifest) FROM releases r LEFT JOIN images i ON i.digest = r.image \
                   WHERE r.id = $1";
        let found = sqlx::query_scalar::<_, Option<String>>(sql).bind(release.to_string());
        Ok(found.fetch_optional(&self.pool).await?.flatten())
    }
}
