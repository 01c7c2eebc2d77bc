use model::{SessionId, UserId};
use serde_json::json;

use super::users::USER;
use super::{Action, App, NewEvent, Resource, Stamp, Store, StoreError, User, apps};

fn changed(user: UserId, action: Action, data: serde_json::Value) -> NewEvent {
    NewEvent { app: None, resource: Resource::Account, id: user.to_string(), action, data }
}

impl Store {
    /// Everybody who has an account, by address.
    pub async fn users(&self) -> Result<Vec<User>, StoreError> {
        let sql = format!("SELECT {USER} FROM users u WHERE u.deleted_at IS NULL ORDER BY u.email");
        Ok(sqlx::query_as(&sql).fetch_all(&self.pool).await?)
    }

    /// Says since when somebody may not come in, or that they may.
    pub async fn set_suspended(&self, user: UserId, suspended: bool, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let now = tx.now();
        sqlx::query("UPDATE users SET suspended_at = $1, updated_at = $2 WHERE id = $3")
            .bind(suspended.then_some(now))
            .bind(now)
            .bind(user.to_string())
            .execute(&mut *tx)
            .await?;
        tx.record(changed(user, Action::Update, json!({ "suspended": suspended })));
        tx.commit().await
    }

    /// Says whether somebody keeps the platform.
    pub async fn set_operator(&self, user: UserId, operator: bool, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let now = tx.now();
        sqlx::query("UPDATE users SET operator = $1, updated_at = $2 WHERE id = $3")
            .bind(i64::from(operator))
            .bind(now)
            .bind(user.to_string())
            .execute(&mut *tx)
            .await?;
        tx.record(changed(user, Action::Update, json!({ "operator": operator })));
        tx.commit().await
    }

    /// Says what somebody is called.
    pub async fn set_name(&self, user: UserId, name: &str, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let now = tx.now();
        sqlx::query("UPDATE users SET name = $1, updated_at = $2 WHERE id = $3")
            .bind(Some(name).filter(|name| !name.is_empty()))
            .bind(now)
            .bind(user.to_string())
            .execute(&mut *tx)
            .await?;
        tx.record(changed(user, Action::Update, json!({ "name": name })));
        tx.commit().await
    }

    /// Ends a user's sessions but for one.
    pub async fn end_other_sessions(
        &self,
        user: UserId,
        keep: Option<SessionId>,
        stamp: &Stamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let ended = sqlx::query("DELETE FROM sessions WHERE user_id = $1 AND (id IS NULL OR id <> $2)")
            .bind(user.to_string())
            .bind(keep.map(|id| id.to_string()).unwrap_or_default())
            .execute(&mut *tx)
            .await?;
        if ended.rows_affected() > 0 {
            let data = json!({ "ended": ended.rows_affected() });
            let (resource, action) = (Resource::Session, Action::Destroy);
            tx.record(NewEvent { app: None, resource, id: user.to_string(), action, data });
        }
        tx.commit().await
    }

    /// The apps that are a user's own, by name.
    pub async fn apps_owned_by(&self, user: UserId) -> Result<Vec<App>, StoreError> {
        let owned = "SELECT c.app_id FROM collaborators c WHERE c.user_id = $1 AND c.role = 'owner'";
        let sql = format!("{} WHERE a.id IN ({owned}) AND a.team_id IS NULL ORDER BY a.name", apps::SELECT);
        Ok(sqlx::query_as(&sql).bind(user.to_string()).fetch_all(&self.pool).await?)
    }

    /// The names of the teams that have no other admin.
    pub async fn teams_of_only_admin(&self, user: UserId) -> Result<Vec<String>, StoreError> {
        Ok(sqlx::query_scalar(
            "SELECT t.name FROM teams t JOIN team_members m ON m.team_id = t.id AND m.role = 'admin' \
             WHERE m.user_id = $1 AND NOT EXISTS (SELECT o.id FROM team_members o \
             WHERE o.team_id = t.id AND o.role = 'admin' AND o.user_id <> $1) ORDER BY t.name",
        )
        .bind(user.to_string())
        .fetch_all(&self.pool)
        .await?)
    }

    /// Removes an account. Its row stays for what names it, with an address that is nobody's; events keep the real one.
    pub async fn delete_user(&self, user: &User, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let now = tx.now();
        sqlx::query(
            "UPDATE users SET email = $1, name = NULL, password_hash = NULL, operator = 0, totp_secret = NULL, \
             totp_confirmed_at = NULL, deleted_at = $2, updated_at = $2 WHERE id = $3",
        )
        .bind(format!("deleted-{}@users.invalid", user.id))
        .bind(now)
        .bind(user.id.to_string())
        .execute(&mut *tx)
        .await?;
        for sql in [
            "DELETE FROM tokens WHERE user_id = $1",
            "DELETE FROM sessions WHERE user_id = $1",
            "DELETE FROM ssh_keys WHERE user_id = $1",
            "DELETE FROM recovery_codes WHERE user_id = $1",
            "DELETE FROM team_members WHERE user_id = $1",
            "DELETE FROM collaborators WHERE user_id = $1 AND role <> 'owner'",
            "DELETE FROM invitations WHERE invited_by = $1",
            "DELETE FROM pipelines WHERE user_id = $1 AND team_id IS NULL",
            "DELETE FROM app_transfers WHERE state = 'pending' AND (owner_id = $1 OR recipient_id = $1)",
        ] {
            sqlx::query(sql).bind(user.id.to_string()).execute(&mut *tx).await?;
        }
        tx.record(changed(user.id, Action::Destroy, json!({ "email": user.email })));
        tx.commit().await
    }
}
