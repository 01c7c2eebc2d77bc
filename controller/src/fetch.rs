//! Buildpacks from git repositories, archives and registries, for the builder.

use std::io;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use builder::{Fetch, Reference};
use model::AppId;
use serde::Deserialize;
use url::Url;

use crate::Controller;
use crate::errors::chain;
use crate::git::{Remote, parse_remote};
use crate::registry::{ImageName, Repository};

/// Largest archive of a buildpack, in bytes.
const MAX_ARCHIVE: u64 = 512 << 20;
/// Most layers of a buildpack's image.
const MAX_LAYERS: usize = 500;

/// Fetches what the builder is asked for by an app, with what that app may show.
pub(crate) struct Fetcher {
    controller: Arc<Controller>,
    app: AppId,
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetcher").field("app", &self.app).finish_non_exhaustive()
    }
}

impl Fetcher {
    pub(crate) fn new(controller: &Arc<Controller>, app: AppId) -> Self {
        Self { controller: Arc::clone(controller), app }
    }

    async fn remote(&self, url: &str) -> io::Result<Remote> {
        self.controller.remote(self.app, &parsed(url)?, MAX_ARCHIVE).await
    }

    /// The commit, and, where not everybody may see it, by whose leave it is seen.
    async fn commit(&self, url: &str, what: &str) -> io::Result<String> {
        let leave = self.controller.leave(self.app, &parsed(url)?).await.map_err(io::Error::other)?;
        let leave = leave.map_or_else(String::new, |credential| format!(" {}", credential.id));
        if is_commit(what) {
            return Ok(what.to_owned() + &leave);
        }
        let mut remote = self.remote(url).await?;
        let found = said(&remote, &["ls-remote", "--quiet", "--", &remote.plain(), what]).await?;
        self.controller.remember(&mut remote).await.map_err(io::Error::other)?;
        let commit = found.split_whitespace().next().ok_or_else(|| no_such(what))?;
        Ok(commit.to_owned() + &leave)
    }

    async fn clone(&self, url: &str, what: &str, target: &Path) -> io::Result<()> {
        let mut remote = self.remote(url).await?;
        let target_name = target.display().to_string();
        let run = async |arguments: &[&str]| said(&remote, &[&["-C", &target_name], arguments].concat()).await;
        run(&["init", "-q"]).await?;
        run(&["fetch", "-q", "--depth", "1", "--no-tags", &remote.plain(), what]).await?;
        run(&["checkout", "-q", "--detach", "FETCH_HEAD"]).await?;
        self.controller.remember(&mut remote).await.map_err(io::Error::other)?;
        tokio::fs::remove_dir_all(target.join(".git")).await
    }

    async fn archive(&self, url: &str, target: &Path) -> io::Result<()> {
        let url: Url = url.parse().map_err(io::Error::other)?;
        let headers = self.controller.headers_for(self.app, &url).await.map_err(io::Error::other)?;
        self.controller.outbound.download(url, &headers, target, MAX_ARCHIVE).await
    }

    /// The repository of an image, with what the app may show there.
    async fn repository<'a>(&'a self, name: &'a ImageName) -> io::Result<Repository<'a>> {
        let credential = self.controller.credential_for(self.app, name.registry()).await.map_err(io::Error::other)?;
        Ok(Repository::new(&self.controller.outbound, name, credential))
    }

    async fn image(&self, name: &str, digest: &str, layout: &Path) -> io::Result<()> {
        let name = ImageName::parse(name).map_err(io::Error::other)?;
        let repository = self.repository(&name).await?;
        let blobs = layout.join("blobs/sha256");
        tokio::fs::create_dir_all(&blobs).await?;
        let mut manifest = repository.manifest_of(digest).await?;
        if is_index(&manifest.media_type) {
            let index: Index = serde_json::from_slice(&manifest.bytes).map_err(io::Error::other)?;
            let found = index.manifests.into_iter().find(|one| one.platform.as_ref().is_none_or(Platform::is_ours));
            let found = found.ok_or_else(|| io::Error::other("it has no image for this machine"))?;
            manifest = repository.manifest_of(&found.digest).await?;
        }
        let parts: Parts = serde_json::from_slice(&manifest.bytes).map_err(io::Error::other)?;
        if parts.layers.len() > MAX_LAYERS {
            return Err(io::Error::other(format!("it has more than {MAX_LAYERS} layers")));
        }
        for blob in parts.layers.iter().chain([&parts.config]) {
            let digest: model::Digest = blob.digest.parse().map_err(io::Error::other)?;
            repository.blob(digest.as_str(), &blobs.join(digest.hex())).await?;
        }
        let (_, hex) = manifest.digest.split_once(':').unwrap_or_default();
        tokio::fs::write(blobs.join(hex), &manifest.bytes).await?;
        let index = serde_json::json!({
            "schemaVersion": 2,
            "manifests": [{"digest": manifest.digest, "mediaType": manifest.media_type, "size": manifest.bytes.len()}],
        });
        tokio::fs::write(layout.join("index.json"), index.to_string()).await
    }
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Blob>,
}

