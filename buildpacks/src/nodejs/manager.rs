//! Which package manager an app uses, by Heroku's rules.

use std::path::Path;

use super::manifest::Manifest;
use crate::error::PackError;
use crate::files;

/// Lock files, and whose they are. Of two of the same manager the first counts.
const LOCKS: [(&str, Family); 6] = [
    ("npm-shrinkwrap.json", Family::Npm),
    ("package-lock.json", Family::Npm),
    ("yarn.lock", Family::Yarn),
    ("pnpm-lock.yaml", Family::Pnpm),
    ("bun.lock", Family::Bun),
    ("bun.lockb", Family::Bun),
];

/// A package manager, whatever its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Npm,
    Yarn,
    Pnpm,
    Bun,
}

/// A package manager as far as its commands are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Npm,
    /// Yarn 1
    Yarn,
    /// Yarn 2 and later
    Berry,
    Pnpm,
    Bun,
}

/// Where the package manager itself comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// Whatever comes with Node.js.
    Bundled,
    /// A version range in the registry, and who asks for it.
    Range(String, &'static str),
    /// A program in the app.
    InApp(String),
}

/// The package manager of an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manager {
    pub(super) kind: Kind,
    pub(super) source: Source,
    pub(super) lock: Option<&'static str>,
}

impl Family {
    const ALL: [Self; 4] = [Self::Pnpm, Self::Yarn, Self::Bun, Self::Npm];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Npm => "npm",
            Self::Yarn => "yarn",
            Self::Pnpm => "pnpm",
            Self::Bun => "bun",
        }
    }

    fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.name() == name)
    }

    fn engine(self) -> &'static str {
        match self {
            Self::Npm => "package.json (engines.npm)",
            Self::Yarn => "package.json (engines.yarn)",
            Self::Pnpm => "package.json (engines.pnpm)",
            Self::Bun => "package.json (engines.bun)",
        }
    }
}

impl Kind {
    /// The program's name.
    pub(super) fn program(self) -> &'static str {
        match self {
            Self::Npm => "npm",
            Self::Yarn | Self::Berry => "yarn",
            Self::Pnpm => "pnpm",
            Self::Bun => "bun",
        }
    }
}

impl Manager {
    /// The first of these decides: `yarnPath`, `packageManager`, `engines`, the lock file, and npm if there is none.
    pub(super) fn choose(app: &Path, manifest: &Manifest) -> Result<Self, PackError> {
        let lock = lock(app)?;
        let lock_text = match lock {
            Some((name, family)) if family != Family::Bun => files::read(app, name)?.unwrap_or_default(),
            _ => String::new(),
        };
        let (family, source) = match Self::declared(app, manifest, lock.map(|(_, family)| family))? {
            Some(declared) => declared,
            None => lock.map_or((Family::Npm, Source::Bundled), |(_, family)| (family, by_lock(family, &lock_text))),
        };
        if let Some((name, other)) = lock.filter(|(_, other)| *other != family) {
            return Err(PackError::NodeManagers { declared: family.name(), locked: other.name(), lock_file: name });
        }
        let kind = match family {
            Family::Npm => Kind::Npm,
            Family::Pnpm => Kind::Pnpm,
            Family::Bun => Kind::Bun,
            Family::Yarn if is_berry(app, &source, &lock_text) => Kind::Berry,
            Family::Yarn => Kind::Yarn,
        };
        Ok(Self { kind, source, lock: lock.map(|(name, _)| name) })
    }

