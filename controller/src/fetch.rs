//! Buildpacks from git repositories, archives and registries, for the builder.

use std::io;
use std::path::Path;

use async_trait::async_trait;
use builder::{Fetch, Reference};
use http::HeaderMap;
use ipnet::IpNet;
use serde::Deserialize;
use tokio::process::Command;
use url::Url;

use crate::errors::chain;
use crate::git::{plain, remote};
use crate::outbound::Outbound;
use crate::registry::{ImageName, Repository};

/// Largest archive of a buildpack, in bytes.
const MAX_ARCHIVE: u64 = 512 << 20;
/// Most layers of a buildpack's image.
const MAX_LAYERS: usize = 500;

/// Fetches what the builder is asked for by users.
pub struct Fetcher {
    outbound: Outbound,
}

impl Fetcher {
    /// `allowed` are networks that may be reached although they are not public.
    pub fn new(allowed: Vec<IpNet>) -> Self {
        Self { outbound: Outbound::new(allowed) }
    }

    async fn clone(&self, url: &Url, what: &str, target: &Path) -> io::Result<()> {
        let git = async || remote(&self.outbound, url, MAX_ARCHIVE).await;
        let run = async |arguments: &[&str]| said(git().await?.arg("-C").arg(target).args(arguments)).await;
        run(&["init", "-q"]).await?;
        run(&["fetch", "-q", "--depth", "1", "--no-tags", plain(url).as_str(), what]).await?;
        run(&["checkout", "-q", "--detach", "FETCH_HEAD"]).await?;
        tokio::fs::remove_dir_all(target.join(".git")).await
    }

    async fn image(&self, name: &str, digest: &str, layout: &Path) -> io::Result<()> {
        let name = ImageName::parse(name).map_err(io::Error::other)?;
        let repository = Repository::new(&self.outbound, &name);
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
                Reference::Git { url, revision } => {
                    let what = revision.as_deref().unwrap_or("HEAD");
                    if is_commit(what) {
                        return Ok(what.to_owned());
                    }
                    let url = parse(url)?;
                    let mut git = remote(&self.outbound, &url, MAX_ARCHIVE).await?;
                    let found = said(git.args(["ls-remote", "--quiet", "--", plain(&url).as_str(), what])).await?;
                    let commit = found.split_whitespace().next().map(str::to_owned);
                    commit.ok_or_else(|| io::Error::other(format!("it has no branch or tag {what}")))
                }
                Reference::Image(name) => {
                    let name = ImageName::parse(name).map_err(io::Error::other)?;
                    Ok(Repository::new(&self.outbound, &name).manifest().await?.digest)
                }
                _ => Ok(String::new()),
            }
        };
        revision.await.map_err(|error: io::Error| chain(&error))
    }

    async fn fetch(&self, reference: &Reference, revision: &str, target: &Path) -> Result<(), String> {
        let fetched = match reference {
            Reference::Git { url, revision: wanted } => match parse(url) {
                Ok(url) => self.clone(&url, wanted.as_deref().unwrap_or("HEAD"), target).await,
                Err(error) => Err(error),
            },
            Reference::Archive(url) => match parse(url) {
                Ok(url) => self.outbound.download(url, &HeaderMap::new(), &target.join("archive"), MAX_ARCHIVE).await,
                Err(error) => Err(error),
            },
            Reference::Image(name) => self.image(name, revision, target).await,
            Reference::Installed { .. } | Reference::Folder(_) => Ok(()),
        };
        fetched.map_err(|error| chain(&error))
    }
}

fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn parse(url: &str) -> io::Result<Url> {
    url.parse().map_err(io::Error::other)
}

/// What a command prints; its last line of complaint if it fails.
async fn said(command: &mut Command) -> io::Result<String> {
    let output = command.output().await?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    let last = complaint.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("git does not say why");
    Err(io::Error::other(last.trim_start_matches("fatal: ").to_owned()))
}
