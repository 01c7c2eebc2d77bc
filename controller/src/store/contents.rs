//! What a release holds, as values: two of them can be compared, and one can be put in place of another.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use model::{
    AddonId, AddonName, AttachmentName, BuildId, ConfigVarName, Digest, DiskId, MountPath, NameError, ProcessType,
    VolumeId, VolumeName,
};
use serde::{Deserialize, Serialize};

use crate::config_vars::ConfigVars;

/// All that a release holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// What it runs; none until something was deployed.
    pub image: Option<Digest>,
    /// The build that made the image.
    pub slug: Option<BuildId>,
    /// What is kept of the manifest that came with the code, as JSON; none if that is not known to say anything.
    pub manifest: Option<String>,
    /// Every config var, those that come from attachments included.
    pub config: ConfigVars,
    /// Where config vars are given; what is not here is given everywhere.
    pub scopes: Scopes,
    /// The config vars that come from attachments.
    pub attached: Attached,
    /// The use of add-ons.
    pub attachments: Attachments,
    /// What should run, and how often.
    pub formation: Formation,
    /// What its dynos have on disk that outlives them.
    pub volumes: Volumes,
}

/// The config vars that come from attachments, and of which add-on.
pub type Attached = BTreeMap<ConfigVarName, AddonId>;

/// The use of add-ons, by the name of the attachment.
pub type Attachments = BTreeMap<AttachmentName, AttachedAddon>;

/// How many instances of each process type, and of which size.
pub type Formation = BTreeMap<ProcessType, ProcessScale>;

/// The volumes of an app, by name.
pub type Volumes = BTreeMap<VolumeName, MountedVolume>;

/// The config vars that are not given everywhere.
pub type Scopes = BTreeMap<ConfigVarName, Scope>;

/// What became of each config var that is not as it was.
pub type ConfigChanges = BTreeMap<ConfigVarName, ConfigChange>;

/// An add-on as a release knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachedAddon {
    /// Its id.
    pub addon: AddonId,
    /// Its name at that time.
    pub name: AddonName,
    /// Its plan at that time: `postgres:mini`.
    pub plan: String,
}

/// A volume as a release knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountedVolume {
    /// Its id.
    pub volume: VolumeId,
    /// What the engine calls it.
    pub disk: DiskId,
    /// How often it had to be mounted anew.
    pub mounts: u64,
    /// Whose dynos mount it.
    pub process_type: ProcessType,
    /// Where.
    pub path: MountPath,
}

/// How a process type is scaled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessScale {
    /// How many instances.
    pub quantity: u32,
    /// Canonical name of the dyno size.
    pub size: String,
}

/// The one place where a config var is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Only builds see it.
    Build,
    /// Only what runs of the app sees it: dynos, the release phase, one-off commands.
    Run,
}

/// What becomes of a config var.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConfigChange {
    /// Only the second has it.
    Added,
    /// They have different values, or give it in different places.
    Changed,
    /// Only the first has it.
    Removed,
}

impl Contents {
    /// The environment that a build or a process is given.
    pub fn environment(&self, place: Scope) -> BTreeMap<String, String> {
        let is_given = |name: &ConfigVarName| self.scopes.get(name).is_none_or(|scope| *scope == place);
        let given = self.config.iter().filter(|(name, _)| is_given(name));
        given.map(|(name, value)| (name.to_string(), value.to_owned())).collect()
    }

    /// What becomes of each config var from these contents to others.
    pub fn config_changes(&self, after: &Self) -> ConfigChanges {
        let removed = self.config.iter().filter(|(name, _)| after.config.get(name).is_none());
        let mut changes: ConfigChanges = removed.map(|(name, _)| (name.clone(), ConfigChange::Removed)).collect();
        for (name, value) in after.config.iter() {
            let moved = self.scopes.get(name) != after.scopes.get(name);
            match self.config.get(name) {
                None => drop(changes.insert(name.clone(), ConfigChange::Added)),
                Some(old) if old != value || moved => drop(changes.insert(name.clone(), ConfigChange::Changed)),
                Some(_) => {}
            }
        }
        changes
    }

    /// Makes `vars` all that comes from attachments.
    pub fn attach(&mut self, vars: &BTreeMap<ConfigVarName, (AddonId, String)>) {
        let gone = self.attached.keys().filter(|name| !vars.contains_key(name)).map(|name| (name.clone(), None));
        let set = vars.iter().map(|(name, (_, value))| (name.clone(), Some(value.clone())));
        self.config.apply(&gone.chain(set).collect());
        self.attached = vars.iter().map(|(name, (addon, _))| (name.clone(), *addon)).collect();
        self.forget_scopes();
    }

    /// Drops the scopes of config vars that there are no more.
    pub fn forget_scopes(&mut self) {
        self.scopes.retain(|name, _| self.config.get(name).is_some());
    }
}

impl FromStr for Scope {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text {
            "build" => Ok(Self::Build),
            "run" => Ok(Self::Run),
            _ => Err(NameError("A scope is build or run".to_owned())),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Build => "build",
            Self::Run => "run",
        })
    }
}

impl fmt::Display for ConfigChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Removed => "removed",
        })
    }
}
