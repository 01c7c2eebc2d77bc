use model::{AppId, CredentialId, Timestamp};
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{FromRow, Row};

use super::words::words;
use super::{Action, AppScope, NewEvent, Resource, Stamp, Store, StoreError, UserRef, row};

/// What a private registry or git host wants to know of whoever fetches from it.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// Its id.
    pub id: CredentialId,
    /// For which apps. Of several, that of the app counts most, then that of its team.
    pub scope: AppScope,
    /// `git.example.com`, `registry.example.com:5000`
    pub host: String,
    /// What the secret is.
    pub kind: CredentialKind,
    /// Who one is there.
    pub username: String,
    /// The password or token, or the private key as OpenSSH writes it.
    pub secret: String,
    /// The public half of an SSH key.
    pub public_key: Option<String>,
    /// Keys by which the SSH server is known, each as in a file of `known_hosts` without the name, one a line; none before it
    /// was met.
    pub host_keys: Option<String>,
    /// Who set it.
    pub by: UserRef,
    /// When it was set.
    pub created_at: Timestamp,
}

words! {
    /// What proves who one is.
    CredentialKind, "A credential is a password or an ssh-key":
    /// A password or a token, over https.
    Password "password";
    /// A private key, over SSH.
    SshKey "ssh-key";
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("id", &self.id).field("host", &self.host).finish_non_exhaustive()
    }
}

/// A row with its secret still sealed.
struct Sealed(Credential);

impl<'r> FromRow<'r, AnyRow> for Sealed {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self(Credential {
            id: row::text(row, "id")?,
            scope: AppScope::of_row(row)?,
            host: row.try_get("host")?,
            kind: row::text(row, "kind")?,
            username: row.try_get("username")?,
            secret: row.try_get("secret")?,
            public_key: row.try_get("public_key")?,
            host_keys: row.try_get("host_keys")?,
            by: UserRef { id: row::text(row, "user_id")?, email: row::text(row, "email")? },
            created_at: row::time(row, "created_at")?,
        }))
    }
}

const SELECT: &str = "SELECT c.id, c.app_id, c.team_id, t.name AS team_name, c.host, c.kind, c.username, c.secret, \
     c.public_key, c.host_keys, c.user_id, u.email, c.created_at FROM credentials c \
     JOIN users u ON u.id = c.user_id LEFT JOIN teams t ON t.id = c.team_id";

impl Store {
    /// Remembers a credential, in place of the one of the same kind that its scope had for the host.
    pub async fn set_credential(&self, new: &Credential, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let before = sqlx::query("DELETE FROM credentials WHERE scope = $1 AND host = $2 AND kind = $3")
            .bind(new.scope.word())
            .bind(&new.host)
            .bind(new.kind.as_str())
            .execute(&mut *tx)
            .await?
            .rows_affected();
        let insert = sqlx::query(
            "INSERT INTO credentials (id, scope, app_id, team_id, host, kind, username, secret, public_key, host_keys, \
             user_id, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        )
        .bind(new.id.to_string())
        .bind(new.scope.word())
        .bind(new.scope.app().map(|app| app.to_string()))
        .bind(new.scope.team().map(|team| team.to_string()))
        .bind(&new.host)
        .bind(new.kind.as_str())
        .bind(&new.username)
        .bind(self.secrets.seal(&secret_row(new.id), new.secret.as_bytes())?)
        .bind(&new.public_key)
        .bind(&new.host_keys)
        .bind(new.by.id.to_string())
        .bind(new.created_at.as_millis());
        insert.execute(&mut *tx).await.map_err(StoreError::taken("Host"))?;
        tx.record(changed(new, if before == 0 { Action::Create } else { Action::Update }));
        tx.commit().await
    }

    /// Remembers by which keys an SSH server is known from now on, unless somebody else said so meanwhile.
    pub async fn note_host_keys(&self, met: &Credential, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let noted = sqlx::query("UPDATE credentials SET host_keys = $1 WHERE id = $2 AND host_keys IS NULL")
            .bind(&met.host_keys)
            .bind(met.id.to_string())
            .execute(&mut *tx)
            .await?;
        if noted.rows_affected() > 0 {
            tx.record(changed(met, Action::Update));
        }
        tx.commit().await
    }

    /// Forgets a credential.
    pub async fn delete_credential(&self, credential: &Credential, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let sql = "DELETE FROM credentials WHERE id = $1";
        let gone = sqlx::query(sql).bind(credential.id.to_string()).execute(&mut *tx).await?;
        if gone.rows_affected() > 0 {
            tx.record(changed(credential, Action::Destroy));
        }
        tx.commit().await
    }

    /// The credentials of one scope, by their hosts.
    pub async fn credentials(&self, scope: &AppScope) -> Result<Vec<Credential>, StoreError> {
        let (condition, id) = scope.condition("c");
        let sql = format!("{SELECT} WHERE {condition} ORDER BY c.host, c.kind");
        let rows = sqlx::query_as(&sql).bind(id).fetch_all(&self.pool).await?;
        self.open_credentials(rows)
    }

    /// All credentials that an app may use, its own first, then its team's; of the same scope by their hosts.
    pub async fn credentials_over(&self, app: AppId) -> Result<Vec<Credential>, StoreError> {
        let sql = format!(
            "{SELECT} WHERE c.app_id = $1 OR c.team_id = (SELECT team_id FROM apps WHERE id = $1) \
             OR c.scope = 'platform' ORDER BY c.scope, c.host, c.kind"
        );
        let rows = sqlx::query_as(&sql).bind(app.to_string()).fetch_all(&self.pool).await?;
        let mut all = self.open_credentials(rows)?;
        all.sort_by_key(|credential| match credential.scope {
            AppScope::App(_) => 0,
            AppScope::Team(_) => 1,
            AppScope::Platform => 2,
        });
        Ok(all)
    }

    fn open_credentials(&self, rows: Vec<Sealed>) -> Result<Vec<Credential>, StoreError> {
        let open = |Sealed(sealed): Sealed| {
            let secret = self.secrets.unseal(&secret_row(sealed.id), &sealed.secret)?;
            Ok(Credential { secret: String::from_utf8_lossy(&secret).into_owned(), ..sealed })
        };
        rows.into_iter().map(open).collect()
    }
}

/// Without its secret.
fn changed(credential: &Credential, action: Action) -> NewEvent {
    let data = json!({
        "host": credential.host,
        "kind": credential.kind.as_str(),
        "username": credential.username,
        "host_keys": credential.host_keys,
        "team": credential.scope.team_name(),
    });
    let (resource, id) = (Resource::Credential, credential.id.to_string());
    NewEvent { app: credential.scope.app(), resource, id, action, data }
}

/// What the sealed secret of a credential is bound to.
fn secret_row(id: CredentialId) -> String {
    format!("credentials/{id}/secret")
}
