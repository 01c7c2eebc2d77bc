//! Buildpacks as they lie in a folder, and whether one fits the stack.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::errors::Failure;
use crate::formats::{Api, BuildpackToml, GroupMember, OrderGroup, Target};

/// An installed buildpack.
#[derive(Debug, Clone)]
pub(crate) struct Buildpack {
    /// Its folder.
    pub(crate) dir: PathBuf,
    /// Its `buildpack.toml`.
    pub(crate) toml: BuildpackToml,
}

impl Buildpack {
    /// Reads `<dir>/buildpack.toml`.
    fn load(dir: PathBuf) -> Result<Self, Failure> {
        let path = dir.join("buildpack.toml");
        let unusable = |problem: String| Failure::Unusable { what: path.display().to_string(), problem };
        let text = std::fs::read_to_string(&path).map_err(|error| unusable(error.to_string()))?;
        let toml: BuildpackToml = toml::from_str(&text).map_err(|error| unusable(error.message().to_owned()))?;
        if !toml.api.is_supported() {
            return Err(unusable(format!("Buildpack API {} is not supported, only 0.7 to 0.12", toml.api)));
        }
        check_name(&toml.buildpack.id, &toml.buildpack.version).map_err(unusable)?;
        Ok(Self { dir, toml })
    }

    pub(crate) fn id(&self) -> &str {
        &self.toml.buildpack.id
    }

    pub(crate) fn version(&self) -> &str {
        &self.toml.buildpack.version
    }

    pub(crate) fn api(&self) -> Api {
        self.toml.api
    }

    /// `id@version`
    pub(crate) fn name(&self) -> String {
        format!("{}@{}", self.id(), self.version())
    }

    /// The groups of a composite buildpack; empty for one that builds.
    pub(crate) fn order(&self) -> &[OrderGroup] {
        &self.toml.order
    }

    pub(crate) fn member(&self) -> GroupMember {
        GroupMember {
            id: self.id().to_owned(),
            version: self.version().to_owned(),
            api: self.api(),
            homepage: self.toml.buildpack.homepage.clone(),
        }
    }

    /// Whether it may build for `target` (Buildpack spec, "Targets"; legacy stacks as the reference reads them).
    pub(crate) fn supports(&self, target: &Target) -> bool {
        if !self.toml.targets.is_empty() {
            return self.toml.targets.iter().any(|offered| matches(offered, target));
        }
        let stacks: Vec<&str> = self.toml.stacks.iter().map(|stack| stack.id.as_str()).collect();
        match stacks.as_slice() {
            [] => target.os == "linux" || target.os.is_empty(),
            _ if stacks.contains(&"*") => true,
            _ => target.distros.iter().any(|distro| distro.name == "ubuntu" && distro.version == "18.04"),
        }
    }
}

/// Ids become names of folders, some of which are taken (Buildpack spec, "Buildpack ID" and "Version").
fn check_name(id: &str, version: &str) -> Result<(), String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '/' | '-');
    let is_taken = ["app", "config", "generated", "sbom"].contains(&id);
    if id.is_empty()
        || is_taken
        || !id.chars().all(is_allowed)
        || id.split('/').any(|part| matches!(part, "" | "." | ".."))
    {
        return Err(format!(
            "{id:?} is not an id: letters, digits, dots, slashes and dashes, and not app, config, generated or sbom"
        ));
    }
    let is_number = |part: &str| part.parse::<u64>().is_ok_and(|number| number.to_string() == part);
    if version.split('.').count() != 3 || !version.split('.').all(is_number) {
        return Err(format!("{version:?} is not a version such as 1.2.3"));
    }
    Ok(())
}

fn matches(offered: &Target, target: &Target) -> bool {
    let agree = |a: &str, b: &str| a.is_empty() || b.is_empty() || a == b;
    let same_machine = agree(&offered.os, &target.os)
        && agree(&offered.arch, &target.arch)
        && agree(&offered.variant, &target.variant);
    let same_distro = offered.distros.is_empty()
        || target.distros.iter().any(|ours| {
            offered
                .distros
                .iter()
                .any(|theirs| agree(&theirs.name, &ours.name) && agree(&theirs.version, &ours.version))
        });
    same_machine && same_distro
}

/// All installed buildpacks, by id and version.
#[derive(Debug, Default)]
pub(crate) struct Buildpacks {
    by_id: BTreeMap<String, Vec<Buildpack>>,
}

impl Buildpacks {
    /// Reads `<folder>/<escaped id>/<version>/buildpack.toml`.
    pub(crate) fn load(folder: &Path) -> Result<Self, Failure> {
        let mut by_id: BTreeMap<String, Vec<Buildpack>> = BTreeMap::new();
        for dir in subfolders(folder)? {
            for dir in subfolders(&dir)? {
                let buildpack = Buildpack::load(dir)?;
                by_id.entry(buildpack.id().to_owned()).or_default().push(buildpack);
            }
        }
        for versions in by_id.values_mut() {
            versions.sort_by_cached_key(|buildpack| version_key(buildpack.version()));
        }
        Ok(Self { by_id })
    }

    /// The buildpack of this id and version; without a version, the newest.
    pub(crate) fn find(&self, id: &str, version: Option<&str>) -> Option<&Buildpack> {
        let versions = self.by_id.get(id)?;
        match version {
            None => versions.last(),
            Some(version) => versions.iter().find(|buildpack| buildpack.version() == version),
        }
    }

    /// Ids that are installed, for messages.
    pub(crate) fn ids(&self) -> Vec<String> {
        self.by_id.keys().cloned().collect()
    }
}

fn version_key(version: &str) -> Vec<u64> {
    version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

fn subfolders(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let unusable = |error: std::io::Error| Failure::Unusable {
        what: folder.display().to_string(),
        problem: format!("cannot be read: {error}"),
    };
    let mut found = Vec::new();
    for entry in folder.read_dir().map_err(unusable)? {
        let path = entry.map_err(unusable)?.path();
        if path.is_dir() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::Distro;

    fn buildpack(extra: &str) -> Buildpack {
        let text = format!("api = '0.10'\n[buildpack]\nid = 'a/b'\nversion = '1.0.0'\n{extra}");
        Buildpack { dir: PathBuf::new(), toml: toml::from_str(&text).unwrap() }
    }

    fn debian() -> Target {
        let distros = vec![Distro { name: "debian".into(), version: "13".into() }];
        Target { os: "linux".into(), arch: "amd64".into(), variant: String::new(), distros }
    }

    #[test]
    fn targets_match_where_either_side_is_silent() {
        assert!(buildpack("").supports(&debian()));
        assert!(buildpack("[[targets]]\nos = 'linux'").supports(&debian()));
        assert!(buildpack("[[targets]]\n[[targets.distros]]\nname = 'debian'").supports(&debian()));
        assert!(!buildpack("[[targets]]\narch = 'arm64'").supports(&debian()));
        assert!(!buildpack("[[targets]]\n[[targets.distros]]\nname = 'ubuntu'").supports(&debian()));
        let unknown = Target { distros: Vec::new(), ..debian() };
        assert!(!buildpack("[[targets]]\n[[targets.distros]]\nname = 'ubuntu'").supports(&unknown));
        assert!(buildpack("[[stacks]]\nid = '*'").supports(&debian()));
        assert!(!buildpack("[[stacks]]\nid = 'io.buildpacks.stacks.bionic'").supports(&debian()));
    }

    #[test]
    fn the_newest_version_is_found_by_number() {
        assert!(version_key("0.10.0") > version_key("0.9.12"));
    }
}
