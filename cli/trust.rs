//! The certificate authorities of platforms, as this user met them first: `~/.config/platform/authorities/<host>.pem`.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use url::Url;

use crate::client::{self, Client, Platform};
use crate::credentials::{self, Credentials};
use crate::error::{CliError, Result};
use crate::git;

/// A platform's https entrance, and what vouches for it.
#[derive(Debug)]
pub(crate) struct Entrance {
    /// Its address.
    pub(crate) url: Url,
    /// PEM file of the authority.
    pub(crate) authority: PathBuf,
}

/// Asks a platform for its https entrance, if it has one, and keeps its authority. Another one than the first time is refused.
pub(crate) fn learn(client: &Client) -> Result<Option<Entrance>> {
    let platform: Platform = client::typed(&client.get(&["platform"])?)?;
    let Some(url) = platform.https_url.and_then(|url| Url::parse(&url).ok()) else { return Ok(None) };
    let mut pem = String::new();
    client.read(&["tls", "ca.pem"])?.read_to_string(&mut pem)?;
    let folder = credentials::folder().ok_or_else(|| {
        CliError::failed("There is no place to keep the platform's certificate authority").hint("Set HOME.")
    })?;
    let name = credentials::key(&url).trim_start_matches("https://").replace(':', "_");
    let authority = folder.join("authorities").join(format!("{name}.pem"));
    keep(&authority, &pem)?;
    Ok(Some(Entrance { url, authority }))
}

fn keep(path: &Path, pem: &str) -> Result<()> {
    match fs::read_to_string(path) {
        Ok(known) if known == pem => Ok(()),
        Ok(_) => {
            Err(CliError::failed("The platform has another certificate authority than it had before").hint(format!(
                "Somebody may stand between you and it. If its operator says that it has a new one: rm '{}'",
                path.display()
            )))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => write(path, pem)
            .map_err(|error| CliError::failed(format!("Cannot write {}", path.display())).because(&error)),
        Err(error) => Err(CliError::failed(format!("Cannot read {}", path.display())).because(&error)),
    }
}

fn write(path: &Path, pem: &str) -> io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    // Renamed into its place: half of it would be another authority for ever.
    let fresh = path.with_extension(format!("pem.{}", std::process::id()));
    fs::write(&fresh, pem)?;
    fs::rename(&fresh, path)
}

/// Lets git push over the https entrance with the login for `api`: it asks this program for the token, and trusts the authority.
pub(crate) fn tell_git(api: &Url, entrance: &Entrance) -> Result<()> {
    let mut credentials = Credentials::load()?;
    let https = credentials::key(&entrance.url).to_owned();
    let Some(login) = credentials.logins.get_mut(credentials::key(api)) else { return Ok(()) };
    if login.https.as_ref() == Some(&https) {
        return Ok(());
    }
    login.https = Some(https);
    credentials.save()?;
    git::use_our_credentials(&entrance.url)?;
    git::trust(&entrance.url, &entrance.authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_authority_is_kept_and_another_one_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("authorities/localhost_8443.pem");
        keep(&path, "one").unwrap();
        keep(&path, "one").unwrap();
        let report = keep(&path, "two").unwrap_err().report(crate::output::Paint::plain());
        assert!(report.contains("another certificate authority") && report.contains("rm '"), "{report}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
    }
}
