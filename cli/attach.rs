//! Joins this terminal, or this pipe, to a one-off dyno over a WebSocket.
//!
//! Binary frames are the bytes of the dyno's input and output. Text frames are JSON: from here
//! `{"resize":{"rows":R,"columns":C}}` and `{"eof":true}`, from there `{"exit":STATUS}` or `{"error":TEXT}` at the end.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;

use crossterm::terminal;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use serde::Deserialize;
use serde_json::json;
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Bytes, Error, Message, WebSocket};

use crate::error::{CliError, Kind, Result};

/// What the other side says beside the bytes.
#[derive(Debug, Deserialize)]
struct Control {
    exit: Option<i32>,
    error: Option<String>,
}

/// Joins standard input and output to the dyno at `address` until it ends; returns its exit status.
pub(crate) fn attach(address: &str, tty: bool) -> Result<u8> {
    // A file of its own: what poll(2) says of it holds, as no buffer stands between.
    let input = io::stdin().as_fd().try_clone_to_owned();
    let input = input.map_err(|error| CliError::failed("Cannot use standard input").because(&error))?;
    Session::open(address, File::from(input), io::stdout()).map_err(|error| lost(&error))?.run(tty)
}

/// Joins a connection from here to the one at `address`, until both are over; false if the address has expired.
pub(crate) fn join(address: &str, connection: &TcpStream) -> Result<bool> {
    let input = connection.as_fd().try_clone_to_owned();
    let input = input.map_err(|error| CliError::failed("Cannot use a connection").because(&error))?;
    match Session::open(address, File::from(input), connection) {
        Ok(mut session) => session.run(false).map(|_| true),
        Err(Error::Http(answer)) if answer.status() == 404 => Ok(false),
        Err(error) => Err(lost(&error)),
    }
}

struct Session<W> {
    socket: WebSocket<MaybeTlsStream<TcpStream>>,
    input: File,
    output: W,
    /// The input has not ended.
    input_open: bool,
    /// Something is queued that the connection had no room for: take no more input until it has.
    sending: bool,
}

impl<W: Write> Session<W> {
    fn open(address: &str, input: File, output: W) -> Result<Self, Error> {
        let (mut socket, _) = tungstenite::connect(address)?;
        if let MaybeTlsStream::Plain(stream) = socket.get_mut() {
            stream.set_nonblocking(true)?;
        }
        Ok(Self { socket, input, output, input_open: true, sending: false })
    }

    fn run(&mut self, tty: bool) -> Result<u8> {
        let _raw = if tty { Some(RawTerminal::enter()?) } else { None };
        let resized = if tty { Some(resize_events()?) } else { None };
        if tty {
            self.send_size();
        }
        loop {
            // Whatever is buffered must be taken before waiting: the kernel no longer knows of it.
            if let Some(status) = self.receive()? {
                return Ok(status);
            }
            let ready = self.wait(resized.as_ref())?;
            if ready.socket && self.sending {
                let flushed = self.socket.flush();
                self.queued(&flushed);
            }
            if ready.resized
                && let Some(events) = &resized
            {
                while matches!(events.read_signal(), Ok(Some(_))) {}
                self.send_size();
            }
            if ready.input {
                self.send_input()?;
            }
        }
    }

