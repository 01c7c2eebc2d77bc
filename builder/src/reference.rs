//! What people write to name a buildpack: an id, a folder of the repository, or an address.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

/// Where a buildpack comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reference {
    /// It is part of the platform.
    Installed {
        /// `platform/nodejs`
        id: String,
        /// The newest, if none.
        version: Option<String>,
    },
    /// A folder of the repository, from its top.
    Folder(PathBuf),
    /// A git repository.
    Git {
        /// Of `http`, `https` or `ssh`, or `git@host:path`.
        url: String,
        /// Branch, tag or commit; the default branch if none.
        revision: Option<String>,
    },
    /// A tar file, which may be compressed by gzip: of a buildpack's folder, or, as `.cnb`, of an OCI layout.
    Archive(String),
    /// An image of a registry: `registry.example.com/name:tag` or `…@sha256:…`.
    Image(String),
}

/// Why a reference is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// It is of a kind that is not fetched.
    #[error("{0} is not fetched: a buildpack's address begins with https://, http://, ssh:// or docker://")]
    Scheme(String),
    /// It leads out of the repository.
    #[error("{0} is not a folder of the repository: write ./ and its path from the top")]
    Outside(String),
    /// It is none of them.
    #[error(
        "{0:?} names no buildpack: write an id such as platform/nodejs, an address, or ./ and a folder of the repository"
    )]
    Unclear(String),
}

/// Heroku's names of buildpacks, and ours that do the same work.
const HEROKU: [(&str, &str); 12] = [
    ("heroku/nodejs", "platform/nodejs"),
    ("heroku/python", "platform/python"),
    ("heroku/go", "platform/go"),
    ("heroku/ruby", "platform/ruby"),
    ("heroku/php", "platform/php"),
    ("heroku/java", "platform/java"),
    ("heroku/gradle", "platform/java"),
    ("heroku/jvm", "platform/java"),
    ("heroku/dotnet", "platform/dotnet"),
    ("heroku-community/apt", "platform/aptfile"),
    ("heroku/procfile", "platform/procfile"),
    ("heroku-community/static", "platform/static"),
];

/// Where Heroku keeps its own; without a revision, ours are meant.
const HEROKU_SOURCES: &str = "https://github.com/heroku/heroku-buildpack-";

/// Endings of archives.
const ARCHIVES: [&str; 4] = [".tgz", ".tar.gz", ".tar", ".cnb"];

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let text = text.trim();
        if text.starts_with("./") || text == "." {
            return folder(text);
        }
        let prefixes = ["urn:buildpack:", "urn:cnb:builder:", "urn:cnb:registry:", "from=builder:"];
        let name = prefixes.iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text);
        if let Some(id) = ours(name) {
            return Ok(Self::Installed { id: id.to_owned(), version: None });
        }
        match name.split_once("://") {
            Some(("docker", image)) if !image.is_empty() => Ok(Self::Image(image.to_owned())),
            Some(("http" | "https" | "ssh", _)) => remote(name).ok_or_else(|| ReferenceError::Unclear(text.to_owned())),
            Some(_) => Err(ReferenceError::Scheme(text.to_owned())),
            None if is_short(name) => remote(name).ok_or_else(|| ReferenceError::Unclear(text.to_owned())),
            None => installed(name).ok_or_else(|| ReferenceError::Unclear(text.to_owned())),
        }
    }
}

/// Our buildpack for one of Heroku's, by its name or the address of its source.
fn ours(name: &str) -> Option<&'static str> {
    let source = name.strip_prefix(HEROKU_SOURCES).map(|it| it.trim_end_matches('/').trim_end_matches(".git"));
    let is_meant = |known: &str| {
        known == name || source.is_some_and(|source| known.split_once('/').is_some_and(|(_, it)| it == source))
    };
    HEROKU.iter().find(|(known, _)| is_meant(known)).map(|(_, id)| *id)
}

/// Heroku's name for a buildpack of ours.
pub(crate) fn herokus(id: &str) -> Option<&'static str> {
    HEROKU.iter().find(|(_, ours)| *ours == id).map(|(name, _)| *name)
}

/// Whether there is a buildpack of this name, Heroku's or our own.
pub fn is_known(name: &str) -> bool {
    HEROKU.iter().any(|(known, id)| *known == name || *id == name)
}

fn folder(text: &str) -> Result<Reference, ReferenceError> {
    let path = Path::new(text);
    let is_inside = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    let plain = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
    if is_inside { Ok(Reference::Folder(plain)) } else { Err(ReferenceError::Outside(text.to_owned())) }
}

/// Whether it is `git@host:path`, as people write what goes over SSH.
fn is_short(name: &str) -> bool {
    name.split_once(':').and_then(|(place, _)| place.split_once('@')).is_some_and(|(user, host)| {
        let is_plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        [user, host].iter().all(|text| !text.is_empty() && !text.starts_with('-') && is_plain(text))
    })
}

