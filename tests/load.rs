//! Visitors of every kind that use one app without pause.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tungstenite::{Message, WebSocket};

use crate::platform::App;

/// What visitors of an app that echoes what `WebSocket`s say saw.
pub(crate) struct Load {
    answered: AtomicU64,
    /// `WebSocket`s that were told to go elsewhere, and did.
    moved: AtomicU64,
    failed: AtomicU64,
    first_failure: Mutex<Option<String>>,
    stop: AtomicBool,
    /// Whether a connection that is kept may end with an answer that says so.
    router_may_leave: bool,
}

/// The sum of that.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Requests and messages that were answered well.
    pub(crate) answered: u64,
    /// `WebSocket`s that were told to go elsewhere.
    pub(crate) moved: u64,
    /// Requests, messages and `WebSocket`s that failed.
    pub(crate) failed: u64,
    /// How the first of them failed.
    pub(crate) failure: Option<String>,
}

/// Sends the visitors home when it goes.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Load {
    /// Runs `during` while visitors use `app`: two with a connection for each request, one that keeps its connection, and one with a
    /// `WebSocket`.
    pub(crate) fn around(app: &App<'_>, during: impl FnOnce()) -> Seen {
        Self::of_kind(false, app, during)
    }

    /// The same while routers come and go. Whoever keeps a connection goes to the next one when it is told to.
    pub(crate) fn around_routers(app: &App<'_>, during: impl FnOnce()) -> Seen {
        Self::of_kind(true, app, during)
    }

    fn of_kind(router_may_leave: bool, app: &App<'_>, during: impl FnOnce()) -> Seen {
        let load = Self {
            router_may_leave,
            answered: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            first_failure: Mutex::new(None),
            stop: AtomicBool::new(false),
        };
        let visit = |visit: &dyn Fn(&App<'_>) -> Result<(), String>| {
            while !load.stop.load(Ordering::Relaxed) {
                if let Err(failure) = visit(app) {
                    load.failed.fetch_add(1, Ordering::Relaxed);
                    load.first_failure.lock().expect("no panic").get_or_insert(failure);
                }
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| visit(&|app| load.ask_once(app)));
            scope.spawn(|| visit(&|app| load.ask_once(app)));
            scope.spawn(|| visit(&|app| load.ask_over_one_connection(app)));
            scope.spawn(|| visit(&|app| load.talk(app)));
            // Also if what follows fails: the scope waits for its visitors.
            let _over = Over(&load.stop);
            during();
            let seen = load.answered.load(Ordering::Relaxed);
            crate::until("requests go on", || load.answered.load(Ordering::Relaxed) > seen + 20);
        });
        Seen {
            answered: load.answered.into_inner(),
            moved: load.moved.into_inner(),
            failed: load.failed.into_inner(),
            failure: load.first_failure.into_inner().expect("no panic"),
        }
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn well(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    fn ask_once(&self, app: &App<'_>) -> Result<(), String> {
        match app.platform.try_get(&app.host(), "/") {
            Ok(answer) if answer.status == 200 => self.well(),
            other => return Err(format!("a new connection: {other:?}")),
        }
        Ok(())
    }

    /// Asks over one connection until it is over. Nobody but this visitor may end it, but for a router that leaves and says so.
    fn ask_over_one_connection(&self, app: &App<'_>) -> Result<(), String> {
        let failed = |error: &dyn std::fmt::Display| format!("a connection that is kept: {error}");
        let mut stream = BufReader::new(TcpStream::connect(app.platform.address()).map_err(|error| failed(&error))?);
        while !self.is_over() {
            let request = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", app.host());
            stream.get_mut().write_all(request.as_bytes()).map_err(|error| failed(&error))?;
            let head = head(&mut stream).map_err(|error| failed(&error))?;
            let length =
                head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            stream.read_exact(&mut body).map_err(|error| failed(&error))?;
            if !head.starts_with("HTTP/1.1 200") || body.is_empty() {
                return Err(failed(&head));
            }
            self.well();
            if self.router_may_leave && head.to_ascii_lowercase().contains("connection: close") {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Says something and hears it again, until it is over or the `WebSocket` is closed in good order.
    fn talk(&self, app: &App<'_>) -> Result<(), String> {
        let failed = |error: &dyn std::fmt::Debug| format!("a web socket: {error:?}");
        let stream = TcpStream::connect(app.platform.address()).map_err(|error| failed(&error))?;
        let (mut socket, _) =
            tungstenite::client(format!("ws://{}/", app.host()), stream).map_err(|error| failed(&error))?;
        for number in 0_u64.. {
            if self.is_over() {
                return close(&mut socket).map_err(|error| failed(&error));
            }
            let message = Message::text(format!("message {number}"));
            socket.send(message.clone()).map_err(|error| failed(&error))?;
            match socket.read().map_err(|error| failed(&error))? {
                echo if echo == message => self.well(),
                Message::Close(Some(frame)) if u16::from(frame.code) == 1001 => {
                    self.moved.fetch_add(1, Ordering::Relaxed);
                    while socket.read().is_ok() {}
                    return Ok(());
                }
                other => return Err(failed(&other)),
            }
        }
        Ok(())
    }
}

/// Leaves in good order.
fn close(socket: &mut WebSocket<TcpStream>) -> Result<(), tungstenite::Error> {
    socket.close(None)?;
    loop {
        match socket.read() {
            Ok(_) => {}
            Err(tungstenite::Error::ConnectionClosed) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn head(stream: &mut impl BufRead) -> std::io::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head)
}
