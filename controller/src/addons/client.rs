//! `pg:psql` and `redis:cli`: the service's own client, beside it, joined to whoever asked.

use std::time::Duration;

use super::server::{Client, server_of};
use crate::attach::{Protocol, What};
use crate::dynos::runs::terminal;
use crate::store::Addon;
use crate::{Actor, Controller, Error};

/// As other one-offs.
const TIME_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

/// A client to run.
#[derive(Debug)]
pub struct ClientRequest {
    /// Its arguments.
    pub args: Vec<String>,
    /// More environment: `TERM`, `LINES` and `COLUMNS` of a terminal.
    pub env: Vec<(String, String)>,
    /// Whether it gets no terminal, so that its output is what it wrote, byte for byte.
    pub no_tty: bool,
}

impl Controller {
    /// Prepares a client of an add-on; it starts once somebody opens the address that this returns.
    pub async fn addon_session(&self, addon: &Addon, actor: &Actor, request: ClientRequest) -> Result<String, Error> {
        let server = server_of(addon)?;
        let program = server.client.iter().map(|arg| (*arg).to_owned());
        let client = Client {
            args: program.chain(request.args).collect(),
            env: request.env.iter().cloned().collect(),
            mounts: Vec::new(),
            time_limit: TIME_LIMIT,
        };
        let mut oneoff = self.addon_client(addon, &server, client).await?;
        oneoff.tty = (!request.no_tty).then(|| terminal(&request.env));
        tracing::info!(addon.name = %addon.name, user.email = %actor.user.email, "Somebody opened a client of an add-on");
        self.open_attachment(What::OneOff(Box::new(oneoff)), None, Protocol::WebSocket)
    }
}
