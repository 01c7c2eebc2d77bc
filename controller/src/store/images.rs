//! Images, and how many of them an app keeps.

use std::collections::{BTreeSet, HashMap};

use futures::TryStreamExt;
use model::{AppId, Digest, Image, Timestamp};
use sqlx::Row;
use sqlx::any::AnyRow;

use super::{Stamp, Store, StoreError, row};

impl Store {
    /// The image with this digest.
    pub async fn image(&self, digest: &Digest) -> Result<Option<Image>, StoreError> {
        let document: Option<String> = sqlx::query_scalar("SELECT document FROM images WHERE digest = $1")
            .bind(digest.as_str())
            .fetch_optional(&self.pool)
            .await?;
        Ok(document.map(|document| serde_json::from_str(&document)).transpose()?)
    }

    /// Forgets the images of releases that are gone.
    pub async fn prune_images(&self) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM images WHERE NOT EXISTS (SELECT id FROM releases WHERE image = images.digest)")
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// The layers of all images of releases that can run.
    pub async fn layers_of_images(&self) -> Result<BTreeSet<Digest>, StoreError> {
        // One by one: together they may be larger than the memory of a small machine.
        let sql = "SELECT document FROM images WHERE removed_at IS NULL \
             AND EXISTS (SELECT id FROM releases WHERE image = images.digest)";
        let mut documents = sqlx::query_scalar::<_, String>(sql).fetch(&self.pool);
        let mut layers = BTreeSet::new();
        while let Some(document) = documents.try_next().await? {
            let image: Image = serde_json::from_str(&document)?;
            layers.extend(image.layers.into_iter().map(|layer| layer.diff_id));
        }
        Ok(layers)
    }

    /// Layer by layer, how many apps have images with it that can run.
    pub async fn layer_users(&self) -> Result<HashMap<Digest, u32>, StoreError> {
        // One by one, those of each app together: see `layers_of_images`.
        let sql = "SELECT x.app_id, i.document FROM (SELECT DISTINCT app_id, image FROM releases) x \
             JOIN images i ON i.digest = x.image WHERE i.removed_at IS NULL ORDER BY x.app_id";
        let mut rows = sqlx::query(sql).fetch(&self.pool);
        let (mut users, mut of, mut own) = (HashMap::<Digest, u32>::new(), String::new(), BTreeSet::new());
        while let Some(row) = rows.try_next().await? {
            let (app, document): (String, &str) = (row.try_get("app_id")?, row.try_get("document")?);
            if app != of {
                (of, own) = (app, BTreeSet::new());
            }
            let image: Image = serde_json::from_str(document)?;
            for layer in image.layers {
                if own.insert(layer.diff_id.clone()) {
                    *users.entry(layer.diff_id).or_default() += 1;
                }
            }
        }
        Ok(users)
    }

