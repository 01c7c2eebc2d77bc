use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use model::{AddonId, AddonName, AppId, AppName, AttachmentId, AttachmentName, Digest, NameError, Timestamp, UserId};
use serde_json::{Value, json};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, FromRow, Row};

use super::collaborators::APPS_OF;
use super::contents::AttachedAddon;
use super::{Action, NewEvent, Resource, Stamp, Store, StoreError, row};

/// A backing service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addon {
    /// Its id, for ever.
    pub id: AddonId,
    /// Unique on this platform.
    pub name: AddonName,
    /// The app that it was made for, and that it ends with.
    pub app: AppId,
    /// That app's name; none once the app is gone.
    pub app_name: Option<AppName>,
    /// Slug of its kind.
    pub kind: String,
    /// Name of its plan, without the kind.
    pub plan: String,
    /// Uid and gid of its server; no app or other add-on ever had it.
    pub uid: u32,
    /// How far it is.
    pub state: AddonState,
    /// Why it never came up, for people.
    pub failure: Option<String>,
    /// The server's root file system, once it is made.
    pub layer: Option<Digest>,
    /// Number of its workload.
    pub generation: u64,
    /// The server's host, once it has one.
    pub address: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Last change.
    pub updated_at: Timestamp,
}

/// How far an add-on is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddonState {
    /// Its server is being made.
    Provisioning,
    /// It can be used.
    Provisioned,
    /// It never came up, and will not.
    Failed,
    /// On its way out, with its data.
    Removing,
}

/// An add-on to make, with the first attachment to its app.
#[derive(Debug)]
pub struct NewAddon<'a> {
    /// Its id.
    pub id: AddonId,
    /// Its name.
    pub name: &'a AddonName,
    /// The app that it is for.
    pub app: AppId,
    /// Slug of its kind.
    pub kind: &'a str,
    /// Name of its plan.
    pub plan: &'a str,
    /// What a client needs beside the address.
    pub credentials: &'a BTreeMap<String, String>,
    /// The name under which its app uses it.
    pub attachment: &'a AttachmentName,
}

/// The use of an add-on by an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Its id.
    pub id: AttachmentId,
    /// Begins the names of its config vars.
    pub name: AttachmentName,
    /// Which add-on.
    pub addon: AddonId,
    /// That add-on's name.
    pub addon_name: AddonName,
    /// The app that the add-on was made for.
    pub addon_app: AppId,
    /// That app's name.
    pub addon_app_name: Option<AppName>,
    /// The app that uses it.
    pub app: AppId,
    /// That app's name.
    pub app_name: AppName,
    /// Since when.
    pub created_at: Timestamp,
}

impl FromStr for AddonState {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text {
            "provisioning" => Ok(Self::Provisioning),
            "provisioned" => Ok(Self::Provisioned),
            "deprovisioned" => Ok(Self::Failed),
            "deprovisioning" => Ok(Self::Removing),
            _ => Err(NameError("An add-on is provisioning, provisioned, deprovisioned or deprovisioning".to_owned())),
        }
    }
}

impl fmt::Display for AddonState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Provisioning => "provisioning",
            Self::Provisioned => "provisioned",
            Self::Failed => "deprovisioned",
            Self::Removing => "deprovisioning",
        })
    }
}

impl<'r> FromRow<'r, AnyRow> for Addon {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row::text(row, "id")?,
            name: row::text(row, "name")?,
            app: row::text(row, "app_id")?,
            app_name: row::optional_text(row, "app_name")?,
            kind: row.try_get("kind")?,
            plan: row.try_get("plan")?,
            uid: row::number(row, "uid")?,
            state: row::text(row, "state")?,
            failure: row.try_get("failure")?,
            layer: row::optional_text(row, "layer")?,
            generation: row::number(row, "generation")?,
            address: row.try_get("address")?,
            created_at: row::time(row, "created_at")?,
            updated_at: row::time(row, "updated_at")?,
        })
    }
}

