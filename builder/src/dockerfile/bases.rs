//! Images that a Dockerfile starts from and that not everybody may have. The host fetches them, with what the app has to show, and
//! buildah finds them in a folder: no credentials ever are in the container in which steps run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use model::Digest;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::{Nest, Request, read, text};
use crate::errors::BuildError;
use crate::reference::Reference;
use crate::workspace::Workspace;
use crate::{Builder, disk, tree};

/// Where they are in the container.
pub(super) const PLACE: &str = "/bases";
/// What they are called in buildah's storage, before their digest.
pub(super) const KEPT_AS: &str = "localhost/base";
/// Which images are in buildah's storage.
const IMAGES: &str = "storage/overlay-images/images.json";

/// An image that was fetched by the host.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Base {
    /// As the Dockerfile has it, with its variables and without: buildah compares some before it puts values in, some after.
    pub(super) names: BTreeSet<String>,
    /// What it is called in buildah's storage.
    pub(super) kept_as: String,
    /// Whether it is not there yet.
    pub(super) is_new: bool,
}

impl Base {
    /// Where buildah finds it.
    pub(super) fn layout(&self) -> String {
        let hex = self.kept_as.rsplit(':').next().unwrap_or_default();
        format!("oci:{PLACE}/{hex}")
    }
}

impl Builder {
    /// Fetches what the Dockerfile starts from, where credentials are needed.
    pub(super) async fn bring_bases(
        &self,
        request: &Request,
        workspace: &Workspace,
        nest: &Nest,
        output: &mpsc::Sender<String>,
    ) -> Result<Vec<Base>, BuildError> {
        tokio::select! {
            bases = tokio::time::timeout(self.limits.time, bring(request, nest, output)) => {
                bases.map_err(|_| BuildError::TimeLimit { limit: self.limits.time })?
            }
            outgrown = disk::outgrown(self, workspace) => Err(outgrown),
        }
    }
}

async fn bring(request: &Request, nest: &Nest, output: &mpsc::Sender<String>) -> Result<Vec<Base>, BuildError> {
    let io = |source| BuildError::Io { action: "prepare", path: nest.bases.clone(), source };
    let dockerfile = read(&nest.files, &request.source.path).map_err(io)?;
    // What is there is the app's own doing, and so is what comes of a lie about it.
    let kept = read(&nest.storage.at, IMAGES).map(|text| kept_names(&text)).unwrap_or_default();
    let mut bases = Vec::new();
    for (name, names) in images(&dockerfile, &request.source.args) {
        let reference = Reference::Image(name.clone());
        let failed = |problem| BuildError::Image { name: name.clone(), problem };
        if !request.fetch.has_credentials(&reference).await.map_err(failed)? {
            continue;
        }
        let revision = request.fetch.revision(&reference).await.map_err(failed)?;
        let digest: Digest = revision.parse().map_err(|_| failed(format!("{revision:?} is no digest")))?;
        let kept_as = format!("{KEPT_AS}:{}", digest.hex());
        let folder = nest.bases.join(digest.hex());
        let is_new = !kept.contains(&kept_as) && !folder.exists();
        if is_new {
            let _ = output.send(format!("       Fetching {name}")).await;
            fs::create_dir(&folder).map_err(io)?;
            request.fetch.fetch(&reference, &revision, &folder).await.map_err(failed)?;
            finish(&folder, nest.uid).map_err(io)?;
        }
        bases.push(Base { names, kept_as, is_new });
    }
    Ok(bases)
}

/// Makes what was fetched a layout that others read as well, and the container's own.
fn finish(layout: &Path, uid: u32) -> std::io::Result<()> {
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#)?;
    tree::chown(layout, uid)
}

#[derive(Deserialize)]
struct Kept {
    #[serde(default)]
    names: Vec<String>,
}

fn kept_names(images: &str) -> BTreeSet<String> {
    let kept: Vec<Kept> = serde_json::from_str(images).unwrap_or_default();
    kept.into_iter().flat_map(|image| image.names).collect()
}

