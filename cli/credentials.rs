//! Who is logged in where: `~/.config/platform/credentials.toml`, readable by its owner alone.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use url::Url;

use crate::error::{CliError, Result};

/// The file's content.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Credentials {
    /// The platform that commands speak to unless told otherwise: the one logged in to last.
    pub(crate) api: Option<String>,
    /// Logins by the address of the platform.
    #[serde(default)]
    pub(crate) logins: BTreeMap<String, Login>,
}

/// One login.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Login {
    /// Whose.
    pub(crate) email: String,
    /// The secret.
    pub(crate) token: String,
    /// The platform's https entrance, once git was told to use this login there as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) https: Option<String>,
}

impl Credentials {
    /// Reads the file; nobody is logged in if there is none.
    pub(crate) fn load() -> Result<Self> {
        match path() {
            Some(path) => load(&path),
            None => Ok(Self::default()),
        }
    }

    /// Replaces the file.
    pub(crate) fn save(&self) -> Result<()> {
        let path = path().ok_or_else(|| {
            CliError::failed("There is no place to keep the login")
                .hint("Set HOME, or pass the token in PLATFORM_TOKEN instead.")
        })?;
        save(self, &path).map_err(|error| CliError::failed(format!("Cannot write {}", path.display())).because(&error))
    }

    /// The login for `api`.
    pub(crate) fn login(&self, api: &Url) -> Option<&Login> {
        self.logins.get(key(api))
    }

    /// Adds or replaces the login for `api`, which becomes the platform that commands speak to.
    pub(crate) fn add(&mut self, api: &Url, login: Login) {
        self.api = Some(key(api).to_owned());
        self.logins.insert(key(api).to_owned(), login);
    }

    /// Forgets the login for `api`.
    pub(crate) fn remove(&mut self, api: &Url) -> Option<Login> {
        if self.api.as_deref() == Some(key(api)) {
            self.api = None;
        }
        self.logins.remove(key(api))
    }
}

/// An address as the file and git know it: without a slash at the end.
pub(crate) fn key(api: &Url) -> &str {
    api.as_str().trim_end_matches('/')
}

/// Where this program keeps what it knows of this user's platforms.
pub(crate) fn folder() -> Option<PathBuf> {
    let folder = |variable| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    let config = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")))?;
    Some(config.join("platform"))
}

fn path() -> Option<PathBuf> {
    Some(folder()?.join("credentials.toml"))
}

fn load(path: &Path) -> Result<Credentials> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Credentials::default()),
        Err(error) => return Err(CliError::failed(format!("Cannot read {}", path.display())).because(&error)),
        Ok(text) => text,
    };
    toml::from_str(&text).map_err(|error| {
        CliError::failed(format!("{} is not what `platform login` wrote", path.display()))
            .because(&io::Error::other(error.message().to_owned()))
            .hint("Mend it, or delete it and log in again.")
    })
}

fn save(credentials: &Credentials, path: &Path) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // Written beside and renamed, so that no moment exists in which the file is half there or readable by others.
    let fresh = path.with_extension(format!("toml.{}", std::process::id()));
    let text = toml::to_string(credentials).map_err(io::Error::other)?;
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_login_is_kept_by_address_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("platform/credentials.toml");
        let api: Url = "http://localhost:8080/".parse().unwrap();
        let mut credentials = load(&path).unwrap();
        credentials.add(&api, Login { email: "ada@localhost".into(), token: "secret".into(), https: None });
        save(&credentials, &path).unwrap();

        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut read = load(&path).unwrap();
        assert_eq!(read.api.as_deref(), Some("http://localhost:8080"));
        assert_eq!(read.login(&api).map(|login| login.token.as_str()), Some("secret"));
        assert!(read.remove(&api).is_some());
        assert!(read.api.is_none() && read.login(&api).is_none());
    }

    #[test]
    fn a_broken_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials.toml");
        fs::write(&path, "api = ").unwrap();
        let report = load(&path).unwrap_err().report(crate::output::Paint::plain());
        assert!(report.contains("is not what `platform login` wrote"), "{report}");
    }
}
