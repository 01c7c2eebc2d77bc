//! Everything that was changed, and the transactions that change something.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use model::{AppId, Email, Timestamp, UserId};
use serde_json::Value;
use sqlx::Error::PoolTimedOut;
use sqlx::any::AnyRow;
use sqlx::{Any, AnyConnection, FromRow, Row, Transaction};
use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout;

use super::collaborators::{APPS_OF, SEEN};
use super::words::words;
use super::{PATIENCE, Part, Slice, Store, StoreError, row};
use crate::actors::By;

/// Who changes something, and when.
#[derive(Debug, Clone)]
pub struct Stamp {
    /// Who; none if the platform does it by itself.
    pub by: Option<By>,
    /// The present moment.
    pub now: Timestamp,
    /// Whoever it is may do it, and wants to, even if the app is locked.
    pub insists: bool,
}

/// Something that was changed. It never changes itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its place among all: from 1, without gaps, in the order in which they were committed.
    pub sequence: u64,
    /// Its id.
    pub id: String,
    /// Of which app, if it belongs to one.
    pub app: Option<AppId>,
    /// That app's name at that time.
    pub app_name: Option<String>,
    /// Who did it; none if the platform did it by itself.
    pub actor: Option<UserId>,
    /// That user's address at that time.
    pub actor_email: Option<Email>,
    /// How that user came in: `token <id>`, `session`, `machine` …
    pub via: Option<String>,
    /// The IP address that the request came from.
    pub address: Option<String>,
    /// The id that the answer had.
    pub request: Option<String>,
    /// What kind of thing was changed.
    pub resource: Resource,
    /// Its id.
    pub resource_id: String,
    /// What was done with it.
    pub action: Action,
    /// What changed: an object, without secrets.
    pub data: Value,
    /// When.
    pub created_at: Timestamp,
}

/// An event to remember.
#[derive(Debug)]
pub struct NewEvent {
    /// Of which app, if it belongs to one.
    pub app: Option<AppId>,
    /// What kind of thing was changed.
    pub resource: Resource,
    /// Its id.
    pub id: String,
    /// What was done with it.
    pub action: Action,
    /// What changed: an object, without secrets.
    pub data: Value,
}

/// Which events are wanted; `None` is all.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Those of an app.
    pub app: Option<AppId>,
    /// Those of apps that had this name then.
    pub app_name: Option<String>,
    /// Those that this user may see: of the apps that they may look at, and what they did themselves.
    pub visible_to: Option<UserId>,
    /// Those of one kind of thing.
    pub resource: Option<Resource>,
    /// Those of the user who had this address then.
    pub actor: Option<String>,
    /// Those that did this.
    pub action: Option<Action>,
    /// Those from this moment on.
    pub since: Option<Timestamp>,
    /// Those before this moment.
    pub until: Option<Timestamp>,
}

words! {
    /// What kind of thing an event is about, in Heroku's words where it has one.
    Resource, "That is no kind of thing that has events":
    /// A user, and what belongs to one.
    Account "account";
    /// A backing service.
    Addon "addon";
    /// The use of an add-on by an app.
    AddonAttachment "addon-attachment";
    /// An app.
    App "app";
    /// A token of the API.
    Authorization "authorization";
    /// A backup of an add-on, or a restore of one.
    Backup "backup";
    /// A run of the buildpacks.
    Build "build";
    /// Somebody's role on an app.
    Collaborator "collaborator";
    /// What a private registry or git host wants to know.
    Credential "credential";
    /// A domain of an app.
    Domain "domain";
    /// A running instance.
    Dyno "dyno";
    /// A size that dynos can have.
    DynoSize "dyno-size";
    /// A switch of an app or a user.
    Feature "feature";
    /// How many of which process type.
    Formation "formation";
    /// A time in which nothing is deployed.
    FreezeWindow "freeze-window";
    /// Somebody who may sign up.
    Invitation "invitation";
    /// A command that an app wants to have run at certain times.
    Job "job";
    /// A run of one: somebody asked for it or stopped it, it failed, it is late, or it did not happen.
    JobRun "job-run";
    /// An SSH key.
    Key "key";
    /// Nobody deploys for now.
    Lock "lock";
    /// Where a log goes.
    LogDrain "log-drain";
    /// Apps that are the stages of one product.
    Pipeline "pipeline";
    /// An app's place in a pipeline.
    PipelineCoupling "pipeline-coupling";
    /// A release.
    Release "release";
    /// A repository elsewhere that an app is deployed from.
    Repository "repository";
    /// The secrets' key, a migration: the platform's own house-keeping.
    Platform "platform";
    /// Being signed in to the console.
    Session "session";
    /// A certificate.
    SniEndpoint "sni-endpoint";
    /// A team.
    Team "team";
    /// Somebody's membership of a team.
    TeamMember "team-member";
    /// An app on its way to another owner.
    Transfer "app-transfer";
    /// What an app keeps on disk.
    Volume "volume";
    /// Where events are told.
    Webhook "webhook";
}

