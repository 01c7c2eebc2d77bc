//! One process type of one release as the engine gets it.

use std::time::Duration;

use engine::{DRAIN_LIMIT, Health, Restart, Workload, WorkloadId};
use model::ProcessType;

use super::container::Task;
use super::plan::Scale;
use crate::store::{App, Release};
use crate::{Controller, Error};

/// The port on which every web process listens; each instance has a network of its own.
pub(super) const PORT: u16 = 5000;

/// A process without a port is healthy once it stayed up for this long.
const SETTLE: Duration = Duration::from_secs(1);

impl Controller {
    /// The workload `id` of a release.
    pub(super) async fn workload(
        &self,
        app: &App,
        release: &Release,
        id: WorkloadId,
        (process_type, scale): (&ProcessType, &Scale),
    ) -> Result<Workload, Error> {
        let task = Task::Process(process_type.as_str());
        let mut container = self.container(app, release, task, &scale.size).await?;
        let health = if process_type.as_str() == "web" {
            container.env.insert("PORT".to_owned(), PORT.to_string());
            Health::listening(PORT, self.settings.boot_timeout)
        } else {
            Health::uptime(SETTLE)
        };
        Ok(Workload {
            id,
            app: app.id,
            release: release.version,
            process_type: process_type.clone(),
            quantity: scale.quantity,
            container,
            health,
            restart: Restart::default(),
            drain: DRAIN_LIMIT,
            stop_grace: self.settings.stop_grace,
            idle: None,
            service: None,
        })
    }
}
