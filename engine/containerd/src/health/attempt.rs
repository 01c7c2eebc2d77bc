//! One look at an instance.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use engine::{Health, Look};
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use nix::errno::Errno;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::evidence::listening;

/// Most bytes of an answer's head, and of its body.
const LONGEST_ANSWER: usize = 64 << 10;
/// Most letters that are quoted of an answer.
const LONGEST_QUOTE: usize = 200;
/// Who asks, for the app's log.
const USER_AGENT: &str = concat!("platform-health-check/", env!("CARGO_PKG_VERSION"));

/// Whom to look at over the network.
#[derive(Debug, Clone)]
pub(crate) struct Patient {
    /// Its first process.
    pub(crate) pid: u32,
    pub(crate) address: Ipv4Addr,
    pub(crate) port: Option<u16>,
    /// What HTTP is asked for.
    pub(crate) host: Option<String>,
}

/// Why a look did not see what it should.
#[derive(Debug, PartialEq, Eq)]
enum Miss {
    /// What there was to see instead.
    Seen(String),
    /// This machine could not look: it has no port left for a connection, or the like.
    Blind(String),
}

impl Miss {
    fn words(self) -> String {
        match self {
            Self::Seen(words) | Self::Blind(words) => words,
        }
    }
}

impl Patient {
    pub(crate) fn new((pid, address): (u32, Ipv4Addr), health: &Health) -> Self {
        Self { pid, address, port: health.port, host: health.host.clone() }
    }

    /// Looks once, for at most `limit`; if that fails, says what was seen.
    pub(crate) async fn attempt(&self, look: &Look, limit: Duration) -> Result<(), String> {
        self.look(look, limit).await.map_err(Miss::words)
    }

    /// The same for one that was up before.
    pub(crate) async fn attempt_again(&self, look: &Look, limit: Duration) -> Result<(), String> {
        let listens = |port| listening(self.pid).iter().any(|at| at.port() == port && !at.ip().is_loopback());
        let is_only_busy = || *look == Look::Listening && self.port.is_some_and(listens);
        still_well(self.look(look, limit).await, is_only_busy)
    }

    async fn look(&self, look: &Look, limit: Duration) -> Result<(), Miss> {
        match (look, self.port) {
            (Look::Listening, Some(port)) => accepts(SocketAddr::from((self.address, port)), limit).await,
            (Look::Http(path), Some(port)) => {
                let answered = timeout(limit, self.get(SocketAddr::from((self.address, port)), path)).await;
                answered.unwrap_or_else(|_| Err(Miss::Seen(format!("GET {path} had no answer {}", within(limit)))))
            }
            // Who has no port is not asked at one, commands are looked at elsewhere, and time passes by itself.
            (Look::Listening | Look::Http(_), None) | (Look::Command(_) | Look::Uptime(_), _) => Ok(()),
        }
    }

    async fn get(&self, address: SocketAddr, path: &str) -> Result<(), Miss> {
        let port = address.port();
        let stream = TcpStream::connect(address).await.map_err(|error| refused(&error, port))?;
        let failed = |error: hyper::Error| Miss::Seen(format!("GET {path} was not answered in HTTP: {error}"));
        let mut client = http1::Builder::new();
        client.max_buf_size(LONGEST_ANSWER);
        let (mut sender, connection) = client.handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let host = self.host.clone().unwrap_or_else(|| address.to_string());
        let request = Request::builder().method(Method::GET).uri(path).header(header::HOST, host);
        let request = request.header(header::USER_AGENT, USER_AGENT).header(header::CONNECTION, "close");
        let request =
            request.body(Empty::<Bytes>::new()).map_err(|error| Miss::Seen(format!("GET {path}: {error}")))?;
        let asked = async {
            let answer = sender.send_request(request).await.map_err(failed)?;
            let status = answer.status();
            // Read to its end, so that nobody writes into a connection that is gone.
            let text = begin_of(answer).await;
            if status.is_success() || status.is_redirection() {
                return Ok(());
            }
            Err(Miss::Seen(format!("GET {path} was answered with {status}{}", quote(&text))))
        };
        tokio::pin!(asked);
        tokio::select! {
            answered = &mut asked => answered,
            // The connection is what moves the answer; it ends first where the answer has no length.
            _ = connection => asked.await,
        }
    }
}

