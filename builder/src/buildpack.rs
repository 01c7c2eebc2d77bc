//! Buildpacks and image extensions as they lie in a folder, and whether one fits the stack.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::errors::Failure;
use crate::formats::{Api, BuildpackToml, Distro, ExecEnv, GroupMember, OrderGroup, Target};

/// What a folder holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// It builds the app.
    Buildpack,
    /// It changes the images that the app is built and run on (Image Extension spec).
    Extension,
}

impl Kind {
    /// The file that describes it.
    pub(crate) fn descriptor(self) -> &'static str {
        match self {
            Self::Buildpack => "buildpack.toml",
            Self::Extension => "extension.toml",
        }
    }
}

/// An installed buildpack or image extension.
#[derive(Debug, Clone)]
pub(crate) struct Buildpack {
    pub(crate) kind: Kind,
    /// Its folder.
    pub(crate) dir: PathBuf,
    /// Its descriptor.
    pub(crate) toml: BuildpackToml,
}

impl Buildpack {
    /// Reads the descriptor in `dir`.
    pub(crate) fn load(kind: Kind, dir: PathBuf) -> Result<Self, Failure> {
        let path = dir.join(kind.descriptor());
        let unusable = |problem: String| Failure::Unusable { what: path.display().to_string(), problem };
        let text = std::fs::read_to_string(&path).map_err(|error| unusable(error.to_string()))?;
        let toml: BuildpackToml = toml::from_str(&text).map_err(|error| unusable(error.message().to_owned()))?;
        if !toml.api.is_supported() {
            return Err(unusable(format!("Buildpack API {} is not supported, only 0.7 to 0.12", toml.api)));
        }
        check_name(&toml.buildpack.id, &toml.buildpack.version).map_err(unusable)?;
        Ok(Self { kind, dir, toml })
    }

    pub(crate) fn id(&self) -> &str {
        &self.toml.buildpack.id
    }

