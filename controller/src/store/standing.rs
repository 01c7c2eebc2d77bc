use std::collections::{BTreeMap, HashMap};

use model::routes::Place;
use model::{AppId, ProcessType, ReleaseId};
use sqlx::any::AnyRow;
use sqlx::{FromRow, Row};

use super::scaling::ScalingRow;
use super::{
    App, FormationRow, Release, ScalingTexts, Store, StoreError, TcpRoute, apps, domains, releases, row, tcp_routes,
};
use crate::routing::pages;

/// What a rollout has to know of an app.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The app.
    pub app: App,
    /// The release that really serves; none until something was deployed.
    pub current: Option<Release>,
    /// How many of what should run, by process type.
    pub formation: Vec<FormationRow>,
    /// Its custom domains by name.
    pub domains: Vec<Place>,
    /// Ports whose connections it takes as they are.
    pub tcp: Vec<TcpRoute>,
    /// What is set of how its process types scale by themselves.
    pub scaling: BTreeMap<ProcessType, ScalingTexts>,
    /// What is set of how routers treat its requests.
    pub routing: BTreeMap<String, String>,
    /// What the config vars of the current release say of the app's own pages.
    pub pages: BTreeMap<String, String>,
    /// What is kept of the manifest of the current release, as JSON, if that says something of it.
    pub manifest: Option<String>,
}

impl Store {
    /// The ids of all apps.
    pub async fn app_ids(&self) -> Result<Vec<AppId>, StoreError> {
        let rows = sqlx::query("SELECT id FROM apps").fetch_all(&self.pool).await?;
        Ok(rows.iter().map(|row| row::text(row, "id")).collect::<Result<_, _>>()?)
    }

    /// Where these apps stand, a few hundred at a time; those that are gone are left out.
    pub async fn standing(&self, ids: &[AppId]) -> Result<Vec<Standing>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let list = list(ids);
        let apps: Vec<App> = self.read(&format!("{} WHERE a.id IN ({list}) ORDER BY a.name", apps::SELECT)).await?;
        let select = releases::SELECT;
        let current: Vec<Release> =
            self.read(&format!("{select} WHERE a.id IN ({list}) AND r.id = a.current_release_id")).await?;
        let formation: Vec<OfApp<FormationRow>> = self
            .read(&format!(
                "SELECT app_id, id, process_type, quantity, size, COALESCE(scaled_in, 0) AS scaled_in, created_at, \
                 updated_at FROM formation \
                 WHERE app_id IN ({list}) ORDER BY process_type"
            ))
            .await?;
        let domains: Vec<OfApp<At>> = self
            .read(&format!(
                "SELECT app_id, hostname, path, strip FROM domains WHERE app_id IN ({list}) ORDER BY hostname"
            ))
            .await?;
        let columns = tcp_routes::COLUMNS;
        let tcp: Vec<OfApp<TcpRoute>> = self
            .read(&format!("SELECT {columns} FROM tcp_routes WHERE app_id IN ({list}) ORDER BY port, host"))
            .await?;
        let scaling: Vec<OfApp<ScalingRow>> = self
            .read(&format!("SELECT app_id, process_type, policy FROM scaling_policies WHERE app_id IN ({list})"))
            .await?;
        // Most say nothing of it, and are not read.
        let manifests: Vec<OfApp<Manifest>> = self
            .read(&format!(
                "SELECT a.id AS app_id, COALESCE(r.manifest, i.manifest) AS manifest FROM apps a \
                 JOIN releases r ON r.id = a.current_release_id LEFT JOIN images i ON i.digest = r.image \
                 WHERE a.id IN ({list}) AND (COALESCE(r.manifest, i.manifest) LIKE '%\"sleep_after\"%' \
                 OR COALESCE(r.manifest, i.manifest) LIKE '%\"metric\"%' \
                 OR COALESCE(r.manifest, i.manifest) LIKE '%\"routing\":{{\"%')"
            ))
            .await?;
        let routing: Vec<OfApp<Policy>> =
            self.read(&format!("SELECT app_id, policy FROM routing_policies WHERE app_id IN ({list})")).await?;
        let configs: Vec<OfApp<Config>> = self
            .read(&format!(
                "SELECT a.id AS app_id, r.id, r.config FROM apps a JOIN releases r ON r.id = a.current_release_id \
                 WHERE a.id IN ({list})"
            ))
            .await?;
        let open = |OfApp(app, Config(release, sealed)): OfApp<Config>| {
            // Who cannot have its own pages has the router's.
            let config = self.open_config(release, &sealed).unwrap_or_default();
            (app, pages(&config))
        };
        let mut pages: HashMap<AppId, BTreeMap<String, String>> = configs.into_iter().map(open).collect();
        let deployed = current.into_iter().filter(|release| release.image.is_some());
        let mut current: HashMap<_, _> = deployed.map(|release| (release.app, release)).collect();
        let (mut formation, mut domains) = (by_app(formation), by_app(domains));
        let (mut scaling, mut manifests) = (by_app(scaling), by_app(manifests));
        let (mut routing, mut tcp) = (by_app(routing), by_app(tcp));
        let standing = |app: App| Standing {
            current: current.remove(&app.id),
            formation: formation.remove(&app.id).unwrap_or_default(),
            scaling: scaling.remove(&app.id).unwrap_or_default().into_iter().map(ScalingRow::into_pair).collect(),
            routing: routing
                .remove(&app.id)
                .and_then(|mut found| found.pop())
                .map(|Policy(texts)| texts)
                .unwrap_or_default(),
            pages: pages.remove(&app.id).unwrap_or_default(),
            manifest: manifests.remove(&app.id).and_then(|mut found| found.pop()).map(|Manifest(text)| text),
            tcp: tcp.remove(&app.id).unwrap_or_default(),
            domains: domains.remove(&app.id).unwrap_or_default().into_iter().map(|At(place)| place).collect(),
            app,
        };
        Ok(apps.into_iter().map(standing).collect())
    }

    /// Rows of a text that will not come again, which is not worth keeping prepared.
    pub(super) async fn read<T>(&self, sql: &str) -> Result<Vec<T>, StoreError>
    where
        T: for<'r> FromRow<'r, AnyRow> + Send + Unpin,
    {
        Ok(sqlx::query_as(sql).persistent(false).fetch_all(&self.pool).await?)
    }
}