    /// What the app says in words, if anything.
    fn declared(
        app: &Path,
        manifest: &Manifest,
        locked: Option<Family>,
    ) -> Result<Option<(Family, Source)>, PackError> {
        if let Some(path) = yarn_path(app)? {
            return Ok(Some((Family::Yarn, Source::InApp(path))));
        }
        if let Some(written) = manifest.package_manager() {
            let invalid = || PackError::NodePackageManager { written: written.to_owned() };
            let (name, version) = written.split_once('@').unwrap_or((written, ""));
            let family = Family::by_name(name).ok_or_else(invalid)?;
            // A hash of the program may follow; the registry's client has its own.
            let version = version.split('+').next().unwrap_or_default();
            let source = if version.is_empty() {
                by_lock(family, "")
            } else {
                Source::Range(version.to_owned(), "package.json (packageManager)")
            };
            return Ok(Some((family, source)));
        }
        // Of several engines, the one whose lock file is there is meant.
        let engines = locked.into_iter().chain(Family::ALL);
        Ok(engines.into_iter().find_map(|family| {
            let range = manifest.engine(family.name())?;
            let is_meant = locked.is_none_or(|locked| locked == family);
            is_meant.then(|| (family, Source::Range(range.to_owned(), family.engine())))
        }))
    }
}

/// The one lock file of `app`.
fn lock(app: &Path) -> Result<Option<(&'static str, Family)>, PackError> {
    let mut found: Vec<(&'static str, Family)> = Vec::new();
    for (name, family) in LOCKS {
        let is_other = found.last().is_none_or(|(_, last)| *last != family);
        if is_other && app.join(name).is_file() {
            found.push((name, family));
        }
    }
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(*one)),
        _ => Err(PackError::LockFiles { files: found.into_iter().map(|(name, _)| name).collect() }),
    }
}

