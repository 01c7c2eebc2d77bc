use model::{Email, Timestamp, UserId};
use serde_json::{Value, json};
use sqlx::any::AnyRow;
use sqlx::{FromRow, Row};

use super::{Action, NewEvent, Resource, Stamp, Store, StoreError, Write, row};

/// A person who may log in.
#[derive(Debug, Clone)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// In lower case, unique.
    pub email: Email,
    /// Whether they keep the platform itself.
    pub operator: bool,
    /// What they are called, if they said so.
    pub name: Option<String>,
    /// Since when they may not come in.
    pub suspended_at: Option<Timestamp>,
    /// Whether they sign in with a code too.
    pub two_factor: bool,
    /// Last time that the password was given.
    pub last_login_at: Option<Timestamp>,
    /// When the user was made.
    pub created_at: Timestamp,
    /// Last change.
    pub updated_at: Timestamp,
}

/// A user as other things name one.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct UserRef {
    /// Its id.
    pub id: UserId,
    /// Its address.
    pub email: Email,
}

impl User {
    /// A user who was just made.
    pub fn new(id: UserId, email: Email, now: Timestamp) -> Self {
        Self {
            id,
            email,
            operator: false,
            name: None,
            suspended_at: None,
            two_factor: false,
            last_login_at: None,
            created_at: now,
            updated_at: now,
        }
    }

    /// The short form.
    pub fn to_ref(&self) -> UserRef {
        UserRef { id: self.id, email: self.email.clone() }
    }
}

impl<'r> FromRow<'r, AnyRow> for User {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row::text(row, "id")?,
            email: row::text(row, "email")?,
            operator: row::flag(row, "operator")?,
            name: row.try_get("name")?,
            suspended_at: row::optional_time(row, "suspended_at")?,
            two_factor: row::optional_time(row, "totp_confirmed_at")?.is_some(),
            last_login_at: row::optional_time(row, "last_login_at")?,
            created_at: row::time(row, "created_at")?,
            updated_at: row::time(row, "updated_at")?,
        })
    }
}

/// What makes a [`User`] of a row of the table `u`.
pub(super) const USER: &str = "u.id, u.email, u.operator, u.name, u.suspended_at, u.totp_confirmed_at, u.last_login_at, \
     u.created_at, u.updated_at";

/// The condition that the user `u` may come in.
pub(super) const ACTIVE: &str = "u.suspended_at IS NULL AND u.deleted_at IS NULL";

impl Store {
    /// Adds a user and returns them as they are then: the first one keeps the platform. One without a password gets in by
    /// token only.
    pub async fn insert_user(
        &self,
        user: User,
        password_hash: Option<&str>,
        stamp: &Stamp,
    ) -> Result<User, StoreError> {
        let mut tx = self.begin(stamp).await?;
        one_at_a_time(&mut tx).await?;
        let others: i64 = sqlx::query_scalar("SELECT count(*) FROM users").fetch_one(&mut *tx).await?;
        let user = User { operator: user.operator || others == 0, ..user };
        put_user(&mut tx, &user, password_hash).await?;
        tx.commit().await?;
        Ok(user)
    }

    /// Adds a user unless there is one already; whether it did. Of several at once, one does.
    pub async fn insert_first_user(
        &self,
        user: &User,
        password_hash: Option<&str>,
        stamp: &Stamp,
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin(stamp).await?;
        one_at_a_time(&mut tx).await?;
        let added = sqlx::query(
            "INSERT INTO users (id, email, operator, password_hash, created_at, updated_at) \
             SELECT $1, $2, 1, $3, $4, $5 WHERE NOT EXISTS (SELECT id FROM users)",
        )
        .bind(user.id.to_string())
        .bind(user.email.as_str())
        .bind(password_hash)
        .bind(user.created_at.as_millis())
        .bind(user.updated_at.as_millis())
        .execute(&mut *tx)
        .await?;
        if added.rows_affected() == 1 {
            tx.record(changed(user.id, Action::Create, json!({ "email": user.email })));
        }
        tx.commit().await?;
        Ok(added.rows_affected() == 1)
    }

    /// The user with this id.
    pub async fn user(&self, id: UserId) -> Result<Option<User>, StoreError> {
        let sql = format!("SELECT {USER} FROM users u WHERE u.id = $1");
        Ok(sqlx::query_as(&sql).bind(id.to_string()).fetch_optional(&self.pool).await?)
    }

    /// The user with this address and the hash of the password, if there is one.
    pub async fn user_with_password(&self, email: &Email) -> Result<Option<(User, Option<String>)>, StoreError> {
        let found = sqlx::query(&format!("SELECT {USER}, u.password_hash FROM users u WHERE u.email = $1"))
            .bind(email.as_str())
            .fetch_optional(&self.pool)
            .await?;
        let Some(found) = found else { return Ok(None) };
        Ok(Some((User::from_row(&found)?, found.try_get("password_hash")?)))
    }

    /// Whether nobody was ever added.
    pub async fn has_no_users(&self) -> Result<bool, StoreError> {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM users").fetch_one(&self.pool).await?;
        Ok(count == 0)
    }

    /// Gives a user another password.
    pub async fn set_password(&self, user: UserId, password_hash: &str, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let updated = sqlx::query("UPDATE users SET password_hash = $1, updated_at = $2 WHERE id = $3")
            .bind(password_hash)
            .bind(tx.now())
            .bind(user.to_string())
            .execute(&mut *tx)
            .await?;
        if updated.rows_affected() == 0 {
            return Err(StoreError::Missing("User"));
        }
        tx.record(changed(user, Action::Update, json!({ "changed": ["password"] })));
        tx.commit().await
    }

    /// Notes that a user gave the password.
    pub async fn note_login(&self, user: UserId, now: Timestamp) -> Result<(), StoreError> {
        sqlx::query("UPDATE users SET last_login_at = $1 WHERE id = $2")
            .bind(now.as_millis())
            .bind(user.to_string())
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

/// Waits for whoever adds a user at this moment: only one of them is the first.
async fn one_at_a_time(tx: &mut Write<'_>) -> Result<(), StoreError> {
    sqlx::query("UPDATE counters SET value = value WHERE name = 'app_uid'").execute(&mut **tx).await?;
    Ok(())
}

/// Adds a user.
pub(super) async fn put_user(tx: &mut Write<'_>, user: &User, password_hash: Option<&str>) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO users (id, email, operator, password_hash, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(user.id.to_string())
    .bind(user.email.as_str())
    .bind(i64::from(user.operator))
    .bind(password_hash)
    .bind(user.created_at.as_millis())
    .bind(user.updated_at.as_millis())
    .execute(&mut **tx)
    .await
    .map_err(StoreError::taken("E-mail"))?;
    tx.record(changed(user.id, Action::Create, json!({ "email": user.email })));
    Ok(())
}

fn changed(user: UserId, action: Action, data: Value) -> NewEvent {
    NewEvent { app: None, resource: Resource::Account, id: user.to_string(), action, data }
}
