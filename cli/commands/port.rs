//! `ps:forward`: ports of dynos, here.

use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::thread;

use clap::Args;
use serde::Deserialize;
use serde_json::json;

use crate::attach;
use crate::client::{self, Client};
use crate::context::{AppArg, Context};
use crate::error::{CliError, Result};
use crate::output::Paint;

/// Reach ports of a dyno from here, as long as this runs
///
/// Also ports that only the dyno itself reaches: of a debugger, of a profiler, of a console. They are reached on 127.0.0.1.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform ps:forward 9229
  $ platform ps:forward 8080:5000 --dyno web.2
  $ platform ps:forward 9229,8080:5000 -a my-app")]
pub(crate) struct Forward {
    /// The same port here and there, or HERE:THERE; several with commas
    #[arg(value_name = "PORTS", required = true, value_delimiter = ',', value_parser = ports)]
    ports: Vec<(u16, u16)>,
    /// The dyno
    #[arg(short, long, default_value = "web.1")]
    dyno: String,
    #[command(flatten)]
    app: AppArg,
}

/// `POST /apps/:app/dynos/:dyno/ports/:port`
#[derive(Debug, Deserialize)]
struct Forwarded {
    attach_url: String,
}

impl Forward {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let mut listeners = Vec::new();
        for (here, there) in self.ports {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, here));
            let refused = |error: io::Error| CliError::failed(format!("Cannot listen on port {here}")).because(&error);
            let listener = listener.map_err(refused)?;
            let here = listener.local_addr().map_or(here, |address| address.port());
            let address = address(&client, &name, &self.dyno, there)?;
            cx.out.note(&format!("127.0.0.1:{here} is port {there} of {} of {name}. Ctrl-C ends it.", self.dyno));
            listeners.push((listener, there, address));
        }
        thread::scope(|scope| {
            for (listener, there, address) in listeners {
                let (client, name, dyno) = (&client, &name, &self.dyno);
                scope.spawn(move || serve(&listener, address, || self::address(client, name, dyno, there)));
            }
        });
        Ok(())
    }
}

/// Joins each connection to one of the dyno's. An address that was not used for long is asked for anew.
fn serve(listener: &TcpListener, address: String, anew: impl Fn() -> Result<String> + Sync) {
    let (address, anew) = (Mutex::new(address), &anew);
    thread::scope(|scope| {
        for connection in listener.incoming().map_while(std::result::Result::ok) {
            let address = &address;
            scope.spawn(move || {
                if let Err(error) = join(&connection, address, anew) {
                    // Without anybody to tell, the connection is over all the same.
                    let _ = write!(io::stderr(), "{}", error.report(Paint::detect(&io::stderr())));
                }
            });
        }
    });
}

fn join(connection: &TcpStream, address: &Mutex<String>, anew: &impl Fn() -> Result<String>) -> Result<()> {
    let current = || address.lock().unwrap_or_else(PoisonError::into_inner);
    let known = current().clone();
    if attach::join(&known, connection)? {
        return Ok(());
    }
    let fresh = anew()?;
    current().clone_from(&fresh);
    if attach::join(&fresh, connection)? { Ok(()) } else { Err(CliError::failed("The platform offers no connection")) }
}

fn address(client: &Client, app: &str, dyno: &str, port: u16) -> Result<String> {
    let made = client.post(&["apps", app, "dynos", dyno, "ports", &port.to_string()], &json!({}))?;
    Ok(client::typed::<Forwarded>(&made)?.attach_url)
}

/// `9229` or `8080:5000`
fn ports(text: &str) -> std::result::Result<(u16, u16), String> {
    let port = |text: &str| text.parse::<u16>().map_err(|_| format!("`{text}` is no port"));
    match text.split_once(':') {
        Some((here, there)) => Ok((port(here)?, port(there)?)),
        None => Ok((port(text)?, port(text)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_the_same_or_two() {
        assert_eq!(ports("9229"), Ok((9229, 9229)));
        assert_eq!(ports("8080:5000"), Ok((8080, 5000)));
        assert!(ports("80x").is_err() && ports("1:2:3").is_err() && ports("65536").is_err());
    }
}
