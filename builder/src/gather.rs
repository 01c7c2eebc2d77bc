//! The buildpacks and image extensions of one build: a copy of their own, since classic ones write beside their programs, and the
//! order in which they are tried.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use toml::Table;
use walkdir::WalkDir;

use crate::buildpack::{Buildpack, Buildpacks, Kind};
use crate::errors::{BuildError, Failure};
use crate::fetch::{Fetched, PACKAGE};
use crate::formats::{Order, OrderEntry, OrderGroup, escaped};
use crate::project::{Inline, Project, Wanted};
use crate::reference::Reference;
use crate::tree::make_dir;

/// Always part of a build, also when the user names the buildpacks: process types are the app's own matter.
const PROCFILE: &str = "platform/procfile";

/// Where builds have this program, which stands for the programs of classic buildpacks.
const PROGRAM: &str = "/cnb/lifecycle/platform";

/// Id and version of every buildpack, or image extension, that a build can use.
pub(crate) type Names = BTreeSet<(String, String)>;

/// What was put together.
#[derive(Debug)]
pub(crate) struct Gathered {
    /// In which order it is tried.
    pub(crate) order: Order,
    pub(crate) buildpacks: Names,
    pub(crate) extensions: Names,
}

/// What is put together.
pub(crate) struct Gathering<'a> {
    /// The platform's own buildpacks, and `order.toml`.
    pub(crate) ours: &'a Path,
    /// The app's files.
    pub(crate) app: &'a Path,
    /// What the user named for this app.
    pub(crate) chosen: &'a [Reference],
    /// What the repository says.
    pub(crate) project: &'a Project,
    /// What was fetched of these.
    pub(crate) fetched: &'a Fetched,
}

/// The folder `buildpack.toml` of a package of several.
#[derive(Deserialize)]
struct Package {
    id: String,
    version: String,
}

impl Gathering<'_> {
    /// Fills `target` with buildpacks, which is made, and `extensions`, which is made only if there are any.
    pub(crate) fn gather(&self, target: &Path, extensions: &Path) -> Result<Gathered, BuildError> {
        let trouble = |source| BuildError::Io { action: "copy the buildpacks to", path: target.to_owned(), source };
        copy(self.ours, target).map_err(trouble)?;
        let file = target.join("order.toml");
        let text = fs::read_to_string(&file).map_err(trouble)?;
        let mut stock = Shelf { target, extensions, app: self.app, fetched: self.fetched, taken: BTreeMap::new() };
        let order = self.order(&text, &mut stock)?;
        let buildpacks = Buildpacks::load(Kind::Buildpack, target)?.names();
        let extensions =
            if extensions.exists() { Buildpacks::load(Kind::Extension, extensions)?.names() } else { Names::new() };
        Ok(Gathered { order, buildpacks, extensions })
    }

    fn order(&self, ours: &str, stock: &mut Shelf) -> Result<Order, BuildError> {
        let mut extensions = Vec::new();
        // An extension takes its place before all groups wherever it is named.
        let mut add = |wanted: &[Wanted]| -> Result<Vec<OrderEntry>, BuildError> {
            let mut buildpacks = Vec::new();
            for wanted in wanted {
                match stock.add(wanted)? {
                    Placed { kind: Kind::Buildpack, entry } => buildpacks.push(entry),
                    Placed { kind: Kind::Extension, entry } => extensions.push(entry),
                }
            }
            Ok(buildpacks)
        };
        let chosen: Vec<Wanted> = self.chosen.iter().cloned().map(Wanted::At).collect();
        let pre = add(&self.project.pre)?;
        let group = add(if chosen.is_empty() { &self.project.group } else { &chosen })?;
        let post = add(&self.project.post)?;
        let mut order = if group.is_empty() {
            let broken = |error: toml::de::Error| BuildError::Io {
                action: "read",
                path: self.ours.join("order.toml"),
                source: io::Error::other(error.message().to_owned()),
            };
            toml::from_str(ours).map_err(broken)?
        } else {
            Order { order: vec![OrderGroup { group: with_procfile(group) }], ..Order::default() }
        };
        if !extensions.is_empty() {
            order.order_extensions = vec![OrderGroup { group: extensions }];
        }
        for OrderGroup { group } in &mut order.order {
            let inner = std::mem::take(group);
            let is_new = |entry: &OrderEntry| !inner.iter().any(|other| other.id == entry.id);
            let (pre, post) = (pre.iter().filter(|entry| is_new(entry)), post.iter().filter(|entry| is_new(entry)));
            *group = pre.cloned().chain(inner.iter().cloned()).chain(post.cloned()).collect();
        }
        Ok(order)
    }
}

