//! What cargo says of the app: its programs.

use serde::Deserialize;

use crate::error::PackError;

/// The programs of the packages that a plain `cargo build` builds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Workspace {
    /// By name, in cargo's order.
    pub(super) programs: Vec<String>,
    /// The one that `cargo run` would run.
    pub(super) default: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_default_members: Vec<String>,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    default_run: Option<String>,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Workspace {
    /// Reads what `cargo metadata` prints.
    pub(super) fn parse(metadata: &str) -> Result<Self, PackError> {
        let metadata: Metadata =
            serde_json::from_str(metadata).map_err(|error| PackError::Internal(format!("cargo metadata: {error}")))?;
        let is_default = |package: &&Package| metadata.workspace_default_members.contains(&package.id);
        let packages: Vec<&Package> = metadata.packages.iter().filter(is_default).collect();
        let targets = packages.iter().flat_map(|package| &package.targets);
        let programs = targets.filter(|target| target.kind.iter().any(|kind| kind == "bin"));
        Ok(Self {
            programs: programs.map(|target| target.name.clone()).collect(),
            default: packages.iter().find_map(|package| package.default_run.clone()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_the_default_members_count() {
        let metadata = r#"{"packages": [
            {"id": "a", "default_run": "server", "targets": [{"name": "lib", "kind": ["lib"]}, {"name": "clock", "kind": ["bin"]}, {"name": "server", "kind": ["bin"]}]},
            {"id": "b", "default_run": null, "targets": [{"name": "tool", "kind": ["bin"]}]}
        ], "workspace_default_members": ["a"]}"#;
        let workspace = Workspace::parse(metadata).unwrap();
        assert_eq!(workspace.programs, ["clock", "server"]);
        assert_eq!(workspace.default.as_deref(), Some("server"));
    }
}
