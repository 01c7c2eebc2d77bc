//! `volumes`: what the app keeps on disk. The platform's own words.

use model::{MountPath, NameError, ProcessType, VolumeName, VolumeSize};

use crate::node::{Entry, Item, Reader};
use crate::{Manifest, VolumeWish};

/// Whose dynos mount it if nobody says so.
const USUAL: &str = "web";
/// Runs before its release does.
const RELEASE: &str = "release";

/// `"data": {"process": "web", "path": "/data", "size": "5GiB"}`. What the rest of the file says of process types must be read before.
pub(super) fn volume(entry: Entry, manifest: &mut Manifest, reader: &mut Reader<'_>) {
    let spot = entry.key.spot;
    let name = entry.key.name.parse::<VolumeName>();
    let name = name.map_err(|rule| reader.error(spot, format!("{}: {rule}", entry.item.path))).ok();
    let path = entry.item.path.clone();
    let Some(mut fields) = reader.fields(entry.item, &["process", "path", "size"]) else { return };
    let at = fields.take("path");
    if at.is_none() {
        reader.error(spot, format!("{path}.path is missing: where dynos see it, as \"/data\""));
    }
    let at = at.and_then(|item| parsed::<MountPath>(item, reader));
    let process_type = match fields.take("process") {
        Some(item) => parsed::<ProcessType>(item, reader),
        None => USUAL.parse().ok(),
    };
    let size = match fields.take("size") {
        Some(item) => parsed::<VolumeSize>(item, reader),
        None => Some(VolumeSize::USUAL),
    };
    let (Some(name), Some(at), Some(process_type), Some(size)) = (name, at, process_type, size) else { return };
    let wish = VolumeWish { process_type, path: at, size };
    match refusal(&wish, manifest) {
        Some(refusal) => reader.error(spot, format!("{path}: {refusal}")),
        None => drop(manifest.volumes.insert(name, reader.at(spot, wish))),
    }
}

/// Why a volume cannot be, as far as the rest of the file tells.
fn refusal(wish: &VolumeWish, manifest: &Manifest) -> Option<String> {
    let VolumeWish { process_type, path, .. } = wish;
    if process_type.as_str() == RELEASE {
        return Some("the release process has no volumes: it runs before its release does".to_owned());
    }
    let own = manifest.volumes.iter().filter(|(_, other)| other.value.process_type == *process_type);
    if let Some((name, _)) = own.clone().find(|(_, other)| other.value.path.overlaps(path)) {
        return Some(format!("{path} is the path of {name}, or above or below it"));
    }
    let quantity = manifest.formation.get(process_type).and_then(|scale| scale.value.quantity);
    if let Some(quantity @ 2..) = quantity {
        return Some(format!(
            "a process type with a volume runs one dyno, and formation.{process_type}.quantity is {quantity}"
        ));
    }
    let scaling = manifest.scaling.get(process_type);
    if scaling.is_some_and(|settings| settings.keys().any(|name| name != "sleep_after")) {
        return Some(format!(
            "a process type with a volume runs one dyno, and there is formation.{process_type}.autoscale"
        ));
    }
    None
}

fn parsed<T: std::str::FromStr<Err = NameError>>(item: Item, reader: &mut Reader<'_>) -> Option<T> {
    let (path, spot) = (item.path.clone(), item.spot);
    let text = reader.text(item)?;
    text.parse().map_err(|rule| reader.error(spot, format!("{path}: {rule}"))).ok()
}
