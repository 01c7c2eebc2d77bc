//! Software bills of materials: buildpacks write them beside their layers, the image carries those of what it launches, and the
//! cache those of the rest (Buildpack spec, "Software-Bill-of-Materials"; Platform spec, "exporter").

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::lchown;
use std::path::{Path, PathBuf};

use engine::LayerStore;
use model::{Digest, Image};

use crate::analyze;
use crate::buildpack::Buildpack;
use crate::errors::{BuildError, Failure};
use crate::formats::escaped;
use crate::lifecycle::Paths;
use crate::outcome::BuiltLayer;
use crate::restore::LayerKey;
use crate::{Builder, blocking};

/// A longer document is not handed out.
const SIZE_LIMIT: u64 = 32 << 20;

/// File endings and their media types.
const FORMATS: [(&str, &str); 3] = [
    ("cdx.json", "application/vnd.cyclonedx+json"),
    ("spdx.json", "application/spdx+json"),
    ("syft.json", "application/vnd.syft+json"),
];

/// What a document is about, which is the name of its folder below `<layers>/sbom`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum About {
    /// What the image runs.
    Launch,
    /// What only the build needed. Never part of an image.
    Build,
    /// Layers that the next build gets back.
    Cache,
}

impl About {
    fn folder(self) -> &'static str {
        match self {
            Self::Launch => "launch",
            Self::Build => "build",
            Self::Cache => "cache",
        }
    }
}

/// A bill of materials that a buildpack wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sbom {
    /// Id of the buildpack.
    pub buildpack: String,
    /// Name of the layer; none if it is about what is in no layer.
    pub layer: Option<String>,
    /// Whether what it lists is part of the image, and not only of its build.
    pub launch: bool,
    /// `application/vnd.cyclonedx+json` for instance.
    pub media_type: &'static str,
    /// The document as the buildpack wrote it.
    pub document: String,
}

/// Copies what one buildpack wrote to the places of the specification, below `<layers>/sbom`.
pub(crate) fn collect(paths: &Paths, buildpack: &Buildpack, layers: &[BuiltLayer]) -> Result<(), Failure> {
    let trouble = |error: io::Error| Failure::io("read a bill of materials", &error);
    let dir = paths.layers_of(buildpack.id());
    for entry in dir.read_dir().map_err(trouble)? {
        let file = entry.map_err(trouble)?.file_name();
        let parts = file.to_str().and_then(|file| file.split_once(".sbom."));
        let Some((stem, ending)) = parts else { continue };
        let Some((_, media_type)) = FORMATS.iter().find(|(known, _)| *known == ending) else { continue };
        let places = places(stem, layers);
        let declared = &buildpack.toml.buildpack.sbom_formats;
        if !places.is_empty() && !declared.iter().any(|format| format.split(';').next() == Some(*media_type)) {
            let problem = format!("it wrote {stem}.sbom.{ending}, and its sbom-formats do not list {media_type}");
            return Err(Failure::BuildpackInvalid { buildpack: buildpack.name(), problem });
        }
        for (about, layer) in places {
            let target = document(&paths.layers, about, buildpack.id(), layer, ending);
            fs::create_dir_all(target.parent().unwrap_or(&paths.layers)).map_err(trouble)?;
            fs::copy(dir.join(&file), target).map_err(trouble)?;
        }
    }
    Ok(())
}

/// Where a document belongs; nowhere if it is about a layer that is gone.
fn places<'a>(stem: &'a str, layers: &[BuiltLayer]) -> Vec<(About, Option<&'a str>)> {
    let layer = match stem {
        "launch" => return vec![(About::Launch, None)],
        "build" => return vec![(About::Build, None)],
        name => layers.iter().find(|layer| layer.name == name),
    };
    let Some(types) = layer.map(|layer| layer.types) else { return Vec::new() };
    let first = if types.launch { About::Launch } else { About::Build };
    std::iter::once(first).chain(types.cache.then_some(About::Cache)).map(|about| (about, Some(stem))).collect()
}

fn document(layers: &Path, about: About, buildpack: &str, layer: Option<&str>, ending: &str) -> PathBuf {
    let folder = layers.join("sbom").join(about.folder()).join(escaped(buildpack));
    layer.map_or(folder.clone(), |layer| folder.join(layer)).join(format!("sbom.{ending}"))
}

/// Moves the documents that a build left into the trees of two layers, for the image and for the cache. The build may have
/// been hostile: nothing but plain files in plain folders is taken. Says which of the trees there are now.
pub(crate) fn take(layers: &Path, for_image: &Path, for_cache: &Path) -> io::Result<(bool, bool)> {
    let take = |about: About, tree: &Path| {
        let (from, to) = (layers.join("sbom").join(about.folder()), tree.join("layers/sbom").join(about.folder()));
        if !is_folder(&layers.join("sbom"))? || !is_folder(&from)? {
            return Ok(false);
        }
        check_plain(&from)?;
        crate::tree::make_parents(tree, &to)?;
        fs::rename(from, to).map(|()| true)
    };
    let launch = take(About::Launch, for_image)?;
    let (build, cache) = (take(About::Build, for_cache)?, take(About::Cache, for_cache)?);
    Ok((launch, build || cache))
}