words! {
    /// What was done with a thing.
    Action, "An action is create, update or destroy":
    /// It is new.
    Create "create";
    /// It changed.
    Update "update";
    /// It is gone.
    Destroy "destroy";
}

/// A transaction that changes something. Its events are written last, so that their numbers follow the order of commits: of
/// two transactions that have events, the second waits for the first to end.
pub(super) struct Write<'a> {
    tx: Transaction<'static, Any>,
    /// Ends behind the transaction.
    _turn: Option<OwnedMutexGuard<()>>,
    store: &'a Store,
    stamp: &'a Stamp,
    events: Vec<NewEvent>,
}

impl Deref for Write<'_> {
    type Target = AnyConnection;

    fn deref(&self) -> &AnyConnection {
        &self.tx
    }
}

impl DerefMut for Write<'_> {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        &mut self.tx
    }
}

impl Write<'_> {
    /// Remembers what this transaction did.
    pub(super) fn record(&mut self, event: NewEvent) {
        self.events.push(event);
    }

    /// The present moment, in milliseconds.
    pub(super) fn now(&self) -> i64 {
        self.stamp.now.as_millis()
    }

    /// Makes it all true at once.
    pub(super) async fn commit(mut self) -> Result<(), StoreError> {
        let mut newest = None;
        if self.stamp.by.is_none() {
            for duty in self.store.duties.get().into_iter().flatten() {
                duty.check(&mut self.tx).await?;
            }
        }
        if !self.events.is_empty() {
            let count = i64::try_from(self.events.len()).unwrap_or(i64::MAX);
            let sql = "UPDATE counters SET value = value + $1 WHERE name = 'events' RETURNING value";
            let last: i64 = sqlx::query_scalar(sql).bind(count).fetch_one(&mut *self.tx).await?;
            for (event, sequence) in self.events.iter().zip(last - count + 1..) {
                insert(&mut self.tx, (sequence, self.store.new_uuid()), event, self.stamp).await?;
            }
            newest = u64::try_from(last).ok();
        }
        self.tx.commit().await?;
        if let Some(newest) = newest {
            self.store.newest_event.send_if_modified(|known| {
                let is_newer = newest > *known;
                *known = newest.max(*known);
                is_newer
            });
        }
        Ok(())
    }
}

async fn insert(
    tx: &mut Transaction<'static, Any>,
    (sequence, id): (i64, String),
    event: &NewEvent,
    stamp: &Stamp,
) -> Result<(), StoreError> {
    let by = stamp.by.as_ref();
    let origin = by.map(|by| &by.origin);
    // An app that this very transaction removes is named by its event.
    let name = event.data["name"].as_str().filter(|_| event.resource == Resource::App);
    sqlx::query(
        "INSERT INTO events (sequence, id, app_id, app_name, actor_id, actor_email, via, address, request_id, resource, \
         resource_id, action, data, created_at) VALUES ($1, $2, $3, COALESCE($4, (SELECT name FROM apps WHERE id = $3)), \
         $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
    )
    .bind(sequence)
    .bind(id)
    .bind(event.app.map(|app| app.to_string()))
    .bind(name)
    .bind(by.map(|by| by.user.id.to_string()))
    .bind(by.map(|by| by.user.email.to_string()))
    .bind(by.map(|by| by.via.clone()))
    .bind(origin.and_then(|origin| origin.address).map(|address| address.to_string()))
    .bind(origin.and_then(|origin| origin.request.clone()))
    .bind(event.resource.as_str())
    .bind(&event.id)
    .bind(event.action.as_str())
    .bind(event.data.to_string())
    .bind(stamp.now.as_millis())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

impl<'r> FromRow<'r, AnyRow> for Event {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            sequence: row::number(row, "sequence")?,
            id: row.try_get("id")?,
            app: row::optional_text(row, "app_id")?,
            app_name: row.try_get("app_name")?,
            actor: row::optional_text(row, "actor_id")?,
            actor_email: row::optional_text(row, "actor_email")?,
            via: row.try_get("via")?,
            address: row.try_get("address")?,
            request: row.try_get("request_id")?,
            resource: row::text(row, "resource")?,
            resource_id: row.try_get("resource_id")?,
            action: row::text(row, "action")?,
            data: row::json(row, "data")?,
            created_at: row::time(row, "created_at")?,
        })
    }
}

