//! The image as OCI knows it: a config document whose digest is the image's name.

use std::collections::BTreeMap;

use model::{Digest, Image, ImageConfig, Layer};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// When everything in an image was made, as far as anybody can see: the same input gives the same image.
const CREATED: &str = "1980-01-01T00:00:01Z";

/// The OCI image config of `image` (OCI image spec, "Image Configuration"), byte for byte what its digest is made of.
pub fn oci_config(image: &Image, architecture: &str) -> Vec<u8> {
    document(&image.layers, &image.config, architecture)
}

/// The digest of the image of these parts.
pub(crate) fn digest(layers: &[Layer], config: &ImageConfig, architecture: &str) -> Digest {
    Digest::from_sha256(Sha256::digest(document(layers, config, architecture)).into())
}

fn document(layers: &[Layer], config: &ImageConfig, architecture: &str) -> Vec<u8> {
    let document = Document {
        created: CREATED,
        architecture,
        os: "linux",
        config: Config {
            env: config.env.iter().map(|(name, value)| format!("{name}={value}")).collect(),
            entrypoint: &config.entrypoint,
            cmd: &config.cmd,
            working_dir: &config.working_dir,
            labels: &config.labels,
        },
        rootfs: RootFs { kind: "layers", diff_ids: layers.iter().map(|layer| &layer.diff_id).collect() },
        history: layers.iter().map(|layer| History { created: CREATED, created_by: &layer.created_by }).collect(),
    };
    // Serialising strings, lists and maps of strings into memory cannot fail.
    serde_json::to_vec(&document).unwrap_or_default()
}

#[derive(Serialize)]
struct Document<'a> {
    created: &'a str,
    architecture: &'a str,
    os: &'a str,
    config: Config<'a>,
    rootfs: RootFs<'a>,
    history: Vec<History<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Config<'a> {
    env: Vec<String>,
    entrypoint: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    cmd: &'a [String],
    working_dir: &'a str,
    labels: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
struct RootFs<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    diff_ids: Vec<&'a Digest>,
}

#[derive(Serialize)]
struct History<'a> {
    created: &'a str,
    created_by: &'a str,
}
