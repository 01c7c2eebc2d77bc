//! One process type of one release as the engine gets it.

use engine::{DRAIN_LIMIT, Larger, Look, Mount, Workload, WorkloadId};
use model::ProcessType;

use super::container::Task;
use super::health::{Usual, health, restart};
use super::plan::Scale;
use crate::store::{App, Release};
use crate::tcp_routes::listens_at;
use crate::{Controller, Error};

/// The port on which every web process listens, and whoever else is looked at there; each instance has a network of its own.
pub(super) const PORT: u16 = 5000;

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
        container.mounts.extend(
            release
                .mounts(process_type)
                .map(|volume| Mount::Volume { name: volume.disk.to_string(), target: volume.path.as_str().into() }),
        );
        let kept = self.kept_of(release).await?;
        let checks = kept.healthchecks.get(process_type).map(Vec::as_slice).unwrap_or_default();
        let listens = listens_at(&self.store.tcp_routes(app.id).await?, process_type);
        let usual = Usual { boot: self.settings.boot_timeout, host: self.settings.default_host(&app.name)?, listens };
        let mut health = health(process_type, checks, &usual);
        if health.checks().any(|check| matches!(check.look, Look::Command(_))) {
            let image = self.image_of(release).await?;
            for check in health.startup.iter_mut().chain(&mut health.readiness).chain(&mut health.liveness) {
                if let Look::Command(args) = &mut check.look {
                    *args = image.inside(args);
                }
            }
        }
        if let Some(port) = health.port {
            container.env.insert("PORT".to_owned(), port.to_string());
        }
        let sizes = self.sizes().await?;
        let larger = sizes.find(&scale.size).and_then(|size| sizes.larger(size));
        let larger = larger.map(|size| Larger { name: size.name.clone(), memory_bytes: size.memory_bytes });
        Ok(Workload {
            id,
            app: app.id,
            release: release.version,
            process_type: process_type.clone(),
            quantity: scale.quantity,
            container,
            health,
            restart: restart(&kept.restart, &self.settings.restart),
            drain: DRAIN_LIMIT,
            stop_grace: self.settings.stop_grace,
            idle: scale.idle,
            larger,
            service: None,
        })
    }
}
