//! Volumes of apps, those that are kept for an app to come, and their snapshots.
//!
//! A disk of the engine is noted as doomed before it is made, and no more once something is its owner: whoever dies in between leaves
//! nothing that nobody knows.

use std::collections::BTreeSet;
use std::time::Duration;

use model::{AppId, DiskId, MountPath, ProcessType, TeamId, Timestamp, UserId, VolumeId, VolumeName};
use serde_json::{Value, json};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, FromRow, Row};

use super::contents::{MountedVolume, Volumes};
use super::events::Write;
use super::formation::formation_in;
use super::words::words;
use super::{Action, App, NewEvent, Resource, Stamp, Store, StoreError, row};

/// Nobody takes longer to make a disk, or to copy one.
const MAKING: Duration = Duration::from_secs(12 * 60 * 60);

/// What an app keeps on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its id.
    pub id: VolumeId,
    /// Whose it is; none if it is kept for an app to come.
    pub app: Option<AppId>,
    /// Of a kept one: the team that it is kept for, unless that is a user.
    pub team: Option<TeamId>,
    /// Of a kept one: what its app was called.
    pub app_name: Option<String>,
    /// What it is called in its app.
    pub name: VolumeName,
    /// Whose dynos mount it.
    pub process_type: ProcessType,
    /// Where.
    pub path: MountPath,
    /// How much it holds.
    pub size_bytes: u64,
    /// What the engine calls it.
    pub disk: DiskId,
    /// How often it had to be mounted anew.
    pub mounts: u64,
    /// How many snapshots of it there are.
    pub snapshots: u64,
    /// Since when.
    pub created_at: Timestamp,
    /// Last change of the volume itself.
    pub updated_at: Timestamp,
}

/// A volume to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewVolume {
    /// Its id.
    pub id: VolumeId,
    /// What it is called.
    pub name: VolumeName,
    /// Whose dynos mount it.
    pub process_type: ProcessType,
    /// Where.
    pub path: MountPath,
    /// How much it holds.
    pub size_bytes: u64,
    /// What the engine has for it, noted by [`Store::begin_disk`].
    pub disk: DiskId,
}

/// What was in a volume at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// What the engine calls it.
    pub disk: DiskId,
    /// 1, 2, 3 … of its volume.
    pub number: u64,
    /// Why there is one; none if somebody asked for it.
    pub reason: Option<String>,
    /// Who made it, by their address at that time.
    pub user: String,
    /// What it took of the disk when it was made.
    pub bytes: u64,
    /// When.
    pub created_at: Timestamp,
}

words! {
    /// What becomes of data when what had it goes.
    DataChoice, "What becomes of data is keep or delete":
    /// It is kept for another app of the same owner.
    Keep "keep";
    /// It is gone for good, with its snapshots.
    Delete "delete";
}

/// A change of the volumes of an app.
#[derive(Debug)]
pub enum VolumeChange<'a> {
    /// Adds a new one.
    Add(&'a NewVolume),
    /// Gives it one that was kept; where and under which name the new one says, whose disk and size count for nothing.
    Adopt(&'a Volume, &'a NewVolume),
    /// Takes one away.
    Remove(&'a Volume, DataChoice),
    /// Mounts one anew: something about its disk needs that its dyno stops.
    Remount(&'a Volume),
    /// Puts a disk in the place of one's own, which becomes a snapshot.
    Replace {
        /// Whose.
        volume: &'a Volume,
        /// What it has from now on, noted by [`Store::begin_disk`].
        disk: DiskId,
        /// Of that snapshot: what it takes, why there is one, and who made it.
        before: (u64, &'a str, &'a str),
    },
}

impl Snapshot {
    /// `s3`
    pub fn name(&self) -> String {
        format!("s{}", self.number)
    }
}

impl<'r> FromRow<'r, AnyRow> for Volume {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row::text(row, "id")?,
            app: row::optional_text(row, "app_id")?,
            team: row::optional_text(row, "team_id")?,
            app_name: row.try_get("app_name")?,
            name: row::text(row, "name")?,
            process_type: row::text(row, "process_type")?,
            path: row::text(row, "path")?,
            size_bytes: row::number(row, "size_bytes")?,
            disk: row::text(row, "disk_id")?,
            mounts: row::number(row, "mounts")?,
            snapshots: row::number(row, "snapshots")?,
            created_at: row::time(row, "created_at")?,
            updated_at: row::time(row, "updated_at")?,
        })
    }
}

