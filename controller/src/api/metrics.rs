//! What became of the requests to apps. Heroku has no word for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use model::Timestamp;
use model::traffic::{Detail, PathCount};
use serde::Serialize;
use utoipa::ToSchema;

use super::auth::Access;
use super::describe::{Description, Output};
use super::error::ApiError;
use super::output::{Named, Time};
use crate::Controller;
use crate::metrics::{AppMetrics, Minute, Row, error_code};

/// What Prometheus asks for.
const TEXT: &str = "text/plain; version=0.0.4";

/// What became of some requests.
#[derive(Serialize, ToSchema)]
#[schema(as = RequestMetrics)]
struct FiguresAnswer {
    /// Bytes of the bodies that the router sent of answers that it keeps.
    cache_bytes: u64,
    /// How many it answered with what it keeps.
    cache_hits: u64,
    /// How many others it looked for there, or passed by it.
    cache_misses: u64,
    /// How many had an error of the router, by its code: `H12`.
    codes: BTreeMap<String, u64>,
    /// Milliseconds until the first byte of an answer, or until there was none: half of the requests waited no longer; null without any.
    p50_ms: Option<u64>,
    /// The same of 95 of 100.
    p95_ms: Option<u64>,
    /// The same of 99 of 100.
    p99_ms: Option<u64>,
    /// Bytes of bodies that clients sent.
    received_bytes: u64,
    requests: u64,
    /// Bytes of bodies that they were sent.
    sent_bytes: u64,
    /// How many had this status.
    statuses: BTreeMap<String, u64>,
}

/// What became of the requests to one dyno of one release.
#[derive(Serialize, ToSchema)]
#[schema(as = DynoMetrics)]
struct RowAnswer {
    /// `web.1`; null if no dyno had them.
    dyno: Option<String>,
    figures: FiguresAnswer,
    /// Null if nobody looked for a dyno: rules of the app, maintenance, no web process.
    process_type: Option<String>,
    /// Its number; null likewise.
    release: Option<u64>,
}

/// What became of the requests of one minute.
#[derive(Serialize, ToSchema)]
#[schema(as = MinuteMetrics)]
struct MinuteAnswer {
    at: Time,
    /// How many had a status of 400 to 499.
    client_errors: u64,
    p50_ms: Option<u64>,
    p95_ms: Option<u64>,
    p99_ms: Option<u64>,
    /// How many had a status of 500 or above.
    server_errors: u64,
    /// How many had a status below 400.
    well: u64,
}

/// What became of the requests to an app in the last hour.
#[derive(Serialize, ToSchema)]
#[schema(as = AppMetrics)]
pub(super) struct MetricsAnswer {
    app: Named,
    /// By release, process type and dyno, the newest release first.
    dynos: Vec<RowAnswer>,
    /// Each minute of the last 60 that had any, the oldest first.
    minutes: Vec<MinuteAnswer>,
    /// From when on they were counted.
    since: Time,
    /// All of them.
    total: FiguresAnswer,
}

/// What became of the requests for one path.
#[derive(Serialize, ToSchema)]
#[schema(as = PathMetrics)]
struct PathAnswer {
    /// Of these, the ones that ended with a status of 500 or above, or with an error of the router that is no client's.
    errors: u64,
    /// Milliseconds until the first byte of an answer, on average.
    mean_ms: u64,
    method: String,
    /// How long, at most, those waited besides that were not counted, because many other paths were asked for.
    missed_ms: u64,
    p95_ms: Option<u64>,
    /// Without query, and with `:id` in the place of what differs from one request to the next.
    path: String,
    requests: u64,
    /// Milliseconds until the first byte of an answer, of all of them together.
    total_ms: u64,
}

/// The paths of an app that took most time in the last hour.
#[derive(Serialize, ToSchema)]
#[schema(as = TopPaths)]
pub(super) struct PathsAnswer {
    app: Named,
    /// What took most time together first.
    paths: Vec<PathAnswer>,
    /// From when on they were counted.
    since: Time,
}

/// Text for Prometheus.
pub(super) struct Exposition(String);

impl IntoResponse for Exposition {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, TEXT)], self.0).into_response()
    }
}

impl Output for Exposition {
    fn describe(description: &mut Description<'_>) {
        description.stream("Counters and histograms in the text format of Prometheus.", "text/plain");
    }
}

/// `GET /metrics`
pub(super) async fn of_platform(State(controller): State<Arc<Controller>>) -> Result<Exposition, ApiError> {
    Ok(Exposition(controller.prometheus().await?))
}

/// `GET /apps/{app}/metrics`
pub(super) async fn of_app(State(controller): State<Arc<Controller>>, access: Access) -> Json<MetricsAnswer> {
    let AppMetrics { since, sum, rows, minutes } = controller.app_metrics(&access.app);
    Json(MetricsAnswer {
        app: Named::from(&access.app),
        dynos: rows.into_iter().map(RowAnswer::from).collect(),
        minutes: minutes.into_iter().map(MinuteAnswer::from).collect(),
        since: since.into(),
        total: FiguresAnswer::from(&sum),
    })
}

/// `GET /apps/{app}/metrics/paths`
pub(super) async fn paths(State(controller): State<Arc<Controller>>, access: Access) -> Json<PathsAnswer> {
    let (since, paths) = controller.app_paths(&access.app);
    let paths = paths.into_iter().map(PathAnswer::from).collect();
    Json(PathsAnswer { app: Named::from(&access.app), paths, since: since.into() })
}

