//! What a service says of itself, asked through its own client.

use std::collections::BTreeMap;
use std::time::Duration;

use engine::Lines;
use model::Exit;
use serde_json::json;

use super::kind::find;
use super::server::{Client, server_of};
use crate::store::{Action, Addon, AddonState, NewEvent, Resource};
use crate::{Actor, Controller, Error};

/// The longest that a service may take to answer.
const TIME_LIMIT: Duration = Duration::from_secs(30);
/// Most lines of an answer that are read.
const MAX_LINES: usize = 1000;

/// What PostgreSQL says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PostgresFacts {
    /// None if it did not answer.
    pub version: Option<String>,
    /// Bytes of the database on disk.
    pub bytes: u64,
    /// Clients that are connected.
    pub connections: u64,
    /// Clients that can be.
    pub max_connections: u64,
    /// Tables that users made.
    pub tables: u64,
}

impl Controller {
    /// What an app that an add-on is attached to gets as `…_URL`; none until the add-on can be used.
    pub async fn addon_url(&self, addon: &Addon) -> Result<Option<String>, Error> {
        let (AddonState::Provisioned, Some(address)) = (addon.state, &addon.address) else { return Ok(None) };
        let credentials = self.store.addon_credentials(addon.id).await?;
        let vars = find(&addon.kind)?.0.vars(address, &credentials);
        Ok(vars.into_iter().find(|(end, _)| *end == "URL").map(|(_, value)| value))
    }

    /// What a PostgreSQL add-on says of itself; one that does not answer says nothing.
    pub async fn postgres_facts(&self, addon: &Addon) -> PostgresFacts {
        let said = self.ask(addon, psql(include_str!("postgres/facts.sql"))).await;
        said.map(|lines| read_facts(&lines)).unwrap_or_default()
    }

    /// What a Redis add-on says of itself, by name; one that does not answer says nothing.
    pub async fn redis_facts(&self, addon: &Addon) -> BTreeMap<String, String> {
        let said = self.ask(addon, vec!["INFO".to_owned()]).await.unwrap_or_default();
        let facts = said.iter().filter_map(|line| line.trim().split_once(':'));
        facts.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// Sends all clients of a PostgreSQL add-on away.
    pub async fn reset_connections(&self, addon: &Addon, actor: &Actor) -> Result<(), Error> {
        self.ask(addon, psql(include_str!("postgres/reset.sql"))).await?;
        let data = json!({ "name": addon.name, "connections": "reset" });
        let (app, id, action) = (Some(addon.app), addon.id.to_string(), Action::Update);
        let event = NewEvent { app, resource: Resource::Addon, id, action, data };
        Ok(self.store.record(&self.stamp(actor), event).await?)
    }

    /// Runs a service's own client with these arguments, and gives back what it says.
    async fn ask(&self, addon: &Addon, args: Vec<String>) -> Result<Vec<String>, Error> {
        let server = server_of(addon)?;
        let program = server.client.iter().map(|arg| (*arg).to_owned());
        let client = Client {
            args: program.chain(args).collect(),
            env: BTreeMap::new(),
            mounts: Vec::new(),
            time_limit: TIME_LIMIT,
        };
        let oneoff = self.addon_client(addon, &server, client).await?;
        let mut running = self.engine.run(oneoff).await?;
        let (mut lines, mut said) = (Lines::default(), Vec::new());
        while let Some(bytes) = running.output.recv().await {
            said.extend(lines.push(&bytes));
            said.truncate(MAX_LINES);
        }
        said.extend(lines.rest());
        match running.exit.await.unwrap_or(Exit::Lost) {
            exit if exit.is_success() => Ok(said),
            exit => Err(Error::Conflict(format!("{} does not answer: its client {exit}.", addon.name))),
        }
    }
}

/// A row a line, `|` between columns, nothing else.
fn psql(sql: &str) -> Vec<String> {
    ["--no-psqlrc", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1", "--command", sql].map(str::to_owned).into()
}

fn read_facts(lines: &[String]) -> PostgresFacts {
    let mut columns = lines.first().map(String::as_str).unwrap_or_default().trim().split('|');
    let mut next = || columns.next().unwrap_or_default();
    let version = Some(next()).filter(|version| !version.is_empty()).map(str::to_owned);
    let mut number = || next().parse().unwrap_or_default();
    PostgresFacts { version, bytes: number(), connections: number(), max_connections: number(), tables: number() }
}