impl<'r> FromRow<'r, AnyRow> for Snapshot {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            disk: row::text(row, "id")?,
            number: row::number(row, "number")?,
            reason: row.try_get("reason")?,
            user: row.try_get("user_email")?,
            bytes: row::number(row, "bytes")?,
            created_at: row::time(row, "created_at")?,
        })
    }
}

const SELECT: &str = "SELECT v.id, v.app_id, v.team_id, v.app_name, v.name, v.process_type, v.path, v.size_bytes, v.disk_id, v.mounts, \
     (SELECT COUNT(*) FROM volume_snapshots s WHERE s.volume_id = v.id) AS snapshots, v.created_at, v.updated_at FROM volumes v";

impl Store {
    /// The volumes of an app, by name.
    pub async fn volumes(&self, app: AppId) -> Result<Vec<Volume>, StoreError> {
        let sql = format!("{SELECT} WHERE v.app_id = $1 ORDER BY v.name");
        Ok(sqlx::query_as(&sql).bind(app.to_string()).fetch_all(&self.pool).await?)
    }

    /// The volumes that are kept for a user, and for teams of which they are an admin.
    pub async fn kept_volumes(&self, user: UserId) -> Result<Vec<Volume>, StoreError> {
        let sql = format!(
            "{SELECT} WHERE v.app_id IS NULL AND (v.user_id = $1 OR v.team_id IN \
             (SELECT m.team_id FROM team_members m WHERE m.user_id = $1 AND m.role = 'admin')) \
             ORDER BY v.app_name, v.name, v.id"
        );
        Ok(sqlx::query_as(&sql).bind(user.to_string()).fetch_all(&self.pool).await?)
    }

    /// How much volumes may hold all together, and their snapshots have.
    pub async fn volume_bytes(&self) -> Result<u64, StoreError> {
        let sql = "SELECT CAST(COALESCE((SELECT SUM(size_bytes) FROM volumes), 0) \
                   + COALESCE((SELECT SUM(bytes) FROM volume_snapshots), 0) AS BIGINT) AS bytes";
        Ok(row::number(&sqlx::query(sql).fetch_one(&self.pool).await?, "bytes")?)
    }

    /// Lets a volume hold more.
    pub async fn grow_volume(&self, volume: &Volume, bytes: u64, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let sql = "UPDATE volumes SET size_bytes = $1, updated_at = $2 WHERE id = $3 AND size_bytes < $1";
        let bytes_now = i64::try_from(bytes).unwrap_or(i64::MAX);
        let query = sqlx::query(sql).bind(bytes_now).bind(tx.now()).bind(volume.id.to_string());
        if query.execute(&mut *tx).await?.rows_affected() > 0 {
            let data = json!({ "size_bytes": bytes, "previous_size_bytes": volume.size_bytes });
            tx.record(changed(volume, volume.app, Action::Update, data));
        }
        tx.commit().await
    }

    /// Removes a volume that is kept, with its snapshots.
    pub async fn delete_kept_volume(&self, volume: &Volume, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let sql = "UPDATE volumes SET updated_at = updated_at WHERE id = $1 AND app_id IS NULL";
        if sqlx::query(sql).bind(volume.id.to_string()).execute(&mut *tx).await?.rows_affected() == 0 {
            return Err(StoreError::Missing("Volume"));
        }
        destroy(&mut tx, volume.id).await?;
        tx.record(changed(volume, None, Action::Destroy, json!({})));
        tx.commit().await
    }

    /// Notes a disk that is about to be made. It must become a volume's or a snapshot's within hours.
    pub async fn begin_disk(&self, disk: DiskId, now: Timestamp) -> Result<(), StoreError> {
        self.doom_disk(disk, now.after(MAKING)).await
    }

    /// Notes that nobody needs a disk.
    pub async fn doom_disk(&self, disk: DiskId, due: Timestamp) -> Result<(), StoreError> {
        let sql = "INSERT INTO doomed_disks (id, due_at) VALUES ($1, $2) \
                   ON CONFLICT (id) DO UPDATE SET due_at = excluded.due_at";
        sqlx::query(sql).bind(disk.to_string()).bind(due.as_millis()).execute(&self.pool).await?;
        Ok(())
    }