/// Ids in the text instead of as many binds: they hold nothing but hexadecimal digits and hyphens.
fn list(apps: &[AppId]) -> String {
    apps.iter().map(|id| format!("'{id}'")).collect::<Vec<_>>().join(",")
}

/// A condition that keeps to the rows of these apps, or to none: whose app is in `column`.
pub(super) fn among(column: &str, apps: Option<&[AppId]>) -> String {
    match apps {
        None => "1 = 1".to_owned(),
        // PostgreSQL knows no empty list.
        Some([]) => "1 = 0".to_owned(),
        Some(apps) => format!("{column} IN ({})", list(apps)),
    }
}

/// A row and whose it is.
struct OfApp<T>(AppId, T);

impl<'r, T: FromRow<'r, AnyRow>> FromRow<'r, AnyRow> for OfApp<T> {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self(row::text(row, "app_id")?, T::from_row(row)?))
    }
}

struct At(Place);

impl<'r> FromRow<'r, AnyRow> for At {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        domains::place(row).map(Self)
    }
}

struct Manifest(String);

impl<'r> FromRow<'r, AnyRow> for Manifest {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        row.try_get("manifest").map(Self)
    }
}

struct Policy(BTreeMap<String, String>);

impl<'r> FromRow<'r, AnyRow> for Policy {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        row::json(row, "policy").map(Self)
    }
}

struct Config(ReleaseId, String);

impl<'r> FromRow<'r, AnyRow> for Config {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self(row::text(row, "id")?, row.try_get("config")?))
    }
}

fn by_app<T>(rows: Vec<OfApp<T>>) -> HashMap<AppId, Vec<T>> {
    let mut all: HashMap<AppId, Vec<T>> = HashMap::new();
    for OfApp(app, row) in rows {
        all.entry(app).or_default().push(row);
    }
    all
}
