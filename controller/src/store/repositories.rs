use model::{AppId, RepositoryId, Timestamp};
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{FromRow, Row};

use super::{Action, NewEvent, Resource, Stamp, Store, StoreError, UserRef, row};

/// A repository elsewhere that an app is deployed from.
#[derive(Clone, PartialEq, Eq)]
pub struct Repository {
    /// Its id.
    pub id: RepositoryId,
    /// Of which app; each has one at most.
    pub app: AppId,
    /// Who linked it: what its webhook deploys is theirs.
    pub user: UserRef,
    /// Where it is; may hold a password.
    pub url: String,
    /// The branch that is deployed: `main`.
    pub branch: String,
    /// Signs the requests of its webhook.
    pub secret: String,
    /// When it was linked.
    pub created_at: Timestamp,
    /// When its URL or branch last changed.
    pub updated_at: Timestamp,
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repository").field("id", &self.id).field("app", &self.app).finish_non_exhaustive()
    }
}

/// A row with its URL and its secret still sealed.
struct Sealed(Repository);

impl<'r> FromRow<'r, AnyRow> for Sealed {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self(Repository {
            id: row::text(row, "id")?,
            app: row::text(row, "app_id")?,
            user: UserRef { id: row::text(row, "user_id")?, email: row::text(row, "email")? },
            url: row.try_get("url")?,
            branch: row.try_get("branch")?,
            secret: row.try_get("secret")?,
            created_at: row::time(row, "created_at")?,
            updated_at: row::time(row, "updated_at")?,
        }))
    }
}

const SELECT: &str = "SELECT r.id, r.app_id, r.user_id, u.email, r.url, r.branch, r.secret, r.created_at, r.updated_at \
     FROM repositories r JOIN users u ON u.id = r.user_id";

impl Store {
    /// Links a repository to its app, in place of the one that was.
    pub async fn set_repository(&self, new: &Repository, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let sql = "DELETE FROM repositories WHERE app_id = $1";
        let before = sqlx::query(sql).bind(new.app.to_string()).execute(&mut *tx).await?.rows_affected();
        let insert = sqlx::query(
            "INSERT INTO repositories (id, app_id, user_id, url, branch, secret, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(new.id.to_string())
        .bind(new.app.to_string())
        .bind(new.user.id.to_string())
        .bind(self.secrets.seal(&url_row(new.id), new.url.as_bytes())?)
        .bind(&new.branch)
        .bind(self.secrets.seal(&secret_row(new.id), new.secret.as_bytes())?)
        .bind(new.created_at.as_millis())
        .bind(new.updated_at.as_millis());
        insert.execute(&mut *tx).await?;
        tx.record(changed(new, if before == 0 { Action::Create } else { Action::Update }));
        tx.commit().await
    }

    /// The repository that an app is deployed from; none if it is pushed to.
    pub async fn repository_of(&self, app: AppId) -> Result<Option<Repository>, StoreError> {
        let sql = format!("{SELECT} WHERE r.app_id = $1");
        let row = sqlx::query_as(&sql).bind(app.to_string()).fetch_optional(&self.pool).await?;
        row.map(|row| self.open_repository(row)).transpose()
    }

    /// The repository with this id.
    pub async fn repository(&self, id: RepositoryId) -> Result<Option<Repository>, StoreError> {
        let sql = format!("{SELECT} WHERE r.id = $1");
        let row = sqlx::query_as(&sql).bind(id.to_string()).fetch_optional(&self.pool).await?;
        row.map(|row| self.open_repository(row)).transpose()
    }

    /// Takes a repository away from its app.
    pub async fn delete_repository(&self, repository: &Repository, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let sql = "DELETE FROM repositories WHERE id = $1";
        let gone = sqlx::query(sql).bind(repository.id.to_string()).execute(&mut *tx).await?;
        if gone.rows_affected() > 0 {
            tx.record(changed(repository, Action::Destroy));
        }
        tx.commit().await
    }

    fn open_repository(&self, Sealed(sealed): Sealed) -> Result<Repository, StoreError> {
        let open = |place: &str, value: &str| -> Result<String, StoreError> {
            Ok(String::from_utf8_lossy(&self.secrets.unseal(place, value)?).into_owned())
        };
        let url = open(&url_row(sealed.id), &sealed.url)?;
        let secret = open(&secret_row(sealed.id), &sealed.secret)?;
        Ok(Repository { url, secret, ..sealed })
    }
}

/// The URL may hold a password, and stays out of it.
fn changed(repository: &Repository, action: Action) -> NewEvent {
    let data = json!({ "branch": repository.branch });
    NewEvent { app: Some(repository.app), resource: Resource::Repository, id: repository.id.to_string(), action, data }
}

/// What the sealed URL of a repository is bound to.
fn url_row(id: RepositoryId) -> String {
    format!("repositories/{id}/url")
}

/// What the sealed secret of a repository is bound to.
fn secret_row(id: RepositoryId) -> String {
    format!("repositories/{id}/secret")
}
