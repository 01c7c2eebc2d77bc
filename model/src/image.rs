//! Images: a list of layers and a config, named by digest. Where the bytes lie is the engine's matter.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::NameError;

/// `sha256:` and 64 lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// From the 32 bytes of a SHA-256.
    pub fn from_sha256(bytes: [u8; 32]) -> Self {
        use fmt::Write;
        let mut text = String::with_capacity(71);
        text.push_str("sha256:");
        for byte in bytes {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        Self(text)
    }

    /// `sha256:…`
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 64 hex digits alone.
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }
}

impl FromStr for Digest {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let is_hex = |hex: &str| hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if text.strip_prefix("sha256:").is_some_and(is_hex) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError("A digest is sha256: and 64 lower-case hexadecimal digits".to_owned()))
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// The diffID: SHA-256 of the layer as an uncompressed tar (OCI image spec, "Layer `DiffID`").
    pub diff_id: Digest,
    /// What made it, for the image history: `Layer: 'dist', Created by buildpack: platform/nodejs@0.1.0`.
    pub created_by: String,
}

/// The parts of an OCI image config that a container needs (OCI image spec, "Properties").
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// Environment of every container of the image.
    pub env: BTreeMap<String, String>,
    /// Command prefix.
    pub entrypoint: Vec<String>,
    /// Directory in which a container starts.
    pub working_dir: String,
    /// Labels, the CNB ones (`io.buildpacks.…`) among them.
    pub labels: BTreeMap<String, String>,
}

/// An image: what a release runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The image id: SHA-256 of the OCI config JSON.
    pub digest: Digest,
    /// From the base up: the run image's layers first, the app's last ones on top.
    pub layers: Vec<Layer>,
    /// How containers of it start.
    pub config: ImageConfig,
    /// What it offers to run, by the buildpacks and the Procfile.
    pub processes: Vec<crate::process::Process>,
}
