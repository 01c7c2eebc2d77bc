//! `app.json`: Heroku's schema (Dev Center, "app.json Schema"); `healthchecks` and `cron` as Dokku added them, `restart` of our own.

mod cron;
mod health;
mod restart;
mod rollout;
mod routing;
mod scaling;
mod volumes;

use std::collections::BTreeMap;

use model::{AttachmentName, ConfigVarName, ProcessType};

use crate::node::{Entry, Item, Reader};
use crate::problem::{Problem, Spot};
use crate::{APP_JSON, Addon, EnvVar, MAX_BYTES, Manifest, Scale, Script, json};

/// All of the schema, also what only the Heroku Button, Heroku CI and review apps use.
const KNOWN: &[&str] = &[
    "$schema",
    "addons",
    "buildpacks",
    "cron",
    "description",
    "env",
    "environments",
    "formation",
    "healthchecks",
    "image",
    "keywords",
    "logo",
    "name",
    "repository",
    "restart",
    "rollout",
    "routing",
    "scripts",
    "stack",
    "success_url",
    "volumes",
    "website",
];

pub(crate) fn read(bytes: &[u8], manifest: &mut Manifest, problems: &mut Vec<Problem>) {
    let mut reader = Reader { file: APP_JSON, problems };
    let Some(text) = text(bytes, &mut reader) else { return };
    match json::parse(text) {
        Ok(node) => top(Item::root(node), manifest, &mut reader),
        Err((spot, message)) => reader.error(spot, message),
    }
}

/// A file as text, if it is one.
pub(crate) fn text<'a>(bytes: &'a [u8], reader: &mut Reader<'_>) -> Option<&'a str> {
    if bytes.len() > MAX_BYTES {
        reader.error(Spot::START, format!("the file has {} bytes; at most {MAX_BYTES} are read", bytes.len()));
        return None;
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text.trim_start_matches('\u{feff}')),
        Err(error) => {
            let line = bytes[..error.valid_up_to()].split(|byte| *byte == b'\n').count();
            reader.error(Spot { line, column: 1 }, "this line is not UTF-8");
            None
        }
    }
}

fn top(root: Item, manifest: &mut Manifest, reader: &mut Reader<'_>) {
    let Some(mut fields) = reader.fields(root, KNOWN) else { return };
    for name in ["name", "description", "website", "repository", "logo", "success_url"] {
        fields.take(name).and_then(|item| reader.text(item));
    }
    if let Some(item) = fields.take("keywords") {
        for item in reader.list(item) {
            reader.text(item);
        }
    }
    if let Some(item) = fields.take("image") {
        reader.warning(item.spot, "image changes nothing: apps are built on the platform's own stack");
    }
    if let Some(item) = fields.take("environments") {
        reader.entries(item);
    }
    if let Some(item) = fields.take("stack") {
        let spot = item.spot;
        manifest.stack = reader.text(item).map(|stack| reader.at(spot, stack));
    }
    let entries = |name: &str, fields: &mut crate::node::Fields, reader: &mut Reader<'_>| {
        fields.take(name).map(|item| reader.entries(item)).unwrap_or_default()
    };
    for entry in entries("env", &mut fields, reader) {
        env_var(entry, manifest, reader);
    }
    for entry in entries("formation", &mut fields, reader) {
        scale(entry, manifest, reader);
    }
    for entry in entries("healthchecks", &mut fields, reader) {
        health::health_checks(entry, manifest, reader);
    }
    if let Some(item) = fields.take("rollout") {
        rollout::rollout(item, manifest, reader);
    }
    if let Some(item) = fields.take("routing") {
        routing::routing(item, manifest, reader);
    }
    let items = |name: &str, fields: &mut crate::node::Fields, reader: &mut Reader<'_>| {
        fields.take(name).map(|item| reader.list(item)).unwrap_or_default()
    };
    for item in items("addons", &mut fields, reader) {
        let spot = item.spot;
        manifest.addons.extend(addon(item, reader).map(|addon| reader.at(spot, addon)));
    }
    for item in items("buildpacks", &mut fields, reader) {
        buildpack(item, manifest, reader);
    }
    if let Some(item) = fields.take("restart") {
        restart::restart(item, manifest, reader);
    }
    for item in items("cron", &mut fields, reader) {
        cron::cron_job(item, manifest, reader);
    }
    for entry in fields.take("volumes").map(|item| reader.entries(item)).unwrap_or_default() {
        volumes::volume(entry, manifest, reader);
    }
    if let Some(item) = fields.take("scripts") {
        // The others are for Heroku CI, review apps and Dokku.
        let scripts = reader.fields(item, &["postdeploy", "pr-predestroy", "test", "test-setup", "dokku"]);
        let postdeploy = scripts.and_then(|mut scripts| scripts.take("postdeploy"));
        manifest.postdeploy = postdeploy.and_then(|item| {
            let spot = item.spot;
            script(item, reader).map(|script| reader.at(spot, script))
        });
    }
}

