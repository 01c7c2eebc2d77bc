//! What a kind of add-on is. A kind is one file with one `impl Kind`, and one line in [`KINDS`].

use std::collections::BTreeMap;

use builder::stack::ServiceImage;
use model::Random;

use super::external::External;
use super::postgres::Postgres;
use super::redis::Redis;
use crate::Error;

/// Every kind there is.
pub const KINDS: &[&dyn Kind] = &[&Postgres, &Redis, &External];

/// What a client needs beside the address: `user`, `password`, … Made once, kept sealed.
pub(super) type Credentials = BTreeMap<String, String>;

/// One kind of add-on.
pub trait Kind: Send + Sync {
    /// What it is called in commands: `postgres`.
    fn slug(&self) -> &'static str;

    /// Other names that mean it, Heroku's among them.
    fn aliases(&self) -> &'static [&'static str] {
        &[]
    }

    /// What it is called in sentences: `PostgreSQL`.
    fn human_name(&self) -> &'static str;

    /// What can be had of it; the first is the default.
    fn plans(&self) -> &'static [Plan];

    /// The name under which an app uses its first add-on of this kind: `DATABASE`.
    fn attachment(&self) -> &'static str;

    /// Refuses what its user says of a new add-on, if it cannot be.
    fn check(&self, _config: &BTreeMap<String, String>) -> Result<(), Error> {
        Ok(())
    }

    /// Credentials of a new add-on, from what its user said.
    fn credentials(&self, config: &BTreeMap<String, String>, random: &dyn Random) -> Result<Credentials, Error>;

    /// What an attached app gets: ends of names of config vars (`URL`) and their values.
    fn vars(&self, address: &str, credentials: &Credentials) -> Vec<(&'static str, String)>;

    /// What runs for it; none for a service that somebody else runs.
    fn server(&self) -> Option<Server> {
        None
    }
}

/// How large a server may get.
#[derive(Debug)]
pub struct Plan {
    /// `mini`
    pub name: &'static str,
    /// What it is good for.
    pub description: &'static str,
    /// Memory limit.
    pub memory_mib: u32,
    /// CPU limit, in thousandths of a core.
    pub cpu_millis: u32,
}

/// A server, and the programs that come with it. All run in containers of `image` with `env` and, for clients, where the
/// server answers.
pub struct Server {
    /// What it runs on.
    pub image: ServiceImage,
    /// The process that all others in its container descend from; it turns SIGTERM into what makes the server end well.
    pub init: &'static [&'static str],
    /// Shell script that becomes the server. `/data` is its volume, empty at first. It may be killed at any moment and must carry
    /// on the next time.
    pub script: &'static str,
    /// Where it listens.
    pub port: u16,
    /// The environment of server and clients.
    pub env: fn(&Credentials) -> BTreeMap<String, String>,
    /// More environment for clients: where the server answers.
    pub client_env: fn(&str) -> BTreeMap<String, String>,
    /// The interactive client.
    pub client: &'static [&'static str],
    /// How to back it up; none if that is not possible.
    pub backup: Option<Backup>,
}

/// How a server's data is backed up: shell scripts, run as clients. They say what went wrong and end with another status than 0.
#[derive(Debug, Clone, Copy)]
pub struct Backup {
    /// Writes all data to the new file `$1`.
    pub capture: &'static str,
    /// Replaces all data by that of the file `$1`, or changes nothing. `$2` is a number that no other run has.
    pub restore: &'static str,
}

/// The kind of this name, and the plan that is asked for: `postgres`, `postgres:mini`.
pub fn find(text: &str) -> Result<(&'static dyn Kind, &'static Plan), Error> {
    let (name, plan) = text.split_once(':').map_or((text, None), |(name, plan)| (name, Some(plan)));
    let kind = KINDS.iter().copied().find(|kind| kind.slug() == name || kind.aliases().contains(&name));
    let kind = kind.ok_or_else(|| {
        let known: Vec<_> = KINDS.iter().map(|kind| kind.slug()).collect();
        Error::Invalid(format!("There is no add-on service {name:?}; there are {}", known.join(", ")))
    })?;
    let plan = match plan {
        None => kind.plans().first(),
        Some(plan) => kind.plans().iter().find(|known| known.name == plan),
    };
    let plan = plan.ok_or_else(|| {
        let known: Vec<_> = kind.plans().iter().map(|plan| format!("{}:{}", kind.slug(), plan.name)).collect();
        Error::Invalid(format!("There is no plan {text:?}; there are {}", known.join(", ")))
    })?;
    Ok((kind, plan))
}

/// So many random bytes, in hex: also good in URLs, shell scripts and SQL.
pub(super) fn secret(random: &dyn Random, bytes: usize) -> String {
    let mut secret = vec![0; bytes];
    random.fill(&mut secret);
    hex::encode(secret)
}

/// One of the credentials; they were all made together.
pub(super) fn credential<'a>(credentials: &'a Credentials, name: &str) -> &'a str {
    credentials.get(name).map(String::as_str).unwrap_or_default()
}

/// An environment of literal names.
pub(super) fn environment<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_found_by_every_name_and_what_is_not_there_is_told() {
        let name = |text: &str| find(text).map(|(kind, plan)| format!("{}:{}", kind.slug(), plan.name));
        for text in ["postgres", "postgresql", "heroku-postgresql", "heroku-postgresql:mini", "postgres:mini"] {
            assert_eq!(name(text).expect("a plan"), "postgres:mini", "{text}");
        }
        assert_eq!(name("redis").expect("a plan"), "redis:mini");
        let refusal = |text: &str| name(text).expect_err("refused").to_string();
        assert_eq!(refusal("mysql"), "There is no add-on service \"mysql\"; there are postgres, redis, external");
        assert!(refusal("postgres:huge").ends_with("there are postgres:mini, postgres:standard, postgres:premium"));
    }

    #[test]
    fn every_server_has_what_it_needs_and_every_kind_a_plan() {
        for kind in KINDS {
            assert!(!kind.plans().is_empty() && kind.attachment().parse::<model::AttachmentName>().is_ok());
            let Some(server) = kind.server() else { continue };
            assert_eq!(server.image.name, kind.slug());
            assert!(!server.init.is_empty() && !server.client.is_empty() && server.port > 1024);
        }
    }
}