    /// The disks that nobody needs and that no release mounts that runs or is to run, and whether there are some that one still does.
    pub async fn useless_disks(&self, now: Timestamp) -> Result<(Vec<DiskId>, bool), StoreError> {
        let sql = "SELECT id FROM doomed_disks WHERE due_at <= $1";
        let rows = sqlx::query(sql).bind(now.as_millis()).fetch_all(&self.pool).await?;
        if rows.is_empty() {
            return Ok((Vec::new(), false));
        }
        let sql = "SELECT r.volumes FROM apps a JOIN releases r ON r.id = a.current_release_id WHERE r.volumes <> '{}' \
                   UNION ALL SELECT volumes FROM releases WHERE status = 'pending' AND volumes <> '{}'";
        let mut mounted = BTreeSet::new();
        for release in sqlx::query(sql).fetch_all(&self.pool).await? {
            let volumes: Volumes = row::json(&release, "volumes")?;
            mounted.extend(volumes.values().map(|volume| volume.disk));
        }
        let disks: Result<Vec<DiskId>, _> = rows.iter().map(|row| row::text(row, "id")).collect();
        let (held, useless): (Vec<_>, Vec<_>) = disks?.into_iter().partition(|disk| mounted.contains(disk));
        Ok((useless, !held.is_empty()))
    }

    /// Forgets a disk that is gone.
    pub async fn forget_disk(&self, disk: DiskId) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM doomed_disks WHERE id = $1").bind(disk.to_string()).execute(&self.pool).await?;
        Ok(())
    }

    /// The snapshots of a volume, the oldest first.
    pub async fn snapshots(&self, volume: VolumeId) -> Result<Vec<Snapshot>, StoreError> {
        let sql = "SELECT id, number, reason, user_email, bytes, created_at FROM volume_snapshots WHERE volume_id = $1 \
                   ORDER BY number";
        Ok(sqlx::query_as(sql).bind(volume.to_string()).fetch_all(&self.pool).await?)
    }

    /// Makes a disk that was begun a snapshot, with a number of its own.
    pub async fn insert_snapshot(
        &self,
        volume: &Volume,
        (disk, bytes): (DiskId, u64),
        user: &str,
        stamp: &Stamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        own_disk(&mut tx, disk).await?;
        let number = insert_snapshot(&mut tx, volume.id, (disk, bytes), (None, user)).await?;
        tx.record(changed(volume, volume.app, Action::Update, json!({ "snapshot_made": number })));
        tx.commit().await
    }

    /// Removes a snapshot. One that does not exist is no error.
    pub async fn delete_snapshot(&self, volume: &Volume, snapshot: &Snapshot, stamp: &Stamp) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        let sql = "DELETE FROM volume_snapshots WHERE id = $1";
        if sqlx::query(sql).bind(snapshot.disk.to_string()).execute(&mut *tx).await?.rows_affected() > 0 {
            let sql = "INSERT INTO doomed_disks (id, due_at) VALUES ($1, $2)";
            let now = tx.now();
            sqlx::query(sql).bind(snapshot.disk.to_string()).bind(now).execute(&mut *tx).await?;
            tx.record(changed(volume, volume.app, Action::Update, json!({ "snapshot_removed": snapshot.number })));
        }
        tx.commit().await
    }
}

/// Does what a choice says to all volumes of an app that goes. Without one there must be none.
pub(super) async fn let_go(tx: &mut Write<'_>, app: &App, choice: Option<DataChoice>) -> Result<(), StoreError> {
    let sql = format!("{SELECT} WHERE v.app_id = $1");
    let volumes: Vec<Volume> = sqlx::query_as(&sql).bind(app.id.to_string()).fetch_all(&mut **tx).await?;
    for volume in &volumes {
        let choice = choice.ok_or(StoreError::Stale)?;
        change_volume(tx, app.id, &VolumeChange::Remove(volume, choice)).await?;
    }
    Ok(())
}