    fn wait(&self, resized: Option<&SignalFd>) -> Result<Ready> {
        let MaybeTlsStream::Plain(stream) = self.socket.get_ref() else {
            return Err(CliError::failed("This program attaches to dynos over plain ws:// only"));
        };
        let interest = if self.sending { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN };
        let mut fds = vec![PollFd::new(stream.as_fd(), interest)];
        if let Some(resized) = resized {
            fds.push(PollFd::new(resized.as_fd(), PollFlags::POLLIN));
        }
        let takes_input = self.input_open && !self.sending;
        if takes_input {
            fds.push(PollFd::new(self.input.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(CliError::failed("Cannot wait for the dyno").because(&error)),
        }
        let any = |fd: &PollFd| fd.any().unwrap_or(false);
        Ok(Ready {
            socket: any(&fds[0]),
            resized: resized.is_some() && any(&fds[1]),
            input: takes_input && fds.last().is_some_and(any),
        })
    }

    /// Prints what has come; the exit status if the dyno ended.
    fn receive(&mut self) -> Result<Option<u8>> {
        loop {
            match self.socket.read() {
                Ok(Message::Binary(bytes)) => {
                    self.output.write_all(&bytes)?;
                    self.output.flush()?;
                }
                Ok(Message::Text(text)) => match serde_json::from_str(text.as_str()) {
                    Ok(Control { error: Some(error), .. }) => return Err(CliError::failed(error)),
                    Ok(Control { exit: Some(exit), .. }) => {
                        return Ok(Some(u8::try_from(exit & 0xff).unwrap_or(1)));
                    }
                    _ => {}
                },
                Ok(Message::Close(_)) => return Err(lost(&Error::ConnectionClosed)),
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(lost(&error)),
            }
        }
    }

    fn send_input(&mut self) -> Result<()> {
        let mut buffer = [0; 16 * 1024];
        let message = match self.input.read(&mut buffer) {
            Ok(0) => {
                self.input_open = false;
                Message::text(json!({ "eof": true }).to_string())
            }
            Ok(length) => Message::Binary(Bytes::copy_from_slice(&buffer[..length])),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(CliError::failed("Cannot read standard input").because(&error)),
        };
        self.send(message);
        Ok(())
    }

    fn send_size(&mut self) {
        if let Ok((columns, rows)) = terminal::size() {
            self.send(Message::text(json!({ "resize": { "rows": rows, "columns": columns } }).to_string()));
        }
    }

    fn send(&mut self, message: Message) {
        let sent = self.socket.send(message);
        self.queued(&sent);
    }

    /// A message that had no room stays queued in the socket and goes with the next flush. If the other side takes no more, it may
    /// have hung up because all is said: what it said is read first, and tells.
    fn queued(&mut self, sent: &Result<(), Error>) {
        self.sending = match sent {
            Ok(()) => false,
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => true,
            Err(_) => {
                self.input_open = false;
                false
            }
        };
    }
}

/// What can be gone on with.
struct Ready {
    socket: bool,
    resized: bool,
    input: bool,
}

/// The terminal passes every key on as it is, until dropped.
struct RawTerminal;

impl RawTerminal {
    fn enter() -> Result<Self> {
        terminal::enable_raw_mode().map_err(|error| CliError::failed("Cannot prepare the terminal").because(&error))?;
        Ok(Self)
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // A terminal that went away needs no restoring.
        let _ = terminal::disable_raw_mode();
    }
}

/// Readable whenever the terminal changes its size.
fn resize_events() -> Result<SignalFd> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGWINCH);
    mask.thread_block()
        .and_then(|()| SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC))
        .map_err(|error| CliError::failed("Cannot watch the terminal's size").because(&error))
}

fn lost(error: &dyn std::error::Error) -> CliError {
    CliError::new(Kind::Unreachable, "The connection to the dyno was lost before it ended")
        .because(error)
        .hint("See whether it still runs with `platform ps`, and what it said with `platform logs`.")
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::OwnedFd;
    use std::thread;

    use super::*;

    /// A dyno behind a WebSocket. As the router does, it sends at once what it has: what waits for an acknowledgement would be gone
    /// with the connection if input lies there unread.
    fn dyno(behave: impl FnOnce(&mut WebSocket<TcpStream>) + Send + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("ws://{}/attach/secret", listener.local_addr().unwrap());
        thread::spawn(move || {
            let connection = listener.accept().unwrap().0;
            connection.set_nodelay(true).unwrap();
            behave(&mut tungstenite::accept(connection).unwrap());
        });
        address
    }

    fn session(address: &str, input: &'static [u8]) -> (Result<u8>, Vec<u8>) {
        let (reader, mut writer) = io::pipe().unwrap();
        thread::spawn(move || writer.write_all(input));
        let mut output = Vec::new();
        let status = Session::open(address, File::from(OwnedFd::from(reader)), &mut output).unwrap().run(false);
        (status, output)
    }

    #[test]
    fn input_goes_there_to_its_end_and_output_and_status_come_back() {
        let address = dyno(|socket| {
            while let Message::Binary(bytes) = socket.read().unwrap() {
                socket.send(Message::binary(bytes)).unwrap();
            }
            socket.send(Message::text("{\"exit\":7}")).unwrap();
        });
        let input = vec![b'x'; 5_000_000].leak();
        let (status, output) = session(&address, input);
        assert_eq!(status.unwrap(), 7);
        assert!(output == input);
    }

    #[test]
    fn a_dyno_that_has_no_status_says_why() {
        let address = dyno(|socket| {
            socket.send(Message::binary("half")).unwrap();
            socket.send(Message::text("{\"error\":\"Nobody saw how it ended\"}")).unwrap();
        });
        let (status, output) = session(&address, b"");
        assert_eq!(output, b"half");
        let report = status.unwrap_err().report(crate::output::Paint::plain());
        assert_eq!(report, "Error: Nobody saw how it ended\n");
    }

    #[test]
    fn a_lost_connection_is_not_a_success() {
        let address = dyno(|socket| socket.send(Message::binary("half")).unwrap());
        let (status, output) = session(&address, b"");
        assert_eq!(output, b"half");
        assert_eq!(status.unwrap_err().kind, Kind::Unreachable);
    }
}
