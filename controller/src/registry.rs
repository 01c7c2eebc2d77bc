//! Images in registries (OCI distribution spec), read and [pushed](push) over [`Outbound`]: what users name is reached only where the
//! operator allows.

pub(crate) mod push;

use std::io;
use std::path::Path;
use std::sync::Mutex;

use http::header::{ACCEPT, AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use url::Url;

use crate::credentials::{host_of, is_local, is_safe, unwelcome, unwelcome_push};
use crate::errors::chain;
use crate::outbound::Outbound;
use crate::store::Credential;

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
        let registry = if is_local(&https) { format!("http://{host}/").parse().map_err(|_| problem())? } else { https };
        Ok(Self { registry, repository: repository.to_owned(), reference: reference.to_owned() })
    }

    /// As [`Self::parse`], for something that is to have a tag there.
    pub(crate) fn parse_tag(text: &str) -> Result<Self, String> {
        if text.contains('@') {
            return Err(format!(
                "{text:?} names an image by its digest, which nobody can choose: give it a tag, such as registry.example.com/name:tag"
            ));
        }
        Self::parse(text)
    }

    /// The name of what is known there by `digest`, as people write it.
    fn with_digest(&self, digest: &str) -> String {
        format!("{}/{}@{digest}", host_of(&self.registry), self.repository)
    }

    /// Where its registry is.
    pub(crate) fn registry(&self) -> &Url {
        &self.registry
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

/// What is wanted of a repository, in the words of token services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Pull,
    Push,
}

impl Scope {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "pull,push",
        }
    }
}

/// One repository of a registry, as an app reaches it.
pub(crate) struct Repository<'a> {
    outbound: &'a Outbound,
    name: &'a ImageName,
    /// What the app may show there.
    credential: Option<Credential>,
    scope: Scope,
    /// What the registry wants to see: that, or what its token service gave for it.
    token: Mutex<Option<HeaderValue>>,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl<'a> Repository<'a> {
    pub(crate) fn new(outbound: &'a Outbound, name: &'a ImageName, credential: Option<Credential>) -> Self {
        Self { outbound, name, credential, scope: Scope::Pull, token: Mutex::default() }
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
        if answer.status() == StatusCode::UNAUTHORIZED {
            self.sign_in(answer.headers()).await?;
            answer = self.outbound.get(url, &self.headers()).await?;
        }
        match answer.status() {
            status if status.is_success() => Ok(answer),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(self.unwelcome()),
            StatusCode::NOT_FOUND => Err(io::Error::other("the registry has no such image")),
            status => Err(io::Error::other(format!("the registry answered {status}"))),
        }
    }

    fn unwelcome(&self) -> io::Error {
        let (url, credential) = (&self.name.registry, self.credential.as_ref());
        io::Error::other(match self.scope {
            Scope::Pull => unwelcome(url, credential),
            Scope::Push => unwelcome_push(url, &self.name.repository, credential),
        })
    }

    /// Finds out what the registry wants to see. Even what everybody may read needs a token in some registries (distribution's
    /// "Token Authentication").
    async fn sign_in(&self, headers: &HeaderMap) -> io::Result<()> {
        let challenge = headers.get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (scheme, parameters) = challenge.split_once(' ').unwrap_or((challenge, ""));
        let own = self.credential.as_ref().and_then(Credential::header);
        if !scheme.eq_ignore_ascii_case("bearer") {
            *self.token.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = own;
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
            .append_pair("scope", &format!("repository:{}:{}", self.name.repository, self.scope.as_str()));
        // The registry says where its tokens are, and would not have them asked for where everybody on the way hears it.
        let own = own.filter(|_| is_safe(&url)).map(|own| (AUTHORIZATION, own));
        let service = host_of(&url);
        let answer = self.outbound.get(url, &HeaderMap::from_iter(own)).await.map_err(|error| {
            io::Error::other(format!("{service}, which gives tokens for it, could not be asked: {}", chain(&error)))
        })?;
        if matches!(answer.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(self.unwelcome());
        }
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

    #[tokio::test]
    async fn a_token_service_is_told_who_asks_and_a_registry_only_what_it_says() {
        use axum::Router;
        use axum::response::IntoResponse;
        use axum::routing::get;

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let challenge = format!("Bearer realm=\"http://{address}/token\",service=\"registry\"");
        let seen = async move |headers: HeaderMap| match headers.get(AUTHORIZATION).map(HeaderValue::as_bytes) {
            None => (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, challenge)]).into_response(),
            Some(b"Bearer good") => "{}".into_response(),
            Some(_) => StatusCode::FORBIDDEN.into_response(),
        };
        // ada:s3cret
        let token = async |headers: HeaderMap| match headers.get(AUTHORIZATION).map(HeaderValue::as_bytes) {
            Some(b"Basic YWRhOnMzY3JldA==") => r#"{"token": "good"}"#.into_response(),
            Some(_) => StatusCode::UNAUTHORIZED.into_response(),
            None => r#"{"token": "anybody"}"#.into_response(),
        };
        let routes = Router::new().route("/token", get(token)).route("/v2/shop/manifests/v1", get(seen));
        tokio::spawn(async move { axum::serve(listener, routes).await });

        let server = crate::testing::http::Server::start().await;
        let ada = server.user_with_app("ada@example.com", "shop").await;
        let controller = &server.test.controller;
        let app = controller.store.apps().await.expect("readable").remove(0).id;
        let name = ImageName::parse(&format!("{address}/shop:v1")).expect("a name");
        let ask = async |password: Option<&str>| {
            if let Some(password) = password {
                let wish = serde_json::json!({ "host": address, "username": "ada", "password": password });
                assert_eq!(ada.send("PUT", "/apps/shop/credentials", &[], wish).await.status, 200);
            }
            let credential = controller.credential_for(app, name.registry()).await.expect("readable");
            let manifest = Repository::new(&controller.outbound, &name, credential).manifest().await;
            manifest.map(|manifest| manifest.bytes).map_err(|error| error.to_string())
        };
        assert!(ask(None).await.is_err_and(|error| error.contains("there are no credentials for")));
        assert!(ask(Some("wrong")).await.is_err_and(|error| error.contains("refuses the credentials")));
        assert_eq!(ask(Some("s3cret")).await, Ok(b"{}".to_vec()));
    }
}
