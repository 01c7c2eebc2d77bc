//! Which apps reach which others.

use std::collections::BTreeMap;

use model::{AppId, AppName, Timestamp};
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{FromRow, Row};

use super::{Action, NewEvent, Resource, Stamp, Store, StoreError, row};

/// The first port by which an app is asked for.
const FIRST_PORT: i64 = 20_000;
/// The last.
const LAST_PORT: i64 = 59_999;

/// An app that reaches another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppLink {
    /// Which.
    pub app: AppId,
    /// Whom it reaches.
    pub target: AppId,
    /// Whom it reaches, by name.
    pub target_name: AppName,
    /// Of the config var that says how: `SHOP` of `SHOP_URL`.
    pub name: String,
    /// By which it is asked for.
    pub port: u16,
    /// Since when.
    pub created_at: Timestamp,
}

impl<'r> FromRow<'r, AnyRow> for AppLink {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            app: row::text(row, "app_id")?,
            target: row::text(row, "target_id")?,
            target_name: row::text(row, "target_name")?,
            name: row.try_get("name")?,
            port: port(row)?,
            created_at: row::time(row, "created_at")?,
        })
    }
}

fn port(row: &AnyRow) -> Result<u16, sqlx::Error> {
    let port: i64 = row.try_get("port")?;
    u16::try_from(port).map_err(|error| sqlx::Error::Decode(error.into()))
}

const LINKS: &str = "SELECT l.app_id, l.target_id, a.name AS target_name, l.name, p.port, l.created_at FROM app_links l \
                     JOIN apps a ON a.id = l.target_id JOIN link_ports p ON p.app_id = l.target_id";

impl Store {
    /// Links an app to another one, which gets a port of its own with the first link to it.
    pub async fn insert_link(&self, app: AppId, target: AppId, name: &str, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let now = tx.now();
        let sql = "INSERT INTO app_links (app_id, target_id, name, created_at) VALUES ($1, $2, $3, $4)";
        let made = sqlx::query(sql).bind(app.to_string()).bind(target.to_string()).bind(name).bind(now);
        made.execute(&mut *tx).await.map_err(StoreError::taken("The link or its name"))?;
        // The lowest that is free: of two that take one at once, the second fails and may try again.
        let sql = "INSERT INTO link_ports (app_id, port) SELECT $1, CASE \
                   WHEN NOT EXISTS (SELECT 1 FROM link_ports WHERE port = $2) THEN $2 \
                   ELSE (SELECT MIN(p.port) + 1 FROM link_ports p \
                         WHERE NOT EXISTS (SELECT 1 FROM link_ports q WHERE q.port = p.port + 1)) END \
                   WHERE NOT EXISTS (SELECT 1 FROM link_ports WHERE app_id = $1)";
        let made = sqlx::query(sql).bind(target.to_string()).bind(FIRST_PORT);
        made.execute(&mut *tx).await.map_err(StoreError::taken("The link's port"))?;
        let port: i64 = sqlx::query_scalar("SELECT port FROM link_ports WHERE app_id = $1")
            .bind(target.to_string())
            .fetch_one(&mut *tx)
            .await?;
        if port > LAST_PORT {
            return Err(StoreError::Taken("Every port of links"));
        }
        tx.record(changed(app, target, name, Action::Create));
        tx.commit().await
    }

    /// Ends a link. One that does not exist is no error.
    pub async fn delete_link(&self, link: &AppLink, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let sql = "DELETE FROM app_links WHERE app_id = $1 AND target_id = $2";
        let gone = sqlx::query(sql).bind(link.app.to_string()).bind(link.target.to_string()).execute(&mut *tx).await?;
        if gone.rows_affected() > 0 {
            tx.record(changed(link.app, link.target, &link.name, Action::Destroy));
        }
        tx.commit().await
    }

    /// All links of an app, or of all apps.
    pub async fn links(&self, app: Option<AppId>) -> Result<Vec<AppLink>, StoreError> {
        let sql = match app {
            Some(_) => format!("{LINKS} WHERE l.app_id = $1 ORDER BY l.name"),
            None => LINKS.to_owned(),
        };
        let query = sqlx::query_as(&sql);
        let query = if let Some(app) = app { query.bind(app.to_string()) } else { query };
        Ok(query.fetch_all(&self.pool).await?)
    }

    /// The ports by which apps are asked for.
    pub async fn link_ports(&self) -> Result<BTreeMap<AppId, u16>, StoreError> {
        let rows = sqlx::query("SELECT app_id, port FROM link_ports").fetch_all(&self.pool).await?;
        Ok(rows.iter().map(|row| Ok((row::text(row, "app_id")?, port(row)?))).collect::<Result<_, sqlx::Error>>()?)
    }
}

fn changed(app: AppId, target: AppId, name: &str, action: Action) -> NewEvent {
    let data = json!({ "link": { "target": target, "name": name, "action": action.to_string() } });
    NewEvent { app: Some(app), resource: Resource::App, id: app.to_string(), action: Action::Update, data }
}