fn remote(url: &str) -> Option<Reference> {
    let (address, revision) = url.split_once('#').map_or((url, None), |(url, revision)| (url, Some(revision)));
    let path = address.split('?').next().unwrap_or(address).to_ascii_lowercase();
    if url.starts_with("http") && ARCHIVES.iter().any(|ending| path.ends_with(ending)) {
        return Some(Reference::Archive(address.to_owned()));
    }
    let revision = revision.filter(|revision| !revision.is_empty()).map(str::to_owned);
    // Nothing that git could take for an option or for a range.
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "._/+-".contains(c);
    let is_name = |name: &String| !name.starts_with('-') && !name.contains("..") && name.chars().all(is_allowed);
    revision.as_ref().is_none_or(is_name).then(|| Reference::Git { url: address.to_owned(), revision })
}

fn installed(name: &str) -> Option<Reference> {
    let (id, version) = name.split_once('@').map_or((name, None), |(id, version)| (id, Some(version.to_owned())));
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '/' | '-' | '_');
    let is_id = !id.is_empty() && !id.starts_with(['.', '/']) && id.chars().all(is_allowed);
    let is_version = version.as_ref().is_none_or(|text| text.chars().all(|c| is_allowed(c) && c != '/'));
    (is_id && is_version).then(|| Reference::Installed { id: id.to_owned(), version })
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Installed { id, version: None } => f.write_str(id),
            Self::Installed { id, version: Some(version) } => write!(f, "{id}@{version}"),
            Self::Folder(path) => write!(f, "./{}", path.display()),
            Self::Git { url, revision: None } | Self::Archive(url) => f.write_str(&without_password(url)),
            Self::Git { url, revision: Some(revision) } => write!(f, "{}#{revision}", without_password(url)),
            Self::Image(image) => write!(f, "docker://{image}"),
        }
    }
}

impl Reference {
    /// The last part of its name, as it may be part of an id.
    pub(crate) fn short_name(&self) -> String {
        let text = match self {
            Self::Installed { id, .. } => id.clone(),
            Self::Folder(path) => path.display().to_string(),
            Self::Git { url, .. } | Self::Archive(url) => url.split('?').next().unwrap_or(url).to_owned(),
            Self::Image(image) => image.split('@').next().unwrap_or(image).to_owned(),
        };
        let mut last = text.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        for ending in ARCHIVES.iter().chain(&[".git"]) {
            last = last.strip_suffix(ending).unwrap_or(last);
        }
        let plain: String = last.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        if plain.trim_matches('-').is_empty() { "buildpack".to_owned() } else { plain.trim_matches('-').to_owned() }
    }
}

/// The URL as it may be shown in a build's output.
fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.find('@')) {
        (Some((scheme, rest)), Some(_)) => {
            let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
            format!("{scheme}://{}/{path}", host.rsplit('@').next().unwrap_or(host))
        }
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_of_every_kind() {
        let git =
            |url: &str, revision: Option<&str>| Reference::Git { url: url.into(), revision: revision.map(Into::into) };
        let installed =
            |id: &str, version: Option<&str>| Reference::Installed { id: id.into(), version: version.map(Into::into) };
        let rows = [
            ("platform/nodejs", installed("platform/nodejs", None), "nodejs"),
            ("heroku/nodejs", installed("platform/nodejs", None), "nodejs"),
            ("urn:buildpack:heroku/python", installed("platform/python", None), "python"),
            ("https://github.com/heroku/heroku-buildpack-nodejs", installed("platform/nodejs", None), "nodejs"),
            ("https://github.com/heroku/heroku-buildpack-static.git", installed("platform/static", None), "static"),
            (
                "https://github.com/heroku/heroku-buildpack-nodejs#v300",
                git("https://github.com/heroku/heroku-buildpack-nodejs", Some("v300")),
                "heroku-buildpack-nodejs",
            ),
            ("a/b@1.2.3", installed("a/b", Some("1.2.3")), "b"),
            ("urn:cnb:builder:a/b@1.2.3", installed("a/b", Some("1.2.3")), "b"),
            ("./packs/one/", Reference::Folder("packs/one".into()), "one"),
            ("https://git.example.com/a/b.git", git("https://git.example.com/a/b.git", None), "b"),
            ("https://git.example.com/a/b.git#v1", git("https://git.example.com/a/b.git", Some("v1")), "b"),
            (
                "https://example.com/x_1.tgz?key=1",
                Reference::Archive("https://example.com/x_1.tgz?key=1".into()),
                "x-1",
            ),
            ("http://example.com/x.CNB", Reference::Archive("http://example.com/x.CNB".into()), "x-CNB"),
            ("ssh://git@host:2222/a/b#v1", git("ssh://git@host:2222/a/b", Some("v1")), "b"),
            ("git@github.com:a/b.git", git("git@github.com:a/b.git", None), "b"),
            ("docker://ghcr.io/a/b:1", Reference::Image("ghcr.io/a/b:1".into()), "b-1"),
        ];
        for (text, expected, name) in rows {
            let reference: Reference = text.parse().unwrap();
            assert_eq!((&reference, reference.short_name().as_str()), (&expected, name), "{text}");
        }
        let secret: Reference = "https://me:secret@git.example.com/a#v1".parse().unwrap();
        assert_eq!(secret.to_string(), "https://git.example.com/a#v1");
    }

    #[test]
    fn what_leads_elsewhere_is_refused() {
        for text in [
            "file:///etc",
            "-oProxyCommand=x@host:x",
            "./../x",
            "./a/../../x",
            "/etc",
            "../x",
            "",
            "a b",
            "git@-oProxyCommand=x:a/b",
            "https://a/b#--upload-pack=x",
            "docker://",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }
}
