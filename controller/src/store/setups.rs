//! What is known of an app's first deploy.

use model::AppId;

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

    /// What is kept of the manifest that came with an app's current image: healthchecks and cron jobs, as JSON.
    pub async fn manifest(&self, app: AppId) -> Result<Option<String>, StoreError> {
        let sql = "SELECT i.manifest FROM apps a JOIN releases r ON r.id = a.current_release_id \
                   JOIN images i ON i.digest = r.image WHERE a.id = $1";
        Ok(sqlx::query_scalar::<_, Option<String>>(sql)
            .bind(app.to_string())
            .fetch_optional(&self.pool)
            .await?
            .flatten())
    }
}