/// `yarnPath` of .yarnrc.yml, or Yarn 1's `yarn-path` of .yarnrc, if the file that it names is there.
fn yarn_path(app: &Path) -> Result<Option<String>, PackError> {
    for (file, key) in [(".yarnrc.yml", "yarnPath:"), (".yarnrc", "yarn-path ")] {
        let text = files::read(app, file)?.unwrap_or_default();
        let path = text.lines().find_map(|line| line.trim().strip_prefix(key));
        let path = path.map(|path| path.trim().trim_matches(['"', '\'']).trim_start_matches("./").to_owned());
        if let Some(path) = path.filter(|path| app.join(path).is_file()) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// The newest version that leaves the lock file as it is.
fn by_lock(family: Family, lock: &str) -> Source {
    let version = |key: &str| {
        let line = lock.lines().find_map(|line| line.trim().strip_prefix(key))?;
        line.trim().trim_matches(['\'', '"']).split('.').next()?.parse::<u32>().ok()
    };
    let range = match family {
        Family::Npm => return Source::Bundled,
        Family::Yarn if !lock.contains("__metadata:") => "1.x",
        Family::Yarn => match version("version:") {
            Some(..=7) => "3.x",
            _ => "4.x",
        },
        Family::Pnpm => match version("lockfileVersion:") {
            Some(..=5) => "7.x",
            Some(6..=8) => "8.x",
            _ => "10.x",
        },
        Family::Bun => "1.x",
    };
    Source::Range(range.to_owned(), "the lock file")
}

fn is_berry(app: &Path, source: &Source, lock: &str) -> bool {
    match source {
        Source::Range(range, _) => {
            let major = range.trim_start_matches(|character: char| !character.is_ascii_digit());
            let major = major.split(|character: char| !character.is_ascii_digit()).next().unwrap_or_default();
            // An open range such as `>=1.22` is decided by the lock file.
            if range.contains(['>', '*']) { lock.contains("__metadata:") } else { major != "1" && major != "0" }
        }
        _ => lock.contains("__metadata:") || (lock.is_empty() && app.join(".yarnrc.yml").is_file()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(files: &[(&str, &str)]) -> Result<Manager, PackError> {
        let app = tempfile::tempdir().unwrap();
        let mut manifest = "{}";
        for (name, content) in files {
            if *name == "package.json" {
                manifest = content;
            }
            std::fs::write(app.path().join(name), content).unwrap();
        }
        Manager::choose(app.path(), &Manifest::parse(manifest).unwrap())
    }

    fn told(files: &[(&str, &str)]) -> String {
        let Manager { kind, source, lock } = chosen(files).unwrap();
        let source = match source {
            Source::Bundled => "bundled".to_owned(),
            Source::Range(range, file) => format!("{range} by {file}"),
            Source::InApp(path) => path,
        };
        format!("{kind:?} {source}, {}", lock.unwrap_or("no lock"))
    }

    const BERRY: (&str, &str) = ("yarn.lock", "__metadata:\n  version: 8\n");

    #[test]
    fn the_package_manager_is_found_by_herokus_rules() {
        let yarn_2 = (".yarnrc.yml", "nodeLinker: node-modules\nyarnPath: .yarn.cjs\n");
        for (files, expected) in [
            (vec![], "Npm bundled, no lock"),
            (vec![("package-lock.json", "{}")], "Npm bundled, package-lock.json"),
            (vec![("npm-shrinkwrap.json", "{}"), ("package-lock.json", "{}")], "Npm bundled, npm-shrinkwrap.json"),
            (vec![("yarn.lock", "# yarn lockfile v1\n")], "Yarn 1.x by the lock file, yarn.lock"),
            (vec![BERRY], "Berry 4.x by the lock file, yarn.lock"),
            (vec![("yarn.lock", "__metadata:\n  version: 6\n")], "Berry 3.x by the lock file, yarn.lock"),
            (vec![("pnpm-lock.yaml", "lockfileVersion: '9.0'\n")], "Pnpm 10.x by the lock file, pnpm-lock.yaml"),
            (vec![("pnpm-lock.yaml", "lockfileVersion: 5.4\n")], "Pnpm 7.x by the lock file, pnpm-lock.yaml"),
            (vec![("bun.lockb", "\0")], "Bun 1.x by the lock file, bun.lockb"),
            (vec![BERRY, yarn_2, (".yarn.cjs", "")], "Berry .yarn.cjs, yarn.lock"),
            (vec![BERRY, yarn_2], "Berry 4.x by the lock file, yarn.lock"),
            (
                vec![("package.json", r#"{"packageManager": "pnpm@9.1.0+sha512.abc"}"#)],
                "Pnpm 9.1.0 by package.json (packageManager), no lock",
            ),
            (
                vec![("package.json", r#"{"packageManager": "yarn@4.1.0", "engines": {"yarn": "1.x"}}"#), BERRY],
                "Berry 4.1.0 by package.json (packageManager), yarn.lock",
            ),
            (
                vec![("package.json", r#"{"engines": {"npm": "10", "yarn": "1.22.x"}}"#)],
                "Yarn 1.22.x by package.json (engines.yarn), no lock",
            ),
            (
                vec![("package.json", r#"{"engines": {"npm": "10", "yarn": "1.22.x"}}"#), ("package-lock.json", "")],
                "Npm 10 by package.json (engines.npm), package-lock.json",
            ),
            (
                vec![("package.json", r#"{"engines": {"yarn": ">=1.22"}}"#), BERRY],
                "Berry >=1.22 by package.json (engines.yarn), yarn.lock",
            ),
        ] {
            assert_eq!(told(&files), expected, "{files:?}");
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let error = |files: &[(&str, &str)]| chosen(files).unwrap_err();
        let two = error(&[("package-lock.json", ""), ("yarn.lock", "")]);
        assert!(matches!(two, PackError::LockFiles { files } if files == ["package-lock.json", "yarn.lock"]));
        let manifest = ("package.json", r#"{"packageManager": "pnpm@9.1.0"}"#);
        let other = error(&[manifest, ("package-lock.json", "")]);
        assert!(matches!(other, PackError::NodeManagers { declared: "pnpm", locked: "npm", .. }));
        let unknown = error(&[("package.json", r#"{"packageManager": "ied@1"}"#)]);
        assert!(matches!(unknown, PackError::NodePackageManager { .. }));
    }
}