#[derive(Deserialize)]
struct Parts {
    config: Blob,
    layers: Vec<Blob>,
}

#[derive(Deserialize)]
struct Blob {
    digest: String,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

impl Platform {
    fn is_ours(&self) -> bool {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        self.os == "linux" && self.architecture == architecture
    }
}

fn is_index(media_type: &str) -> bool {
    media_type.contains("image.index") || media_type.contains("manifest.list")
}

#[async_trait]
impl Fetch for Fetcher {
    async fn revision(&self, reference: &Reference) -> Result<String, String> {
        let revision = async {
            match reference {
                Reference::Git { url, revision } => self.commit(url, revision.as_deref().unwrap_or("HEAD")).await,
                Reference::Image(name) => {
                    let name = ImageName::parse(name).map_err(io::Error::other)?;
                    Ok(self.repository(&name).await?.manifest().await?.digest)
                }
                _ => Ok(String::new()),
            }
        };
        revision.await.map_err(|error: io::Error| chain(&error))
    }

    async fn has_credentials(&self, reference: &Reference) -> Result<bool, String> {
        let url = match reference {
            Reference::Git { url, .. } | Reference::Archive(url) => parse_remote(url),
            Reference::Image(name) => ImageName::parse(name).ok().map(|name| name.registry().clone()),
            Reference::Installed { .. } | Reference::Folder(_) => None,
        };
        let Some(url) = url else { return Ok(false) };
        let found = self.controller.credential_for(self.app, &url).await;
        found.map(|credential| credential.is_some()).map_err(|error| chain(&error))
    }

    async fn fetch(&self, reference: &Reference, revision: &str, target: &Path) -> Result<(), String> {
        let fetched = match reference {
            Reference::Git { url, revision: wanted } => {
                self.clone(url, wanted.as_deref().unwrap_or("HEAD"), target).await
            }
            Reference::Archive(url) => self.archive(url, &target.join("archive")).await,
            Reference::Image(name) => self.image(name, revision, target).await,
            Reference::Installed { .. } | Reference::Folder(_) => Ok(()),
        };
        fetched.map_err(|error| chain(&error))
    }
}

fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn parsed(url: &str) -> io::Result<Url> {
    parse_remote(url).ok_or_else(|| io::Error::other("its URL is none of https, http or ssh"))
}

fn no_such(what: &str) -> io::Error {
    io::Error::other(format!("it has no branch or tag {what}"))
}

/// What git prints; what it means, if it fails.
async fn said(remote: &Remote, arguments: &[&str]) -> io::Result<String> {
    let output = remote.git().args(arguments).output().await?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    if let Some((_, what)) = complaint.split_once("couldn't find remote ref ") {
        return Err(no_such(what.trim()));
    }
    Err(io::Error::other(remote.explain(&complaint)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::http::Server;

    #[tokio::test]
    async fn what_was_fetched_by_leave_is_kept_for_those_who_have_it() {
        let server = Server::start().await;
        let ada = server.user_with_app("ada@example.com", "shop").await;
        server.user_with_app("bob@example.com", "blog").await;
        let credential = json!({ "host": "git.example.com", "username": "ada", "password": "s3cret" });
        let set = ada.send("PUT", "/apps/shop/credentials", &[], credential).await;
        let apps = server.test.controller.store.apps().await.expect("readable");
        // Nobody is asked where it would lead: a commit is what it is.
        let commit = "0123456789012345678901234567890123456789";
        let reference: Reference = format!("https://git.example.com/pack.git#{commit}").parse().expect("a buildpack");
        let revision = async |name: &str| {
            let app = apps.iter().find(|app| app.name.as_str() == name).expect("an app");
            Fetcher::new(&server.test.controller, app.id).revision(&reference).await.expect("known")
        };
        let id = set.body["id"].as_str().expect("an id");
        assert_eq!(revision("shop").await, format!("{commit} {id}"));
        assert_eq!(revision("blog").await, commit);
    }
}
