use model::{AppId, Digest, Timestamp, UserId};
use sqlx::any::AnyRow;
use sqlx::{FromRow, Row};

use super::collaborators::{SEEN, visible};
use super::select::Select;
use super::{App, Status, Store, StoreError, row};

/// An app at a glance.
#[derive(Debug, Clone)]
pub struct AppSummary {
    /// The app.
    pub app: App,
    /// Number of the release that really serves.
    pub version: u64,
    /// What that one runs; none until something was deployed.
    pub image: Option<Digest>,
    /// The newest release, whatever became of it.
    pub newest: Newest,
}

/// The newest release of an app.
#[derive(Debug, Clone)]
pub struct Newest {
    /// Its number.
    pub version: u64,
    /// What it changes, for people.
    pub description: String,
    /// What became of it.
    pub status: Status,
    /// When it was made.
    pub created_at: Timestamp,
}

impl<'r> FromRow<'r, AnyRow> for AppSummary {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            app: App::from_row(row)?,
            version: row::number(row, "current_version")?,
            image: row::optional_text(row, "current_image")?,
            newest: Newest {
                version: row::number(row, "newest_version")?,
                description: row.try_get("newest_description")?,
                status: row::text(row, "newest_status")?,
                created_at: row::time(row, "newest_created_at")?,
            },
        })
    }
}

const SELECT: Select = Select {
    columns: "a.id, a.name, a.uid, u.id AS owner_id, u.email AS owner_email, a.team_id, t.name AS team_name, a.maintenance, \
         a.acm, a.stack, a.buildpacks, a.current_release_id, a.released_at, a.created_at, a.updated_at, \
         c.version AS current_version, c.image AS current_image, n.version AS newest_version, \
         n.description AS newest_description, n.status AS newest_status, n.created_at AS newest_created_at",
    from: ("apps", "a"),
    joins: "JOIN users u ON u.id = (SELECT o.user_id FROM collaborators o WHERE o.app_id = a.id AND o.role = 'owner') \
         LEFT JOIN teams t ON t.id = a.team_id JOIN releases c ON c.id = a.current_release_id \
         JOIN releases n ON n.app_id = a.id AND n.version = a.last_version",
};

/// The condition that the app `a` has a name like `$2`.
const NAMED: &str = "a.name LIKE $2";

/// What is like every name with `part` in it; none if no name can have that.
fn pattern(part: &str) -> Option<String> {
    let is_of_names = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    part.bytes().all(is_of_names).then(|| format!("%{part}%"))
}

impl Store {
    /// How many apps a user may see with `part` in their names.
    pub async fn count_apps(&self, user: UserId, part: &str) -> Result<usize, StoreError> {
        let sql = format!("SELECT count(*) FROM apps a WHERE {} AND {NAMED}", visible());
        let Some(pattern) = pattern(part) else { return Ok(0) };
        let count: i64 = sqlx::query_scalar(&sql).bind(user.to_string()).bind(pattern).fetch_one(&self.pool).await?;
        Ok(usize::try_from(count).unwrap_or_default())
    }

    /// Some of the apps that a user may see with `part` in their names, by name: so many behind the first `skip`.
    pub async fn summaries(
        &self,
        user: UserId,
        part: &str,
        (skip, max): (usize, usize),
    ) -> Result<Vec<AppSummary>, StoreError> {
        let Some(pattern) = pattern(part) else { return Ok(Vec::new()) };
        let many = self.sees_many(user).await?;
        let of = if many { SEEN } else { &visible() };
        let some = SELECT.of_part(&format!("WHERE {of} AND {NAMED} ORDER BY a.name LIMIT {max} OFFSET {skip}"));
        let sql = format!("{some} ORDER BY a.name");
        let query = sqlx::query_as(&sql).persistent(self.keeps_plan(many));
        Ok(query.bind(user.to_string()).bind(pattern).fetch_all(&self.pool).await?)
    }

    /// One app.
    pub async fn summary(&self, app: AppId) -> Result<Option<AppSummary>, StoreError> {
        let sql = format!("{SELECT} WHERE a.id = $1");
        Ok(sqlx::query_as(&sql).bind(app.to_string()).fetch_optional(&self.pool).await?)
    }
}
