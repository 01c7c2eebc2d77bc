//! `rollout`: how the releases of the app replace each other. The platform's own word, in the words of its API.

use model::RolloutPolicy;

use crate::Manifest;
use crate::node::{Item, Reader};

pub(super) fn rollout(item: Item, manifest: &mut Manifest, reader: &mut Reader<'_>) {
    let spot = item.spot;
    let Some(mut fields) = reader.fields(item, &RolloutPolicy::SETTINGS) else { return };
    let mut policy = RolloutPolicy::default();
    for name in RolloutPolicy::SETTINGS {
        let Some(item) = fields.take(name) else { continue };
        let (path, spot) = (item.path.clone(), item.spot);
        let Some(text) = reader.text_or_texts(item) else { continue };
        match policy.set(name, &text) {
            Ok(()) => drop(manifest.rollout.insert(name.to_owned(), text)),
            Err(rule) => reader.error(spot, format!("{path} {rule}")),
        }
    }
    if let Err(rule) = policy.check() {
        reader.error(spot, format!("rollout: {rule}"));
    }
}