impl<'r> FromRow<'r, AnyRow> for Attachment {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row::text(row, "id")?,
            name: row::text(row, "name")?,
            addon: row::text(row, "addon_id")?,
            addon_name: row::text(row, "addon_name")?,
            addon_app: row::text(row, "addon_app_id")?,
            addon_app_name: row::optional_text(row, "addon_app_name")?,
            app: row::text(row, "app_id")?,
            app_name: row::text(row, "app_name")?,
            created_at: row::time(row, "created_at")?,
        })
    }
}

const SELECT: &str = "SELECT d.id, d.name, d.app_id, a.name AS app_name, d.kind, d.plan, d.uid, d.state, d.failure, \
     d.layer, d.generation, d.address, d.created_at, d.updated_at FROM addons d LEFT JOIN apps a ON a.id = d.app_id";

const SELECT_ATTACHMENT: &str = "SELECT t.id, t.name, t.addon_id, d.name AS addon_name, d.app_id AS addon_app_id, \
     o.name AS addon_app_name, t.app_id, a.name AS app_name, t.created_at FROM addon_attachments t \
     JOIN addons d ON d.id = t.addon_id JOIN apps a ON a.id = t.app_id LEFT JOIN apps o ON o.id = d.app_id";

impl Store {
    /// Makes an add-on with its uid and its first attachment.
    pub async fn insert_addon(&self, new: NewAddon<'_>, stamp: &Stamp) -> Result<Addon, StoreError> {
        let mut tx = self.begin(stamp).await?;
        let uid: i64 =
            sqlx::query_scalar("UPDATE counters SET value = value + 1 WHERE name = 'app_uid' RETURNING value")
                .fetch_one(&mut *tx)
                .await?;
        sqlx::query(
            "INSERT INTO addons (id, name, app_id, kind, plan, uid, state, credentials, generation, created_at, \
             updated_at) VALUES ($1, $2, $3, $4, $5, $6, 'provisioning', $7, 1, $8, $8)",
        )
        .bind(new.id.to_string())
        .bind(new.name.as_str())
        .bind(new.app.to_string())
        .bind(new.kind)
        .bind(new.plan)
        .bind(uid)
        .bind(self.secrets.seal(&credentials_row(new.id), &serde_json::to_vec(new.credentials)?)?)
        .bind(tx.now())
        .execute(&mut *tx)
        .await
        .map_err(StoreError::taken("Name"))?;
        let attachment = self.insert_attachment_row(&mut tx, (new.id, new.app, new.attachment), stamp.now).await?;
        let data = json!({ "name": new.name, "plan": format!("{}:{}", new.kind, new.plan), "state": "provisioning" });
        tx.record(changed(new.app, new.id, Action::Create, data));
        tx.record(attached((new.app, attachment), Action::Create, (new.attachment, new.name)));
        tx.commit().await?;
        self.addon(new.id).await?.ok_or(StoreError::Missing("Add-on"))
    }

    /// The add-on with this id.
    pub async fn addon(&self, id: AddonId) -> Result<Option<Addon>, StoreError> {
        let sql = format!("{SELECT} WHERE d.id = $1");
        Ok(sqlx::query_as(&sql).bind(id.to_string()).fetch_optional(&self.pool).await?)
    }

    /// Every add-on, those on their way out included, by name.
    pub async fn addons(&self) -> Result<Vec<Addon>, StoreError> {
        Ok(sqlx::query_as(&format!("{SELECT} ORDER BY d.name")).fetch_all(&self.pool).await?)
    }

    /// The add-ons of the apps that a user may work on, by name, without those on their way out.
    pub async fn addons_of(&self, user: UserId) -> Result<Vec<Addon>, StoreError> {
        let sql = format!(
            "{SELECT} WHERE d.state <> 'deprovisioning' \
             AND d.app_id IN ({APPS_OF}) ORDER BY d.name"
        );
        Ok(sqlx::query_as(&sql).bind(user.to_string()).fetch_all(&self.pool).await?)
    }

