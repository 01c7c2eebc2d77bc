//! Redis: one server that writes every change to a log, synced every second.

use std::collections::BTreeMap;

use builder::stack::ServiceImage;
use model::Random;

use super::kind::{Credentials, Kind, Plan, Server, credential, environment, secret};
use crate::Error;

const PORT: u16 = 6379;

pub(super) struct Redis;

impl Kind for Redis {
    fn slug(&self) -> &'static str {
        "redis"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["heroku-redis"]
    }

    fn human_name(&self) -> &'static str {
        "Redis"
    }

    fn plans(&self) -> &'static [Plan] {
        &[
            Plan { name: "mini", description: "Redis with 128 MiB", memory_mib: 128, cpu_millis: 500 },
            Plan { name: "standard", description: "Redis with 512 MiB", memory_mib: 512, cpu_millis: 1000 },
            Plan { name: "premium", description: "Redis with 4 GiB", memory_mib: 4096, cpu_millis: 1000 },
        ]
    }

    fn attachment(&self) -> &'static str {
        "REDIS"
    }

    fn credentials(&self, _: &BTreeMap<String, String>, random: &dyn Random) -> Result<Credentials, Error> {
        Ok(environment([("password", &format!("p{}", secret(random, 32)))]))
    }

    fn vars(&self, address: &str, credentials: &Credentials) -> Vec<(&'static str, String)> {
        vec![("URL", format!("redis://:{}@{address}:{PORT}", credential(credentials, "password")))]
    }

    fn server(&self) -> Option<Server> {
        Some(Server {
            image: ServiceImage { name: "redis", packages: &["redis-server"], left_out: &[] },
            init: &["/usr/bin/tini", "-g", "--"],
            script: include_str!("redis/server.sh"),
            port: PORT,
            env: |credentials| environment([("REDISCLI_AUTH", credential(credentials, "password"))]),
            client_env: |address| environment([("REDIS_HOST", address)]),
            client: &["/bin/sh", "-c", "exec redis-cli -h \"$REDIS_HOST\" \"$@\"", "redis-cli"],
            backup: None,
        })
    }
}
