//! Parts of a page that follow what happens: each is sent again when it looks different.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use controller::Controller;
use model::Role;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::error::PageError;
use crate::session::AppVisit;

/// How often a part is looked at. What is looked at is a few rows and the engine's list, in memory of another process.
const PERIOD: Duration = Duration::from_millis(500);
/// Every so many looks it is asked whether the session goes on.
const CHECK: u32 = 20;

/// The id of an element and what is in it.
pub(crate) type Part = (&'static str, String);

/// Sends the parts that `look` finds changed, until the client leaves, the session ends or the app is gone; then `over`.
pub(crate) fn follow<L, F>(controller: Arc<Controller>, by: AppVisit, look: L) -> Response
where
    L: Fn(Arc<Controller>, AppVisit) -> F + Send + 'static,
    F: Future<Output = Result<Vec<Part>, PageError>> + Send + 'static,
{
    let (sender, events) = mpsc::channel::<Event>(4);
    tokio::spawn(async move {
        let mut by = by;
        let mut shown: Vec<Part> = Vec::new();
        for round in 1_u32.. {
            if round.is_multiple_of(CHECK) && !by.visit.goes_on(&controller).await {
                break;
            }
            let actor = &by.visit.actor;
            let Ok(app) = controller.find_app(actor, &by.app.id.to_string(), Role::View).await else { break };
            let Ok(role) = controller.check_role(actor, &app, Role::View).await else { break };
            (by.app, by.role) = (app, role);
            // What cannot be looked at now may be next time: a page that is open outlives a restart of the engine.
            for part in look(Arc::clone(&controller), by.clone()).await.unwrap_or_default() {
                if shown.contains(&part) {
                    continue;
                }
                shown.retain(|(id, _)| *id != part.0);
                if sender.send(Event::default().event(part.0).data(&part.1)).await.is_err() {
                    return;
                }
                shown.push(part);
            }
            tokio::select! {
                () = sender.closed() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
        let _ = sender.send(Event::default().event("over").data("")).await;
    });
    answer(events)
}

/// Sends the lines that `read` finds from an offset on, until it says that there will be no more; then `over`.
pub(crate) fn lines<R, F>(offset: usize, read: R) -> Response
where
    R: Fn(usize) -> F + Send + 'static,
    F: Future<Output = (String, bool)> + Send + 'static,
{
    let (sender, events) = mpsc::channel::<Event>(64);
    tokio::spawn(async move {
        let mut offset = offset;
        loop {
            let (text, more) = read(offset).await;
            offset += text.len();
            for line in text.lines() {
                if sender.send(Event::default().event("line").data(line.replace('\r', ""))).await.is_err() {
                    return;
                }
            }
            if !more {
                break;
            }
            tokio::select! {
                () = sender.closed() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
        let _ = sender.send(Event::default().event("over").data("")).await;
    });
    answer(events)
}

fn answer(events: mpsc::Receiver<Event>) -> Response {
    let stream = futures::StreamExt::map(ReceiverStream::new(events), Ok::<_, Infallible>);
    Sse::new(stream).keep_alive(KeepAlive::default()).into_response()
}
