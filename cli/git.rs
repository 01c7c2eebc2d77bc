//! The little that the commands do with the `git` program.

use std::io;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use url::Url;

use crate::credentials;
use crate::error::{CliError, Result};

/// The remote that commands look at and make unless told otherwise.
pub(crate) const REMOTE: &str = "platform";

/// Where an app's repository is: at the address under which this program knows its platform.
pub(crate) fn address(api: &Url, app: &str) -> String {
    format!("{}/{app}.git", credentials::key(api))
}

/// Where a remote of the repository around the working directory points. `None` without git, repository or remote.
pub(crate) fn remote_url(remote: &str) -> Option<String> {
    let output = git(&["remote", "get-url", remote]).ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// True inside a working tree.
pub(crate) fn in_repository() -> bool {
    git(&["rev-parse", "--git-dir"]).is_ok_and(|output| output.status.success())
}

/// How the branch that is checked out here is deployed by pushing it to `remote`.
pub(crate) fn push_command(remote: &str) -> String {
    let head = git(&["symbolic-ref", "--short", "HEAD"]).map(|output| output.stdout).unwrap_or_default();
    match String::from_utf8_lossy(&head).trim() {
        branch @ ("main" | "master") => format!("git push {remote} {branch}"),
        _ => format!("git push {remote} HEAD:main"),
    }
}

/// Makes `remote` point at `address`, whether it was there or not.
pub(crate) fn set_remote(remote: &str, address: &str) -> Result<()> {
    let verb = if remote_url(remote).is_some() { "set-url" } else { "add" };
    run(&["remote", verb, remote, address])
}

/// The remotes of the repository here that point at `address`; none outside a repository.
pub(crate) fn remotes_to(address: &str) -> Vec<String> {
    let Ok(output) = git(&["remote"]) else { return Vec::new() };
    let names = String::from_utf8_lossy(&output.stdout).into_owned();
    names.lines().filter(|name| remote_url(name).as_deref() == Some(address)).map(str::to_owned).collect()
}

/// Removes a remote.
pub(crate) fn remove_remote(remote: &str) -> Result<()> {
    run(&["remote", "remove", remote])
}

/// Lets `git push` ask this program for the token of `api`. The empty helper first keeps git from also handing the token
/// to whatever helper the user has for all other hosts.
pub(crate) fn use_our_credentials(api: &Url) -> Result<()> {
    let program = std::env::current_exe()
        .map_err(|error| CliError::failed("Cannot find this program's own file").because(&error))?;
    let helper = format!("!'{}' git:credentials", program.to_string_lossy().replace('\'', r"'\''"));
    let key = helper_key(api);
    run(&["config", "--global", "--replace-all", &key, ""])?;
    run(&["config", "--global", "--add", &key, &helper])
}

/// Lets git trust the authority in a PEM file for the platform at `url`, beside none other.
pub(crate) fn trust(url: &Url, authority: &Path) -> Result<()> {
    let key = format!("http.{}.sslCAInfo", credentials::key(url));
    run(&["config", "--global", "--replace-all", &key, &authority.to_string_lossy()])
}

/// Undoes [`use_our_credentials`] and [`trust`].
pub(crate) fn forget_our_credentials(api: &Url) {
    // Not there is as good as removed.
    let _ = git(&["config", "--global", "--remove-section", &format!("http.{}", credentials::key(api))]);
    let _ = git(&["config", "--global", "--remove-section", helper_key(api).trim_end_matches(".helper")]);
}

/// The platform and the app that a remote's address means: `http://localhost:8080/my-app.git`.
pub(crate) fn app_of(address: &str) -> Option<(Url, String)> {
    let mut url = Url::parse(address).ok()?;
    let app = url.path_segments()?.next_back()?.strip_suffix(".git")?.to_owned();
    url.path_segments_mut().ok()?.pop();
    // A user name in the address is git's matter, not part of the platform's name.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    Some((url, app))
}

fn helper_key(api: &Url) -> String {
    format!("credential.{}.helper", credentials::key(api))
}

fn run(args: &[&str]) -> Result<()> {
    let output = git(args).map_err(|error| {
        CliError::failed("Cannot run git").because(&error).hint("Install it: `apt install git` on Debian and Ubuntu.")
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    Err(CliError::failed(format!("`git {}` failed", args.join(" "))).because(&said))
}

fn git(args: &[&str]) -> io::Result<Output> {
    Command::new("git").args(args).stdin(Stdio::null()).output()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_names_platform_and_app() {
        let (api, app) = app_of("http://me@localhost:8080/my-app.git").unwrap();
        assert_eq!((credentials::key(&api), app.as_str()), ("http://localhost:8080", "my-app"));
        let (api, app) = app_of("ssh://git@localhost:2222/my-app.git").unwrap();
        assert_eq!((api.as_str(), app.as_str()), ("ssh://localhost:2222/", "my-app"));
        assert!(app_of("git@github.com:me/my-app.git").is_none());
        assert!(app_of("http://localhost:8080/").is_none());
    }
}