/// `"NAME": "default"` or `"NAME": {description, value, required, generator}`.
fn env_var(entry: Entry, manifest: &mut Manifest, reader: &mut Reader<'_>) {
    let spot = entry.key.spot;
    let Some(name) = config_var(&entry, reader) else { return };
    if !entry.item.is_map() {
        let value = reader.text(entry.item);
        let var = EnvVar { value, required: true, ..EnvVar::default() };
        manifest.env.insert(name, reader.at(spot, var));
        return;
    }
    let Some(mut fields) = reader.fields(entry.item, &["description", "value", "required", "generator"]) else {
        return;
    };
    let generator = fields.take("generator").and_then(|item| reader.choice(item, &[("secret", true)]));
    let var = EnvVar {
        description: fields.take("description").and_then(|item| reader.text(item)),
        value: fields.take("value").and_then(|item| reader.text(item)),
        required: fields.take("required").and_then(|item| reader.flag(&item)).unwrap_or(true),
        generated: generator.unwrap_or(false),
    };
    if var.generated && var.value.is_some() {
        reader.warning(spot, format!("env.{name} has a value; its generator changes nothing"));
    }
    manifest.env.insert(name, reader.at(spot, var));
}

/// The name of a config var that is the name of an entry.
pub(crate) fn config_var(entry: &Entry, reader: &mut Reader<'_>) -> Option<ConfigVarName> {
    let name = entry.key.name.parse();
    name.map_err(|rule| reader.error(entry.key.spot, format!("{}: {rule}", entry.item.path))).ok()
}

/// The process type that is the name of an entry.
pub(crate) fn process_type(entry: &Entry, reader: &mut Reader<'_>) -> Option<ProcessType> {
    let name = entry.key.name.parse();
    name.map_err(|rule| reader.error(entry.key.spot, format!("{}: {rule}", entry.item.path))).ok()
}

fn scale(entry: Entry, manifest: &mut Manifest, reader: &mut Reader<'_>) {
    let spot = entry.key.spot;
    let Some(process_type) = process_type(&entry, reader) else { return };
    let known = ["quantity", "size", "autoscale", "sleep_after"];
    let Some(mut fields) = reader.fields(entry.item, &known) else { return };
    scaling::scaling(&process_type, &mut fields, manifest, reader);
    let scale = Scale {
        quantity: fields.take("quantity").and_then(|item| reader.number(&item)),
        size: fields.take("size").and_then(|item| reader.text(item)),
    };
    manifest.formation.insert(process_type, reader.at(spot, scale));
}

/// `"service:plan"` or `{plan, as, options}`.
pub(crate) fn addon(item: Item, reader: &mut Reader<'_>) -> Option<Addon> {
    if item.is_text() {
        return plan(item, reader).map(|plan| Addon { plan, attachment: None, options: BTreeMap::new() });
    }
    let (path, spot) = (item.path.clone(), item.spot);
    let mut fields = reader.fields(item, &["plan", "as", "options"])?;
    let attachment = fields.take("as").and_then(|item| attachment(item, reader));
    let options = fields.take("options").map(|item| reader.entries(item)).unwrap_or_default();
    let options = options.into_iter().filter_map(|entry| Some((entry.key.name, reader.text(entry.item)?))).collect();
    let Some(item) = fields.take("plan") else {
        reader.error(spot, format!("{path}.plan is missing"));
        return None;
    };
    plan(item, reader).map(|plan| Addon { plan, attachment, options })
}

fn plan(item: Item, reader: &mut Reader<'_>) -> Option<String> {
    let (path, spot) = (item.path.clone(), item.spot);
    let plan = reader.text(item)?.trim().to_owned();
    if plan.is_empty() || plan.starts_with(':') {
        reader.error(spot, format!("{path} must name an add-on, like postgres or postgres:mini"));
        return None;
    }
    Some(plan)
}

/// Heroku takes these in any case.
fn attachment(item: Item, reader: &mut Reader<'_>) -> Option<AttachmentName> {
    let (path, spot) = (item.path.clone(), item.spot);
    let name = reader.text(item)?.to_ascii_uppercase().parse();
    name.map_err(|rule| reader.error(spot, format!("{path}: {rule}"))).ok()
}

/// `{url}`, or only what it would be.
fn buildpack(item: Item, manifest: &mut Manifest, reader: &mut Reader<'_>) {
    let (path, spot) = (item.path.clone(), item.spot);
    let name = if item.is_map() {
        reader.fields(item, &["url"]).and_then(|mut fields| fields.take("url"))
    } else {
        Some(item)
    };
    let Some(name) = name else { return reader.error(spot, format!("{path}.url is missing")) };
    manifest.buildpacks.extend(reader.text(name).map(|name| reader.at(spot, name)));
}

/// `"command"` or `{command, size}`.
fn script(item: Item, reader: &mut Reader<'_>) -> Option<Script> {
    if !item.is_map() {
        return reader.command(item).map(|command| Script { command, size: None });
    }
    let (path, spot) = (item.path.clone(), item.spot);
    let mut fields = reader.fields(item, &["command", "size"])?;
    let size = fields.take("size").and_then(|item| reader.text(item));
    let Some(command) = fields.take("command") else {
        reader.error(spot, format!("{path}.command is missing"));
        return None;
    };
    reader.command(command).map(|command| Script { command, size })
}
