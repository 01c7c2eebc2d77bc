//! git towards places that users name.

use std::fs::{File, Permissions};
use std::io::{self, Read, Seek, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use http::HeaderValue;
use model::AppId;
use nix::sys::memfd::{MFdFlags, memfd_create};
use tokio::process::Command;
use url::Url;

use crate::credentials::unwelcome;
use crate::outbound::basic;
use crate::store::Credential;
use crate::{Controller, Error};

/// What ssh calls the server: at which name or address it is must not matter to whether it is known.
const SERVER: &str = "server";
/// Characters of git's own words that are passed on.
const WORDS: usize = 500;

/// What git says when a host does not let it in.
const UNWELCOME: [&str; 5] = [
    "could not read Username",
    "Authentication failed",
    "returned error: 401",
    "returned error: 403",
    "Permission denied (",
];

/// A repository elsewhere, and how to reach it: at an address that was looked at, with what the app may show there.
pub(crate) struct Remote {
    url: Url,
    address: SocketAddr,
    credential: Option<Credential>,
    ssh: Option<SshFiles>,
    /// Bytes of the largest file that may be fetched.
    largest: u64,
}

/// What ssh reads, in memory: it is gone with this process, however that ends.
struct SshFiles {
    key: File,
    known_hosts: File,
}

impl Controller {
    /// What an app has to show at a repository's URL; what that says itself of user and password counts more.
    pub(crate) async fn leave(&self, app: AppId, url: &Url) -> Result<Option<Credential>, Error> {
        let is_said = url.scheme() != "ssh" && basic(url).is_some();
        if is_said { Ok(None) } else { self.credential_for(app, url).await }
    }

    /// A repository at a URL of `http`, `https` or `ssh`.
    pub(crate) async fn remote(&self, app: AppId, url: &Url, largest: u64) -> io::Result<Remote> {
        let credential = self.leave(app, url).await.map_err(io::Error::other)?;
        let ssh = match (url.scheme(), &credential) {
            ("ssh", Some(credential)) => Some(SshFiles::write(credential)?),
            ("ssh", None) => return Err(io::Error::other(unwelcome(url, None))),
            _ => None,
        };
        let address = self.outbound.resolve(url).await?;
        Ok(Remote { url: url.clone(), address, credential, ssh, largest })
    }

    /// After a success: whoever was met for the first time is known from now on.
    pub(crate) async fn remember(&self, remote: &mut Remote) -> Result<(), Error> {
        let failed = |source: io::Error| Error::System { action: "read what ssh met", source: source.into() };
        match remote.met().map_err(failed)? {
            Some(met) => self.trust(&met).await,
            None => Ok(()),
        }
    }
}

impl Remote {
    /// git, such that it goes there only, follows no redirect, asks nobody for a password, and runs nothing that a repository
    /// brings. Secrets are in its environment or in memory, never in its arguments, which everybody on the machine can read.
    pub(crate) fn git(&self) -> Command {
        let (host, port) = (self.url.host_str().unwrap_or_default(), self.address.port());
        let mut settings = vec![
            ("http.followRedirects", "false".to_owned()),
            // What was looked at is what is connected to.
            ("http.curloptResolve", format!("{host}:{port}:{}", self.address.ip())),
            ("http.lowSpeedLimit", "1000".to_owned()),
            ("http.lowSpeedTime", "60".to_owned()),
            ("core.hooksPath", "/dev/null".to_owned()),
            ("credential.helper", String::new()),
            ("gc.auto", "0".to_owned()),
        ];
        let header = basic(&self.url).or_else(|| self.credential.as_ref().and_then(Credential::header));
        let header = header.filter(|_| self.ssh.is_none());
        let header = header.as_ref().and_then(|value| HeaderValue::to_str(value).ok().map(str::to_owned));
        settings.extend(header.map(|value| ("http.extraHeader", format!("Authorization: {value}"))));
        // The machine's authorities, where git's own default is another list.
        settings.extend(std::env::var("SSL_CERT_FILE").ok().map(|file| ("http.sslCAInfo", file)));
        let mut git = Command::new("prlimit");
        git.arg(format!("--fsize={}", self.largest)).arg("git");
        git.env("GIT_TERMINAL_PROMPT", "0").env("LC_ALL", "C");
        git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        match (&self.ssh, &self.credential) {
            (Some(files), Some(credential)) => {
                let is_known = credential.host_keys.is_some();
                git.env("GIT_ALLOW_PROTOCOL", "ssh").env("GIT_SSH_VARIANT", "ssh");
                git.env("GIT_SSH_COMMAND", files.command(self.address, is_known));
            }
            _ => drop(git.env("GIT_ALLOW_PROTOCOL", "http:https")),
        }
        git.env("GIT_CONFIG_COUNT", settings.len().to_string());
        for (number, (key, value)) in settings.into_iter().enumerate() {
            git.env(format!("GIT_CONFIG_KEY_{number}"), key).env(format!("GIT_CONFIG_VALUE_{number}"), value);
        }
        git.stdin(Stdio::null()).kill_on_drop(true);
        git
    }

    /// What git is told to fetch: the URL without password; over SSH, with the user.
    pub(crate) fn plain(&self) -> String {
        let mut plain = plain(&self.url);
        if let Some(credential) = self.credential.as_ref().filter(|_| self.ssh.is_some()) {
            let user = if self.url.username().is_empty() { &credential.username } else { self.url.username() };
            // This fails only for URLs that cannot have a user.
            let _ = plain.set_username(user);
        }
        plain.to_string()
    }

    /// What git said when it failed, in words that help.
    pub(crate) fn explain(&self, words: &str) -> String {
        let says = |part: &str| words.contains(part);
        if says("Host key verification failed") || says("HOST IDENTIFICATION HAS CHANGED") {
            self.stranger()
        } else if UNWELCOME.into_iter().any(says) {
            if basic(&self.url).is_some() && self.ssh.is_none() {
                return "its host refuses the user and password of the URL".to_owned();
            }
            unwelcome(&self.url, self.credential.as_ref())
        } else if says("signal 25") {
            format!("it has more than {} bytes", self.largest)
        } else if says("redirect") {
            "it is at another address by now: use that".to_owned()
        } else {
            let words: String = words.trim().trim_start_matches("fatal: ").chars().take(WORDS).collect();
            format!("git says: {}", if words.is_empty() { "nothing" } else { &words })
        }
    }

    /// The server showed another key than the known one.
    fn stranger(&self) -> String {
        let host = crate::credentials::host_of(&self.url);
        let known = self.credential.as_ref().map(Credential::host_fingerprints).unwrap_or_default().join(", ");
        format!(
            "{host} showed another key than {known}, by which it is known. Somebody may be in between. If its key was replaced, \
             set the credentials again, with the new one: `platform credentials:set {host} --ssh-key FILE --host-key KEY`"
        )
    }

    /// The credential with the keys of a server that was not known before.
    fn met(&mut self) -> io::Result<Option<Credential>> {
        let (Some(files), Some(credential)) = (&mut self.ssh, &mut self.credential) else { return Ok(None) };
        if credential.host_keys.is_some() {
            return Ok(None);
        }
        let mut text = String::new();
        files.known_hosts.rewind()?;
        files.known_hosts.read_to_string(&mut text)?;
        let keys = text.lines().filter_map(|line| line.strip_prefix(SERVER)).map(str::trim);
        let keys = keys.collect::<Vec<_>>().join("\n");
        if keys.is_empty() {
            return Ok(None);
        }
        credential.host_keys = Some(keys);
        Ok(Some(credential.clone()))
    }
}

impl SshFiles {
    fn write(credential: &Credential) -> io::Result<Self> {
        let keys = credential.host_keys.as_deref().unwrap_or_default().lines();
        let known = keys.map(|key| format!("{SERVER} {key}")).collect::<Vec<_>>().join("\n") + "\n";
        Ok(Self { key: in_memory(&credential.secret)?, known_hosts: in_memory(&known)? })
    }

    /// ssh with this key alone, towards this server alone. If it is not known yet, it is trusted and noted.
    fn command(&self, address: SocketAddr, is_known: bool) -> String {
        let path = |file: &File| format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        let options = [
            ("BatchMode", "yes".to_owned()),
            ("ClearAllForwardings", "yes".to_owned()),
            ("ConnectTimeout", "15".to_owned()),
            ("GlobalKnownHostsFile", "/dev/null".to_owned()),
            ("HostKeyAlias", SERVER.to_owned()),
            // What was looked at is what is connected to.
            ("HostName", address.ip().to_string()),
            ("IdentitiesOnly", "yes".to_owned()),
            ("IdentityAgent", "none".to_owned()),
            ("IdentityFile", path(&self.key)),
            ("LogLevel", "ERROR".to_owned()),
            ("ServerAliveCountMax", "4".to_owned()),
            ("ServerAliveInterval", "15".to_owned()),
            ("StrictHostKeyChecking", if is_known { "yes" } else { "accept-new" }.to_owned()),
            ("UpdateHostKeys", "no".to_owned()),
            ("UserKnownHostsFile", path(&self.known_hosts)),
        ];
        let options: Vec<_> = options.iter().map(|(name, value)| format!("-o {name}={value}")).collect();
        format!("ssh -F none {}", options.join(" "))
    }
}

/// A file that only this user can open, and that is on no disk.
fn in_memory(text: &str) -> io::Result<File> {
    let mut file = File::from(memfd_create(c"platform", MFdFlags::MFD_CLOEXEC)?);
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())?;
    Ok(file)
}

/// A URL without name, password, query and fragment.
pub(crate) fn plain(url: &Url) -> Url {
    let mut plain = url.clone();
    // These fail only for URLs that cannot have either.
    let _ = plain.set_username("");
    let _ = plain.set_password(None);
    plain.set_query(None);
    plain.set_fragment(None);
    plain
}

/// A URL of `http`, `https` or `ssh`, or what people write for the last: `git@host:path`.
pub(crate) fn parse(text: &str) -> Option<Url> {
    let is_short = !text.contains("://");
    let long = match text.split_once(':') {
        Some((place, path)) if is_short && place.contains('@') => {
            format!("ssh://{place}/{}", path.trim_start_matches('/'))
        }
        _ => text.to_owned(),
    };
    let url = Url::parse(&long).ok()?;
    // git and ssh take what begins so for an option.
    let is_host = url.host_str().is_some_and(|host| !host.is_empty() && !host.starts_with('-'));
    let is_user = !url.username().starts_with('-');
    (["http", "https", "ssh"].contains(&url.scheme()) && is_host && is_user).then_some(url)
}
