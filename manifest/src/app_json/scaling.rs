//! `formation.<type>.autoscale` and `.sleep_after`: how many instances there are when nobody says so. The platform's own words, in the words
//! of its API.

use model::{ProcessType, ScalingPolicy};

use crate::Manifest;
use crate::node::{Fields, Item, Reader};

/// The setting that stands beside the others, which are in an object of their own.
const SLEEP: &str = "sleep_after";

pub(super) fn scaling(
    process_type: &ProcessType,
    fields: &mut Fields,
    manifest: &mut Manifest,
    reader: &mut Reader<'_>,
) {
    let mut policy = ScalingPolicy::default();
    let mut found = Vec::new();
    let mut place = None;
    if let Some(item) = fields.take("autoscale") {
        place = Some((item.path.clone(), item.spot));
        let names: Vec<&str> = ScalingPolicy::SETTINGS.into_iter().filter(|name| *name != SLEEP).collect();
        let settings = reader.fields(item, &names).map(|mut fields| {
            names.into_iter().filter_map(|name| Some((name, fields.take(name)?))).collect::<Vec<_>>()
        });
        for (name, item) in settings.unwrap_or_default() {
            found.extend(setting(&mut policy, (name, item), reader));
        }
    }
    if let Some(item) = fields.take(SLEEP) {
        place.get_or_insert_with(|| (item.path.clone(), item.spot));
        found.extend(setting(&mut policy, (SLEEP, item), reader));
    }
    let Some((path, spot)) = place else { return };
    if let Err(rule) = policy.check(process_type.as_str()) {
        return reader.error(spot, format!("{path}: {rule}"));
    }
    if !found.is_empty() {
        manifest.scaling.insert(process_type.clone(), found.into_iter().collect());
    }
}

fn setting(
    policy: &mut ScalingPolicy,
    (name, item): (&str, Item),
    reader: &mut Reader<'_>,
) -> Option<(String, String)> {
    let (path, spot) = (item.path.clone(), item.spot);
    let text = reader.text(item)?;
    match policy.set(name, &text) {
        Ok(()) => Some((name.to_owned(), text)),
        Err(rule) => {
            reader.error(spot, format!("{path} {rule}"));
            None
        }
    }
}