impl From<PathCount> for PathAnswer {
    fn from(count: PathCount) -> Self {
        let (method, path) = count.name.split_once(' ').unwrap_or(("", &count.name));
        Self {
            errors: count.errors,
            mean_ms: count.waited_us.checked_div(count.requests).unwrap_or(0) / 1000,
            method: method.to_owned(),
            missed_ms: count.missed_us / 1000,
            p95_ms: count.percentile(95),
            path: path.to_owned(),
            requests: count.requests,
            total_ms: count.waited_us / 1000,
        }
    }
}

impl From<&Detail> for FiguresAnswer {
    fn from(detail: &Detail) -> Self {
        let (mut statuses, mut codes) = (BTreeMap::new(), BTreeMap::new());
        for outcome in &detail.outcomes {
            *statuses.entry(outcome.status.to_string()).or_default() += outcome.count;
            if let Some(code) = error_code(outcome.code) {
                *codes.entry(code).or_default() += outcome.count;
            }
        }
        Self {
            cache_bytes: detail.cache.bytes,
            cache_hits: detail.cache.hits,
            cache_misses: detail.cache.misses,
            codes,
            p50_ms: detail.percentile(50),
            p95_ms: detail.percentile(95),
            p99_ms: detail.percentile(99),
            received_bytes: detail.received,
            requests: detail.requests(),
            sent_bytes: detail.sent,
            statuses,
        }
    }
}

impl From<Row> for RowAnswer {
    fn from(Row { release, process_type, dyno, detail }: Row) -> Self {
        Self { dyno, figures: FiguresAnswer::from(&detail), process_type, release }
    }
}

impl From<(Timestamp, Minute)> for MinuteAnswer {
    fn from((at, minute): (Timestamp, Minute)) -> Self {
        Self {
            at: at.into(),
            client_errors: minute.client_errors,
            p50_ms: minute.p50,
            p95_ms: minute.p95,
            p99_ms: minute.p99,
            server_errors: minute.server_errors,
            well: minute.well,
        }
    }
}

#[cfg(test)]
mod tests {
    use model::routes::WorkloadId;
    use model::traffic::{CacheCounts, Detail, PathCount, Place};

    use crate::testing::http::Server;

    #[tokio::test]
    async fn users_see_their_apps_and_operators_all_of_them() {
        let server = Server::start().await;
        let ada = server.user_with_app("ada@example.com", "shop").await;
        let eve = server.user("eve@example.com").await;
        let id = ada.get("/apps/shop").await.body["id"].as_str().expect("an id").parse().expect("an id");
        let workload = Some(WorkloadId(format!("{id}.v3.web.basic")));
        let cache = CacheCounts { hits: 6, misses: 1, bytes: 3 };
        let mut detail = Detail { life: 1, received: 5, sent: 7, cache, ..Detail::default() };
        detail.end(200, 0, 18);
        detail.end(503, 12, 2);
        detail.latency[11] = 20;
        let place = Place { app: Some(id), workload, dyno: "web.1".to_owned() };
        server.test.controller.live.details.note(false, &[(place, detail)]);

        let answer = ada.get("/apps/shop/metrics").await;
        let total = &answer.body["total"];
        assert_eq!((total["requests"].as_u64(), total["statuses"]["503"].as_u64()), (Some(20), Some(2)));
        assert_eq!((total["codes"]["H12"].as_u64(), total["p95_ms"].as_u64()), (Some(2), Some(99)));
        assert_eq!((total["received_bytes"].as_u64(), total["sent_bytes"].as_u64()), (Some(5), Some(7)));
        assert_eq!((total["cache_hits"].as_u64(), total["cache_misses"].as_u64()), (Some(6), Some(1)));
        assert_eq!(total["cache_bytes"].as_u64(), Some(3));
        let dyno = &answer.body["dynos"][0];
        assert_eq!((dyno["release"].as_u64(), dyno["dyno"].as_str()), (Some(3), Some("web.1")));
        assert_eq!((dyno["process_type"].as_str(), dyno["figures"]["requests"].as_u64()), (Some("web"), Some(20)));
        let minute = &answer.body["minutes"][0];
        assert_eq!((minute["well"].as_u64(), minute["server_errors"].as_u64()), (Some(18), Some(2)));
        assert_eq!(eve.get("/apps/shop/metrics").await.status, 404);

        let mut latency = [0; 24];
        (latency[5], latency[11]) = (30, 10);
        let name = "GET /orders/:id".to_owned();
        let count = PathCount { name, requests: 40, errors: 2, waited_us: 1_000_000, missed_us: 0, latency };
        server.test.controller.live.details.note_paths(&[(id, vec![count])]);
        let answer = ada.get("/apps/shop/metrics/paths").await;
        let path = &answer.body["paths"][0];
        assert_eq!((path["method"].as_str(), path["path"].as_str()), (Some("GET"), Some("/orders/:id")));
        assert_eq!((path["total_ms"].as_u64(), path["mean_ms"].as_u64()), (Some(1000), Some(25)));
        assert_eq!((path["p95_ms"].as_u64(), path["errors"].as_u64()), (Some(95), Some(2)));
        assert_eq!(eve.get("/apps/shop/metrics/paths").await.status, 404);

        // The first user of a platform is its operator.
        let text = ada.get("/metrics").await;
        assert_eq!(text.header("content-type"), "text/plain; version=0.0.4");
        let line = r#"{app="shop",process_type="web",release="v3",dyno="web.1",status="503",class="5xx",code="H12"} 2"#;
        assert!(text.text.contains(line), "{}", text.text);
        assert_eq!((eve.get("/metrics").await.status, server.stranger().get("/metrics").await.status), (403, 401));
    }
}
