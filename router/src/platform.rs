//! Requests to the platform's own hosts: API, git and attach go to the controller, without any of the limits for apps. A
//! push, a log tail or a shell may be silent for hours.

use std::error::Error;
use std::io;
use std::path::Path;
use std::time::Duration;

use http::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http::{Request, Response, StatusCode, Uri, Version};
use hyper::body::{Body, Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

use crate::error_page;
use crate::headers;
use crate::inbound::Inbound;
use crate::proxy::{Client, Worker, switching};
use crate::reply::Reply;
use crate::tunnel::{self, Ends};

/// How often it is looked whether the controller is there again.
const AGAIN: Duration = Duration::from_millis(20);

/// Passes `request` to the controller; 503 while it is away for longer than a restart takes.
pub(crate) async fn forward(worker: &Worker, client: &Client, mut request: Request<Inbound>) -> Response<Reply> {
    client.activity.set_patience(None);
    let wants_html =
        request.headers().get(ACCEPT).is_some_and(|accept| accept.as_bytes().windows(9).any(|w| w == b"text/html"));
    let upgrade = headers::upgrade_wanted(request.headers()).is_some().then(|| client.upgrade(&mut request));
    let started = worker.shared.clock.now().as_millis();
    let chunked = request.headers().contains_key(TRANSFER_ENCODING);
    let mut forwarded = HeaderMap::with_capacity(request.headers().len() + 8);
    let give = |name: &HeaderName, value: &[u8]| {
        // A value that was one before.
        forwarded.extend(HeaderValue::from_bytes(value).ok().map(|value| (name.clone(), value)));
    };
    headers::forward_request(request.headers(), &client.hop, started, || worker.new_request_id(), give);
    // The controller asks for nobody but the client.
    forwarded.insert("x-forwarded-for", client.hop.address.clone());
    if chunked {
        // Left to itself hyper takes a GET for one without a body.
        forwarded.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    *request.headers_mut() = forwarded;
    *request.version_mut() = Version::HTTP_11;
    if let Some(path) = request.uri().path_and_query().cloned() {
        *request.uri_mut() = Uri::from(path);
    }
    let mut response = match send(worker, request).await {
        Ok(response) => response,
        Err(error) => {
            tracing::debug!(error = %error, "the controller did not answer");
            return Reply::page(error_page::platform_unavailable(wants_html));
        }
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(client) = upgrade
    {
        let (server, scratch) = (hyper::upgrade::on(&mut response), worker.scratch.clone());
        tokio::task::spawn_local(async move {
            if let Ok(server) = server.await {
                tunnel::pass(Ends { client, server: TokioIo::new(server) }, &scratch).await;
            }
        });
        let (mut parts, _) = response.into_parts();
        let upgrade = parts.headers.get(UPGRADE).cloned();
        headers::forward_response(&mut parts.headers);
        return switching(parts.headers, upgrade);
    }
    headers::forward_response(response.headers_mut());
    *response.version_mut() = Version::HTTP_11;
    response.map(Reply::Platform)
}

/// A controller that is being replaced will be there in a moment: until it has heard of a request, there is no harm in waiting.
async fn connect(worker: &Worker) -> io::Result<UnixStream> {
    let until = Instant::now() + worker.shared.timeouts.connect;
    loop {
        match UnixStream::connect(&worker.shared.controller_socket).await {
            Err(_) if Instant::now() < until => sleep(AGAIN).await,
            result => return result,
        }
    }
}

/// A connection per request: on a Unix socket that costs microseconds, and a restarted controller is found at once.
pub(crate) async fn send<B>(worker: &Worker, request: Request<B>) -> Result<Response<Incoming>, Box<dyn Error>>
where
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + 'static,
{
    over(connect(worker).await?, request).await
}

/// The same by another socket of the controller's, which is there or is not.
pub(crate) async fn send_to<B>(socket: &Path, request: Request<B>) -> Result<Response<Incoming>, Box<dyn Error>>
where
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + 'static,
{
    over(UnixStream::connect(socket).await?, request).await
}

async fn over<B>(stream: UnixStream, request: Request<B>) -> Result<Response<Incoming>, Box<dyn Error>>
where
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(error = %error, "a connection to the controller broke");
        }
    });
    Ok(sender.send_request(request).await?)
}
