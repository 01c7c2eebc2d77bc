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
    workspace_members: Vec<String>,
    /// Told since cargo 1.71.
    workspace_default_members: Option<Vec<String>>,
    workspace_root: String,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    manifest_path: String,
    default_run: Option<String>,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Metadata {
    /// Ids of the packages that a plain `cargo build` builds. An older cargo does not tell them: it is the package beside the
    /// workspace's root, or all members (Cargo Book, "The default-members field").
    fn default_members(&self) -> Vec<String> {
        if let Some(members) = &self.workspace_default_members {
            return members.clone();
        }
        let root = format!("{}/Cargo.toml", self.workspace_root);
        let beside = self.packages.iter().find(|package| package.manifest_path == root);
        beside.map_or_else(|| self.workspace_members.clone(), |package| vec![package.id.clone()])
    }
}

impl Workspace {
    /// Reads what `cargo metadata` prints.
    pub(super) fn parse(metadata: &str) -> Result<Self, PackError> {
        let metadata: Metadata =
            serde_json::from_str(metadata).map_err(|error| PackError::Internal(format!("cargo metadata: {error}")))?;
        let defaults = metadata.default_members();
        let is_default = |package: &&Package| defaults.contains(&package.id);
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

    /// What a cargo prints of two packages, the first of which is at `first`.
    fn metadata(first: &str, default_members: &str) -> String {
        format!(
            r#"{{"packages": [
            {{"id": "a", "manifest_path": "{first}", "default_run": "server", "targets": [{{"name": "lib", "kind": ["lib"]}}, {{"name": "clock", "kind": ["bin"]}}, {{"name": "server", "kind": ["bin"]}}]}},
            {{"id": "b", "manifest_path": "/w/b/Cargo.toml", "targets": [{{"name": "tool", "kind": ["bin"]}}]}}
        ], "workspace_members": ["a", "b"], {default_members} "workspace_root": "/w"}}"#
        )
    }

    #[test]
    fn programs_of_the_default_members_count() {
        let workspace =
            Workspace::parse(&metadata("/w/a/Cargo.toml", r#""workspace_default_members": ["a"],"#)).unwrap();
        assert_eq!(workspace.programs, ["clock", "server"]);
        assert_eq!(workspace.default.as_deref(), Some("server"));
    }

    #[test]
    fn a_cargo_that_names_no_default_members_builds_the_root_or_all() {
        assert_eq!(Workspace::parse(&metadata("/w/Cargo.toml", "")).unwrap().programs, ["clock", "server"]);
        assert_eq!(Workspace::parse(&metadata("/w/a/Cargo.toml", "")).unwrap().programs, ["clock", "server", "tool"]);
    }
}