fn with_procfile(mut group: Vec<OrderEntry>) -> Vec<OrderEntry> {
    if !group.iter().any(|entry| entry.id == PROCFILE) {
        group.push(OrderEntry { optional: true, ..OrderEntry::required(PROCFILE.to_owned(), None) });
    }
    group
}

/// The folder of buildpacks while it is filled.
struct Shelf<'a> {
    target: &'a Path,
    extensions: &'a Path,
    app: &'a Path,
    fetched: &'a Fetched,
    /// Where each wish was put already.
    taken: BTreeMap<Reference, Placed>,
}

/// What a wish became.
#[derive(Clone)]
struct Placed {
    kind: Kind,
    entry: OrderEntry,
}

impl Placed {
    fn buildpack(entry: OrderEntry) -> Self {
        Self { kind: Kind::Buildpack, entry }
    }
}

impl Shelf<'_> {
    fn add(&mut self, wanted: &Wanted) -> Result<Placed, BuildError> {
        let reference = match wanted {
            Wanted::Inline(inline) => {
                return self
                    .write(inline)
                    .map_err(|problem| BuildError::Buildpack { buildpack: inline.id.clone(), problem });
            }
            Wanted::At(reference) => reference,
        };
        if let Some(placed) = self.taken.get(reference) {
            return Ok(placed.clone());
        }
        let placed = self.find(reference);
        let placed = placed.map_err(|problem| BuildError::Buildpack { buildpack: reference.to_string(), problem })?;
        self.taken.insert(reference.clone(), placed.clone());
        Ok(placed)
    }

    fn find(&self, reference: &Reference) -> Result<Placed, String> {
        let folder = match reference {
            Reference::Installed { id, version } => {
                return Ok(Placed::buildpack(OrderEntry::required(id.clone(), version.clone())));
            }
            Reference::Folder(path) => plain_folder(self.app, path)?,
            _ => self.fetched.get(reference).cloned().ok_or("it was not fetched")?,
        };
        // A buildpack that is written in JavaScript has a file of that name, too.
        if folder.join(PACKAGE).is_file() && folder.join("cnb").is_dir() {
            return self.take_package(&folder).map_err(|error| error.to_string());
        }
        let new = self.target.join("new");
        copy(&folder, &new).map_err(|error| error.to_string())?;
        if new.join(Kind::Extension.descriptor()).is_file() {
            return self.adopt(Kind::Extension, &new);
        }
        if is_cloud_native(&new) {
            return self.adopt(Kind::Buildpack, &new);
        }
        if new.join("bin/compile").exists() {
            return self.wrap(&new, reference).map(Placed::buildpack).map_err(|error| error.to_string());
        }
        Err("its folder has neither a buildpack.toml of a Cloud Native Buildpack, nor an extension.toml, nor bin/compile"
            .to_owned())
    }

    /// Where those of a kind are put.
    fn shelf(&self, kind: Kind) -> &Path {
        match kind {
            Kind::Buildpack => self.target,
            Kind::Extension => self.extensions,
        }
    }

    /// Gives the folder of a buildpack or an extension its place.
    fn adopt(&self, kind: Kind, folder: &Path) -> Result<Placed, String> {
        let buildpack = Buildpack::load(kind, folder.to_owned()).map_err(Failure::problem)?;
        let (id, version) = (buildpack.id().to_owned(), buildpack.version().to_owned());
        let place = self.shelf(kind).join(escaped(&id)).join(&version);
        let put = || {
            if place.exists() {
                fs::remove_dir_all(&place)?;
            }
            fs::create_dir_all(place.parent().unwrap_or(self.target))?;
            fs::rename(folder, &place)
        };
        put().map_err(|error| error.to_string())?;
        Ok(Placed { kind, entry: OrderEntry::required(id, Some(version)) })
    }

    /// Puts our own programs around those of a classic buildpack.
    fn wrap(&self, folder: &Path, reference: &Reference) -> io::Result<OrderEntry> {
        let base = format!("classic/{}", reference.short_name());
        let names = std::iter::once(base.clone()).chain((2..).map(|number| format!("{base}-{number}")));
        let id = names.into_iter().find(|id| !self.target.join(escaped(id)).exists()).unwrap_or(base);
        let place = self.target.join(escaped(&id)).join("0.0.0");
        fs::create_dir_all(place.join("bin"))?;
        fs::rename(folder, place.join("classic"))?;
        fs::write(place.join("buildpack.toml"), descriptor(&id, "0.0.0", "0.10"))?;
        for phase in ["detect", "build"] {
            symlink(PROGRAM, place.join("bin").join(phase))?;
        }
        Ok(OrderEntry::required(id, None))
    }

    fn write(&self, inline: &Inline) -> Result<Placed, String> {
        let new = self.target.join("new");
        let write = || {
            make_dir(&new.join("bin"), 0o755)?;
            fs::write(new.join("buildpack.toml"), descriptor(&inline.id, &inline.version, &inline.api))?;
            let shell = if inline.shell.starts_with('/') {
                inline.shell.clone()
            } else {
                format!("/usr/bin/env {}", inline.shell)
            };
            let programs = [("detect", "#!/bin/sh\n".to_owned()), ("build", format!("#!{shell}\n{}\n", inline.script))];
            for (name, text) in programs {
                fs::write(new.join("bin").join(name), text)?;
                fs::set_permissions(new.join("bin").join(name), fs::Permissions::from_mode(0o755))?;
            }
            Ok(())
        };
        write().map_err(|error: io::Error| error.to_string())?;
        self.adopt(Kind::Buildpack, &new)
    }

    /// Takes all buildpacks and extensions of a package; the one that it is named after is meant.
    fn take_package(&self, folder: &Path) -> io::Result<Placed> {
        let package: Package = serde_json::from_slice(&fs::read(folder.join(PACKAGE))?)?;
        let mut meant = Kind::Buildpack;
        for (kind, inner) in [(Kind::Buildpack, "cnb/buildpacks"), (Kind::Extension, "cnb/extensions")] {
            let inner = folder.join(inner);
            if inner.join(escaped(&package.id)).is_dir() {
                meant = kind;
            }
            for entry in WalkDir::new(&inner).min_depth(2).max_depth(2).into_iter().filter(|_| inner.is_dir()) {
                let entry = entry?;
                let place = self.shelf(kind).join(entry.path().strip_prefix(&inner).map_err(io::Error::other)?);
                if entry.file_type().is_dir() && !place.exists() {
                    fs::create_dir_all(place.parent().unwrap_or(self.target))?;
                    copy(entry.path(), &place)?;
                }
            }
        }
        Ok(Placed { kind: meant, entry: OrderEntry::required(package.id, Some(package.version)) })
    }
}

