//! The files of the specification, as far as this lifecycle reads or writes them. Unknown keys are tolerated everywhere: a buildpack
//! may be newer than we are.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

/// A version of the Buildpack API: `0.10`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Api {
    major: u32,
    minor: u32,
}

impl Api {
    pub(crate) const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// Whether this lifecycle speaks it.
    pub(crate) fn is_supported(self) -> bool {
        (Self::new(0, 7)..=Self::new(0, 12)).contains(&self)
    }
}

impl FromStr for Api {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
        match (major.parse(), minor.parse()) {
            (Ok(major), Ok(minor)) => Ok(Self { major, minor }),
            _ => Err(format!("{text:?} is not a Buildpack API version such as 0.10")),
        }
    }
}

impl TryFrom<String> for Api {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Api> for String {
    fn from(api: Api) -> String {
        api.to_string()
    }
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The one execution environment of this platform.
pub(crate) const EXEC_ENV: &str = "production";

/// `exec-env`: a list of the execution environments that something is for; all, if there is no list or `*` is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(from = "Value")]
pub(crate) struct ExecEnv {
    /// Whether ours is one of them.
    pub(crate) is_ours: bool,
}

impl Default for ExecEnv {
    fn default() -> Self {
        Self { is_ours: true }
    }
}

impl From<Value> for ExecEnv {
    fn from(list: Value) -> Self {
        let Some(list) = list.as_array().filter(|list| !list.is_empty()) else { return Self::default() };
        // Of a whole buildpack it is a list of tables with names, by the specification's text, or of names, by its examples.
        let names = list.iter().filter_map(|entry| entry.get("name").unwrap_or(entry).as_str());
        Self { is_ours: names.into_iter().any(|name| [EXEC_ENV, "*"].contains(&name)) }
    }
}

/// `buildpack.toml`, and `extension.toml`, which says the same under another name.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct BuildpackToml {
    pub(crate) api: Api,
    #[serde(alias = "extension")]
    pub(crate) buildpack: BuildpackInfo,
    #[serde(default)]
    pub(crate) targets: Vec<Target>,
    #[serde(default)]
    pub(crate) stacks: Vec<StackEntry>,
    /// Present in composite buildpacks only.
    #[serde(default)]
    pub(crate) order: Vec<OrderGroup>,
}

/// `[buildpack]`
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct BuildpackInfo {
    pub(crate) id: String,
    pub(crate) version: String,
    pub(crate) name: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) homepage: Option<String>,
    #[serde(default)]
    pub(crate) clear_env: bool,
    /// Media types of the bills of materials that it may write.
    #[serde(default)]
    pub(crate) sbom_formats: Vec<String>,
    #[serde(default)]
    pub(crate) exec_env: ExecEnv,
}

/// `[[targets]]`, and the target of a build.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Target {
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default)]
    pub(crate) arch: String,
    #[serde(default)]
    pub(crate) variant: String,
    #[serde(default)]
    pub(crate) distros: Vec<Distro>,
}

/// `[[targets.distros]]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Distro {
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) version: String,
}

impl fmt::Display for Distro {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(format!("{} {}", self.name, self.version).trim())
    }
}

/// Legacy `[[stacks]]`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct StackEntry {
    pub(crate) id: String,
}

/// `order.toml`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Order {
    #[serde(default)]
    pub(crate) order: Vec<OrderGroup>,
    /// Image extensions that go before every group.
    #[serde(default, rename = "order-extensions", skip_serializing_if = "Vec::is_empty")]
    pub(crate) order_extensions: Vec<OrderGroup>,
}

/// `[[order]]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct OrderGroup {
    pub(crate) group: Vec<OrderEntry>,
}

/// `[[order.group]]`. Without a version, the newest one installed is meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OrderEntry {
    pub(crate) id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
    #[serde(default)]
    pub(crate) optional: bool,
    /// Counts in the order of a composite buildpack.
    #[serde(default, rename = "exec-env", skip_serializing)]
    pub(crate) exec_env: ExecEnv,
}

impl OrderEntry {
    /// A buildpack that must take part.
    pub(crate) fn required(id: String, version: Option<String>) -> Self {
        Self { id, version, optional: false, exec_env: ExecEnv::default() }
    }
}

/// What `bin/detect` writes: one section, and alternatives to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct DetectPlan {
    #[serde(flatten)]
    pub(crate) first: PlanSections,
    #[serde(default)]
    pub(crate) or: Vec<PlanSections>,
}

/// What a buildpack provides and requires.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct PlanSections {
    #[serde(default)]
    pub(crate) provides: Vec<Provide>,
    #[serde(default)]
    pub(crate) requires: Vec<Require>,
}

