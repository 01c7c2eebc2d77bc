//! `healthchecks`, as Dokku words them.

use super::process_type;
use crate::node::{Entry, Item, Reader};
use crate::{CheckKind, CheckProbe, HealthCheck, Manifest};

pub(super) fn health_checks(entry: Entry, manifest: &mut Manifest, reader: &mut Reader<'_>) {
    let Some(process_type) = process_type(&entry, reader) else { return };
    let checks = reader.list(entry.item).into_iter().filter_map(|item| health_check(item, reader)).collect();
    manifest.healthchecks.insert(process_type, checks);
}

fn health_check(item: Item, reader: &mut Reader<'_>) -> Option<HealthCheck> {
    const FIELDS: &[&str] = &[
        "type",
        "name",
        "description",
        "path",
        "command",
        "uptime",
        "listening",
        "attempts",
        "timeout",
        "wait",
        "initialDelay",
    ];
    const KINDS: &[(&str, CheckKind)] =
        &[("startup", CheckKind::Startup), ("readiness", CheckKind::Readiness), ("liveness", CheckKind::Liveness)];
    let (path, spot) = (item.path.clone(), item.spot);
    let mut fields = reader.fields(item, FIELDS)?;
    fields.take("description").and_then(|item| reader.text(item));
    let kind = match fields.take("type") {
        Some(item) => reader.choice(item, KINDS)?,
        None => CheckKind::Startup,
    };
    let name = fields.take("name").and_then(|item| reader.text(item));
    let mut number = |name: &str, default: u32| match fields.take(name) {
        Some(item) => reader.number(&item).unwrap_or(default),
        None => default,
    };
    let (attempts, timeout, wait) = (number("attempts", 3), number("timeout", 5), number("wait", 5));
    let initial_delay = number("initialDelay", 0);
    let probe = if let Some(item) = fields.take("path") {
        url_path(item, reader)?
    } else if let Some(item) = fields.take("command") {
        CheckProbe::Command(reader.list(item).into_iter().filter_map(|item| reader.text(item)).collect())
    } else if let Some(item) = fields.take("uptime") {
        CheckProbe::Uptime(reader.number(&item)?)
    } else if fields.take("listening").and_then(|item| reader.flag(&item)).unwrap_or(false) {
        CheckProbe::Listening
    } else {
        reader.error(spot, format!("{path} must have a path, a command, an uptime or listening"));
        return None;
    };
    if attempts == 0 || timeout == 0 {
        reader.error(spot, format!("{path} must have at least one of attempts, and of seconds in timeout"));
    }
    Some(HealthCheck { kind, name, probe, attempts, timeout, wait, initial_delay })
}

fn url_path(item: Item, reader: &mut Reader<'_>) -> Option<CheckProbe> {
    let (path, spot) = (item.path.clone(), item.spot);
    let text = reader.text(item)?;
    if !text.starts_with('/') || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        reader.error(spot, format!("{path} must be a path of the app that begins with /, like /health"));
        return None;
    }
    Some(CheckProbe::Path(text))
}
