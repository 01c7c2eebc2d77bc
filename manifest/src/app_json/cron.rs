//! `cron`, as Dokku words it, with all settings of a job.

use std::collections::BTreeMap;

use model::JobSpec;
use model::job::is_job_name;

use crate::node::{Item, Reader};
use crate::{CronJob, Manifest};

/// What Dokku calls `overlap`.
const OVERLAP: &str = "concurrency_policy";

pub(super) fn cron_job(item: Item, manifest: &mut Manifest, reader: &mut Reader<'_>) {
    let (path, spot) = (item.path.clone(), item.spot);
    let known: Vec<&str> = JobSpec::SETTINGS.into_iter().chain(["name", OVERLAP]).collect();
    let Some(mut fields) = reader.fields(item, &known) else { return };
    let name = fields.take("name").and_then(|item| job_name(item, manifest, reader));
    let (mut spec, mut settings) = (JobSpec::default(), BTreeMap::new());
    for name in JobSpec::SETTINGS {
        let theirs = if name == "overlap" { fields.take(OVERLAP) } else { None };
        let Some(item) = fields.take(name).or(theirs) else {
            if name == "command" || name == "schedule" {
                reader.error(spot, format!("{path}.{name} is missing"));
            }
            continue;
        };
        let (path, spot) = (item.path.clone(), item.spot);
        let Some(text) = reader.text_or_texts(item) else { continue };
        match spec.set(name, &text) {
            Ok(()) => drop(settings.insert(name.to_owned(), text.trim().to_owned())),
            Err(rule) => reader.error(spot, format!("{path} {rule}")),
        }
    }
    if !settings.contains_key("command") || !settings.contains_key("schedule") {
        return;
    }
    match spec.check() {
        Ok(()) => manifest.cron.push(reader.at(spot, CronJob { name, settings })),
        Err(rule) => reader.error(spot, format!("{path}: {rule}")),
    }
}

fn job_name(item: Item, manifest: &Manifest, reader: &mut Reader<'_>) -> Option<String> {
    let (path, spot) = (item.path.clone(), item.spot);
    let name = reader.text(item)?;
    if !is_job_name(&name) {
        let rule = "1 to 40 lowercase letters, digits and dashes, beginning and ending with a letter or digit";
        reader.error(spot, format!("{path} must be {rule}"));
        return None;
    }
    if manifest.cron.iter().any(|job| job.value.name.as_ref() == Some(&name)) {
        reader.error(spot, format!("{path} is the name of two jobs"));
        return None;
    }
    Some(name)
}