const SELECT: &str = "SELECT sequence, id, app_id, app_name, actor_id, actor_email, via, address, request_id, resource, \
     resource_id, action, data, created_at FROM events";

impl Store {
    /// Begins to change something.
    pub(super) async fn begin<'a>(&'a self, stamp: &'a Stamp) -> Result<Write<'a>, StoreError> {
        let turn = match &self.turn {
            Some(turn) => Some(timeout(PATIENCE, Arc::clone(turn).lock_owned()).await.map_err(|_| PoolTimedOut)?),
            None => None,
        };
        Ok(Write { tx: self.pool.begin().await?, _turn: turn, store: self, stamp, events: Vec::new() })
    }

    /// Forgets events from before a moment, a thousand at a time; how many.
    pub async fn forget_events(&self, before: Timestamp) -> Result<u64, StoreError> {
        let sql = "SELECT sequence FROM events WHERE created_at >= $1 ORDER BY sequence LIMIT 1";
        let kept: Option<i64> = sqlx::query_scalar(sql).bind(before.as_millis()).fetch_optional(&self.pool).await?;
        let mut forgotten = 0;
        loop {
            let some = "DELETE FROM events WHERE sequence IN \
                        (SELECT sequence FROM events WHERE sequence < $1 ORDER BY sequence LIMIT 1000)";
            let gone = sqlx::query(some).bind(kept.unwrap_or(i64::MAX)).execute(&self.pool).await?.rows_affected();
            forgotten += gone;
            if gone == 0 {
                return Ok(forgotten);
            }
        }
    }

    /// Remembers what was done outside the database: a restart, a command that was run.
    pub async fn record(&self, stamp: &Stamp, event: NewEvent) -> Result<(), StoreError> {
        let mut tx = self.begin(stamp).await?;
        tx.record(event);
        tx.commit().await
    }

    /// The number of the newest event that this process committed, as it changes.
    pub fn newest_event(&self) -> tokio::sync::watch::Receiver<u64> {
        self.newest_event.subscribe()
    }

    /// The event with this id.
    pub async fn event(&self, id: &str) -> Result<Option<Event>, StoreError> {
        let sql = format!("{SELECT} WHERE id = $1");
        Ok(sqlx::query_as(&sql).bind(id).fetch_optional(&self.pool).await?)
    }

    /// The event with this sequence number.
    pub async fn event_at(&self, sequence: u64) -> Result<Option<Event>, StoreError> {
        let sql = format!("{SELECT} WHERE sequence = $1");
        let sequence = i64::try_from(sequence).unwrap_or(i64::MAX);
        Ok(sqlx::query_as(&sql).bind(sequence).fetch_optional(&self.pool).await?)
    }

    /// Part of the events that pass a filter, by sequence number.
    pub async fn events(&self, filter: &EventFilter, slice: &Slice) -> Result<Part<Event>, StoreError> {
        let many = match filter.visible_to {
            Some(user) => self.sees_many(user).await?,
            None => false,
        };
        self.events_seen(filter, many, slice).await
    }

