//! OCI layouts that strangers made (OCI image spec, "Image Layout"), as registries, Docker and others give them out.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use model::Digest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::unpack::{self, UnpackError};

/// A longer document of a layout is not read.
const MAX_DOCUMENT: u64 = 8 << 20;

/// The image for this machine in a layout, or the only one.
#[derive(Debug)]
pub(crate) struct Layout {
    folder: PathBuf,
    /// Digest of its manifest.
    pub(crate) manifest: Digest,
    /// From the base up.
    pub(crate) layers: Vec<Descriptor>,
    pub(crate) architecture: String,
    pub(crate) os: String,
    pub(crate) settings: Settings,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

/// What a document says of another one, or of a blob.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    digest: String,
    #[serde(default)]
    media_type: String,
    platform: Option<Platform>,
}

#[derive(Debug, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct About {
    architecture: String,
    os: String,
    #[serde(deserialize_with = "null_is_default")]
    config: Settings,
}

/// How containers of an image start (OCI image spec, "Properties").
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Settings {
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) env: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) entrypoint: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) cmd: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) working_dir: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) user: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) exposed_ports: BTreeMap<String, Value>,
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) volumes: BTreeMap<String, Value>,
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) labels: BTreeMap<String, String>,
}

/// Go writes `null` for what is empty.
fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Layout {
    /// Reads everything but the layers.
    pub(crate) fn read(folder: &Path) -> Result<Self, UnpackError> {
        // A link could lead to any folder of the machine.
        let is_plain = |name: &str| folder.join(name).symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
        if !["blobs", "blobs/sha256"].into_iter().all(is_plain) {
            return Err(UnpackError::Layout("it has no folder blobs/sha256".to_owned()));
        }
        let mut file = folder.join("index.json");
        // An index may be within an index; nobody goes deeper.
        for _ in 0..3 {
            let index: Index = document(&file)?;
            let found = index.manifests.iter().find(|one| one.platform.as_ref().is_none_or(Platform::is_ours));
            let found = found.ok_or_else(|| UnpackError::Layout("it has no image for this machine".to_owned()))?;
            file = blob(folder, &found.digest)?;
            if !found.media_type.ends_with("index.v1+json") && !found.media_type.ends_with("list.v2+json") {
                let Manifest { config, layers } = document(&file)?;
                let About { architecture, os, config: settings } = document(&blob(folder, &config.digest)?)?;
                let manifest = parse(&found.digest)?;
                return Ok(Self { folder: folder.to_owned(), manifest, layers, architecture, os, settings });
            }
        }
        Err(UnpackError::Layout("its indexes lead to no image".to_owned()))
    }

    /// The digests of the layers, as the manifest says them.
    pub(crate) fn digests(&self) -> impl Iterator<Item = &str> {
        self.layers.iter().map(|layer| layer.digest.as_str())
    }

    /// The file of a layer, which has its digest.
    pub(crate) fn blob(&self, layer: &Descriptor) -> Result<PathBuf, UnpackError> {
        blob(&self.folder, &layer.digest)
    }

    /// Whether this machine can run it. Some tools do not say what an image is for.
    pub(crate) fn is_ours(&self) -> bool {
        let is = |said: &str, ours: &str| said.is_empty() || said == ours;
        is(&self.os, "linux") && is(&self.architecture, crate::architecture())
    }
}

impl Platform {
    fn is_ours(&self) -> bool {
        self.os == "linux" && self.architecture == crate::architecture()
    }
}

fn parse(digest: &str) -> Result<Digest, UnpackError> {
    digest.parse().map_err(|_| UnpackError::Layout(format!("{digest:?} is no digest")))
}

fn blob(folder: &Path, digest: &str) -> Result<PathBuf, UnpackError> {
    let parsed = parse(digest)?;
    let file = folder.join("blobs/sha256").join(parsed.hex());
    if !file.symlink_metadata()?.is_file() {
        return Err(UnpackError::Layout(format!("its blob {digest} is no file")));
    }
    if unpack::digest(&file)? == parsed.hex() { Ok(file) } else { Err(UnpackError::Damaged(digest.to_owned())) }
}

fn document<T: DeserializeOwned>(file: &Path) -> Result<T, UnpackError> {
    let problem = |what: String| UnpackError::Layout(what);
    if !file.symlink_metadata().is_ok_and(|metadata| metadata.is_file()) {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        return Err(problem(format!("it has no file {name}")));
    }
    let mut text = Vec::new();
    File::open(file)?.take(MAX_DOCUMENT).read_to_end(&mut text)?;
    serde_json::from_slice(&text).map_err(|error| problem(error.to_string()))
}
