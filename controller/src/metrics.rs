//! What became of the requests to apps, for people and for Prometheus: as the routers count it.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

pub use engine::details::{MINUTES, Minute};
use model::routes::WorkloadId;
use model::traffic::{CacheCounts, Detail, Dropped, LATENCY_ENDS_MS, Outcome, PathCount, Place};
use model::{AppId, Timestamp};

use crate::store::App;
use crate::{Controller, Error};

/// How many paths of an app are shown.
const PATHS: usize = 50;

/// What became of an app's requests lately.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppMetrics {
    /// From when on they are counted here: an hour ago at most.
    pub since: Timestamp,
    /// All of them.
    pub sum: Detail,
    /// The same by release, process type and dyno: the newest release first.
    pub rows: Vec<Row>,
    /// Each minute that had any, the oldest first.
    pub minutes: Vec<(Timestamp, Minute)>,
}

/// What became of the requests to one dyno of one release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// None if nobody looked for a dyno: rules, maintenance, no web process.
    pub release: Option<u64>,
    /// None likewise.
    pub process_type: Option<String>,
    /// `web.1`; none if no dyno had them.
    pub dyno: Option<String>,
    /// What became of them.
    pub detail: Detail,
}

/// Where requests were counted, in the words of Prometheus.
type Labels = [String; 4];

const LABELS: [&str; 4] = ["app", "process_type", "release", "dyno"];

impl Controller {
    /// What became of the requests to an app in the last hour.
    pub fn app_metrics(&self, app: &App) -> AppMetrics {
        let now = self.clock.now();
        let (age, places) = self.live.details.of_last_hour(app.id);
        let mut sum = Detail::default();
        for (_, detail) in &places {
            sum.add(detail);
        }
        // One of several sizes has several workloads.
        let mut rows: BTreeMap<_, Detail> = BTreeMap::new();
        for (place, detail) in places {
            let parts = place.workload.as_ref().and_then(WorkloadId::parts);
            let (release, process_type) = parts.map(|(release, name)| (release, name.to_owned())).unzip();
            let dyno = Some(place.dyno).filter(|dyno| !dyno.is_empty());
            rows.entry((std::cmp::Reverse(release), process_type, dyno)).or_default().add(&detail);
        }
        let row = |((release, process_type, dyno), detail): ((std::cmp::Reverse<_>, _, _), _)| Row {
            release: release.0,
            process_type,
            dyno,
            detail,
        };
        let at = |minute: Minute| {
            let whole = now.as_millis() - now.as_millis().rem_euclid(60_000);
            (Timestamp::from_millis(whole - i64::try_from(minute.ago).unwrap_or(0) * 60_000), minute)
        };
        AppMetrics {
            since: now.before(age),
            sum,
            rows: rows.into_iter().map(row).collect(),
            minutes: self.live.details.minutes(app.id).into_iter().map(at).collect(),
        }
    }

    /// The paths of an app that took most time in the last hour, and since when that is.
    pub fn app_paths(&self, app: &App) -> (Timestamp, Vec<PathCount>) {
        let (age, _) = self.live.details.of_last_hour(app.id);
        let mut paths = self.live.details.paths(app.id);
        paths.truncate(PATHS);
        (self.clock.now().before(age), paths)
    }

    /// What became of the requests to all apps, as Prometheus reads it.
    pub async fn prometheus(&self) -> Result<String, Error> {
        let names: HashMap<AppId, String> =
            self.store.apps().await?.into_iter().map(|app| (app.id, app.name.to_string())).collect();
        let mut rows: BTreeMap<Labels, Detail> = BTreeMap::new();
        for (place, detail) in self.live.details.totals() {
            // Whose app is gone is nobody's.
            let Some(labels) = labels(place, &names) else { continue };
            rows.entry(labels).or_default().add(&detail);
        }
        Ok(exposition(&rows, self.live.details.dropped()))
    }
}

fn labels(place: Place, names: &HashMap<AppId, String>) -> Option<Labels> {
    let app = match place.app {
        Some(app) => names.get(&app)?.clone(),
        None => String::new(),
    };
    let parts = place.workload.as_ref().and_then(WorkloadId::parts);
    let (release, process_type) = parts.map(|(number, name)| (format!("v{number}"), name.to_owned())).unzip();
    Some([app, process_type.unwrap_or_default(), release.unwrap_or_default(), place.dyno])
}

