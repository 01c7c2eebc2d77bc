//! What one build leaves for the next: the labels of the image, and a file for what is in no image.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use model::Digest;
use serde::{Deserialize, Serialize};
use toml::Table;

use crate::debian::Installed;
use crate::extend::Extended;
use crate::formats::{LaunchProcess, StoreToml, Types};

/// Label of [`LifecycleMetadata`].
pub(crate) const LIFECYCLE_LABEL: &str = "io.buildpacks.lifecycle.metadata";
/// Label of [`BuildMetadata`].
pub(crate) const BUILD_LABEL: &str = "io.buildpacks.build.metadata";
/// Label that the specification wants and that says nothing here.
pub(crate) const PROJECT_LABEL: &str = "io.buildpacks.project.metadata";

/// Label that says whether another run image may be put under the app.
pub(crate) const REBASABLE_LABEL: &str = "io.buildpacks.rebasable";

/// Label `io.buildpacks.lifecycle.metadata` (Platform spec, "Labels").
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct LifecycleMetadata {
    pub(crate) app: Vec<Sha>,
    pub(crate) buildpacks: Vec<BuildpackLayers>,
    pub(crate) config: Option<Sha>,
    pub(crate) launcher: Option<Sha>,
    #[serde(rename = "process-types")]
    pub(crate) process_types: Option<Sha>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sbom: Option<Sha>,
    pub(crate) run_image: RunImage,
    /// An older place of the same, which some tools still read.
    pub(crate) stack: LegacyStack,
}

/// A layer of the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sha {
    pub(crate) sha: Digest,
}

/// The run image that the app's layers lie on.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RunImage {
    pub(crate) top_layer: Option<Digest>,
    pub(crate) reference: String,
}

/// `stack.runImage`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct LegacyStack {
    pub(crate) run_image: RunImage,
}

/// One buildpack's layers in the image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct BuildpackLayers {
    pub(crate) key: String,
    pub(crate) version: String,
    #[serde(default)]
    pub(crate) layers: BTreeMap<String, StoredLayer>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) store: Option<StoreToml>,
}

/// A layer of an earlier build.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StoredLayer {
    pub(crate) sha: Digest,
    #[serde(default)]
    pub(crate) data: Table,
    #[serde(flatten)]
    pub(crate) types: Types,
}

/// Label `io.buildpacks.build.metadata`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct BuildMetadata {
    pub(crate) buildpacks: Vec<BuildpackName>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) extensions: Vec<BuildpackName>,
    pub(crate) processes: Vec<LaunchProcess>,
    pub(crate) launcher: LauncherName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) buildpack_default_process_type: Option<String>,
}

/// A buildpack in [`BuildMetadata`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct BuildpackName {
    pub(crate) id: String,
    pub(crate) version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) homepage: Option<String>,
}

/// Who starts the processes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LauncherName {
    pub(crate) version: String,
}

/// An app's `cache.json`: what its builds keep between themselves.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cache {
    /// Layers with the flag `cache`, by buildpack id and layer name.
    #[serde(default)]
    pub(crate) layers: BTreeMap<String, BTreeMap<String, StoredLayer>>,
    /// Bytes of the layers of the last image, so that an unchanged layer is not walked to know its size.
    #[serde(default)]
    pub(crate) sizes: BTreeMap<Digest, u64>,
    /// Layer of the bills of materials that are in no image.
    #[serde(default)]
    pub(crate) sbom: Option<Digest>,
    /// Debian packages of the last image.
    #[serde(default)]
    pub(crate) packages: Option<Installed>,
    /// What image extensions made of the images that the last build stood on.
    #[serde(default)]
    pub(crate) extended: Option<Extended>,
    /// Whoever purged it wants that the next build starts from nothing: it gets no layers of the last image either.
    #[serde(default)]
    pub(crate) purged: bool,
}

impl Cache {
    /// Reads an app's cache file. One that is missing or damaged costs a slower build, nothing else.
    pub(crate) fn read(file: &Path) -> Self {
        let text = match fs::read(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::default(),
            Err(error) => {
                tracing::warn!(path = %file.display(), %error, "cannot read a build cache, building without it");
                return Self::default();
            }
        };
        serde_json::from_slice(&text).unwrap_or_else(|error| {
            tracing::warn!(path = %file.display(), %error, "a build cache is damaged, building without it");
            Self::default()
        })
    }

    /// Replaces an app's cache file, all or nothing.
    pub(crate) fn write(&self, file: &Path) -> io::Result<()> {
        let dir = file.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(dir)?;
        let new = file.with_extension("new");
        let mut out = fs::File::create(&new)?;
        out.write_all(&serde_json::to_vec(self)?)?;
        out.sync_all()?;
        fs::rename(&new, file)
    }
}
