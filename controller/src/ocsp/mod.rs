//! What the authority of a certificate says of it by now (OCSP), so that routers show it with the certificate and visitors' browsers need not ask
//! somebody else. Certificates that users brought and those that the platform got are alike in this; many authorities answer no such questions, and
//! of theirs nothing is asked.

mod answer;
mod plan;
mod question;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use model::AppId;
use tokio::time::{sleep, timeout};

use crate::errors::chain;
use crate::store::{SniEndpoint, Staple, StapleStatus, Stapled};
use crate::{Controller, Error, Outbound, acm};
use answer::Answer;
use plan::Refusal;
use question::Question;

/// Longest time between two looks: a clock may be set.
const LOOK: Duration = Duration::from_secs(60 * 60);
/// Between two looks when something is wrong with the store.
const AGAIN: Duration = Duration::from_secs(60);
/// Responders that are asked at one time.
const AT_ONCE: usize = 8;
/// Certificates that are read at one time; the next ones wait for the last of them.
const MOST: i64 = 32;
/// How long a responder has for its whole answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Largest answer.
const MAX_ANSWER: usize = 64 << 10;

/// Asks, for as long as the process lives.
pub(crate) async fn work(controller: Arc<Controller>) {
    let worker = Worker::new(controller);
    loop {
        let pause = match worker.look().await {
            Ok(pause) => pause,
            Err(error) => {
                tracing::warn!(error = chain(&error), "OCSP responders cannot be asked just now");
                AGAIN
            }
        };
        tokio::select! {
            () = worker.controller.live.staples_wanted.notified() => {}
            () = sleep(pause) => {}
        }
    }
}

struct Worker {
    controller: Arc<Controller>,
    /// To responders that the operator's own authority names.
    own: Option<Outbound>,
}

impl Worker {
    fn new(controller: Arc<Controller>) -> Self {
        let own = controller.settings.acme.as_ref().and_then(|acme| acm::way(acme).ok());
        Self { controller, own }
    }

    /// Asks about everything that is due, and says when to look again.
    async fn look(&self) -> Result<Duration, Error> {
        let controller = &self.controller;
        loop {
            let due = controller.store.due_staples(controller.clock.now(), MOST).await?;
            if due.is_empty() {
                break;
            }
            let mut works = Vec::new();
            for asked in &due {
                works.push(self.attend(asked).boxed());
            }
            let results: Vec<_> = futures::stream::iter(works).buffer_unordered(AT_ONCE).collect().await;
            let changed: BTreeSet<AppId> =
                results.into_iter().filter_map(Result::transpose).collect::<Result<_, _>>()?;
            for app in changed {
                controller.publish_certificates(app).await?;
            }
        }
        let next = controller.store.next_staple().await?;
        let until = next.map(|next| next.since(controller.clock.now()));
        Ok(until.unwrap_or(LOOK).clamp(Duration::from_secs(1), LOOK))
    }

    /// Asks about one certificate, and notes what became of it. The answer is its app if routers are to be told.
    async fn attend(&self, asked: &Stapled) -> Result<Option<AppId>, Error> {
        let (controller, endpoint) = (&self.controller, &asked.endpoint);
        let staple = self.staple(asked).await;
        let is_changed = controller.store.save_staple(asked, &staple, &controller.own_stamp()).await?;
        if staple.status == StapleStatus::Revoked {
            controller.live.certificates_wanted.notify_one();
        }
        self.tell(asked, &staple);
        Ok(is_changed.then_some(endpoint.app))
    }

    async fn staple(&self, asked: &Stapled) -> Staple {
        let (controller, endpoint) = (&self.controller, &asked.endpoint);
        let now = controller.clock.now();
        let is_past = controller.read_certificate(&endpoint.chain).is_ok_and(|read| read.expires_at <= now);
        let question = match Question::of(&endpoint.chain) {
            Ok(_) if is_past => return plan::nobody("the certificate has expired".to_owned(), now),
            Ok(question) => question,
            Err(why) => return plan::nobody(why, now),
        };
        let answer = timeout(PATIENCE, self.ask(endpoint, &question)).await;
        let answer = answer
            .unwrap_or_else(|_| Err(format!("the responder did not answer within {} s", PATIENCE.as_secs()).into()));
        let now = controller.clock.now();
        match answer {
            Ok((answer, der)) => plan::answered(endpoint.id, (answer, &der), now),
            Err(refusal) => plan::refused(endpoint.id, asked.staple.as_ref(), refusal, now),
        }
    }

    async fn ask(&self, endpoint: &SniEndpoint, question: &Question) -> Result<(Answer, Bytes), Refusal> {
        let unreachable = |error: io::Error| format!("{} cannot be asked: {error}", question.url);
        let request = question.request().map_err(|error| format!("it cannot be asked about: {error}"))?;
        let request = Request::post("/")
            .header(CONTENT_TYPE, "application/ocsp-request")
            .header(ACCEPT, "application/ocsp-response")
            .body(Full::new(Bytes::from(request)))
            .map_err(|error| unreachable(io::Error::other(error)))?;
        // What a user's certificate names may be anything: it is reached as anything else that users name.
        let way = self.own.as_ref().filter(|_| endpoint.acm).unwrap_or(&self.controller.outbound);
        let answer = way.send(&question.url, request).await.map_err(unreachable)?;
        if answer.status() != StatusCode::OK {
            return Err(refusal(&answer));
        }
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| format!("the responder's answer cannot be read: {error}"))?.to_bytes();
        Ok((answer::read(&body, question, self.controller.clock.now())?, body))
    }

    /// Tells whoever looks into the log of what became worse, and that it is over.
    fn tell(&self, asked: &Stapled, staple: &Staple) {
        let before = asked.staple.as_ref().map_or(StapleStatus::None, |before| before.status);
        let (endpoint, reason) = (&asked.endpoint, staple.reason.as_deref().unwrap_or_default());
        if before == staple.status {
            return;
        }
        let line = match (before, staple.status) {
            (_, StapleStatus::Revoked) => {
                tracing::warn!(app.id = %endpoint.app, certificate.name = endpoint.name, reason, "A certificate was revoked");
                let advice = if endpoint.acm { "the platform gets another one" } else { "bring another one" };
                format!("Browsers may refuse certificate {}: {reason}; {advice}", endpoint.name)
            }
            (_, StapleStatus::Failing) => {
                tracing::info!(app.id = %endpoint.app, certificate.name = endpoint.name, reason, "No OCSP staple");
                format!("No OCSP staple for certificate {}: {reason}", endpoint.name)
            }
            (StapleStatus::Failing | StapleStatus::Revoked, StapleStatus::Good) => {
                format!("The authority of certificate {} stands by it", endpoint.name)
            }
            _ => return,
        };
        let controller = &self.controller;
        controller.logs.write(endpoint.app, controller.clock.now(), &model::LogSource::app("api"), &line);
    }
}

fn refusal(answer: &Response<Incoming>) -> Refusal {
    let seconds = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    Refusal { why: format!("the responder answered {}", answer.status()), asked: seconds.map(Duration::from_secs) }
}
