//! The analyze phase: what the last build left.

use std::path::Path;

use model::Image;

use crate::metadata::{Cache, LIFECYCLE_LABEL, LifecycleMetadata};

/// What the last good build left.
#[derive(Debug, Clone, Default)]
pub(crate) struct Analysis {
    /// From the label of its image; empty for a first build.
    pub(crate) image: LifecycleMetadata,
    /// From the app's cache file.
    pub(crate) cache: Cache,
}

/// Reads the app's cache file and the previous image's label. Neither has to be there.
pub(crate) fn analyze(previous: Option<&Image>, cache: &Path) -> Analysis {
    let cache = Cache::read(cache);
    let label = previous.and_then(|image| image.config.labels.get(LIFECYCLE_LABEL));
    let image = label.and_then(|label| {
        serde_json::from_str(label)
            .inspect_err(
                |error| tracing::warn!(%error, "the previous image's lifecycle label is damaged, building without it"),
            )
            .ok()
    });
    Analysis { image: image.unwrap_or_default(), cache }
}