    /// The add-ons that were made for an app, by name, without those on their way out.
    pub async fn addons_of_app(&self, app: AppId) -> Result<Vec<Addon>, StoreError> {
        let sql = format!("{SELECT} WHERE d.app_id = $1 AND d.state <> 'deprovisioning' ORDER BY d.name");
        Ok(sqlx::query_as(&sql).bind(app.to_string()).fetch_all(&self.pool).await?)
    }

    /// The add-on with this name or id, if it is one of an app that a user may work on, and not on its way out.
    pub async fn find_addon(&self, user: UserId, reference: &str) -> Result<Option<Addon>, StoreError> {
        let sql = format!(
            "{SELECT} WHERE (d.name = $2 OR d.id = $2) AND d.state <> 'deprovisioning' AND d.app_id IN ({APPS_OF}) \
             ORDER BY d.name LIMIT 1"
        );
        Ok(sqlx::query_as(&sql).bind(user.to_string()).bind(reference).fetch_optional(&self.pool).await?)
    }

    /// What a client of an add-on needs beside the address.
    pub async fn addon_credentials(&self, id: AddonId) -> Result<BTreeMap<String, String>, StoreError> {
        let sealed: Option<String> = sqlx::query_scalar("SELECT credentials FROM addons WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&self.pool)
            .await?;
        let sealed = sealed.ok_or(StoreError::Missing("Add-on"))?;
        Ok(serde_json::from_slice(&self.secrets.unseal(&credentials_row(id), &sealed)?)?)
    }

    /// Notes what an add-on's server runs on.
    pub async fn set_addon_layer(&self, id: AddonId, layer: &Digest, now: Timestamp) -> Result<(), StoreError> {
        sqlx::query("UPDATE addons SET layer = $1, updated_at = $2 WHERE id = $3")
            .bind(layer.as_str())
            .bind(now.as_millis())
            .bind(id.to_string())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Notes where an add-on's server answers; with that it can be used.
    pub async fn provision_addon(&self, addon: &Addon, address: &str, stamp: &Stamp) -> Result<(), StoreError> {
        let change = "address = $1, state = CASE WHEN state = 'provisioning' THEN 'provisioned' ELSE state END";
        self.change_addon(addon, (change, address), (AddonState::Provisioned, stamp)).await
    }

    /// Gives up on an add-on that does not come up.
    pub async fn fail_addon(&self, addon: &Addon, reason: &str, stamp: &Stamp) -> Result<(), StoreError> {
        let change = "failure = $1, state = CASE WHEN state = 'provisioning' THEN 'deprovisioned' ELSE state END";
        self.change_addon(addon, (change, reason), (AddonState::Failed, stamp)).await
    }

    /// Gives an add-on another plan, and with it another workload.
    pub async fn set_addon_plan(&self, addon: &Addon, plan: &str, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let sql = "UPDATE addons SET plan = $1, generation = generation + 1, updated_at = $2 WHERE id = $3";
        sqlx::query(sql).bind(plan).bind(tx.now()).bind(addon.id.to_string()).execute(&mut *tx).await?;
        let data = json!({ "name": addon.name, "plan": plan, "previous_plan": addon.plan });
        let (app, id, action) = (Some(addon.app), addon.id.to_string(), Action::Update);
        tx.record(NewEvent { app, resource: Resource::Addon, id, action, data });
        tx.commit().await
    }

    /// Gives an add-on another workload.
    pub async fn renew_addon(&self, id: AddonId, now: Timestamp) -> Result<(), StoreError> {
        sqlx::query("UPDATE addons SET generation = generation + 1, updated_at = $1 WHERE id = $2")
            .bind(now.as_millis())
            .bind(id.to_string())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Everybody whose workloads an engine may run: all apps and all add-ons.
    pub async fn owners(&self) -> Result<BTreeSet<AppId>, StoreError> {
        let ids: Vec<String> =
            sqlx::query_scalar("SELECT id FROM apps UNION SELECT id FROM addons").fetch_all(&self.pool).await?;
        let parse = |id: &String| id.parse().map_err(|_| StoreError::Missing("App"));
        ids.iter().map(parse).collect()
    }

    /// Whether an app or an add-on has this id.
    pub async fn is_owner(&self, id: AppId) -> Result<bool, StoreError> {
        let found: Option<String> =
            sqlx::query_scalar("SELECT id FROM apps WHERE id = $1 UNION SELECT id FROM addons WHERE id = $1")
                .bind(id.to_string())
                .fetch_optional(&self.pool)
                .await?;
        Ok(found.is_some())
    }

    /// Sends an add-on on its way out and ends all use of it.
    pub async fn remove_addon(&self, addon: &Addon, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let id = addon.id.to_string();
        let sent = sqlx::query(
            "UPDATE addons SET state = 'deprovisioning', updated_at = $1 WHERE id = $2 AND state <> 'deprovisioning'",
        )
        .bind(tx.now())
        .bind(&id)
        .execute(&mut *tx)
        .await?;
        sqlx::query("DELETE FROM addon_attachments WHERE addon_id = $1").bind(&id).execute(&mut *tx).await?;
        if sent.rows_affected() > 0 {
            tx.record(changed(addon.app, addon.id, Action::Destroy, json!({ "name": addon.name })));
        }
        tx.commit().await
    }

    /// Forgets an add-on. What it had on disk must be gone before.
    pub async fn delete_addon(&self, id: AddonId) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM addons WHERE id = $1").bind(id.to_string()).execute(&self.pool).await?;
        Ok(())
    }

    /// Attaches an add-on to an app.
    pub async fn insert_attachment(
        &self,
        addon: &Addon,
        app: AppId,
        name: &AttachmentName,
        stamp: &Stamp,
    ) -> Result<Attachment, StoreError> {
        let mut tx = self.begin(stamp).await?;
        let id = self.insert_attachment_row(&mut tx, (addon.id, app, name), stamp.now).await?;
        tx.record(attached((app, id), Action::Create, (name, &addon.name)));
        tx.commit().await?;
        self.attachment(id).await?.ok_or(StoreError::Missing("Attachment"))
    }

    /// Ends the use of an add-on by an app.
    pub async fn delete_attachment(&self, attachment: &Attachment, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let sql = "DELETE FROM addon_attachments WHERE id = $1";
        let gone = sqlx::query(sql).bind(attachment.id.to_string()).execute(&mut *tx).await?;
        if gone.rows_affected() > 0 {
            let names = (&attachment.name, &attachment.addon_name);
            tx.record(attached((attachment.app, attachment.id), Action::Destroy, names));
        }
        tx.commit().await
    }

    /// The attachment with this id.
    pub async fn attachment(&self, id: AttachmentId) -> Result<Option<Attachment>, StoreError> {
        let sql = format!("{SELECT_ATTACHMENT} WHERE t.id = $1");
        Ok(sqlx::query_as(&sql).bind(id.to_string()).fetch_optional(&self.pool).await?)
    }

    /// Every attachment, by app and name.
    pub async fn attachments(&self) -> Result<Vec<Attachment>, StoreError> {
        let sql = format!("{SELECT_ATTACHMENT} ORDER BY t.app_id, t.name");
        Ok(sqlx::query_as(&sql).fetch_all(&self.pool).await?)
    }

    /// The attachments of an app, by name.
    pub async fn attachments_of_app(&self, app: AppId) -> Result<Vec<Attachment>, StoreError> {
        let sql = format!("{SELECT_ATTACHMENT} WHERE t.app_id = $1 ORDER BY t.name");
        Ok(sqlx::query_as(&sql).bind(app.to_string()).fetch_all(&self.pool).await?)
    }

    /// The attachments of an add-on, by app and name.
    pub async fn attachments_of_addon(&self, addon: AddonId) -> Result<Vec<Attachment>, StoreError> {
        let sql = format!("{SELECT_ATTACHMENT} WHERE t.addon_id = $1 ORDER BY a.name, t.name");
        Ok(sqlx::query_as(&sql).bind(addon.to_string()).fetch_all(&self.pool).await?)
    }

    /// The attachments of the apps that a user may work on, by name.
    pub async fn attachments_of(&self, user: UserId) -> Result<Vec<Attachment>, StoreError> {
        let sql = format!("{SELECT_ATTACHMENT} WHERE t.app_id IN ({APPS_OF}) ORDER BY t.name");
        Ok(sqlx::query_as(&sql).bind(user.to_string()).fetch_all(&self.pool).await?)
    }

    async fn change_addon(
        &self,
        addon: &Addon,
        (change, value): (&str, &str),
        (state, stamp): (AddonState, &Stamp),
    ) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        sqlx::query(&format!("UPDATE addons SET {change}, updated_at = $2 WHERE id = $3"))
            .bind(value)
            .bind(tx.now())
            .bind(addon.id.to_string())
            .execute(&mut *tx)
            .await?;
        if addon.state != state {
            let data = json!({ "name": addon.name, "state": state.to_string() });
            tx.record(changed(addon.app, addon.id, Action::Update, data));
        }
        tx.commit().await
    }

    pub(super) async fn insert_attachment_row(
        &self,
        tx: &mut AnyConnection,
        (addon, app, name): (AddonId, AppId, &AttachmentName),
        now: Timestamp,
    ) -> Result<AttachmentId, StoreError> {
        let id = AttachmentId::random(&*self.random);
        sqlx::query(
            "INSERT INTO addon_attachments (id, addon_id, app_id, name, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $5, $5)",
        )
        .bind(id.to_string())
        .bind(addon.to_string())
        .bind(app.to_string())
        .bind(name.as_str())
        .bind(now.as_millis())
        .execute(&mut *tx)
        .await
        .map_err(StoreError::taken("Attachment name"))?;
        Ok(id)
    }
}

/// What the sealed credentials of an add-on are bound to.
fn credentials_row(addon: AddonId) -> String {
    format!("addons/{addon}/credentials")
}

fn changed(app: AppId, addon: AddonId, action: Action, data: Value) -> NewEvent {
    NewEvent { app: Some(app), resource: Resource::Addon, id: addon.to_string(), action, data }
}

pub(super) fn attached(
    (app, attachment): (AppId, AttachmentId),
    action: Action,
    (name, addon): (&AttachmentName, &AddonName),
) -> NewEvent {
    let data = json!({ "name": name, "addon": addon });
    NewEvent { app: Some(app), resource: Resource::AddonAttachment, id: attachment.to_string(), action, data }
}

/// What an app uses of add-ons, by name, as a transaction sees it.
pub(super) async fn attached_addons(
    tx: &mut AnyConnection,
    app: AppId,
) -> Result<Vec<(AttachmentId, AttachmentName, AttachedAddon)>, StoreError> {
    let rows = sqlx::query(
        "SELECT t.id, t.name, d.id AS addon_id, d.name AS addon_name, d.kind, d.plan FROM addon_attachments t \
         JOIN addons d ON d.id = t.addon_id WHERE t.app_id = $1 ORDER BY t.name",
    )
    .bind(app.to_string())
    .fetch_all(tx)
    .await?;
    let read = |row: &AnyRow| {
        let plan = format!("{}:{}", row.try_get::<String, _>("kind")?, row.try_get::<String, _>("plan")?);
        let addon = AttachedAddon { addon: row::text(row, "addon_id")?, name: row::text(row, "addon_name")?, plan };
        Ok((row::text(row, "id")?, row::text(row, "name")?, addon))
    };
    rows.iter().map(read).collect()
}
