//! Terminals in Heroku's own protocol, on the https entrance. A client says over TLS the secret of an attach address and hears
//! `rendezvous`; from then on there are bytes in both directions until the dyno ends. To the controller it is an upgrade of
//! `/attach/<secret>`, as it is for `WebSocket`s.

use std::error::Error;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use http::header::{CONNECTION, HOST, UPGRADE};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy, sink};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use crate::headers::Hop;
use crate::platform;
use crate::proxy::Worker;

/// What a client says is the path of its attach address, `attach/<40 hexadecimal digits>`. No HTTP method looks like it.
const PREFIX: &[u8] = b"attach/";
const SECRET: usize = 40;
const GREETING: &[u8] = b"rendezvous\r\n";
/// For a client that comes while there is no controller.
const STARTING: &[u8] = b"The platform is starting again. Try once more in a moment.\r\n";
/// Largest refusal of the controller that is passed on.
const REFUSAL: usize = 4096;
/// For a client to begin reading what comes after the greeting, before the connection may end: the `heroku` program writes its
/// end of input without looking whether anybody is there, and fails if nobody is.
const SETTLE: Duration = Duration::from_millis(200);
/// For a client to notice the end and close. Closing on what it still sends would take from it what it has not read yet.
const FAREWELL: Duration = Duration::from_secs(5);

type Client = BufReader<TlsStream<TcpStream>>;

/// Whether the first bytes of a connection are those of a terminal.
pub(crate) fn is_meant(begin: &[u8]) -> bool {
    let length = begin.len().min(PREFIX.len());
    length > 0 && begin[..length] == PREFIX[..length]
}

/// Serves a terminal to its end.
pub(crate) async fn serve(worker: Rc<Worker>, hop: Hop, mut client: Client) {
    if let Err(error) = join(&worker, &hop, &mut client).await {
        tracing::debug!(error = %error, "a terminal's connection broke");
    }
}

async fn join(worker: &Worker, hop: &Hop, client: &mut Client) -> Result<(), Box<dyn Error>> {
    let path = timeout(worker.shared.timeouts.client_idle, path(client)).await??;
    let request = Request::get(format!("/{path}"))
        .header(HOST, "localhost")
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, "rendezvous")
        .header("x-forwarded-for", &hop.address)
        .body(Empty::<Bytes>::new())?;
    let response = platform::send(worker, request).await;
    // A record by itself: the `heroku` program throws away all that comes with it.
    client.write_all(GREETING).await?;
    client.flush().await?;
    let settled = tokio::time::sleep(SETTLE);
    let refusal = match response {
        Ok(mut response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            let dyno = hyper::upgrade::on(&mut response).await?;
            pass(client, TokioIo::new(dyno)).await?;
            Bytes::new()
        }
        Ok(response) => {
            let body = Limited::new(response.into_body(), REFUSAL).collect().await;
            body.map_err(|error| error.to_string())?.to_bytes()
        }
        Err(_) => Bytes::from_static(STARTING),
    };
    settled.await;
    client.write_all(&refusal).await?;
    client.shutdown().await?;
    // Whether it says goodbye or not is its own matter.
    let _ = timeout(FAREWELL, copy(client, &mut sink())).await;
    Ok(())
}

/// The path that the client says, with the line's end if it is sent: some clients leave it out.
async fn path(client: &mut Client) -> io::Result<String> {
    let mut path = vec![0; PREFIX.len() + SECRET];
    client.read_exact(&mut path).await?;
    for byte in *b"\r\n" {
        if client.buffer().first() == Some(&byte) {
            client.consume(1);
        }
    }
    let path = String::from_utf8(path).map_err(io::Error::other)?;
    let is_secret = path.strip_prefix("attach/").is_some_and(|secret| secret.bytes().all(|b| b.is_ascii_hexdigit()));
    if is_secret { Ok(path) } else { Err(io::Error::other("no secret was said")) }
}

/// Passes bytes both ways until the dyno has said everything. The end of the client's input is no end of the dyno.
async fn pass(client: &mut Client, dyno: TokioIo<Upgraded>) -> io::Result<()> {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_dyno, mut to_dyno) = tokio::io::split(dyno);
    let listen = async {
        let ended = copy(&mut from_client, &mut to_dyno).await;
        // The dyno may be gone already; it is told that nobody is there any more.
        let _ = to_dyno.shutdown().await;
        ended
    };
    let show = async { copy(&mut from_dyno, &mut to_client).await };
    let mut show = std::pin::pin!(show);
    tokio::select! {
        shown = &mut show => shown.map(|_| ()),
        // A dyno that takes no more input is about to end, and a client that is gone takes it along.
        _ = listen => show.await.map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_told_from_a_request() {
        for begin in [&b"a"[..], b"attach/", b"attach/0123\r\n"] {
            assert!(is_meant(begin));
        }
        for begin in [&b""[..], b"GET /attach/ HTTP/1.1", b"attack", b"ATTACH/"] {
            assert!(!is_meant(begin));
        }
    }
}
