use std::fmt;
use std::str::FromStr;

use model::{AppId, AppName, Email, NameError, Timestamp, UserId};
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{FromRow, Row};

use super::collaborators::put_owner;
use super::{Action, App, NewEvent, NewOwner, Resource, Stamp, Store, StoreError, UserRef, row};

/// An app that somebody would give to somebody else. Heroku calls it an app transfer.
#[derive(Debug, Clone)]
pub struct Offer {
    /// Its id.
    pub id: String,
    /// Which app.
    pub app: AppId,
    /// Its name now.
    pub app_name: AppName,
    /// Who offers it.
    pub owner: UserRef,
    /// To whom.
    pub recipient: UserRef,
    /// What became of it.
    pub state: OfferState,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was answered.
    pub updated_at: Timestamp,
}

/// What became of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfferState {
    /// Nothing yet.
    Pending,
    /// The app was taken.
    Accepted,
    /// It was not, or the offer was taken back.
    Declined,
}

impl FromStr for OfferState {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text {
            "pending" => Ok(Self::Pending),
            "accepted" => Ok(Self::Accepted),
            "declined" => Ok(Self::Declined),
            _ => Err(NameError("state is pending, accepted or declined".to_owned())),
        }
    }
}

impl fmt::Display for OfferState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "pending",
            Self::Accepted => "accepted",
            Self::Declined => "declined",
        })
    }
}

impl<'r> FromRow<'r, AnyRow> for Offer {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        let user = |id, email| -> Result<UserRef, sqlx::Error> {
            Ok(UserRef { id: row::text(row, id)?, email: row::text::<Email>(row, email)? })
        };
        Ok(Self {
            id: row.try_get("id")?,
            app: row::text(row, "app_id")?,
            app_name: row::text(row, "app_name")?,
            owner: user("owner_id", "owner_email")?,
            recipient: user("recipient_id", "recipient_email")?,
            state: row::text(row, "state")?,
            created_at: row::time(row, "created_at")?,
            updated_at: row::time(row, "updated_at")?,
        })
    }
}

const SELECT: &str = "SELECT t.id, t.app_id, a.name AS app_name, t.owner_id, o.email AS owner_email, t.recipient_id, \
     r.email AS recipient_email, t.state, t.created_at, t.updated_at FROM app_transfers t \
     JOIN apps a ON a.id = t.app_id JOIN users o ON o.id = t.owner_id JOIN users r ON r.id = t.recipient_id";

impl Offer {
    fn event(&self, state: OfferState, action: Action) -> NewEvent {
        let data = json!({
            "owner": self.owner.email, "recipient": self.recipient.email, "state": state.to_string(),
        });
        NewEvent { app: Some(self.app), resource: Resource::Transfer, id: self.id.clone(), action, data }
    }
}

impl Store {
    /// Offers an app; what was offered of it before is off.
    pub async fn insert_offer(
        &self,
        app: &App,
        (owner, recipient): (&UserRef, &UserRef),
        stamp: &Stamp,
    ) -> Result<Offer, StoreError> {
        let offer = Offer {
            id: self.new_uuid(),
            app: app.id,
            app_name: app.name.clone(),
            owner: owner.clone(),
            recipient: recipient.clone(),
            state: OfferState::Pending,
            created_at: stamp.now,
            updated_at: stamp.now,
        };
        let mut tx = self.begin(stamp).await?;
        let now = tx.now();
        sqlx::query(
            "UPDATE app_transfers SET state = 'declined', updated_at = $1 WHERE app_id = $2 AND state = 'pending'",
        )
        .bind(now)
        .bind(app.id.to_string())
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "INSERT INTO app_transfers (id, app_id, owner_id, recipient_id, state, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, 'pending', $5, $5)",
        )
        .bind(&offer.id)
        .bind(app.id.to_string())
        .bind(owner.id.to_string())
        .bind(recipient.id.to_string())
        .bind(now)
        .execute(&mut *tx)
        .await?;
        tx.record(offer.event(OfferState::Pending, Action::Create));
        tx.commit().await?;
        Ok(offer)
    }

    /// The offers that a user made or got, the oldest first.
    pub async fn offers(&self, user: UserId) -> Result<Vec<Offer>, StoreError> {
        let sql = format!("{SELECT} WHERE t.owner_id = $1 OR t.recipient_id = $1 ORDER BY t.created_at, t.id");
        Ok(sqlx::query_as(&sql).bind(user.to_string()).fetch_all(&self.pool).await?)
    }

    /// Ends an offer that nobody has answered yet, with the app as its recipient's if it was taken; whether it did.
    pub async fn answer_offer(&self, offer: &Offer, taken: Option<&App>, stamp: &Stamp) -> Result<bool, StoreError> {
        let mut tx = self.begin(stamp).await?;
        let now = tx.now();
        let state = if taken.is_some() { OfferState::Accepted } else { OfferState::Declined };
        let sql = "UPDATE app_transfers SET state = $1, updated_at = $2 WHERE id = $3 AND state = 'pending'";
        let ended = sqlx::query(sql).bind(state.to_string()).bind(now).bind(&offer.id).execute(&mut *tx).await?;
        if ended.rows_affected() == 0 {
            return Ok(false);
        }
        if let Some(app) = taken {
            put_owner(&mut tx, self.new_uuid(), app, &NewOwner::User(offer.recipient.clone())).await?;
        }
        tx.record(offer.event(state, Action::Update));
        tx.commit().await?;
        Ok(true)
    }
}
