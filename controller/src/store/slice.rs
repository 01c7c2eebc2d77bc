//! Parts of lists, found by the place where they begin and not by counting: the last part costs what the first one does.

use model::{AppId, Timestamp, UserId};
use sqlx::any::AnyRow;
use sqlx::{FromRow, Row};

use super::select::Select;
use super::{App, Build, Release, Run, Store, StoreError, apps, builds, collaborators, releases, runs};

/// Nothing longer is read at once.
const LONGEST: usize = 10_000;

/// Apps of a user from which on they are many.
const MANY: i64 = 500;

/// Which part of a list is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slice {
    /// The field by which the list is sorted. One that it cannot be sorted by is as good as none, and so are the edges then.
    pub field: Option<String>,
    /// Where it begins, in the direction of travel: with `descending`, the greatest.
    pub first: Option<Edge>,
    /// Where it ends, in the direction of travel.
    pub last: Option<Edge>,
    /// How many at most; more than a few thousand are never read at once.
    pub max: usize,
    /// The greatest first.
    pub descending: bool,
}

/// Where a part begins or ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// What the field holds there, or what [`Part::next`] said.
    pub value: String,
    /// It is not itself in the part.
    pub exclusive: bool,
}

/// Part of a list.
#[derive(Debug)]
pub struct Part<T> {
    /// What is in it, sorted.
    pub items: Vec<T>,
    /// The field by which it is sorted.
    pub field: &'static str,
    /// The exclusive first [`Edge`] of the part after this one, if there is more.
    pub next: Option<String>,
}

impl<T> Part<T> {
    /// The same with other items, made from these one by one.
    pub fn map<U>(self, change: impl FnMut(T) -> U) -> Part<U> {
        Part { items: self.items.into_iter().map(change).collect(), field: self.field, next: self.next }
    }
}

/// A field that a list can be sorted by.
struct Field {
    name: &'static str,
    column: &'static str,
    holds: Holds,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    /// Text that is in the list once.
    Text,
    /// A number that is in the list once.
    Number,
    /// A moment, which several may share: the id decides between them.
    Time,
}

/// What to read: whose, and with which fields, the usual one first.
struct List<'a> {
    select: &'a Select,
    /// A condition on `$1`.
    of: &'a str,
    owner: String,
    /// One plan of the query is good for every owner. Otherwise it is planned for each, see [`collaborators::APPS_OF`].
    alike: bool,
    id: &'a str,
    fields: &'a [Field],
}

const APPS: &[Field] = &[
    Field { name: "name", column: "a.name", holds: Holds::Text },
    Field { name: "id", column: "a.id", holds: Holds::Text },
    Field { name: "created_at", column: "a.created_at", holds: Holds::Time },
    Field { name: "updated_at", column: "a.updated_at", holds: Holds::Time },
];

const RELEASES: &[Field] = &[
    Field { name: "version", column: "r.version", holds: Holds::Number },
    Field { name: "id", column: "r.id", holds: Holds::Text },
];

const BUILDS: &[Field] = &[
    Field { name: "created_at", column: "b.created_at", holds: Holds::Time },
    Field { name: "id", column: "b.id", holds: Holds::Text },
];

const RUNS: &[Field] = &[
    Field { name: "created_at", column: "r.created_at", holds: Holds::Time },
    Field { name: "id", column: "r.id", holds: Holds::Text },
];

impl Store {
    /// Part of the apps that a user may look at: by name, id, or a time.
    pub async fn apps_slice(&self, user: UserId, slice: &Slice) -> Result<Part<App>, StoreError> {
        // Few are looked up one by one and sorted. Of many, the part is full after few steps along the index.
        let many = self.sees_many(user).await?;
        let of = if many { collaborators::SEEN } else { &collaborators::visible() };
        let (select, owner, fields) = (&apps::SELECT, user.to_string(), APPS);
        self.slice(&List { select, of, owner, alike: many, id: "a.id", fields }, slice).await
    }

    /// Part of the releases of an app: by version or id.
    pub async fn releases_slice(&self, app: AppId, slice: &Slice) -> Result<Part<Release>, StoreError> {
        let (select, of) = (&releases::SELECT, "r.app_id = $1");
        let (owner, fields) = (app.to_string(), RELEASES);
        self.slice(&List { select, of, owner, alike: true, id: "r.id", fields }, slice).await
    }

    /// Part of the builds of an app: by time or id.
    pub async fn builds_slice(&self, app: AppId, slice: &Slice) -> Result<Part<Build>, StoreError> {
        let (select, of) = (&builds::SELECT, "b.app_id = $1");
        let (owner, fields) = (app.to_string(), BUILDS);
        self.slice(&List { select, of, owner, alike: true, id: "b.id", fields }, slice).await
    }

    /// Part of the one-off dynos of an app: by time or id.
    pub async fn runs_slice(&self, app: AppId, slice: &Slice) -> Result<Part<Run>, StoreError> {
        let (select, of) = (&runs::SELECT, "r.app_id = $1");
        let (owner, fields) = (app.to_string(), RUNS);
        self.slice(&List { select, of, owner, alike: true, id: "r.id", fields }, slice).await
    }

