//! `restart`: when what ended by itself is started again.

use crate::node::{Item, Reader};
use crate::{Manifest, Restarts};

pub(super) fn restart(item: Item, manifest: &mut Manifest, reader: &mut Reader<'_>) {
    let (path, spot) = (item.path.clone(), item.spot);
    let Some(mut fields) = reader.fields(item, &["at_once", "pause", "longest_pause", "limit"]) else { return };
    let mut number = |name: &str| fields.take(name).and_then(|item| reader.number(&item));
    let restarts = Restarts {
        at_once: number("at_once"),
        pause: number("pause"),
        longest_pause: number("longest_pause"),
        limit: number("limit"),
    };
    if restarts.pause == Some(0) {
        reader.error(spot, format!("{path}.pause must be at least one second"));
    }
    manifest.restart = restarts;
}
