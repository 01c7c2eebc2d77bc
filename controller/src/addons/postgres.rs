//! PostgreSQL: one server, one database, one role that owns it. The role may make further databases, so that a restore can fill
//! a fresh one; it is no superuser.

use std::collections::BTreeMap;

use builder::stack::ServiceImage;
use model::Random;

use super::kind::{Backup, Credentials, Kind, Plan, Server, credential, environment, secret};
use crate::Error;

const PORT: u16 = 5432;

pub(super) struct Postgres;

impl Kind for Postgres {
    fn slug(&self) -> &'static str {
        "postgres"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["postgresql", "heroku-postgresql"]
    }

    fn human_name(&self) -> &'static str {
        "PostgreSQL"
    }

    fn plans(&self) -> &'static [Plan] {
        &[
            Plan { name: "mini", description: "PostgreSQL with 512 MiB", memory_mib: 512, cpu_millis: 1000 },
            Plan { name: "standard", description: "PostgreSQL with 2 GiB", memory_mib: 2048, cpu_millis: 2000 },
            Plan { name: "premium", description: "PostgreSQL with 8 GiB", memory_mib: 8192, cpu_millis: 4000 },
        ]
    }

    fn attachment(&self) -> &'static str {
        "DATABASE"
    }

    fn credentials(&self, _: &BTreeMap<String, String>, random: &dyn Random) -> Result<Credentials, Error> {
        Ok(environment([
            ("user", &format!("u{}", secret(random, 7))),
            ("password", &format!("p{}", secret(random, 32))),
            ("database", &format!("d{}", secret(random, 7))),
        ]))
    }

    fn vars(&self, address: &str, credentials: &Credentials) -> Vec<(&'static str, String)> {
        let [user, password, database] = ["user", "password", "database"].map(|name| credential(credentials, name));
        vec![("URL", format!("postgres://{user}:{password}@{address}:{PORT}/{database}"))]
    }

    fn server(&self) -> Option<Server> {
        Some(Server {
            image: ServiceImage {
                name: "postgres",
                packages: &["dumb-init", "postgresql-17"],
                // The compiler for long analytic queries is three times as large as the server. The cluster is one that the package
                // makes for itself.
                left_out: &[
                    "usr/lib/*/libLLVM*",
                    "usr/lib/*/libz3*",
                    "usr/lib/postgresql/*/lib/bitcode",
                    "var/lib/postgresql/*",
                ],
            },
            // To PostgreSQL, SIGTERM means to wait until the last client has gone, SIGINT to send them away (pg_ctl's "fast").
            init: &["/usr/bin/dumb-init", "--single-child", "--rewrite", "15:2", "--"],
            script: include_str!("postgres/server.sh"),
            port: PORT,
            env: |credentials| {
                environment([
                    ("PGUSER", credential(credentials, "user")),
                    ("PGPASSWORD", credential(credentials, "password")),
                    ("PGDATABASE", credential(credentials, "database")),
                ])
            },
            client_env: |address| environment([("PGHOST", address), ("PGPORT", &PORT.to_string())]),
            client: &["/usr/bin/psql"],
            backup: Some(Backup {
                capture: include_str!("postgres/capture.sh"),
                restore: include_str!("postgres/restore.sh"),
            }),
        })
    }
}