/// Changes the volumes of an app that the caller has locked.
pub(super) async fn change_volume(tx: &mut Write<'_>, app: AppId, change: &VolumeChange<'_>) -> Result<(), StoreError> {
    match change {
        VolumeChange::Add(new) => {
            check_place(tx, app, new).await?;
            own_disk(tx, new.disk).await?;
            add(tx, app, new).await
        }
        VolumeChange::Adopt(volume, new) => {
            check_place(tx, app, new).await?;
            let now = tx.now();
            let sql = "UPDATE volumes SET app_id = $1, user_id = NULL, team_id = NULL, app_name = NULL, name = $2, \
                       process_type = $3, path = $4, updated_at = $5 WHERE id = $6 AND app_id IS NULL";
            let adopted = sqlx::query(sql)
                .bind(app.to_string())
                .bind(new.name.as_str())
                .bind(new.process_type.as_str())
                .bind(new.path.as_str())
                .bind(now)
                .bind(volume.id.to_string())
                .execute(&mut **tx)
                .await
                .map_err(StoreError::taken("The volume's name"))?;
            if adopted.rows_affected() == 0 {
                return Err(StoreError::Missing("Volume"));
            }
            tx.record(changed(volume, Some(app), Action::Update, json!({ "adopted_from": volume.app_name })));
            Ok(())
        }
        VolumeChange::Remount(volume) => {
            let sql = "UPDATE volumes SET mounts = mounts + 1 WHERE id = $1 AND app_id = $2";
            let query = sqlx::query(sql).bind(volume.id.to_string()).bind(app.to_string());
            let found = query.execute(&mut **tx).await?.rows_affected() > 0;
            if found { Ok(()) } else { Err(StoreError::Missing("Volume")) }
        }
        VolumeChange::Remove(volume, choice) => remove(tx, app, volume, *choice).await,
        VolumeChange::Replace { volume, disk, before: (bytes, reason, user) } => {
            own_disk(tx, *disk).await?;
            let now = tx.now();
            let sql = "UPDATE volumes SET disk_id = $1, updated_at = $2 WHERE id = $3 AND app_id = $4 AND disk_id = $5";
            let replaced = sqlx::query(sql)
                .bind(disk.to_string())
                .bind(now)
                .bind(volume.id.to_string())
                .bind(app.to_string())
                .bind(volume.disk.to_string());
            if replaced.execute(&mut **tx).await?.rows_affected() == 0 {
                return Err(StoreError::Stale);
            }
            let number = insert_snapshot(tx, volume.id, (volume.disk, *bytes), (Some(reason), user)).await?;
            tx.record(changed(
                volume,
                Some(app),
                Action::Update,
                json!({ "restored": reason, "snapshot_made": number }),
            ));
            Ok(())
        }
    }
}

async fn add(tx: &mut Write<'_>, app: AppId, new: &NewVolume) -> Result<(), StoreError> {
    let now = tx.now();
    let sql = "INSERT INTO volumes (id, app_id, name, process_type, path, size_bytes, disk_id, mounts, last_snapshot, \
               created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, 0, 0, $8, $8)";
    let made = sqlx::query(sql)
        .bind(new.id.to_string())
        .bind(app.to_string())
        .bind(new.name.as_str())
        .bind(new.process_type.as_str())
        .bind(new.path.as_str())
        .bind(i64::try_from(new.size_bytes).unwrap_or(i64::MAX))
        .bind(new.disk.to_string())
        .bind(now);
    made.execute(&mut **tx).await.map_err(StoreError::taken("The volume's name"))?;
    let data = json!({ "name": new.name, "type": new.process_type, "path": new.path, "size_bytes": new.size_bytes });
    let (resource, id) = (Resource::Volume, new.id.to_string());
    tx.record(NewEvent { app: Some(app), resource, id, action: Action::Create, data });
    Ok(())
}

async fn remove(tx: &mut Write<'_>, app: AppId, volume: &Volume, choice: DataChoice) -> Result<(), StoreError> {
    let sql = match choice {
        DataChoice::Delete => "UPDATE volumes SET updated_at = updated_at WHERE id = $1 AND app_id = $2",
        DataChoice::Keep => {
            "UPDATE volumes SET app_id = NULL, app_name = (SELECT a.name FROM apps a WHERE a.id = $2), \
             team_id = (SELECT a.team_id FROM apps a WHERE a.id = $2), user_id = (SELECT c.user_id FROM collaborators c \
             JOIN apps a ON a.id = c.app_id WHERE c.app_id = $2 AND c.role = 'owner' AND a.team_id IS NULL), \
             updated_at = $3 WHERE id = $1 AND app_id = $2"
        }
    };
    let query = sqlx::query(sql).bind(volume.id.to_string()).bind(app.to_string());
    let now = tx.now();
    let query = if choice == DataChoice::Keep { query.bind(now) } else { query };
    if query.execute(&mut **tx).await?.rows_affected() == 0 {
        return Err(StoreError::Missing("Volume"));
    }
    if choice == DataChoice::Delete {
        destroy(tx, volume.id).await?;
    }
    let (action, data) = match choice {
        DataChoice::Delete => (Action::Destroy, json!({})),
        DataChoice::Keep => (Action::Update, json!({ "kept": true })),
    };
    tx.record(changed(volume, Some(app), action, data));
    Ok(())
}