    /// The releases of an app whose images can run, with these, the newest first.
    pub async fn images_of(&self, app: AppId) -> Result<Vec<(u64, Image)>, StoreError> {
        let sql = "SELECT r.version, i.document FROM releases r JOIN images i ON i.digest = r.image \
             WHERE r.app_id = $1 AND i.removed_at IS NULL ORDER BY r.version DESC";
        let rows = sqlx::query(sql).bind(app.to_string()).fetch_all(&self.pool).await?;
        let read = |row: &AnyRow| Ok((row::number(row, "version")?, row::json(row, "document")?));
        Ok(rows.iter().map(read).collect::<Result<_, sqlx::Error>>()?)
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

    /// Keeps an image that is another one on a new run image; what is kept of the app's manifest stays with it.
    pub async fn keep_rebased(&self, image: &Image, of: &Digest, now: Timestamp) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO images (digest, document, manifest, created_at) \
             SELECT $1, $2, manifest, $3 FROM images WHERE digest = $4 \
             ON CONFLICT (digest) DO UPDATE SET removed_at = NULL",
        )
        .bind(image.digest.as_str())
        .bind(serde_json::to_string(image)?)
        .bind(now.as_millis())
        .bind(of.as_str())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Keeps the document of an image that can run from now on.
    pub(super) async fn keep_image(
        tx: &mut sqlx::AnyConnection,
        (image, manifest): (&Image, Option<&str>),
        now: i64,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO images (digest, document, manifest, created_at) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (digest) DO UPDATE SET removed_at = NULL",
        )
        .bind(image.digest.as_str())
        .bind(serde_json::to_string(image)?)
        .bind(manifest)
        .bind(now)
        .execute(tx)
        .await?;
        Ok(())
    }

    /// Whether an image can run, as a transaction sees it.
    pub(super) async fn can_run(tx: &mut sqlx::AnyConnection, image: &Digest) -> Result<bool, StoreError> {
        let sql = "SELECT digest FROM images WHERE digest = $1 AND removed_at IS NULL";
        Ok(sqlx::query(sql).bind(image.as_str()).fetch_optional(tx).await?.is_some())
    }

    /// The apps that had more than so many builds: others have no more images than that.
    pub async fn apps_with_more_builds(&self, count: u32) -> Result<Vec<AppId>, StoreError> {
        let sql = "SELECT app_id AS id FROM builds GROUP BY app_id HAVING count(*) > $1";
        self.app_ids_of(sql, i64::from(count)).await
    }

    /// The apps of which a release became current since a moment.
    pub async fn apps_released_since(&self, moment: Timestamp) -> Result<Vec<AppId>, StoreError> {
        self.app_ids_of("SELECT id FROM apps WHERE released_at >= $1", moment.as_millis()).await
    }

    async fn app_ids_of(&self, sql: &str, number: i64) -> Result<Vec<AppId>, StoreError> {
        let rows = sqlx::query(sql).bind(number).fetch_all(&self.pool).await?;
        Ok(rows.iter().map(|row| row::text(row, "id")).collect::<Result<_, _>>()?)
    }

    /// Gives up the images of an app but for its newest `kept` ones, that of its current release, those of pending releases and of
    /// `running` ones, and what other apps have too. How many that were.
    pub async fn give_up_images(
        &self,
        app: AppId,
        (kept, running): (u32, &BTreeSet<u64>),
        stamp: &Stamp,
    ) -> Result<u64, StoreError> {
        let images = sqlx::query(
            "SELECT r.image, max(r.version) AS newest FROM releases r JOIN images i ON i.digest = r.image \
             WHERE r.app_id = $1 AND i.removed_at IS NULL GROUP BY r.image ORDER BY newest DESC",
        )
        .bind(app.to_string())
        .fetch_all(&self.pool)
        .await?;
        let old = images.get(usize::try_from(kept).unwrap_or(usize::MAX)..).unwrap_or_default();
        if old.is_empty() {
            return Ok(0);
        }
        let mut tx = self.begin(stamp).await?;
        // Locks the app: whoever goes back to one of them in this moment comes before or after.
        sqlx::query("UPDATE apps SET last_version = last_version WHERE id = $1")
            .bind(app.to_string())
            .execute(&mut *tx)
            .await?;
        // Numbers in the text instead of as many binds; version 0 is none.
        let versions = running.iter().map(u64::to_string).chain(["0".to_owned()]).collect::<Vec<_>>().join(",");
        let sql = format!(
            "UPDATE images SET removed_at = $1 WHERE digest = $2 AND NOT EXISTS (SELECT r.id FROM releases r \
             JOIN apps a ON a.id = r.app_id WHERE r.image = images.digest \
             AND (r.app_id <> $3 OR r.status = 'pending' OR r.id = a.current_release_id OR r.version IN ({versions})))"
        );
        let now = tx.now();
        let mut given_up = 0;
        for image in old {
            let digest: String = image.try_get("image")?;
            let done = sqlx::query(&sql).bind(now).bind(digest).bind(app.to_string()).execute(&mut *tx).await?;
            given_up += done.rows_affected();
        }
        tx.commit().await?;
        Ok(given_up)
    }
}
