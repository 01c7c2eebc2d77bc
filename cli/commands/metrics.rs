//! `metrics`: what became of the requests to an app.

use std::collections::BTreeMap;

use clap::Args;
use serde::Deserialize;

use crate::client;
use crate::context::{AppArg, Context, now};
use crate::error::Result;
use crate::output::{self, Field, Mood};

/// `GET /apps/:app/metrics`, as far as it is printed.
#[derive(Debug, Deserialize)]
struct Metrics {
    since: String,
    total: Figures,
    dynos: Vec<OfDyno>,
}

/// What became of some requests.
#[derive(Debug, Deserialize)]
struct Figures {
    requests: u64,
    cache_hits: u64,
    cache_misses: u64,
    statuses: BTreeMap<String, u64>,
    codes: BTreeMap<String, u64>,
    p50_ms: Option<u64>,
    p95_ms: Option<u64>,
    p99_ms: Option<u64>,
    received_bytes: u64,
    sent_bytes: u64,
}

/// The same of the requests to one dyno of one release.
#[derive(Debug, Deserialize)]
struct OfDyno {
    release: Option<u64>,
    process_type: Option<String>,
    dyno: Option<String>,
    figures: Figures,
}

/// Show what became of the requests to an app in the last hour
///
/// By release and dyno: how many there were, with which status or error of the router, how long half, 95 and 99 of 100 waited for the
/// first byte of an answer, and the bytes of their bodies. With --json also by minute.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform metrics
  $ platform metrics -a my-app --json | jq .total.p95_ms")]
pub(crate) struct Show {
    #[command(flatten)]
    app: AppArg,
}

impl Show {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let value = client.get(&["apps", &name, "metrics"])?;
        cx.show(&value, |out| {
            let Metrics { since, total, dynos } = client::typed(&value)?;
            let kept = match (total.cache_hits, total.cache_misses) {
                (0, 0) => String::new(),
                (hits, _) => format!(", {hits} answered from the router's cache"),
            };
            out.heading(&format!("{name}: {} requests since {}{kept}", total.requests, output::when(&since, now())))?;
            let row = |dyno: OfDyno| {
                let release = dyno.release.map(|release| format!("v{release}")).unwrap_or_default();
                let who = dyno.dyno.or(dyno.process_type).unwrap_or_else(|| "nobody".to_owned());
                row(vec![release.into(), who.into()], &dyno.figures)
            };
            let mut rows: Vec<Vec<Field>> = dynos.into_iter().map(row).collect();
            if rows.len() > 1 {
                rows.push(self::row(vec!["".into(), "all".into()], &total));
            }
            let columns =
                ["Release", "Dyno", "Requests", "Statuses", "Errors", "p50", "p95", "p99", "Received", "Sent"];
            out.table(&columns, rows, "No requests.")
        })
    }
}

/// `GET /apps/:app/metrics/paths`
#[derive(Debug, Deserialize)]
struct TopPaths {
    since: String,
    paths: Vec<OfPath>,
}

/// What became of the requests for one path.
#[derive(Debug, Deserialize)]
struct OfPath {
    method: String,
    path: String,
    requests: u64,
    errors: u64,
    total_ms: u64,
    mean_ms: u64,
    p95_ms: Option<u64>,
}

/// Show which paths of an app took most time in the last hour
///
/// Time is what clients waited for the first byte of an answer. Paths that differ by an id, a number or a hash are one; what follows a ? is left out.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform metrics:paths
  $ platform metrics:paths -a my-app --json | jq '.paths[0]'")]
pub(crate) struct Paths {
    #[command(flatten)]
    app: AppArg,
}

impl Paths {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let value = client.get(&["apps", &name, "metrics", "paths"])?;
        cx.show(&value, |out| {
            let TopPaths { since, paths } = client::typed(&value)?;
            out.heading(&format!("{name}: what took most time since {}", output::when(&since, now())))?;
            let row = |path: OfPath| -> Vec<Field> {
                let errors = Field::from(path.errors.to_string());
                vec![
                    path.method.into(),
                    output::harmless(&path.path).into(),
                    path.requests.to_string().into(),
                    if path.errors > 0 { errors.mood(Mood::Bad) } else { errors },
                    seconds(path.total_ms).into(),
                    format!("{} ms", path.mean_ms).into(),
                    path.p95_ms.map(|time| format!("{time} ms")).unwrap_or_default().into(),
                ]
            };
            let rows = paths.into_iter().map(row).collect();
            out.table(&["Method", "Path", "Requests", "Errors", "Time", "Mean", "p95"], rows, "No requests.")
        })
    }
}

/// `12.3 s`
fn seconds(milliseconds: u64) -> String {
    format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100)
}

fn row(mut fields: Vec<Field>, figures: &Figures) -> Vec<Field> {
    let counts = |counts: &BTreeMap<String, u64>| {
        counts.iter().map(|(name, count)| format!("{name}: {count}")).collect::<Vec<_>>().join(", ")
    };
    let is_bad = figures.codes.len() + figures.statuses.keys().filter(|status| status.starts_with('5')).count() > 0;
    let statuses = Field::from(counts(&figures.statuses));
    let waited = [figures.p50_ms, figures.p95_ms, figures.p99_ms];
    fields.push(figures.requests.to_string().into());
    fields.push(if is_bad { statuses.mood(Mood::Bad) } else { statuses });
    fields.push(counts(&figures.codes).into());
    fields.extend(waited.map(|waited| Field::from(waited.map(|it| format!("{it} ms")).unwrap_or_default())));
    fields.extend([figures.received_bytes, figures.sent_bytes].map(|bytes| Field::from(output::size(bytes))));
    fields
}
