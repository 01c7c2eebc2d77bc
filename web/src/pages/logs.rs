//! An app's log: its last lines, and what comes after them through a log session, as programs read it.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::Response;
use controller::Controller;
use controller::logs::{Filter, LogSessionRequest};
use serde::{Deserialize, Serialize};

use super::show as show_page;
use crate::error::PageError;
use crate::session::AppVisit;
use crate::view::{Head, Inside, uncoloured};

/// Lines that the page begins with.
const LINES: u32 = 300;

/// Which lines to show.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Ask {
    /// A process type, a dyno, or a part of the platform.
    #[serde(default)]
    process: String,
    /// A text that lines contain.
    #[serde(default)]
    q: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Logs {
    page: Inside,
    app: Head,
    lines: Vec<Line>,
    process: String,
    processes: Vec<String>,
    q: String,
    /// Where the lines come from.
    stream: String,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Line {
    time: String,
    /// The time of day.
    clock: String,
    /// `app` or `heroku`.
    kind: String,
    /// `web.1`, `router`
    process: String,
    text: String,
}

/// `GET /console/apps/{app}/logs`
pub(crate) async fn show(
    State(controller): State<Arc<Controller>>,
    by: AppVisit,
    Query(ask): Query<Ask>,
) -> Result<Response, PageError> {
    let filter = Filter { source: None, process: Some(ask.process.clone()).filter(|process| !process.is_empty()) };
    let request = LogSessionRequest { lines: Some(LINES), tail: true, filter: filter.clone() };
    let session = controller.create_log_session(by.app.id, request);
    let (reader, id) = (controller.log_reader(), by.app.id);
    let read = tokio::task::spawn_blocking(move || reader.last(id, LINES as usize, filter)).await;
    // Files that cannot be read now are lines that are missing, not a page that is.
    let lines = read.ok().and_then(Result::ok).map(|(lines, _)| lines).unwrap_or_default();
    let wanted = ask.q.to_lowercase();
    let mut processes: Vec<String> =
        controller.formation(&by.app).await?.iter().map(|process| process.row.process_type.to_string()).collect();
    processes.extend(["router", "api", "build", "run"].map(str::to_owned));
    if !ask.process.is_empty() && !processes.contains(&ask.process) {
        processes.push(ask.process.clone());
    }
    let page = Logs {
        page: Inside::new(&format!("Logs of {}", by.app.name), &by.visit),
        app: Head::load(&controller, &by, "logs").await?,
        lines: lines
            .iter()
            .filter(|line| line.to_lowercase().contains(&wanted))
            .filter_map(|line| Line::read(line))
            .collect(),
        process: ask.process,
        processes,
        q: ask.q,
        // Without the host: the page may be looked at under another name of the platform.
        stream: session.url.strip_prefix(&controller.settings.api_url()).unwrap_or(&session.url).to_owned(),
    };
    show_page(&by.visit, "logs.html", &page)
}

impl Line {
    /// `2026-11-21T02:39:46.255000+00:00 app[web.1]: text`
    fn read(line: &str) -> Option<Self> {
        let (time, rest) = line.split_once(' ')?;
        let (kind, rest) = rest.split_once('[')?;
        let (process, text) = rest.split_once("]:")?;
        Some(Self {
            time: time.to_owned(),
            clock: time.get(11..23)?.to_owned(),
            kind: kind.to_owned(),
            process: process.to_owned(),
            text: uncoloured(text.strip_prefix(' ').unwrap_or(text)),
        })
    }
}

#[cfg(test)]
mod samples {
    use super::*;
    use crate::view::samples::{HOSTILE, head, inside};

    impl Logs {
        pub(in crate::pages) fn samples() -> [Self; 2] {
            let line = || Line {
                time: HOSTILE.to_owned(),
                clock: HOSTILE.to_owned(),
                kind: HOSTILE.to_owned(),
                process: HOSTILE.to_owned(),
                text: HOSTILE.to_owned(),
            };
            let page = |lines| Self {
                page: inside(),
                app: head("logs"),
                lines,
                process: "web".to_owned(),
                processes: vec!["web".to_owned(), HOSTILE.to_owned()],
                q: HOSTILE.to_owned(),
                stream: HOSTILE.to_owned(),
            };
            [page(vec![line()]), page(vec![])]
        }
    }

    #[test]
    fn lines_are_taken_apart() {
        let line = Line::read("2026-11-21T02:39:46.255000+00:00 app[web.1]:  GET /a]: b").expect("a line");
        assert_eq!((line.clock.as_str(), line.kind.as_str(), line.process.as_str()), ("02:39:46.255", "app", "web.1"));
        assert_eq!(line.text, " GET /a]: b");
        assert_eq!(Line::read("nonsense"), None);
    }
}
