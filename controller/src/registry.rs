//! Images in registries (OCI distribution spec), read over [`Outbound`]: what users name is reached only where the operator allows.

use std::io;
use std::path::Path;
use std::sync::Mutex;

use http::HeaderMap;
use http::header::{ACCEPT, AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use url::{Host, Url};

use crate::outbound::Outbound;

/// Largest manifest, in bytes.
const MAX_MANIFEST: usize = 8 << 20;
/// Largest blob, in bytes.
const MAX_BLOB: u64 = 2 << 30;

const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                         application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// The name of an image, as `docker pull` reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageName {
    registry: Url,
    repository: String,
    /// A tag or a digest.
    reference: String,
}

impl ImageName {
    /// `[registry/]repository[:tag][@digest]`
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let problem = || format!("{text:?} does not name an image, such as registry.example.com/name:tag");
        let (name, digest) = text.split_once('@').map_or((text, None), |(name, digest)| (name, Some(digest)));
        let is_host = |part: &str| part.contains(['.', ':']) || part == "localhost";
        let (host, rest) = match name.split_once('/') {
            Some((first, rest)) if is_host(first) => (first, rest.to_owned()),
            Some(_) => ("docker.io", name.to_owned()),
            None => ("docker.io", format!("library/{name}")),
        };
        let (repository, tag) = rest.rsplit_once(':').map_or((rest.as_str(), None), |(name, tag)| (name, Some(tag)));
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-' | '/');
        let is_tag =
            |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-:".contains(c));
        let reference = digest.or(tag).unwrap_or("latest");
        if repository.split('/').any(str::is_empty)
            || !repository.chars().all(allowed)
            || repository.contains("..")
            || !is_tag(reference)
        {
            return Err(problem());
        }
        let host = if host == "docker.io" { "registry-1.docker.io" } else { host };
        let https: Url = format!("https://{host}/").parse().map_err(|_| problem())?;
        // Nobody has certificates for this machine's own addresses.
        let is_local = match https.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => return Err(problem()),
        };
        let registry = if is_local { format!("http://{host}/").parse().map_err(|_| problem())? } else { https };
        Ok(Self { registry, repository: repository.to_owned(), reference: reference.to_owned() })
    }
}

/// A manifest as a registry has it.
pub(crate) struct Manifest {
    /// `sha256:…` of its bytes.
    pub(crate) digest: String,
    /// Whether it is an index of several images.
    pub(crate) media_type: String,
    /// The document.
    pub(crate) bytes: Vec<u8>,
}

/// Reads one repository of a registry.
pub(crate) struct Repository<'a> {
    outbound: &'a Outbound,
    name: &'a ImageName,
    /// What the registry's token service gave.
    token: Mutex<Option<HeaderValue>>,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl<'a> Repository<'a> {
    pub(crate) fn new(outbound: &'a Outbound, name: &'a ImageName) -> Self {
        Self { outbound, name, token: Mutex::default() }
    }

    /// The manifest that the image's name means.
    pub(crate) async fn manifest(&self) -> io::Result<Manifest> {
        self.manifest_of(&self.name.reference).await
    }

    /// The manifest of a tag or digest.
    pub(crate) async fn manifest_of(&self, reference: &str) -> io::Result<Manifest> {
        let answer = self.get(&format!("manifests/{reference}")).await?;
        let media_type =
            answer.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let bytes = body(answer.into_body()).await?;
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
        if reference.starts_with("sha256:") && reference != digest {
            return Err(io::Error::other(format!("the registry gave another manifest than {reference}")));
        }
        Ok(Manifest { digest, media_type, bytes })
    }

    /// Fetches a blob into a file. Whether it has its digest is for the reader to see.
    pub(crate) async fn blob(&self, digest: &str, file: &Path) -> io::Result<()> {
        let url = self.url(&format!("blobs/{digest}"))?;
        self.outbound.download(url, &self.headers(), file, MAX_BLOB).await
    }

    fn url(&self, path: &str) -> io::Result<Url> {
        self.name.registry.join(&format!("v2/{}/{path}", self.name.repository)).map_err(io::Error::other)
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(MANIFESTS))]);
        let token = self.token.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        headers.extend(token.map(|token| (AUTHORIZATION, token)));
        headers
    }

    async fn get(&self, path: &str) -> io::Result<http::Response<Incoming>> {
        let url = self.url(path)?;
        let mut answer = self.outbound.get(url.clone(), &self.headers()).await?;
        if answer.status() == http::StatusCode::UNAUTHORIZED {
            self.ask_for_token(answer.headers()).await?;
            answer = self.outbound.get(url, &self.headers()).await?;
        }
        match answer.status() {
            status if status.is_success() => Ok(answer),
            status if matches!(status.as_u16(), 401 | 403) => {
                Err(io::Error::other("the registry has no such image, or does not show it to everybody"))
            }
            status if status.as_u16() == 404 => Err(io::Error::other("the registry has no such image")),
            status => Err(io::Error::other(format!("the registry answered {status}"))),
        }
    }

    /// Even what everybody may read needs a token in some registries (distribution's "Token Authentication").
    async fn ask_for_token(&self, headers: &HeaderMap) -> io::Result<()> {
        let challenge = headers.get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let Some((scheme, parameters)) = challenge.split_once(' ') else { return Ok(()) };
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Ok(());
        }
        let parameter = |name: &str| {
            let mut all = parameters.split(',').filter_map(|part| part.trim().split_once('='));
            all.find(|(key, _)| *key == name).map(|(_, value)| value.trim_matches('"').to_owned())
        };
        let realm = parameter("realm").unwrap_or_default();
        let mut url: Url = realm.parse().map_err(io::Error::other)?;
        url.query_pairs_mut()
            .extend_pairs(parameter("service").map(|service| ("service", service)))
            .append_pair("scope", &format!("repository:{}:pull", self.name.repository));
        let answer = self.outbound.get(url, &HeaderMap::new()).await?;
        let token: Token = serde_json::from_slice(&body(answer.into_body()).await?).map_err(io::Error::other)?;
        let token = token.token.or(token.access_token).unwrap_or_default();
        let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(io::Error::other)?;
        value.set_sensitive(true);
        *self.token.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(value);
        Ok(())
    }
}

async fn body(body: Incoming) -> io::Result<Vec<u8>> {
    Ok(Limited::new(body, MAX_MANIFEST).collect().await.map_err(io::Error::other)?.to_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_docker_reads_them() {
        let rows = [
            ("busybox", "https://registry-1.docker.io/ library/busybox latest"),
            ("a/b:1", "https://registry-1.docker.io/ a/b 1"),
            ("docker.io/a/b", "https://registry-1.docker.io/ a/b latest"),
            ("ghcr.io/a/b/c:v1.2", "https://ghcr.io/ a/b/c v1.2"),
            ("127.0.0.1:5000/a", "http://127.0.0.1:5000/ a latest"),
            ("ghcr.io/a@sha256:00", "https://ghcr.io/ a sha256:00"),
            ("ghcr.io/a:1@sha256:00", "https://ghcr.io/ a sha256:00"),
        ];
        for (text, expected) in rows {
            let name = ImageName::parse(text).expect("a name");
            assert_eq!(format!("{} {} {}", name.registry, name.repository, name.reference), expected, "{text}");
        }
        for text in ["", "A", "a/../b", "ghcr.io/", "ghcr.io/a:", "ghcr.io/a b", "ghcr.io/a?x", "user@host/a"] {
            assert!(ImageName::parse(text).is_err(), "{text}");
        }
    }
}