fn is_folder(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(metadata.is_dir()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn check_plain(tree: &Path) -> io::Result<()> {
    for entry in walkdir::WalkDir::new(tree) {
        let entry = entry?;
        if !entry.file_type().is_file() && !entry.file_type().is_dir() {
            return Err(io::Error::other(format!("{} is no file", entry.path().display())));
        }
    }
    Ok(())
}

/// Lays the documents of restored layers beside them again, for a build of `uid` to read and replace.
pub(crate) fn restore<'a>(
    from: &[PathBuf],
    keys: impl Iterator<Item = &'a LayerKey>,
    upper: &Path,
    uid: u32,
) -> io::Result<()> {
    for (id, name) in keys {
        let candidates = from.iter().flat_map(|layer| {
            let at = |about| {
                FORMATS.map(|(ending, _)| (document(&layer.join("layers"), about, id, Some(name), ending), ending))
            };
            at(About::Cache).into_iter().chain(at(About::Launch))
        });
        for (source, ending) in candidates.filter(|(source, _)| source.is_file()) {
            let target = upper.join(escaped(id)).join(format!("{name}.sbom.{ending}"));
            fs::copy(source, &target)?;
            lchown(&target, Some(uid), Some(uid))?;
        }
    }
    Ok(())
}

impl Builder {
    /// The bills of materials of an image, and, if it is the one that the app's last build made, those of its build.
    pub async fn sboms(&self, app: model::AppId, image: &Image) -> Result<Vec<Sbom>, BuildError> {
        // Its labels and files are anybody's, and could name or lead to what is not the app's.
        if image.foreign.is_some() {
            return Ok(Vec::new());
        }
        let analysis = analyze::analyze(Some(image), &self.cache_file(app));
        let (layers, image) = (self.layers.clone(), image.clone());
        let of_this_build =
            analysis.cache.sizes.keys().all(|known| image.layers.iter().any(|layer| layer.diff_id == *known));
        blocking(move || {
            let ids: Vec<String> = analysis.image.buildpacks.iter().map(|buildpack| buildpack.key.clone()).collect();
            let mut found: Vec<Sbom> = stack_of(&layers, &image).into_iter().collect();
            if let Some(sha) = &analysis.image.sbom {
                read(&layers, &sha.sha, (About::Launch, &ids), &mut found)?;
            }
            if let Some(sha) = analysis.cache.sbom.as_ref().filter(|_| of_this_build) {
                read(&layers, sha, (About::Build, &ids), &mut found)?;
            }
            Ok(found)
        })
        .await
    }
}

/// The Debian packages of the image. dpkg keeps the list of them; where a layer adds some, it has the whole list anew.
fn stack_of(store: &LayerStore, image: &Image) -> Option<Sbom> {
    let list = |layer: &model::Layer| fs::read_to_string(store.path(&layer.diff_id).join("var/lib/dpkg/status")).ok();
    let status = image.layers.iter().rev().find_map(list)?;
    let distro = image.config.labels.get("io.buildpacks.stack.id").map_or("debian", String::as_str);
    let components: Vec<_> = status.split("\n\n").filter_map(|stanza| component(stanza, distro)).collect();
    let document = serde_json::json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": { "type": "operating-system", "name": distro } },
        "components": components,
    });
    Some(Sbom {
        buildpack: distro.to_owned(),
        layer: None,
        launch: true,
        media_type: FORMATS[0].1,
        document: document.to_string(),
    })
}

/// A stanza of dpkg's status, if its package is installed.
fn component(stanza: &str, distro: &str) -> Option<serde_json::Value> {
    let field = |name: &str| {
        let mut lines = stanza.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    let (name, version) = (field("Package")?, field("Version")?);
    let is_installed = field("Status").is_some_and(|status| status.ends_with(" installed"));
    let arch = field("Architecture").unwrap_or("all");
    let version_in_url = version.replace('+', "%2B").replace(':', "%3A").replace('~', "%7E");
    let purl = format!("pkg:deb/debian/{}@{version_in_url}?arch={arch}&distro={distro}", name.replace('+', "%2B"));
    is_installed.then(|| serde_json::json!({ "type": "library", "name": name, "version": version, "purl": purl }))
}

fn read(
    store: &LayerStore,
    layer: &Digest,
    (about, ids): (About, &[String]),
    found: &mut Vec<Sbom>,
) -> Result<(), BuildError> {
    let root = store.path(layer).join("layers/sbom").join(about.folder());
    let trouble = |source| BuildError::Io { action: "read", path: root.clone(), source };
    for entry in walkdir::WalkDir::new(&root).sort_by_file_name().into_iter().flatten() {
        let ending = entry.file_name().to_str().and_then(|name| name.strip_prefix("sbom."));
        let Some((_, media_type)) = FORMATS.iter().find(|(known, _)| Some(*known) == ending) else { continue };
        let parts: Vec<String> = (entry.path().strip_prefix(&root).unwrap_or(entry.path()).iter())
            .map(|part| part.to_string_lossy().into_owned())
            .collect();
        let (folder, layer) = match parts.as_slice() {
            [folder, _] => (folder, None),
            [folder, layer, _] => (folder, Some(layer.clone())),
            _ => continue,
        };
        let Some(buildpack) = ids.iter().find(|id| escaped(id) == *folder) else { continue };
        let mut document = String::new();
        let file = fs::File::open(entry.path()).map_err(trouble)?;
        file.take(SIZE_LIMIT).read_to_string(&mut document).map_err(trouble)?;
        let launch = about == About::Launch;
        found.push(Sbom { buildpack: buildpack.clone(), layer, launch, media_type, document });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installed_packages_have_an_address() {
        let stanza = "Package: libstdc++6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:14.2.0-19\nDescription: x";
        let found = component(stanza, "debian-13").unwrap();
        assert_eq!(found["purl"], "pkg:deb/debian/libstdc%2B%2B6@1%3A14.2.0-19?arch=amd64&distro=debian-13");
        assert_eq!(component(&stanza.replace("ok installed", "ok config-files"), "debian-13"), None);
        assert_eq!(component("", "debian-13"), None);
    }
}
