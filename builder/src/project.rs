//! `project.toml`: what a repository says of its own build (Buildpacks extension "Project Descriptor", 0.2, and 0.1 before it).

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use serde::Deserialize;
use toml::Table;
use walkdir::WalkDir;

use crate::errors::BuildError;
use crate::reference::Reference;

/// A longer file is not read.
const SIZE_LIMIT: u64 = 1 << 20;
const FILE: &str = "project.toml";

/// What the build needs of a `project.toml`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Project {
    /// Which of the files are part of the build.
    files: Files,
    /// The buildpacks to use instead of detecting.
    pub(crate) group: Vec<Wanted>,
    /// Those before every group.
    pub(crate) pre: Vec<Wanted>,
    /// Those after every group.
    pub(crate) post: Vec<Wanted>,
    /// Environment of the build; config vars win.
    pub(crate) env: BTreeMap<String, String>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Files {
    #[default]
    All,
    Only(Vec<String>),
    AllBut(Vec<String>),
}

/// A buildpack that a project names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// From somewhere.
    At(Reference),
    /// Written into the file itself.
    Inline(Inline),
}

/// A buildpack that always fits and whose build is a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inline {
    pub(crate) id: String,
    pub(crate) version: String,
    pub(crate) api: String,
    pub(crate) shell: String,
    pub(crate) script: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Section {
    include: Option<Vec<String>>,
    exclude: Option<Vec<String>>,
    group: Vec<Entry>,
    pre: Group,
    post: Group,
    build: Build,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Group {
    group: Vec<Entry>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Build {
    env: Vec<Variable>,
}

#[derive(Debug, Deserialize)]
struct Variable {
    name: String,
    value: String,
}

#[derive(Debug, Deserialize)]
struct Entry {
    id: Option<String>,
    version: Option<String>,
    uri: Option<String>,
    script: Option<Script>,
}

#[derive(Debug, Deserialize)]
struct Script {
    #[serde(default = "default_api")]
    api: String,
    #[serde(default = "default_shell")]
    shell: String,
    inline: String,
}

fn default_api() -> String {
    "0.10".to_owned()
}

fn default_shell() -> String {
    "/bin/sh".to_owned()
}

/// `[build]` of version 0.1.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FirstSection {
    include: Option<Vec<String>>,
    exclude: Option<Vec<String>>,
    buildpacks: Vec<Entry>,
    env: Vec<Variable>,
}

impl Project {
    /// Reads the file at the top of `source`; a project without one wants nothing. Links are not followed.
    pub(crate) fn read(source: &Path) -> Result<Self, BuildError> {
        let flags = nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK;
        let file = fs::OpenOptions::new().read(true).custom_flags(flags.bits()).open(source.join(FILE));
        let mut text = String::new();
        let read = file.and_then(|file| {
            if file.metadata()?.is_file() { file.take(SIZE_LIMIT).read_to_string(&mut text) } else { Ok(0) }
        });
        match read {
            Ok(_) => Self::parse(&text).map_err(BuildError::Project),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(BuildError::Project(error.to_string())),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let message = |error: toml::de::Error| error.to_string().trim_end().to_owned();
        let table: Table = text.parse().map_err(message)?;
        let part = |table: &Table, name: &str| table.get(name).and_then(toml::Value::as_table).cloned();
        let section = if table.contains_key("_") {
            part(&part(&table, "io").unwrap_or_default(), "buildpacks")
                .unwrap_or_default()
                .try_into()
                .map_err(message)?
        } else {
            let first: FirstSection = part(&table, "build").unwrap_or_default().try_into().map_err(message)?;
            let (include, exclude) = (first.include, first.exclude);
            Section { include, exclude, group: first.buildpacks, build: Build { env: first.env }, ..Section::default() }
        };
        Self::of(section)
    }

    fn of(section: Section) -> Result<Self, String> {
        let files = match (section.include, section.exclude) {
            (Some(_), Some(_)) => return Err("it has both include and exclude; only one of them can be".to_owned()),
            (Some(only), None) => Files::Only(only),
            (None, Some(but)) => Files::AllBut(but),
            (None, None) => Files::All,
        };
        let wanted = |entries: &[Entry]| entries.iter().map(Wanted::of).collect::<Result<Vec<_>, String>>();
        let mut env = BTreeMap::new();
        for variable in section.build.env {
            if variable.name.is_empty() || variable.name.contains(['/', '=', '\0']) || variable.name.starts_with('.') {
                return Err(format!("{:?} is not a name of a variable", variable.name));
            }
            env.insert(variable.name, variable.value);
        }
        let (pre, post) = (wanted(&section.pre.group)?, wanted(&section.post.group)?);
        Ok(Self { files, group: wanted(&section.group)?, pre, post, env })
    }

    /// All references of its groups.
    pub(crate) fn references(&self) -> impl Iterator<Item = &Reference> {
        self.group.iter().chain(&self.pre).chain(&self.post).filter_map(|wanted| match wanted {
            Wanted::At(reference) => Some(reference),
            Wanted::Inline(_) => None,
        })
    }

    /// Removes what is not part of the build.
    pub(crate) fn leave_out(&self, source: &Path) -> io::Result<()> {
        let (patterns, keep_matching) = match &self.files {
            Files::All => return Ok(()),
            Files::Only(patterns) => (patterns, true),
            Files::AllBut(patterns) => (patterns, false),
        };
        let patterns = gitignore(source, patterns)?;
        for entry in WalkDir::new(source).min_depth(1).contents_first(true) {
            let entry = entry?;
            let is_folder = entry.file_type().is_dir();
            if patterns.matched_path_or_any_parents(entry.path(), is_folder).is_ignore() == keep_matching {
                continue;
            }
            if is_folder {
                // It stays if something in it does.
                let _ = fs::remove_dir(entry.path());
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

fn gitignore(source: &Path, patterns: &[String]) -> io::Result<Gitignore> {
    let mut builder = GitignoreBuilder::new(source);
    for pattern in patterns {
        builder.add_line(None, pattern).map_err(io::Error::other)?;
    }
    builder.build().map_err(io::Error::other)
}

impl Wanted {
    fn of(entry: &Entry) -> Result<Self, String> {
        let version = |or: &str| entry.version.clone().unwrap_or_else(|| or.to_owned());
        match (&entry.script, &entry.uri, &entry.id) {
            (Some(script), _, Some(id)) => Ok(Self::Inline(Inline {
                id: id.clone(),
                version: version("0.0.0"),
                api: script.api.clone(),
                shell: script.shell.clone(),
                script: script.inline.clone(),
            })),
            (Some(_), _, None) => Err("a buildpack with a script needs an id".to_owned()),
            (None, Some(uri), _) => {
                let is_path = !uri.contains(':') && !uri.starts_with("./");
                let uri = if is_path { format!("./{uri}") } else { uri.clone() };
                uri.parse().map(Self::At).map_err(|error| format!("{error}"))
            }
            (None, None, Some(id)) => {
                let text = entry.version.as_ref().map_or(id.clone(), |version| format!("{id}@{version}"));
                text.parse().map(Self::At).map_err(|error| format!("{error}"))
            }
            (None, None, None) => Err("a buildpack needs an id, a uri or a script".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::listing;

    #[test]
    fn both_versions_say_the_same() {
        let now = "[_]\nschema-version = '0.2'\nid = 'x'\n[io.buildpacks]\nbuilder = 'some/builder'\nexclude = ['a']\n\
                   [[io.buildpacks.group]]\nid = 'a/b'\nversion = '1.0.0'\n[[io.buildpacks.group]]\nuri = 'packs/c'\n\
                   [[io.buildpacks.build.env]]\nname = 'N'\nvalue = 'v'\n[com.example]\nodd = 1\n";
        let before = "[project]\nid = 'x'\n[build]\nexclude = ['a']\n[[build.buildpacks]]\nid = 'a/b'\nversion = '1.0.0'\n\
                      [[build.buildpacks]]\nuri = './packs/c'\n[[build.env]]\nname = 'N'\nvalue = 'v'\n";
        let project = Project::parse(now).unwrap();
        assert_eq!(project, Project::parse(before).unwrap());
        let names: Vec<String> = project.references().map(ToString::to_string).collect();
        assert_eq!(names, ["a/b@1.0.0", "./packs/c"]);
        assert_eq!(project.env["N"], "v");
    }

    #[test]
    fn a_script_is_a_buildpack_and_groups_go_around() {
        let text = "[_]\nschema-version = '0.2'\n[[io.buildpacks.pre.group]]\nid = 'me/first'\n\
                    [io.buildpacks.pre.group.script]\ninline = 'echo hi'\n[[io.buildpacks.post.group]]\nid = 'a/z'\n";
        let project = Project::parse(text).unwrap();
        let Wanted::Inline(script) = &project.pre[0] else { panic!("{project:?}") };
        assert_eq!((script.id.as_str(), script.shell.as_str(), script.api.as_str()), ("me/first", "/bin/sh", "0.10"));
        assert_eq!(project.post.len(), 1);
    }

    #[test]
    fn mistakes_are_named() {
        let two = "[_]\nschema-version = '0.2'\n";
        let rows = [
            ("[build", "TOML parse error"),
            ("[build]\ninclude = ['a']\nexclude = ['b']", "both include and exclude"),
            ("[[build.buildpacks]]\nversion = '1'", "an id, a uri or a script"),
            ("[[build.buildpacks]]\n[build.buildpacks.script]\ninline = ''", "needs an id"),
            ("[[build.buildpacks]]\nuri = 'file:///etc'", "is not fetched"),
            ("[[build.buildpacks]]\nuri = '../x'", "is not a folder of the repository"),
            ("[[build.env]]\nname = '../x'\nvalue = ''", "is not a name of a variable"),
        ];
        for (text, problem) in rows {
            let error = Project::parse(text).unwrap_err();
            assert!(error.contains(problem), "{text}: {error}");
        }
        assert_eq!(Project::parse(two).unwrap(), Project::default());
        assert_eq!(Project::parse("[build]\nodd = 1\n[other]\nx = 1").unwrap(), Project::default());
    }

    #[test]
    fn what_is_left_out_is_gone_and_nothing_else() {
        let rows = [
            ("exclude = ['*.md', '/docs/']", "src /\nsrc/a.js \n"),
            ("exclude = ['*.md', '/docs/', '!docs/keep']", "docs /\ndocs/keep \nsrc /\nsrc/a.js \n"),
            ("exclude = ['*', '!src', '!src/a.js']", "src /\nsrc/a.js \n"),
            ("include = ['src/']", "src /\nsrc/a.js \nsrc/b.md \n"),
            ("include = ['*.md', '!src/b.md']", "a.md \n"),
        ];
        for (files, expected) in rows {
            let dir = tempfile::tempdir().unwrap();
            for file in ["a.md", "src/a.js", "src/b.md", "docs/keep"] {
                fs::create_dir_all(dir.path().join(file).parent().unwrap()).unwrap();
                fs::write(dir.path().join(file), "").unwrap();
            }
            std::os::unix::fs::symlink("/etc", dir.path().join("link.md")).unwrap();
            let project = Project::parse(&format!("[build]\n{files}")).unwrap();
            project.leave_out(dir.path()).unwrap();
            assert_eq!(listing(dir.path()).replace("link.md -> /etc\n", ""), expected, "{files}");
        }
    }
}