/// What a look says of an instance that was up before. To take no connection in time is nothing to die for as long as it listens: it
/// is only busy, and would be missed most just then. Nor is what this machine has not got.
fn still_well(seen: Result<(), Miss>, is_only_busy: impl Fn() -> bool) -> Result<(), String> {
    match seen {
        Err(Miss::Blind(words)) => {
            tracing::debug!(error = words, "an instance cannot be looked at");
            Ok(())
        }
        Err(Miss::Seen(_)) if is_only_busy() => Ok(()),
        seen => seen.map_err(Miss::words),
    }
}

/// Whether somebody takes connections there.
async fn accepts(address: SocketAddr, limit: Duration) -> Result<(), Miss> {
    match timeout(limit, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(refused(&error, address.port())),
        Err(_) => Err(Miss::Seen(format!("no answer on port {} {}", address.port(), within(limit)))),
    }
}

fn refused(error: &io::Error, port: u16) -> Miss {
    let words = format!("port {port}: {error}");
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ECONNREFUSED) => Miss::Seen(format!("connection refused on port {port}")),
        // connect(2), socket(2)
        Some(Errno::EADDRNOTAVAIL | Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => {
            Miss::Blind(words)
        }
        _ => Miss::Seen(words),
    }
}

pub(super) fn within(limit: Duration) -> String {
    format!("within {} s", limit.as_secs_f64())
}

/// The first line of what was said, to stand behind what happened.
pub(super) fn quote(text: &str) -> String {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let quote: String = line.chars().filter(|letter| !letter.is_control()).take(LONGEST_QUOTE).collect();
    if quote.is_empty() { quote } else { format!(": {quote}") }
}

/// As much of a body as is looked at.
async fn begin_of(answer: Response<Incoming>) -> String {
    let mut body = answer.into_body();
    let mut bytes = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        bytes.extend_from_slice(frame.data_ref().map(AsRef::as_ref).unwrap_or_default());
        if bytes.len() > LONGEST_ANSWER {
            break;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// What a check of `/health` sees of a server that answers everything with `answer`, and what the server was asked.
    async fn seen(answer: &'static str) -> (Result<(), String>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut asked = [0; 1024];
            let length = stream.read(&mut asked).await.expect("a request");
            stream.write_all(answer.as_bytes()).await.expect("written");
            String::from_utf8_lossy(&asked[..length]).into_owned()
        });
        let patient = Patient {
            pid: 1,
            address: Ipv4Addr::LOCALHOST,
            port: Some(port),
            host: Some("my-app.localhost".to_owned()),
        };
        let result = patient.attempt(&Look::Http("/health?deep=1".to_owned()), Duration::from_secs(20)).await;
        (result, served.await.expect("served"))
    }

    #[test]
    fn only_what_an_instance_did_is_held_against_it() {
        let miss = |errno: Errno| refused(&io::Error::from_raw_os_error(errno as i32), 80);
        assert_eq!(miss(Errno::ECONNREFUSED), Miss::Seen("connection refused on port 80".to_owned()));
        assert!(matches!(miss(Errno::EHOSTUNREACH), Miss::Seen(_)));
        for errno in [Errno::EADDRNOTAVAIL, Errno::EMFILE] {
            assert_eq!(still_well(Err(miss(errno)), || false), Ok(()), "there is no port or file left to look with");
        }
        let closed = || Err(miss(Errno::ECONNREFUSED));
        assert_eq!(still_well(closed(), || false), Err("connection refused on port 80".to_owned()));
        assert_eq!(still_well(closed(), || true), Ok(()), "it is only busy");
    }

    #[tokio::test]
    async fn answers_count_as_people_expect() {
        let (result, asked) = seen("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        assert_eq!(result, Ok(()));
        assert!(asked.starts_with("GET /health?deep=1 HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("host: my-app.localhost\r\n"), "an app that takes no other name answers: {asked}");
        assert_eq!(seen("HTTP/1.1 301 Moved\r\nLocation: https://x/\r\nContent-Length: 0\r\n\r\n").await.0, Ok(()));
        assert_eq!(seen("HTTP/1.0 200 OK\r\n\r\nuntil it ends").await.0, Ok(()));
        let (bad, _) =
            seen("HTTP/1.1 503 Busy\r\nContent-Length: 29\r\n\r\n\n  no database\t\u{7}today\nsecond\n").await;
        let words = "GET /health?deep=1 was answered with 503 Service Unavailable: no databasetoday";
        assert_eq!(bad, Err(words.to_owned()));
        let (odd, _) = seen("SSH-2.0-OpenSSH_9.2\r\n").await;
        assert!(
            odd.expect_err("no HTTP").starts_with("GET /health?deep=1 was not answered in HTTP"),
            "another protocol"
        );
    }
}