fn descriptor(id: &str, version: &str, api: &str) -> String {
    let text = |text: &str| toml::Value::from(text).to_string();
    format!("api = {}\n\n[buildpack]\nid = {}\nversion = {}\n", text(api), text(id), text(version))
}

/// Classic buildpacks may have a `buildpack.toml` too, in which Heroku's registry keeps its notes.
fn is_cloud_native(folder: &Path) -> bool {
    let text = fs::read_to_string(folder.join("buildpack.toml")).unwrap_or_default();
    text.parse::<Table>().is_ok_and(|table| table.contains_key("api"))
        || (!text.is_empty() && !folder.join("bin/compile").exists())
}

/// The folder `path` of the app, if no link is on the way to it.
fn plain_folder(app: &Path, path: &Path) -> Result<PathBuf, String> {
    let mut folder = app.to_owned();
    for part in path.components().filter(|part| matches!(part, Component::Normal(_))) {
        folder.push(part);
        let metadata =
            fs::symlink_metadata(&folder).map_err(|_| "there is no such folder in the repository".to_owned())?;
        if !metadata.is_dir() {
            return Err(format!("{} is not a folder", part.as_os_str().to_string_lossy()));
        }
    }
    Ok(folder)
}

/// Copies a tree of folders, files and links; links stay what they are, and are never followed.
pub(crate) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for entry in WalkDir::new(from) {
        let entry = entry?;
        let target = to.join(entry.path().strip_prefix(from).map_err(io::Error::other)?);
        if entry.file_type().is_dir() {
            make_dir(&target, 0o755)?;
        } else if entry.file_type().is_file() {
            fs::copy(entry.path(), target)?;
        } else if entry.file_type().is_symlink() {
            symlink(fs::read_link(entry.path())?, target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The order that results, a group a line, or why there is none.
    fn gathered(dir: &Path, chosen: &[&str], project: &str, fetched: &Fetched) -> Result<String, String> {
        let app = dir.join("app");
        file(&app.join("project.toml"), project);
        file(&dir.join("ours/t_a/1.0.0/buildpack.toml"), &descriptor("t/a", "1.0.0", "0.10"));
        file(
            &dir.join("ours/order.toml"),
            "[[order]]\ngroup = [{id = 't/a'}]\n[[order]]\ngroup = [{id = 't/b', optional = true}]",
        );
        let chosen: Vec<Reference> = chosen.iter().map(|text| text.parse().unwrap()).collect();
        let project = Project::read(&app).map_err(|error| error.to_string())?;
        let gathering = Gathering { ours: &dir.join("ours"), app: &app, chosen: &chosen, project: &project, fetched };
        let gathered = gathering.gather(&dir.join("target"), &dir.join("extensions"));
        let order = gathered.map_err(|error| error.to_string())?.order;
        let show = |entry: &OrderEntry| {
            let version = entry.version.as_ref().map(|version| format!("@{version}")).unwrap_or_default();
            format!("{}{version}{}", entry.id, if entry.optional { "?" } else { "" })
        };
        let line = |group: &OrderGroup| group.group.iter().map(show).collect::<Vec<_>>().join(" ");
        let extensions = order.order_extensions.iter().map(|group| format!("extensions: {}", line(group)));
        Ok(extensions.chain(order.order.iter().map(line)).collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn the_user_before_the_repository_before_the_platform() {
        let project = "[build]\n[[build.buildpacks]]\nid = 't/p'\nversion = '2.0.0'";
        let around = "[_]\n[[io.buildpacks.pre.group]]\nid = 't/pre'\n[[io.buildpacks.post.group]]\nid = 't/a'";
        let rows: [(&[&str], &str, &str); 5] = [
            (&[], "", "t/a\nt/b?"),
            (&[], project, "t/p@2.0.0 platform/procfile?"),
            (&["t/c", "platform/procfile"], project, "t/c platform/procfile"),
            (&[], around, "t/pre t/a\nt/pre t/b? t/a"),
            (&["t/c@1.0.0"], around, "t/pre t/c@1.0.0 platform/procfile? t/a"),
        ];
        for (chosen, project, expected) in rows {
            let dir = tempfile::tempdir().unwrap();
            assert_eq!(
                gathered(dir.path(), chosen, project, &Fetched::new()).unwrap(),
                expected,
                "{chosen:?} {project}"
            );
        }
    }

    #[test]
    fn an_extension_goes_before_all_groups_wherever_it_is_named() {
        const AROUND: &str = "[_]\n[[io.buildpacks.group]]\nuri = './x'\n[[io.buildpacks.pre.group]]\nuri = './y'";
        let rows: [(&[&str], &str, &str); 4] = [
            (&["./x", "t/c"], "", "extensions: me/x@1.0.0\nt/c platform/procfile?"),
            (&["./x"], "", "extensions: me/x@1.0.0\nt/a\nt/b?"),
            (&[], AROUND, "extensions: me/y@1.0.0 me/x@1.0.0\nt/a\nt/b?"),
            (&["./y", "./package"], "", "extensions: me/y@1.0.0 me/z@2.0.0\nt/a\nt/b?"),
        ];
        for (chosen, project, expected) in rows {
            let dir = tempfile::tempdir().unwrap();
            let text =
                |id: &str| descriptor(&format!("me/{id}"), "1.0.0", "0.10").replace("[buildpack]", "[extension]");
            for id in ["x", "y"] {
                file(&dir.path().join("app").join(id).join("extension.toml"), &text(id));
            }
            let package = dir.path().join("app/package");
            file(&package.join("cnb/extensions/me_z/2.0.0/extension.toml"), &text("z").replace("1.0.0", "2.0.0"));
            file(&package.join(PACKAGE), "{\"id\": \"me/z\", \"version\": \"2.0.0\"}");
            assert_eq!(
                gathered(dir.path(), chosen, project, &Fetched::new()).unwrap(),
                expected,
                "{chosen:?} {project}"
            );
            assert!(dir.path().join("extensions").is_dir());
        }
    }

    #[test]
    fn folders_of_the_repository_scripts_and_classic_buildpacks() {
        let dir = tempfile::tempdir().unwrap();
        let app = dir.path().join("app");
        file(&app.join("packs/own/buildpack.toml"), &descriptor("me/own", "1.2.3", "0.11"));
        file(&app.join("packs/own/bin/build"), "#!/bin/sh");
        file(&app.join("packs/own/package.json"), "{}");
        symlink("build", app.join("packs/own/bin/detect")).unwrap();
        for folder in ["one/old", "two/old"] {
            file(&app.join(folder).join("bin/compile"), "");
            file(&app.join(folder).join("buildpack.toml"), "[buildpack]\nname = 'Old'");
        }
        let script = "[_]\n[[io.buildpacks.pre.group]]\nid = 'me/script'\n[io.buildpacks.pre.group.script]\nshell = 'bash'\ninline = 'echo hi'";
        let order = gathered(dir.path(), &["./packs/own", "./one/old", "./two/old"], script, &Fetched::new()).unwrap();
        assert_eq!(order, "me/script@0.0.0 me/own@1.2.3 classic/old classic/old-2 platform/procfile?");
        let target = dir.path().join("target");
        assert_eq!(fs::read_link(target.join("me_own/1.2.3/bin/detect")).unwrap(), Path::new("build"));
        assert_eq!(fs::read_link(target.join("classic_old-2/0.0.0/bin/build")).unwrap(), Path::new(PROGRAM));
        assert!(target.join("classic_old-2/0.0.0/classic/bin/compile").is_file());
        assert_eq!(
            fs::read_to_string(target.join("me_script/0.0.0/bin/build")).unwrap(),
            "#!/usr/bin/env bash\necho hi\n"
        );
    }

    #[test]
    fn what_cannot_be_used_is_named_with_the_reason() {
        let rows = [
            ("./nothing", "there is no such folder in the repository"),
            ("./link/etc", "link is not a folder"),
            ("./empty", "neither a buildpack.toml"),
            ("./broken", "is not a version"),
            ("docker://example.com/a", "it was not fetched"),
        ];
        for (reference, problem) in rows {
            let dir = tempfile::tempdir().unwrap();
            let app = dir.path().join("app");
            file(&app.join("empty/README"), "");
            file(&app.join("broken/buildpack.toml"), &descriptor("a", "1", "0.10"));
            symlink("/", app.join("link")).unwrap();
            let error = gathered(dir.path(), &[reference], "", &Fetched::new()).unwrap_err();
            assert!(error.contains(reference) && error.contains(problem), "{error}");
        }
    }

    #[test]
    fn a_package_brings_all_its_buildpacks_and_means_one() {
        let dir = tempfile::tempdir().unwrap();
        let package = dir.path().join("package");
        file(&package.join(PACKAGE), "{\"id\": \"x/all\", \"version\": \"2.0.0\", \"stacks\": []}");
        for id in ["x/all", "x/part"] {
            let place = package.join("cnb/buildpacks").join(escaped(id)).join("2.0.0");
            file(&place.join("buildpack.toml"), &descriptor(id, "2.0.0", "0.10"));
        }
        let reference: Reference = "docker://example.com/x/all:2".parse().unwrap();
        let fetched = Fetched::from([(reference, package)]);
        let order = gathered(dir.path(), &["docker://example.com/x/all:2"], "", &fetched).unwrap();
        assert_eq!(order, "x/all@2.0.0 platform/procfile?");
        assert!(dir.path().join("target/x_part/2.0.0/buildpack.toml").is_file());
    }
}
