//! `routing`: how routers treat the requests to the app. The platform's own word, in the words of its API.

use model::RoutePolicy;

use crate::Manifest;
use crate::node::{Item, Reader};

pub(super) fn routing(item: Item, manifest: &mut Manifest, reader: &mut Reader<'_>) {
    let spot = item.spot;
    let Some(mut fields) = reader.fields(item, &RoutePolicy::SETTINGS) else { return };
    let mut policy = RoutePolicy::default();
    for name in RoutePolicy::SETTINGS {
        let Some(item) = fields.take(name) else { continue };
        let (path, spot) = (item.path.clone(), item.spot);
        let Some(text) = reader.text_or_texts(item) else { continue };
        match policy.set(name, &text) {
            Ok(()) => drop(manifest.routing.insert(name.to_owned(), text)),
            Err(rule) => reader.error(spot, format!("{path} {rule}")),
        }
    }
    if let Err(rule) = policy.check() {
        reader.error(spot, format!("routing: {rule}"));
    }
}