/// `[[provides]]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Provide {
    pub(crate) name: String,
}

/// `[[requires]]`, and `[[entries]]` of the plan that `bin/build` reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Require {
    pub(crate) name: String,
    /// Only to refuse it: `metadata.version` is right.
    #[serde(default, skip_serializing)]
    pub(crate) version: Option<String>,
    #[serde(default, skip_serializing_if = "Table::is_empty")]
    pub(crate) metadata: Table,
}

impl Eq for Require {}

/// The plan that `bin/build` reads.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct BuildPlan {
    pub(crate) entries: Vec<Require>,
}

/// `<layer>.toml`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct LayerToml {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) types: Option<Types>,
    #[serde(default)]
    pub(crate) metadata: Table,
}

/// `[types]`: what a layer is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Types {
    #[serde(default)]
    pub(crate) launch: bool,
    #[serde(default)]
    pub(crate) build: bool,
    #[serde(default)]
    pub(crate) cache: bool,
}

impl Types {
    pub(crate) fn is_none(self) -> bool {
        self == Self::default()
    }
}

/// `launch.toml`
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct LaunchToml {
    #[serde(default)]
    pub(crate) labels: Vec<Label>,
    #[serde(default)]
    pub(crate) processes: Vec<ProcessToml>,
    #[serde(default)]
    pub(crate) slices: Vec<Slice>,
}

/// `[[slices]]`: globs of paths of the app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Slice {
    #[serde(default)]
    pub(crate) paths: Vec<String>,
}

/// `[[labels]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Label {
    pub(crate) key: String,
    pub(crate) value: String,
}

/// `[[processes]]` as a buildpack writes it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct ProcessToml {
    #[serde(rename = "type")]
    pub(crate) process_type: String,
    pub(crate) command: Command,
    #[serde(default)]
    pub(crate) args: Vec<String>,
    pub(crate) direct: Option<bool>,
    #[serde(default)]
    pub(crate) default: bool,
    pub(crate) working_dir: Option<String>,
    #[serde(default)]
    pub(crate) exec_env: ExecEnv,
}

/// A list since API 0.9, a string before.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum Command {
    Words(Vec<String>),
    Line(String),
}

/// `build.toml`
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct BuildToml {
    #[serde(default)]
    pub(crate) unmet: Vec<Unmet>,
}

/// `[[unmet]]`
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Unmet {
    pub(crate) name: String,
}

/// `store.toml`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct StoreToml {
    #[serde(default)]
    pub(crate) metadata: Table,
}

/// `config/metadata.toml`: what the launcher knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LaunchMetadata {
    #[serde(default)]
    pub(crate) buildpacks: Vec<GroupMember>,
    #[serde(default)]
    pub(crate) processes: Vec<LaunchProcess>,
}

/// A buildpack that took part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupMember {
    pub(crate) id: String,
    pub(crate) version: String,
    pub(crate) api: Api,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) homepage: Option<String>,
}

/// A process type, as the launcher and the build metadata label hold it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct LaunchProcess {
    #[serde(rename = "type")]
    pub(crate) process_type: String,
    pub(crate) command: Vec<String>,
    #[serde(default)]
    pub(crate) args: Vec<String>,
    pub(crate) direct: bool,
    #[serde(rename = "buildpackID")]
    pub(crate) buildpack_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) working_dir: Option<String>,
}

/// The name of a buildpack's folders.
pub(crate) fn escaped(id: &str) -> String {
    id.replace('/', "_")
}

impl LayerToml {
    /// Reads a buildpack's `<layer>.toml`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let table: Table = text.parse().map_err(|error: toml::de::Error| error.message().to_owned())?;
        if let Some(flag) = ["launch", "build", "cache"].into_iter().find(|flag| table.contains_key(*flag)) {
            return Err(format!("`{flag}` belongs into the table [types]"));
        }
        table.try_into().map_err(|error: toml::de::Error| error.message().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers_not_as_text() {
        let api = |text: &str| text.parse::<Api>().unwrap();
        assert!(api("0.10") > api("0.9"));
        assert!(api("0.12").is_supported() && !api("0.13").is_supported() && !api("1.0").is_supported());
        assert!("ten".parse::<Api>().is_err());
    }

    #[test]
    fn layer_flags_at_the_top_level_are_refused() {
        assert_eq!(LayerToml::parse("launch = true").unwrap_err(), "`launch` belongs into the table [types]");
        let layer = LayerToml::parse("[types]\nlaunch = true\nmetadata = 'odd'\n[metadata]\na.b = 1").unwrap();
        let types = layer.types.unwrap();
        assert!(types.launch && !types.cache);
        assert!(layer.metadata.contains_key("a"));
    }
}
