//! When is an instance healthy, and what does it do instead?

use std::net::SocketAddr;
use std::time::Duration;

use engine::ProbeReport;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};

const FIRST_PAUSE: Duration = Duration::from_millis(2);
/// Short, because somebody waits for a deploy, and an attempt costs microseconds.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// What the last failed attempt said.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastFailure(std::sync::Arc<std::sync::Mutex<Option<String>>>);

impl LastFailure {
    fn set(&self, result: String) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(result);
    }

    /// As a report, with the ports that something listens on in the network namespace of `pid`.
    pub(crate) fn report(&self, pid: u32, after: Duration) -> Option<ProbeReport> {
        let result = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()?;
        Some(ProbeReport { result, listening: listening(pid), after })
    }
}

/// Tries to connect until it works or the deadline passes; true if it worked.
pub(crate) async fn accepts(address: SocketAddr, deadline: Instant, last: &LastFailure) -> bool {
    let mut pause = FIRST_PAUSE;
    let port = address.port();
    loop {
        match timeout_at(deadline, TcpStream::connect(address)).await {
            Ok(Ok(_)) => return true,
            Ok(Err(error)) => last.set(match error.kind() {
                std::io::ErrorKind::ConnectionRefused => format!("connection refused on port {port}"),
                _ => format!("port {port}: {error}"),
            }),
            Err(_) => last.set(format!("no answer on port {port}")),
        }
        if Instant::now() >= deadline {
            return false;
        }
        sleep(pause.min(deadline.saturating_duration_since(Instant::now()))).await;
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
    }
}

/// TCP ports that are listened on where process `pid` lives, in order.
fn listening(pid: u32) -> Vec<u16> {
    let table = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/net/{file}")).unwrap_or_default();
    let mut ports: Vec<u16> = ["tcp", "tcp6"].iter().flat_map(|file| listening_in(&table(file))).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// From the text of `/proc/net/tcp` (proc(5)): local address as `hex:port`, remote address, state, where `0A` listens.
fn listening_in(table: &str) -> Vec<u16> {
    let port = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, state) = (fields.next()?, fields.nth(1)?);
        (state == "0A").then(|| u16::from_str_radix(local.rsplit(':').next()?, 16).ok())?
    };
    table.lines().skip(1).filter_map(port).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_listening_ports() {
        let table = "  sl  local_address rem_address   st tx_queue\n\
                     \x20  0: 0100007F:1388 00000000:0000 0A 00000000:00000000\n\
                     \x20  1: 0100007F:1F90 0100007F:D431 01 00000000:00000000\n\
                     \x20  2: 00000000000000000000000000000000:0BB8 00000000000000000000000000000000:0000 0A 0:0\n";
        assert_eq!(listening_in(table), [5000, 3000]);
    }
}
