//! `heroku.yml` (Dev Center, "Building Docker Images with heroku.yml").

use std::collections::BTreeMap;
use std::path::{Component, Path};

use crate::app_json::{addon, config_var, process_type, text};
use crate::node::{Fields, Item, Reader};
use crate::problem::Problem;
use crate::{Docker, EnvVar, HEROKU_YML, Manifest, yaml};

pub(crate) fn read(bytes: &[u8], manifest: &mut Manifest, problems: &mut Vec<Problem>) {
    let mut reader = Reader { file: HEROKU_YML, problems };
    let Some(text) = text(bytes, &mut reader) else { return };
    match yaml::parse(text) {
        Ok(node) => top(Item::root(node), manifest, &mut reader),
        Err((spot, message)) => reader.error(spot, message),
    }
}

fn top(root: Item, manifest: &mut Manifest, reader: &mut Reader<'_>) {
    let Some(mut fields) = reader.fields(root, &["setup", "build", "release", "run"]) else { return };
    if let Some(mut setup) = fields.take("setup").and_then(|item| reader.fields(item, &["addons", "config"])) {
        addons(&mut setup, manifest, reader);
        config(&mut setup, manifest, reader);
    }
    if let Some(item) = fields.take("build") {
        manifest.docker = build(item, reader);
    }
    if let Some(item) = fields.take("run") {
        for entry in reader.entries(item) {
            let Some(process_type) = process_type(&entry, reader) else { continue };
            manifest.processes.extend(command(entry.item, reader).map(|command| (process_type, command)));
        }
    }
    if let Some(item) = fields.take("release")
        && let Some(command) = command(item, reader)
        && let Ok(release) = "release".parse()
    {
        manifest.processes.insert(release, command);
    }
}

fn addons(setup: &mut Fields, manifest: &mut Manifest, reader: &mut Reader<'_>) {
    for item in setup.take("addons").map(|item| reader.list(item)).unwrap_or_default() {
        let spot = item.spot;
        let Some(addon) = addon(item, reader) else { continue };
        let is_there = manifest.addons.iter().any(|other| match &addon.attachment {
            Some(name) => other.value.attachment.as_ref() == Some(name),
            None => other.value.service() == addon.service(),
        });
        if !is_there {
            manifest.addons.push(reader.at(spot, addon));
        }
    }
}

fn config(setup: &mut Fields, manifest: &mut Manifest, reader: &mut Reader<'_>) {
    for entry in setup.take("config").map(|item| reader.entries(item)).unwrap_or_default() {
        let spot = entry.key.spot;
        let Some(name) = config_var(&entry, reader) else { continue };
        let Some(value) = reader.text(entry.item) else { continue };
        let var = EnvVar { value: Some(value), required: true, ..EnvVar::default() };
        manifest.env.entry(name).or_insert_with(|| reader.at(spot, var));
    }
}

/// Every process type has an image on Heroku, and here all of an app have one.
fn build(item: Item, reader: &mut Reader<'_>) -> Option<Docker> {
    let mut fields = reader.fields(item, &["docker", "config"])?;
    let mut args = BTreeMap::new();
    for entry in fields.take("config").map(|item| reader.entries(item)).unwrap_or_default() {
        args.extend(reader.text(entry.item).map(|value| (entry.key.name, value)));
    }
    let mut found: Option<(String, Docker)> = None;
    let entries = fields.take("docker").map(|item| reader.entries(item)).unwrap_or_default();
    if let Some(first) = entries.first().filter(|_| entries.iter().all(|entry| entry.key.name != "web")) {
        reader.error(first.key.spot, "build.docker has no web: the image of an app is that of its web process");
    }
    for entry in entries {
        let (path, spot) = (entry.item.path.clone(), entry.item.spot);
        let Some(docker) = dockerfile(entry.item, reader) else { continue };
        match &found {
            Some((first, other)) if *other != docker => reader.error(
                spot,
                format!("{path} is another image than {first}, and an app has one here; put both into one image, and name the command in run"),
            ),
            Some(_) => {}
            None => found = Some((path, docker)),
        }
    }
    found.map(|(_, docker)| Docker { args, ..docker })
}

/// `path`, or `{dockerfile: path, target}`.
fn dockerfile(item: Item, reader: &mut Reader<'_>) -> Option<Docker> {
    let (path, spot) = (item.path.clone(), item.spot);
    let (dockerfile, target) = if item.is_map() {
        let mut fields = reader.fields(item, &["dockerfile", "target"])?;
        let mut field = |name: &str| fields.take(name).map(|item| reader.text(item));
        (field("dockerfile").flatten(), field("target").flatten())
    } else {
        (reader.text(item), None)
    };
    let Some(dockerfile) = dockerfile else {
        reader.error(spot, format!("{path} must have a dockerfile"));
        return None;
    };
    let is_inside =
        Path::new(&dockerfile).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !is_inside || dockerfile.is_empty() {
        reader.error(spot, format!("{path} must be the path of a Dockerfile from the top of the repository"));
        return None;
    }
    Some(Docker { dockerfile, target, args: BTreeMap::new() })
}

/// `command`, `[command, …]`, or `{command: either, image}`.
fn command(item: Item, reader: &mut Reader<'_>) -> Option<String> {
    if item.is_list() {
        let commands: Vec<_> = reader.list(item).into_iter().filter_map(|item| reader.command(item)).collect();
        return Some(commands.join(" && ")).filter(|command| !command.is_empty());
    }
    if !item.is_map() {
        return reader.command(item);
    }
    let (path, spot) = (item.path.clone(), item.spot);
    let mut fields = reader.fields(item, &["command", "image"])?;
    let inner = fields.take("command").filter(|item| !item.is_map());
    if inner.is_none() {
        reader.warning(spot, format!("{path} has no command and changes nothing: there is no image to run"));
    }
    command(inner?, reader)
}