    /// Whether there are so many apps of a user that walking along all apps finds some of them soon. It is about what is quick
    /// and not about what they may see, so that each table is counted by itself, and not further than it takes.
    pub(super) async fn sees_many(&self, user: UserId) -> Result<bool, StoreError> {
        let sql = format!(
            "SELECT (SELECT count(*) FROM (SELECT app_id FROM collaborators WHERE user_id = $1 LIMIT {MANY}) AS shared) + \
             (SELECT count(*) FROM (SELECT x.id FROM team_members m JOIN apps x ON x.team_id = m.team_id \
             WHERE m.user_id = $1 LIMIT {MANY}) AS of_teams)"
        );
        let count: i64 = sqlx::query_scalar(&sql).bind(user.to_string()).fetch_one(&self.pool).await?;
        Ok(count >= MANY)
    }

    /// Whether a query is planned once for everybody. SQLite's plan does not depend on who asks.
    pub(super) fn keeps_plan(&self, alike: bool) -> bool {
        alike || self.turn.is_some()
    }

    async fn slice<T>(&self, list: &List<'_>, slice: &Slice) -> Result<Part<T>, StoreError>
    where
        T: for<'r> FromRow<'r, AnyRow>,
    {
        let max = slice.max.clamp(1, LONGEST);
        let named = list.fields.iter().find(|field| Some(field.name) == slice.field.as_deref());
        let field = named.unwrap_or(&list.fields[0]);
        let counts = named.is_some() || slice.field.is_none();
        let mut conditions = list.of.to_owned();
        let mut binds = Vec::new();
        let (beyond, before) = if slice.descending { ("<", ">") } else { (">", "<") };
        for (edge, direction) in [(&slice.first, beyond), (&slice.last, before)] {
            if let Some(bound) = edge.as_ref().filter(|_| counts).and_then(|edge| Bound::read(edge, field)) {
                conditions += &bound.condition(field, list.id, (direction, binds.len() + 2));
                binds.extend(bound.values());
            }
        }
        let order = if slice.descending { "DESC" } else { "ASC" };
        let tie = if field.holds == Holds::Time { format!(", {} {order}", list.id) } else { String::new() };
        let order = format!("ORDER BY {} {order}{tie}", field.column);
        let part = list.select.of_part(&format!("WHERE {conditions} {order} LIMIT {}", max + 1));
        let sql = format!("{part} {order}");
        let mut query = sqlx::query(&sql).persistent(self.keeps_plan(list.alike)).bind(&list.owner);
        for value in binds {
            query = match value {
                Value::Text(text) => query.bind(text),
                Value::Number(number) => query.bind(number),
            };
        }
        let rows = query.fetch_all(&self.pool).await?;
        let edge = rows.get(max - 1).filter(|_| rows.len() > max);
        Ok(Part {
            next: edge.map(|row| mark(row, field)).transpose()?,
            field: field.name,
            items: rows.iter().take(max).map(T::from_row).collect::<Result<_, _>>()?,
        })
    }
}

enum Value {
    Text(String),
    Number(i64),
}

/// An edge as the database understands it.
struct Bound {
    value: Value,
    /// Which of those that share the value.
    id: Option<String>,
    exclusive: bool,
}

impl Bound {
    /// None if it is nothing that the field can hold.
    fn read(edge: &Edge, field: &Field) -> Option<Self> {
        let (text, id) = match edge.value.split_once('~') {
            Some((text, id)) if field.holds == Holds::Time => (text, Some(id.to_owned())),
            _ => (edge.value.as_str(), None),
        };
        let value = match field.holds {
            Holds::Text => Value::Text(text.to_owned()),
            Holds::Number => Value::Number(text.parse().ok()?),
            Holds::Time => Value::Number(Timestamp::parse(text)?.as_millis()),
        };
        Some(Self { value, id, exclusive: edge.exclusive })
    }

    fn condition(&self, field: &Field, id: &str, (direction, number): (&str, usize)) -> String {
        let equal = if self.exclusive { "" } else { "=" };
        match self.id {
            Some(_) => format!(" AND ({}, {id}) {direction}{equal} (${number}, ${})", field.column, number + 1),
            None => format!(" AND {} {direction}{equal} ${number}", field.column),
        }
    }

    fn values(self) -> impl Iterator<Item = Value> {
        std::iter::once(self.value).chain(self.id.map(Value::Text))
    }
}

/// The edge behind a row.
fn mark(row: &AnyRow, field: &Field) -> Result<String, sqlx::Error> {
    Ok(match field.holds {
        Holds::Text => row.try_get(field.name)?,
        Holds::Number => row.try_get::<i64, _>(field.name)?.to_string(),
        Holds::Time => {
            let moment = Timestamp::from_millis(row.try_get(field.name)?);
            format!("{}~{}", moment.to_rfc3339_millis(), row.try_get::<String, _>("id")?)
        }
    })
}