/// Forgets a volume with its snapshots, and notes that nobody needs their disks.
async fn destroy(tx: &mut Write<'_>, volume: VolumeId) -> Result<(), StoreError> {
    let now = tx.now();
    for sql in [
        "INSERT INTO doomed_disks (id, due_at) SELECT disk_id, $2 FROM volumes WHERE id = $1",
        "INSERT INTO doomed_disks (id, due_at) SELECT id, $2 FROM volume_snapshots WHERE volume_id = $1",
    ] {
        sqlx::query(sql).bind(volume.to_string()).bind(now).execute(&mut **tx).await?;
    }
    sqlx::query("DELETE FROM volumes WHERE id = $1").bind(volume.to_string()).execute(&mut **tx).await?;
    Ok(())
}

/// A disk that was begun is somebody's from now on. Refused if that took so long that it may be gone.
async fn own_disk(tx: &mut AnyConnection, disk: DiskId) -> Result<(), StoreError> {
    let gone = sqlx::query("DELETE FROM doomed_disks WHERE id = $1").bind(disk.to_string()).execute(tx).await?;
    if gone.rows_affected() == 0 { Err(StoreError::Stale) } else { Ok(()) }
}

async fn insert_snapshot(
    tx: &mut Write<'_>,
    volume: VolumeId,
    (disk, bytes): (DiskId, u64),
    (reason, user): (Option<&str>, &str),
) -> Result<i64, StoreError> {
    let sql = "UPDATE volumes SET last_snapshot = last_snapshot + 1 WHERE id = $1 RETURNING last_snapshot";
    let number: Option<i64> = sqlx::query_scalar(sql).bind(volume.to_string()).fetch_optional(&mut **tx).await?;
    let (number, now) = (number.ok_or(StoreError::Missing("Volume"))?, tx.now());
    let sql = "INSERT INTO volume_snapshots (id, volume_id, number, reason, user_email, bytes, created_at) \
               VALUES ($1, $2, $3, $4, $5, $6, $7)";
    sqlx::query(sql)
        .bind(disk.to_string())
        .bind(volume.to_string())
        .bind(number)
        .bind(reason)
        .bind(user)
        .bind(i64::try_from(bytes).unwrap_or(i64::MAX))
        .bind(now)
        .execute(&mut **tx)
        .await?;
    Ok(number)
}

/// Refuses a volume where there is one, and for a process type that runs, or is to run, more than one dyno.
async fn check_place(tx: &mut AnyConnection, app: AppId, new: &NewVolume) -> Result<(), StoreError> {
    for (name, volume) in mounted_volumes(tx, app).await? {
        if volume.process_type == new.process_type && volume.path.overlaps(&new.path) {
            return Err(StoreError::Overlap(name));
        }
    }
    let (formation, _) = formation_in(tx, app).await?;
    match formation.get(&new.process_type).map(|scale| scale.quantity) {
        Some(quantity @ 2..) => {
            let (process_type, volume) = (new.process_type.clone(), new.name.clone());
            Err(StoreError::OneDyno { process_type, quantity, volume })
        }
        _ => Ok(()),
    }
}

/// Refuses so many dynos of a process type that has a volume.
pub(super) async fn one_dyno(
    tx: &mut AnyConnection,
    app: AppId,
    (process_type, quantity): (&ProcessType, u32),
) -> Result<(), StoreError> {
    let all = mounted_volumes(tx, app).await?;
    match all.into_iter().find(|(_, volume)| volume.process_type == *process_type) {
        Some((volume, _)) => Err(StoreError::OneDyno { process_type: process_type.clone(), quantity, volume }),
        None => Ok(()),
    }
}

/// The volumes of an app as its next release is to know them.
pub(super) async fn mounted_volumes(tx: &mut AnyConnection, app: AppId) -> Result<Volumes, StoreError> {
    let sql = format!("{SELECT} WHERE v.app_id = $1");
    let all: Vec<Volume> = sqlx::query_as(&sql).bind(app.to_string()).fetch_all(tx).await?;
    let mounted = |volume: Volume| {
        let Volume { id, name, process_type, path, disk, mounts, .. } = volume;
        (name, MountedVolume { volume: id, disk, mounts, process_type, path })
    };
    Ok(all.into_iter().map(mounted).collect())
}

fn changed(volume: &Volume, app: Option<AppId>, action: Action, more: Value) -> NewEvent {
    let mut data = json!({ "name": volume.name });
    if let (Some(data), Value::Object(more)) = (data.as_object_mut(), more) {
        data.extend(more);
    }
    NewEvent { app, resource: Resource::Volume, id: volume.id.to_string(), action, data }
}