/// Names of images in a Dockerfile, each with how it is written there: what its stages start from, and what is copied or mounted
/// from. `args` are values of its `ARG`s.
fn images(dockerfile: &str, args: &BTreeMap<String, String>) -> BTreeMap<String, BTreeSet<String>> {
    let (mut values, mut stages) = (BTreeMap::new(), BTreeSet::new());
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut find = |written: &str, values: &BTreeMap<String, String>, stages: &BTreeSet<String>| {
        let name = expand(written, values);
        if !is_stage(&name, stages) {
            found.entry(name.clone()).or_default().extend([name, written.to_owned()]);
        }
    };
    let mut is_begun = false;
    for instruction in text::instructions(dockerfile) {
        let mut words = instruction.text.split_whitespace();
        match instruction.name.as_str() {
            // Those of a stage are of no use to a FROM.
            "ARG" if !is_begun => declare(words, args, &mut values),
            "FROM" => {
                is_begun = true;
                let Some(name) = words.find(|word| !word.starts_with("--")) else { continue };
                find(name.trim_matches(['"', '\'']), &values, &stages);
                let is_named = words.next().is_some_and(|word| word.eq_ignore_ascii_case("as"));
                stages.extend(words.next().filter(|_| is_named).map(str::to_ascii_lowercase));
            }
            "COPY" | "ADD" | "RUN" => {
                let flags = words.take_while(|word| word.starts_with("--"));
                flags.filter_map(from).for_each(|name| find(name, &values, &stages));
            }
            _ => {}
        }
    }
    found
}

/// `ARG NAME`, `ARG NAME=default OTHER=…`
fn declare<'a>(
    words: impl Iterator<Item = &'a str>,
    args: &BTreeMap<String, String>,
    values: &mut BTreeMap<String, String>,
) {
    for word in words {
        let (name, default) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        let default = default.map(|value| expand(value.trim_matches(['"', '\'']), values));
        if let Some(value) = args.get(name).cloned().or(default) {
            values.insert(name.to_owned(), value);
        }
    }
}

/// What `--from=image` and `--mount=type=bind,from=image,…` name.
fn from(flag: &str) -> Option<&str> {
    if let Some(name) = flag.strip_prefix("--from=") {
        return Some(name);
    }
    flag.strip_prefix("--mount=")?.split(',').find_map(|part| part.strip_prefix("from="))
}

fn is_stage(name: &str, stages: &BTreeSet<String>) -> bool {
    name.is_empty()
        || name.bytes().all(|byte| byte.is_ascii_digit())
        || name.eq_ignore_ascii_case("scratch")
        || stages.contains(&name.to_ascii_lowercase())
}

/// Puts values in: `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME:+other}`. What has none is empty.
fn expand(text: &str, values: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let (name, end) = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some((name, end)) => (name, end),
            None => after.split_at(after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len())),
        };
        let value = |name: &str| values.get(name).filter(|value| !value.is_empty()).cloned();
        out += &match (name.split_once(":-"), name.split_once(":+")) {
            (Some((name, default)), _) => value(name).unwrap_or_else(|| default.to_owned()),
            (None, Some((name, other))) => value(name).map(|_| other.to_owned()).unwrap_or_default(),
            (None, None) => value(name).unwrap_or_default(),
        };
        rest = end;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_image_of_a_dockerfile_is_found_and_no_stage_is_taken_for_one() {
        let dockerfile = "# syntax=x\nARG REGISTRY=r.example.com TAG\nARG BASE=$REGISTRY/base:${TAG:-latest}\n\
                          FROM --platform=linux/amd64 $BASE AS Build\nARG REGISTRY=wrong\nRUN <<EOF\nFROM nothing\nEOF\n\
                          RUN --network=none --mount=type=bind,from=${REGISTRY}/tools,target=/t \\\n  # a word\n  make --from=none\n\
                          FROM build\nCOPY --from=build /a /b\nCOPY --chown=1 --from=r.example.com/data@sha256:00 /c /d\n\
                          COPY --from=0 /e /f\nFROM scratch\nfrom \\\n  \"r.example.com/last\"";
        let args = [("TAG".to_owned(), "v1".to_owned())].into();
        let found = images(dockerfile, &args);
        let found: Vec<_> = found.into_iter().map(|(name, written)| format!("{name} {written:?}")).collect();
        insta::assert_snapshot!(found.join("\n"), @r#"
        r.example.com/base:v1 {"$BASE", "r.example.com/base:v1"}
        r.example.com/data@sha256:00 {"r.example.com/data@sha256:00"}
        r.example.com/last {"r.example.com/last"}
        r.example.com/tools {"${REGISTRY}/tools", "r.example.com/tools"}
        "#);
    }

    #[test]
    fn what_buildah_says_of_its_images_may_be_anything() {
        assert_eq!(kept_names(r#"[{"id": "x", "names": ["localhost/base:1"]}, {"id": "y"}]"#).len(), 1);
        assert!(kept_names("[{\"names\": 1}]").is_empty() && kept_names("").is_empty());
    }
}