    /// What it is called in a plan: an extension may have the id of a buildpack. No id has a colon.
    pub(crate) fn plan_id(&self) -> String {
        match self.kind {
            Kind::Buildpack => self.id().to_owned(),
            Kind::Extension => format!("extension:{}", self.id()),
        }
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

    /// Whether what this buildpack says to be for `exec_env` is for us: before API 0.12 nothing was said by that key.
    pub(crate) fn is_for_us(&self, exec_env: ExecEnv) -> bool {
        exec_env.is_ours || self.api() < Api::new(0, 12)
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

    /// What it says that it is made for (Buildpack spec, "Targets"; legacy stacks as the reference reads them).
    fn targets(&self) -> Vec<Target> {
        let mut targets = self.toml.targets.clone();
        if targets.is_empty() {
            targets.extend(self.toml.stacks.iter().filter_map(|stack| target_of_stack(&stack.id)));
        }
        if targets.is_empty() {
            targets.push(Target { os: "linux".to_owned(), ..Target::default() });
        }
        targets
    }

    /// Whether it may build for `target`.
    pub(crate) fn fit(&self, target: &Target) -> Fit {
        let targets = self.targets();
        let mut on_machine = targets.iter().filter(|offered| is_same_machine(offered, target)).peekable();
        if on_machine.peek().is_none() {
            return Fit::No;
        }
        let offered: Vec<&Target> = on_machine.collect();
        if offered.iter().any(|offered| is_same_distro(offered, target)) {
            return Fit::Yes;
        }
        let names = offered.iter().flat_map(|offered| &offered.distros).map(ToString::to_string);
        Fit::OtherDistro(names.collect::<Vec<_>>().join(", "))
    }
}

/// Whether a buildpack is made for what it is to build on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fit {
    /// It is.
    Yes,
    /// It lists distributions, such as `ubuntu 24.04`, and ours is not among them.
    OtherDistro(String),
    /// It is for another kind of machine.
    No,
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

/// What a legacy stack stands for; most stand for nothing that is known.
fn target_of_stack(id: &str) -> Option<Target> {
    match id {
        "*" => Some(Target::default()),
        "io.buildpacks.stacks.bionic" => Some(Target {
            os: "linux".to_owned(),
            arch: "amd64".to_owned(),
            distros: vec![Distro { name: "ubuntu".to_owned(), version: "18.04".to_owned() }],
            ..Target::default()
        }),
        _ => None,
    }
}

fn agree(a: &str, b: &str) -> bool {
    a.is_empty() || b.is_empty() || a == b
}

fn is_same_machine(offered: &Target, target: &Target) -> bool {
    agree(&offered.os, &target.os) && agree(&offered.arch, &target.arch) && agree(&offered.variant, &target.variant)
}

fn is_same_distro(offered: &Target, target: &Target) -> bool {
    let same = |a: &Distro, b: &Distro| agree(&a.name, &b.name) && agree(&a.version, &b.version);
    offered.distros.is_empty()
        || target.distros.iter().any(|ours| offered.distros.iter().any(|theirs| same(theirs, ours)))
}

/// All installed buildpacks, or image extensions, by id and version.
#[derive(Debug, Default)]
pub(crate) struct Buildpacks {
    by_id: BTreeMap<String, Vec<Buildpack>>,
}

impl Buildpacks {
    /// Reads `<folder>/<escaped id>/<version>/` of each.
    pub(crate) fn load(kind: Kind, folder: &Path) -> Result<Self, Failure> {
        let mut by_id: BTreeMap<String, Vec<Buildpack>> = BTreeMap::new();
        for dir in subfolders(folder)? {
            for dir in subfolders(&dir)? {
                let buildpack = Buildpack::load(kind, dir)?;
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

    /// Id and version of each.
    pub(crate) fn names(&self) -> BTreeSet<(String, String)> {
        self.by_id.values().flatten().map(|it| (it.id().to_owned(), it.version().to_owned())).collect()
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

    fn buildpack(extra: &str) -> Buildpack {
        let text = format!("api = '0.10'\n[buildpack]\nid = 'a/b'\nversion = '1.0.0'\n{extra}");
        Buildpack { kind: Kind::Buildpack, dir: PathBuf::new(), toml: toml::from_str(&text).unwrap() }
    }

    fn debian() -> Target {
        let distros = vec![Distro { name: "debian".into(), version: "13".into() }];
        Target { os: "linux".into(), arch: "amd64".into(), variant: String::new(), distros }
    }

    #[test]
    fn targets_match_where_either_side_is_silent() {
        let other = |distro: &str| Fit::OtherDistro(distro.to_owned());
        let unknown = Target { distros: Vec::new(), ..debian() };
        let ubuntu = "[[targets]]\n[[targets.distros]]\nname = 'ubuntu'\nversion = '24.04'\n[[targets.distros]]\nname = 'ubuntu'\nversion = '22.04'";
        let rows = [
            ("", debian(), Fit::Yes),
            ("[[targets]]\nos = 'linux'", debian(), Fit::Yes),
            ("[[targets]]\nos = 'windows'", debian(), Fit::No),
            ("[[targets]]\narch = 'arm64'", debian(), Fit::No),
            ("[[targets]]\narch = 'arm64'\n[[targets]]\narch = 'amd64'", debian(), Fit::Yes),
            ("[[targets]]\narch = 'amd64'\nvariant = 'v3'", debian(), Fit::Yes),
            ("[[targets]]\n[[targets.distros]]\nname = 'debian'", debian(), Fit::Yes),
            ("[[targets]]\n[[targets.distros]]\nversion = '13'", debian(), Fit::Yes),
            ("[[targets]]\n[[targets.distros]]\nname = 'debian'\nversion = '12'", debian(), other("debian 12")),
            (ubuntu, debian(), other("ubuntu 24.04, ubuntu 22.04")),
            (ubuntu, unknown, other("ubuntu 24.04, ubuntu 22.04")),
            ("[[stacks]]\nid = '*'", debian(), Fit::Yes),
            ("[[stacks]]\nid = 'io.buildpacks.stacks.bionic'", debian(), other("ubuntu 18.04")),
            ("[[stacks]]\nid = 'io.buildpacks.stacks.bionic'", Target { arch: "arm64".into(), ..debian() }, Fit::No),
            ("[[stacks]]\nid = 'io.buildpacks.stacks.bionic'\n[[stacks]]\nid = '*'", debian(), Fit::Yes),
            ("[[stacks]]\nid = 'heroku-24'", debian(), Fit::Yes),
            ("[[stacks]]\nid = '*'\n[[targets]]\nos = 'windows'", debian(), Fit::No),
        ];
        for (text, target, expected) in rows {
            assert_eq!(buildpack(text).fit(&target), expected, "{text}");
        }
    }

    #[test]
    fn the_newest_version_is_found_by_number() {
        assert!(version_key("0.10.0") > version_key("0.9.12"));
    }
}
