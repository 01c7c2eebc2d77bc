//! What an app says about itself (`app.json`, `heroku.yml`), and what its first deploy makes of it.
//!
//! Everything here may be done again: a push that was refused half-way is followed by another that finds what is there already.

mod addons;
mod check;
mod files;
mod first;
mod kept;
mod postdeploy;
#[cfg(test)]
mod tests;

pub use check::check;
pub(crate) use kept::Kept;

use std::collections::BTreeMap;
use std::path::Path;

use manifest::{Manifest, Severity};
use model::{Image, ProcessType};

use crate::Controller;
use crate::builds::{Output, Refused};
use crate::sizes::Sizes;
use crate::store::{App, Start};

impl Controller {
    /// Reads what the files of a commit say, and shows what is wrong with them. One that cannot be used ends the push.
    pub(crate) async fn read_manifest(
        &self,
        app: &App,
        source: &Path,
        output: &mut Output,
    ) -> Result<Manifest, Refused> {
        let files = files::read(source).await?;
        let (manifest, mut problems) = manifest::read(files.as_manifest());
        let attachments = self.store.attachments_of_app(app.id).await?;
        let attached: Vec<_> = attachments.into_iter().map(|attachment| attachment.name).collect();
        let is_first = !self.store.was_live(app.id).await?;
        let mut more = check(&manifest, &attached, Some(&self.sizes().await?));
        if !is_first {
            // Nothing of it is used any more.
            for problem in &mut more {
                problem.severity = Severity::Warning;
            }
        }
        problems.append(&mut more);
        let (errors, warnings): (Vec<_>, Vec<_>) =
            problems.into_iter().partition(|problem| problem.severity == Severity::Error);
        for warning in warnings {
            output.line(&format!(" !     {warning}")).await;
        }
        if errors.is_empty() {
            // What a Dockerfile copies is what was pushed.
            if manifest.docker.is_none() {
                files::write_procfile(source, app.uid, &manifest.processes, output).await?;
            }
            return Ok(manifest);
        }
        let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
        Err(Refused::Said(format!(
            "{}\n\nNothing was built. `platform validate` checks this before a push.",
            lines.join("\n")
        )))
    }

    /// What process types start with when they are new.
    pub(crate) fn starts(manifest: &Manifest, sizes: &Sizes) -> BTreeMap<ProcessType, Start> {
        let start = |(name, scale): (&ProcessType, &manifest::At<manifest::Scale>)| {
            let size = scale.value.size.as_deref().and_then(|size| sizes.find(size));
            let start = Start { quantity: scale.value.quantity, size: size.map(|size| size.name.clone()) };
            (name.clone(), start)
        };
        manifest.formation.iter().map(start).collect()
    }

    /// Says what of a manifest the platform does not do for this image.
    pub(crate) async fn say_what_is_left(manifest: &Manifest, image: &Image, output: &mut Output) {
        let is_there = |name: &&ProcessType| image.processes.iter().any(|process| process.process_type == **name);
        let formation = manifest.formation.keys().map(|name| ("formation", name));
        let named = formation.chain(manifest.healthchecks.keys().map(|name| ("healthchecks", name)));
        let cron = manifest.cron.iter().filter_map(|job| job.value.settings.get("process")?.parse().ok());
        let cron: Vec<ProcessType> = cron.collect();
        let named = named.chain(cron.iter().map(|name| ("cron.process", name)));
        for (key, name) in named.filter(|(_, name)| !is_there(name)) {
            output.line(&format!(" !     {key}.{name} changes nothing: the app has no such process type")).await;
        }
    }
}