    /// The same, where it is known whether there are many apps of who asks.
    pub(super) async fn events_seen(
        &self,
        filter: &EventFilter,
        many: bool,
        slice: &Slice,
    ) -> Result<Part<Event>, StoreError> {
        let (sql, Binds { texts, numbers }) = statement(filter, many, slice);
        // Who sees few needs a plan of their own, see `APPS_OF`.
        let query = sqlx::query_as(&sql).persistent(self.keeps_plan(many || filter.visible_to.is_none()));
        let query = texts.into_iter().fold(query, sqlx::query::QueryAs::bind);
        let query = numbers.into_iter().fold(query, sqlx::query::QueryAs::bind);
        let mut items: Vec<Event> = query.fetch_all(&self.pool).await?;
        let more = items.len() > slice.max;
        items.truncate(slice.max);
        let next = items.last().filter(|_| more).map(|last| last.sequence.to_string());
        Ok(Part { items, field: "sequence", next })
    }
}

/// What stands for `$1` …: first the texts, then the numbers.
#[derive(Default)]
struct Binds {
    texts: Vec<String>,
    numbers: Vec<i64>,
}

/// What asks for part of the events that pass a filter. `many`: there are many apps of whoever asks.
fn statement(filter: &EventFilter, many: bool, slice: &Slice) -> (String, Binds) {
    let mut binds = Binds::default();
    binds.texts.extend(filter.visible_to.map(|user| user.to_string()));
    // A condition that is not asked for is not in the query: what is left has an index.
    let mut conditions = vec!["1 = 1".to_owned()];
    let wanted = [
        ("app_id", filter.app.map(|app| app.to_string())),
        ("resource", filter.resource.map(|resource| resource.to_string())),
        ("actor_email", filter.actor.clone()),
        ("app_name", filter.app_name.clone()),
        ("action", filter.action.map(|action| action.to_string())),
    ];
    for (column, text) in wanted.into_iter().filter_map(|(column, text)| Some((column, text?))) {
        binds.texts.push(text);
        conditions.push(format!("e.{column} = ${}", binds.texts.len()));
    }
    for (limit, direction) in [(filter.since, ">="), (filter.until, "<")] {
        if let Some(limit) = limit {
            binds.numbers.push(limit.as_millis());
            conditions.push(format!("e.created_at {direction} ${}", binds.texts.len() + binds.numbers.len()));
        }
    }
    let (beyond, before, order, last) =
        if slice.descending { ("<", ">", "DESC", "min") } else { (">", "<", "ASC", "max") };
    for (edge, direction) in [(&slice.first, beyond), (&slice.last, before)] {
        if let Some((edge, number)) = edge.as_ref().and_then(|edge| Some((edge, edge.value.parse::<i64>().ok()?))) {
            binds.numbers.push(number);
            let equal = if edge.exclusive { "" } else { "=" };
            conditions.push(format!("e.sequence {direction}{equal} ${}", binds.texts.len() + binds.numbers.len()));
        }
    }
    let (conditions, limit) =
        (conditions.join(" AND "), format!("ORDER BY e.sequence {order} LIMIT {}", slice.max + 1));
    let of = match filter.visible_to {
        None => "1 = 1".to_owned(),
        // Many of all events are theirs: the part is full after few steps along all of them. Of an EXISTS, PostgreSQL would make
        // a list of all their apps before the first step.
        Some(_) if many => {
            format!("(e.actor_id = $1 OR (SELECT a.id FROM apps a WHERE a.id = e.app_id AND {SEEN}) IS NOT NULL)")
        }
        // Few are: no more of each app, and of what they did themselves, than the part can hold.
        Some(_) => {
            let some = format!("SELECT e.sequence FROM events e WHERE e.app_id = m.app_id AND {conditions} {limit}");
            let to = if slice.descending { ">=" } else { "<=" };
            format!(
                "e.sequence IN (SELECT e.sequence FROM (SELECT e.sequence FROM ({APPS_OF}) AS m \
                 JOIN events e ON e.app_id = m.app_id AND {conditions} \
                 AND e.sequence {to} (SELECT {last}(p.sequence) FROM ({some}) AS p) \
                 UNION SELECT o.sequence FROM (SELECT e.sequence FROM events e WHERE e.actor_id = $1 AND {conditions} \
                 {limit}) AS o) AS e {limit})"
            )
        }
    };
    (format!("{SELECT} e WHERE {of} AND {conditions} {limit}"), binds)
}
