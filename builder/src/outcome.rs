//! What the phases in the container tell the host: one JSON file in the layers directory.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::Table;

use crate::debian::{Installed, Packages};
use crate::errors::Failure;
use crate::extend::Extended;
use crate::extension::Generated;
use crate::formats::{GroupMember, Label, LaunchProcess, Slice, Types};
use crate::usage::Usage;

/// A larger file is not read: the app's own code may have written it.
const SIZE_LIMIT: u64 = 16 << 20;

/// What detect and build found and made.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// The buildpacks that took part, in order.
    pub(crate) group: Vec<GroupMember>,
    /// The image extensions that took part, in order.
    #[serde(default)]
    pub(crate) extensions: Vec<GroupMember>,
    /// Layers with at least one flag, by group order and then by name.
    pub(crate) layers: Vec<BuiltLayer>,
    /// Process types, sorted.
    pub(crate) processes: Vec<LaunchProcess>,
    /// The process type that runs when nothing else is asked for.
    pub(crate) default_process: Option<String>,
    /// Labels for the image; a later one of the same key wins.
    pub(crate) labels: Vec<Label>,
    /// Parts of the app that become layers of their own, in order.
    #[serde(default)]
    pub(crate) slices: Vec<Slice>,
    /// `store.toml` metadata by buildpack id.
    pub(crate) stores: BTreeMap<String, Table>,
    /// How long detect took.
    pub(crate) detect: Duration,
    /// How long build took.
    pub(crate) build: Duration,
    /// What both took of the machine, if that can be seen.
    #[serde(default)]
    pub(crate) usage: Option<Usage>,
    /// What the container and the run image ought to have and have not; then nothing was built.
    #[serde(default)]
    pub(crate) missing: Option<Missing>,
    /// The packages that the container has. Only the host knows.
    #[serde(skip)]
    pub(crate) packages: Option<Installed>,
    /// What image extensions made of the container and the run image. Only the host knows.
    #[serde(skip)]
    pub(crate) extended: Option<Extended>,
    /// How long that took.
    #[serde(skip)]
    pub(crate) extend: Duration,
    /// Why there is no image, if so.
    pub(crate) failure: Option<Failure>,
}

/// What a build needs beside the stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Missing {
    /// All packages that the plan asks for.
    pub(crate) packages: Packages,
    /// All Dockerfiles of image extensions.
    pub(crate) generated: Generated,
}

/// A layer as its buildpack left it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct BuiltLayer {
    /// Id of the buildpack.
    pub(crate) buildpack: String,
    /// Name of the layer.
    pub(crate) name: String,
    /// What it is for.
    pub(crate) types: Types,
    /// What the buildpack wants to know next time.
    pub(crate) metadata: Table,
}

impl Outcome {
    /// Writes it into `<layers>/config`.
    pub(crate) fn write(&self, layers: &Path) -> io::Result<()> {
        fs::create_dir_all(layers.join("config"))?;
        fs::write(layers.join("config/outcome.json"), serde_json::to_vec(self)?)
    }

    /// Reads it on the host. Links are not followed, since whoever wrote them means files of the host's.
    pub(crate) fn read(layers: &Path) -> io::Result<Self> {
        let config = layers.join("config");
        if !fs::symlink_metadata(&config)?.is_dir() {
            return Err(io::Error::other("the build replaced its config directory"));
        }
        let flags = nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK;
        let file = fs::OpenOptions::new().read(true).custom_flags(flags.bits()).open(config.join("outcome.json"))?;
        let mut text = String::new();
        file.take(SIZE_LIMIT).read_to_string(&mut text)?;
        Ok(serde_json::from_str(&text)?)
    }
}
