//! What became of the requests to an app, as its front page shows it.

use controller::metrics::{AppMetrics, MINUTES, Minute, Row as Counted, error_code};
use model::Timestamp;
use model::traffic::{Detail, PathCount};
use serde::Serialize;

/// Height of the picture.
const HEIGHT: u64 = 80;
/// Width of a minute in it.
const STEP: u64 = 10;
/// Rows of the table.
const ROWS: usize = 20;
/// Paths that are shown.
const PATHS: usize = 10;

#[derive(Debug, Serialize)]
pub(super) struct Traffic {
    bars: Vec<Bar>,
    /// Requests of the minute that had most.
    most: u64,
    rows: Vec<Row>,
    paths: Vec<Path>,
}

/// What became of the requests for one path.
#[derive(Debug, Serialize)]
struct Path {
    name: String,
    requests: u64,
    errors: u64,
    total: String,
    mean: String,
    p95: String,
}

/// A minute in the picture: three parts on top of each other.
#[derive(Debug, Serialize)]
struct Bar {
    title: String,
    x: u64,
    well: u64,
    well_y: u64,
    client: u64,
    client_y: u64,
    server: u64,
    server_y: u64,
}

#[derive(Debug, Serialize)]
struct Row {
    release: String,
    dyno: String,
    requests: u64,
    statuses: String,
    codes: String,
    p50: String,
    p95: String,
    p99: String,
}

impl Traffic {
    /// None if there were no requests.
    pub(super) fn of(metrics: &AppMetrics, paths: &[PathCount], now: Timestamp) -> Option<Self> {
        let all = |minute: &Minute| minute.well + minute.client_errors + minute.server_errors;
        let most = metrics.minutes.iter().map(|(_, minute)| all(minute)).max()?;
        let mut rows: Vec<Row> = metrics.rows.iter().take(ROWS).map(Row::new).collect();
        if metrics.rows.len() > 1 {
            let sum = Counted { release: None, process_type: None, dyno: None, detail: metrics.sum.clone() };
            rows.push(Row { dyno: "all".to_owned(), ..Row::new(&sum) });
        }
        let bars = metrics.minutes.iter().filter(|(_, minute)| minute.ago < MINUTES);
        let bars = bars.map(|(at, minute)| Bar::new((*at, now), minute, most)).collect();
        let paths = paths.iter().take(PATHS).map(Path::new).collect();
        Some(Self { bars, most, rows, paths })
    }
}

impl Bar {
    fn new((at, now): (Timestamp, Timestamp), minute: &Minute, most: u64) -> Self {
        // A request in a thousand is still to be seen.
        let height = |count: u64| if count == 0 { 0 } else { (count * HEIGHT / most.max(1)).max(2) };
        let (server, client) = (height(minute.server_errors), height(minute.client_errors));
        let well = height(minute.well).min(HEIGHT.saturating_sub(server + client));
        let p95 = minute.p95.map(|time| format!(", p95 {time} ms")).unwrap_or_default();
        let ago = now.since(at).as_secs() / 60;
        Self {
            title: format!(
                "{ago} min ago: {} answered well, {} errors of clients, {} of the app or the platform{p95}",
                minute.well, minute.client_errors, minute.server_errors
            ),
            x: (MINUTES - 1).saturating_sub(minute.ago) * STEP,
            server_y: HEIGHT.saturating_sub(well + client + server),
            client_y: HEIGHT.saturating_sub(well + client),
            well_y: HEIGHT - well,
            well,
            client,
            server,
        }
    }
}

impl Path {
    fn new(count: &PathCount) -> Self {
        let mean = count.waited_us.checked_div(count.requests).unwrap_or(0) / 1000;
        Self {
            name: count.name.clone(),
            requests: count.requests,
            errors: count.errors,
            total: format!("{}.{} s", count.waited_us / 1_000_000, count.waited_us % 1_000_000 / 100_000),
            mean: format!("{mean} ms"),
            p95: count.percentile(95).map(|time| format!("{time} ms")).unwrap_or_default(),
        }
    }
}

impl Row {
    fn new(row: &Counted) -> Self {
        let Counted { release, process_type, dyno, detail } = row;
        let who = dyno.as_ref().or(process_type.as_ref()).map_or("nobody", String::as_str);
        let waited = |percent| detail.percentile(percent).map(|time| format!("{time} ms")).unwrap_or_default();
        Self {
            release: release.map(|release| format!("v{release}")).unwrap_or_default(),
            dyno: who.to_owned(),
            requests: detail.requests(),
            statuses: counts(detail, |status, _| Some(status.to_string())),
            codes: counts(detail, |_, code| error_code(code)),
            p50: waited(50),
            p95: waited(95),
            p99: waited(99),
        }
    }
}

/// `200: 12, 404: 1`
fn counts(detail: &Detail, name: impl Fn(u16, u8) -> Option<String>) -> String {
    let mut sums = std::collections::BTreeMap::new();
    for outcome in &detail.outcomes {
        if let Some(name) = name(outcome.status, outcome.code) {
            *sums.entry(name).or_insert(0) += outcome.count;
        }
    }
    sums.into_iter().map(|(name, count)| format!("{name}: {count}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
impl Traffic {
    pub(super) fn sample() -> Self {
        use crate::view::samples::HOSTILE;
        let mut detail = Detail::default();
        detail.end(200, 0, 10);
        detail.end(503, 12, 1);
        detail.latency[5] = 11;
        let row = |dyno: &str| Counted {
            release: Some(3),
            process_type: Some("web".to_owned()),
            dyno: Some(dyno.to_owned()),
            detail: detail.clone(),
        };
        let now = Timestamp::from_millis(3_600_000);
        let minute = |ago| Minute { ago, well: 9 * ago, client_errors: 1, server_errors: 2, ..Minute::default() };
        let minutes = [59, 7, 0].map(|ago| (now, minute(ago))).to_vec();
        let rows = vec![row("web.1"), row(HOSTILE)];
        let path = PathCount {
            name: format!("GET /{HOSTILE}"),
            requests: 3,
            errors: 1,
            waited_us: 4_200_000,
            missed_us: 0,
            latency: [1; 24],
        };
        Self::of(&AppMetrics { since: now, sum: detail.clone(), rows, minutes }, &[path], now).expect("requests")
    }
}