/// The text format of Prometheus, version 0.0.4.
fn exposition(rows: &BTreeMap<Labels, Detail>, dropped: Dropped) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut say = |line: std::fmt::Arguments<'_>| {
        let _ = text.write_fmt(format_args!("{line}\n"));
    };
    let known: Vec<(String, &Detail)> = rows.iter().map(|(labels, detail)| (written(labels), detail)).collect();
    say(format_args!(
        "# HELP platform_http_requests_total Requests to apps that are over, by the status that clients got and the router's error."
    ));
    say(format_args!("# TYPE platform_http_requests_total counter"));
    for (labels, detail) in &known {
        let mut outcomes = detail.outcomes.clone();
        outcomes.sort_by_key(|outcome| (outcome.status, outcome.code));
        for Outcome { status, code, count } in outcomes {
            let (class, code) = (status / 100, error_code(code).unwrap_or_default());
            say(format_args!(
                "platform_http_requests_total{{{labels},status=\"{status}\",class=\"{class}xx\",code=\"{code}\"}} {count}"
            ));
        }
    }
    let name = "platform_http_request_duration_seconds";
    say(format_args!("# HELP {name} Time until the first byte of an answer, or until there was none."));
    say(format_args!("# TYPE {name} histogram"));
    for (labels, detail) in &known {
        let mut sum = 0;
        for (count, end) in detail.latency.iter().zip(LATENCY_ENDS_MS) {
            sum += count;
            say(format_args!("{name}_bucket{{{labels},le=\"{}\"}} {sum}", seconds(end * 1000)));
        }
        let all: u64 = detail.latency.iter().sum();
        say(format_args!("{name}_bucket{{{labels},le=\"+Inf\"}} {all}"));
        say(format_args!("{name}_sum{{{labels}}} {}", seconds(detail.waited_us)));
        say(format_args!("{name}_count{{{labels}}} {all}"));
    }
    for (direction, help) in [("request", "clients sent"), ("response", "they were sent")] {
        let name = format!("platform_http_{direction}_bytes_total");
        say(format_args!("# HELP {name} Bytes of bodies that {help}."));
        say(format_args!("# TYPE {name} counter"));
        for (labels, detail) in &known {
            let count = if direction == "request" { detail.received } else { detail.sent };
            say(format_args!("{name}{{{labels}}} {count}"));
        }
    }
    let name = "platform_http_cache_requests_total";
    say(format_args!("# HELP {name} Requests to apps whose answers the router keeps, by whether it answered itself."));
    say(format_args!("# TYPE {name} counter"));
    let cached = || known.iter().filter(|(_, detail)| detail.cache != CacheCounts::default());
    for (labels, detail) in cached() {
        say(format_args!("{name}{{{labels},result=\"hit\"}} {}", detail.cache.hits));
        say(format_args!("{name}{{{labels},result=\"miss\"}} {}", detail.cache.misses));
    }
    let name = "platform_http_cache_bytes_total";
    say(format_args!("# HELP {name} Bytes of bodies that the router sent of what it keeps."));
    say(format_args!("# TYPE {name} counter"));
    for (labels, detail) in cached() {
        say(format_args!("{name}{{{labels}}} {}", detail.cache.bytes));
    }
    let left_out = [
        ("log_lines", dropped.lines, "Lines of the access log that came faster than they could be written."),
        ("spans", dropped.spans, "Trace spans that did not reach the collector."),
    ];
    for (what, count, help) in left_out {
        let name = format!("platform_router_dropped_{what}_total");
        say(format_args!("# HELP {name} {help}"));
        say(format_args!("# TYPE {name} counter"));
        say(format_args!("{name} {count}"));
    }
    text
}

/// Names of apps, process types and dynos have no sign that would have to be escaped.
fn written(labels: &Labels) -> String {
    let label = |(name, value): (&str, &String)| format!("{name}=\"{value}\"");
    LABELS.into_iter().zip(labels).map(label).collect::<Vec<_>>().join(",")
}

fn seconds(microseconds: u64) -> String {
    let (whole, rest) = (microseconds / 1_000_000, microseconds % 1_000_000);
    if rest == 0 { whole.to_string() } else { format!("{whole}.{rest:06}").trim_end_matches('0').to_owned() }
}

/// `H12` of 12.
pub fn error_code(number: u8) -> Option<String> {
    (number > 0).then(|| format!("H{number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_reads_what_was_counted() {
        let cache = CacheCounts { hits: 4, misses: 3, bytes: 5 };
        let mut detail = Detail { waited_us: 1_250_000, received: 7, sent: 9, cache, ..Detail::default() };
        detail.end(503, 12, 1);
        detail.end(200, 0, 2);
        (detail.latency[0], detail.latency[11], detail.latency[23]) = (1, 1, 1);
        let labels = ["shop", "web", "v3", "web.1"].map(str::to_owned);
        let text =
            exposition(&BTreeMap::from([(labels, detail)]), Dropped { lines: 5, spans: 6, ..Dropped::default() });
        let place = r#"app="shop",process_type="web",release="v3",dyno="web.1""#;
        for line in [
            r#"platform_http_requests_total{PLACE,status="200",class="2xx",code=""} 2"#,
            r#"platform_http_requests_total{PLACE,status="503",class="5xx",code="H12"} 1"#,
            r#"platform_http_request_duration_seconds_bucket{PLACE,le="0.001"} 1"#,
            r#"platform_http_request_duration_seconds_bucket{PLACE,le="0.1"} 2"#,
            r#"platform_http_request_duration_seconds_bucket{PLACE,le="10"} 2"#,
            r#"platform_http_request_duration_seconds_bucket{PLACE,le="+Inf"} 3"#,
            "platform_http_request_duration_seconds_sum{PLACE} 1.25",
            "platform_http_request_duration_seconds_count{PLACE} 3",
            "platform_http_request_bytes_total{PLACE} 7",
            "platform_http_response_bytes_total{PLACE} 9",
            r#"platform_http_cache_requests_total{PLACE,result="hit"} 4"#,
            r#"platform_http_cache_requests_total{PLACE,result="miss"} 3"#,
            "platform_http_cache_bytes_total{PLACE} 5",
            "platform_router_dropped_log_lines_total 5",
            "platform_router_dropped_spans_total 6",
        ] {
            let line = line.replace("PLACE", place);
            assert!(text.lines().any(|it| it == line), "{line} in {text}");
        }
    }
}
