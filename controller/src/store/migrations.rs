//! The migrations, compiled in. The files and their rules are in `migrations/`.

use std::borrow::Cow;

use futures::future::BoxFuture;
use sqlx::error::BoxDynError;
use sqlx::migrate::{Migration, MigrationSource, MigrationType};

/// Number, description, SQL; in the order in which they apply.
const FILES: &[(i64, &str, &str)] = &[
    (1, "initial", include_str!("../../../migrations/0001_initial.sql")),
    (2, "addons", include_str!("../../../migrations/0002_addons.sql")),
    (3, "sessions", include_str!("../../../migrations/0003_sessions.sql")),
    (4, "build subjects", include_str!("../../../migrations/0004_build_subjects.sql")),
    (5, "events", include_str!("../../../migrations/0005_events.sql")),
    (6, "people", include_str!("../../../migrations/0006_people.sql")),
    (7, "releases", include_str!("../../../migrations/0007_releases.sql")),
    (8, "resources", include_str!("../../../migrations/0008_resources.sql")),
    (9, "webhooks", include_str!("../../../migrations/0009_webhooks.sql")),
    (10, "store", include_str!("../../../migrations/0010_store.sql")),
    (12, "kept requests", include_str!("../../../migrations/0012_kept_requests.sql")),
    (13, "manifests", include_str!("../../../migrations/0013_manifests.sql")),
    (14, "invited collaborators", include_str!("../../../migrations/0014_invited_collaborators.sql")),
    (15, "many", include_str!("../../../migrations/0015_many.sql")),
    (16, "removed images", include_str!("../../../migrations/0016_removed_images.sql")),
    (17, "pipelines", include_str!("../../../migrations/0017_pipelines.sql")),
    (18, "locks", include_str!("../../../migrations/0018_locks.sql")),
    (19, "repositories", include_str!("../../../migrations/0019_repositories.sql")),
    (20, "credentials", include_str!("../../../migrations/0020_credentials.sql")),
    (21, "release manifests", include_str!("../../../migrations/0021_release_manifests.sql")),
    (22, "rollouts", include_str!("../../../migrations/0022_rollouts.sql")),
    (23, "runs", include_str!("../../../migrations/0023_runs.sql")),
    (24, "scaling", include_str!("../../../migrations/0024_scaling.sql")),
    (25, "egress", include_str!("../../../migrations/0025_egress.sql")),
    (26, "dyno sizes", include_str!("../../../migrations/0026_dyno_sizes.sql")),
    (27, "jobs", include_str!("../../../migrations/0027_jobs.sql")),
    (28, "links", include_str!("../../../migrations/0028_links.sql")),
    (29, "scalings", include_str!("../../../migrations/0029_scalings.sql")),
    (30, "volumes", include_str!("../../../migrations/0030_volumes.sql")),
    (31, "certificates", include_str!("../../../migrations/0031_certificates.sql")),
    (32, "routing", include_str!("../../../migrations/0032_routing.sql")),
    (33, "domain paths", include_str!("../../../migrations/0033_domain_paths.sql")),
    (34, "on demand", include_str!("../../../migrations/0034_on_demand.sql")),
    (35, "staples", include_str!("../../../migrations/0035_staples.sql")),
    (36, "tcp routes", include_str!("../../../migrations/0036_tcp_routes.sql")),
];

/// The migrations of this version.
#[derive(Debug)]
pub(super) struct Embedded;

impl MigrationSource<'static> for Embedded {
    fn resolve(self) -> BoxFuture<'static, Result<Vec<Migration>, BoxDynError>> {
        let migration = |(number, description, sql): &(i64, &'static str, &'static str)| {
            let (description, sql) = (Cow::Borrowed(*description), Cow::Borrowed(*sql));
            Migration::new(*number, description, MigrationType::Simple, sql, false)
        };
        Box::pin(async move { Ok(FILES.iter().map(migration).collect()) })
    }
}
