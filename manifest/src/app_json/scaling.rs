//! `formation.<type>.sleep_after`: how many instances there are when nobody says so. The platform's own word, in the words of its API.

use model::{ProcessType, ScalingPolicy};

use crate::Manifest;
use crate::node::{Fields, Reader};

pub(super) fn scaling(
    process_type: &ProcessType,
    fields: &mut Fields,
    manifest: &mut Manifest,
    reader: &mut Reader<'_>,
) {
    for name in ScalingPolicy::SETTINGS {
        let Some(item) = fields.take(name) else { continue };
        let (path, spot) = (item.path.clone(), item.spot);
        let Some(text) = reader.text(item) else { continue };
        if process_type.as_str() != "web" {
            reader.error(spot, format!("{path} is for web alone: nothing else gets requests that could wake it"));
            continue;
        }
        match ScalingPolicy::default().set(name, &text) {
            Ok(()) => {
                manifest.scaling.entry(process_type.clone()).or_default().insert(name.to_owned(), text);
            }
            Err(rule) => reader.error(spot, format!("{path} {rule}")),
        }
    }
}
