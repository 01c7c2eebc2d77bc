//! What private registries and git hosts want to know. It is kept sealed, shown to nobody, and used by what fetches and what pushes
//! images, which run nothing of an app's.

use http::header::{AUTHORIZATION, HeaderMap};
use model::{AppId, CredentialId};
use russh::keys::ssh_key::{LineEnding, PrivateKey, PublicKey};
use url::{Host, Url};

use crate::outbound::basic_of;
use crate::store::{AppScope, Credential, CredentialKind, Stamp};
use crate::{Actor, Controller, Error, keys};

/// Most credentials of one app, of one team, and of the platform.
const MAX_CREDENTIALS: usize = 100;
/// Most bytes of a user's name.
const MAX_NAME: usize = 255;
/// Most bytes of a password or a key.
const MAX_SECRET: usize = 16 << 10;
/// Who one is on most git hosts, over SSH.
const SSH_USER: &str = "git";
/// What the hosts of Docker Hub's registry are called by people.
const HUB: &str = "docker.io";
const HUB_HOSTS: [&str; 3] = ["registry-1.docker.io", "index.docker.io", "registry.hub.docker.com"];

/// What a user says of a credential.
#[derive(Clone, Copy, Default)]
pub struct NewCredential<'a> {
    /// `git.example.com`, `registry.example.com:5000`
    pub host: &'a str,
    /// Who one is there.
    pub username: Option<&'a str>,
    /// A password or token; or else:
    pub password: Option<&'a str>,
    /// An SSH key.
    pub private_key: Option<&'a str>,
    /// By which the SSH server is known.
    pub host_key: Option<&'a str>,
}

impl Controller {
    /// Remembers a credential, in place of the one of the same kind that its scope has for the host.
    pub async fn set_credential(
        &self,
        actor: &Actor,
        scope: AppScope,
        new: NewCredential<'_>,
    ) -> Result<Credential, Error> {
        let mut credential = Credential {
            id: CredentialId::random(&*self.random),
            scope,
            host: parse_host(new.host)?,
            kind: CredentialKind::Password,
            username: String::new(),
            secret: String::new(),
            public_key: None,
            host_keys: None,
            by: actor.user.to_ref(),
            created_at: self.clock.now(),
        };
        match (new.password, new.private_key) {
            (Some(password), None) => prove_by_password(&mut credential, &new, password)?,
            (None, Some(key)) => prove_by_key(&mut credential, &new, key)?,
            _ => return Err(invalid("Either password or private_key must be given")),
        }
        let known = self.store.credentials(&credential.scope).await?;
        if known.len() >= MAX_CREDENTIALS {
            return Err(Error::Invalid(format!("At most {MAX_CREDENTIALS} credentials are possible")));
        }
        self.store.set_credential(&credential, &self.stamp(actor)).await?;
        Ok(credential)
    }

    /// The credential of a scope with this id.
    pub async fn find_credential(&self, scope: &AppScope, id: &str) -> Result<Credential, Error> {
        let all = self.store.credentials(scope).await?;
        all.into_iter().find(|credential| credential.id.to_string() == id).ok_or(Error::NotFound("credential"))
    }

    /// Forgets a credential.
    pub async fn remove_credential(&self, actor: &Actor, credential: &Credential) -> Result<(), Error> {
        Ok(self.store.delete_credential(credential, &self.stamp(actor)).await?)
    }

    /// What an app has to show at a URL; none where everybody may look, or where it would not be safe on its way.
    pub(crate) async fn credential_for(&self, app: AppId, url: &Url) -> Result<Option<Credential>, Error> {
        let kind = match url.scheme() {
            "ssh" => CredentialKind::SshKey,
            _ if is_safe(url) => CredentialKind::Password,
            _ => return Ok(None),
        };
        let host = host_of(url);
        let all = self.store.credentials_over(app).await?;
        Ok(all.into_iter().find(|credential| credential.kind == kind && credential.host == host))
    }

    /// The same for a download.
    pub(crate) async fn headers_for(&self, app: AppId, url: &Url) -> Result<HeaderMap, Error> {
        let credential = self.credential_for(app, url).await?;
        Ok(credential
            .and_then(|credential| credential.header())
            .map(|header| (AUTHORIZATION, header))
            .into_iter()
            .collect())
    }

    /// Trusts an SSH server by what it showed when it was met for the first time.
    pub(crate) async fn trust(&self, met: &Credential) -> Result<(), Error> {
        let stamp = Stamp { by: None, now: self.clock.now(), insists: false };
        Ok(self.store.note_host_keys(met, &stamp).await?)
    }
}

impl Credential {
    /// A password as a header; none of an SSH key.
    pub(crate) fn header(&self) -> Option<http::HeaderValue> {
        let is_password = self.kind == CredentialKind::Password;
        is_password.then(|| basic_of(self.username.as_bytes(), self.secret.as_bytes())).flatten()
    }

    /// `SHA256:…` of the keys by which the SSH server is known.
    pub fn host_fingerprints(&self) -> Vec<String> {
        let keys = self.host_keys.as_deref().unwrap_or_default().lines();
        keys.filter_map(|line| PublicKey::from_openssh(line).ok()).map(|key| keys::fingerprint(&key)).collect()
    }
}

/// What to say of a host that wants to know who one is, to be put after a colon.
pub(crate) fn unwelcome(url: &Url, credential: Option<&Credential>) -> String {
    let host = host_of(url);
    let Some(credential) = credential else {
        if url.scheme() == "ssh" {
            return format!(
                "{host} lets nobody in without a key, and there is none for it. `platform credentials:set {host} --ssh-key FILE` adds one"
            );
        }
        if !is_safe(url) {
            return format!("{host} wants to know who asks, and over http nobody is told that: use https");
        }
        return format!(
            "{host} does not show it to everybody, and there are no credentials for {host}. `platform credentials:set {host}` adds them"
        );
    };
    let (whose, mend) = whose(&host, credential);
    format!(
        "{host} refuses the credentials of {whose}. They are wrong or expired, may not read it, or it is not there. {mend}"
    )
}

/// The same of a registry that an image is pushed to.
pub(crate) fn unwelcome_push(url: &Url, repository: &str, credential: Option<&Credential>) -> String {
    let host = host_of(url);
    let Some(credential) = credential else {
        if !is_safe(url) {
            return format!("{host} wants to know who pushes, and over http nobody is told that: use https");
        }
        return format!(
            "{host} does not take {repository} from everybody, and there are no credentials for {host}. `platform credentials:set {host}` adds them"
        );
    };
    let (whose, mend) = whose(&host, credential);
    format!(
        "{host} refuses the credentials of {whose}. They are wrong or expired, or may not push to {repository}. {mend}"
    )
}

/// Whose a credential is, and how another is put in its place.
fn whose(host: &str, credential: &Credential) -> (String, String) {
    let (whose, flag) = match &credential.scope {
        AppScope::App(_) => ("this app".to_owned(), String::new()),
        AppScope::Team(team) => (format!("the team {}", team.name), format!(" --team {}", team.name)),
        AppScope::Platform => ("all apps".to_owned(), " --platform".to_owned()),
    };
    let whose = format!("{whose} (user {})", credential.username);
    (whose, format!("`platform credentials:set {host}{flag}` replaces them"))
}

/// The host of a URL, as credentials name it.
pub(crate) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
    if HUB_HOSTS.contains(&host.as_str()) {
        return HUB.to_owned();
    }
    match url.port().filter(|port| (url.scheme(), *port) != ("ssh", 22)) {
        Some(port) => format!("{host}:{port}"),
        None => host,
    }
}

/// Whether nobody on the way sees what is sent there: it is encrypted, or stays on this machine.
pub(crate) fn is_safe(url: &Url) -> bool {
    url.scheme() == "https" || is_local(url)
}

/// Whether it names an address of this machine's own, for which nobody has certificates.
pub(crate) fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn prove_by_password(credential: &mut Credential, new: &NewCredential, password: &str) -> Result<(), Error> {
    if new.host_key.is_some() {
        return Err(invalid("host_key is for an SSH key"));
    }
    let name = new.username.ok_or_else(|| invalid("username must say who one is there"))?;
    credential.username = parse_name(name)?;
    if password.is_empty() || password.len() > MAX_SECRET {
        return Err(Error::Invalid(format!("password must have from 1 to {MAX_SECRET} bytes")));
    }
    password.clone_into(&mut credential.secret);
    Ok(())
}

fn prove_by_key(credential: &mut Credential, new: &NewCredential, key: &str) -> Result<(), Error> {
    let no_key = || {
        let text = "private_key must be a private key as `ssh-keygen -t ed25519` writes it; `ssh-keygen -p -f FILE` makes one of an older format";
        invalid(text)
    };
    credential.kind = CredentialKind::SshKey;
    credential.username = parse_name(new.username.unwrap_or(SSH_USER))?;
    // ssh takes it as an argument.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
    if credential.username.starts_with('-') || !credential.username.chars().all(is_plain) {
        return Err(invalid("username of an SSH key can have letters, digits and . _ + -"));
    }
    let key = PrivateKey::from_openssh(key.trim()).ok().filter(|_| key.len() <= MAX_SECRET).ok_or_else(no_key)?;
    if key.is_encrypted() {
        let text =
            "private_key has a passphrase, and nobody is there to type it: make one without, for this platform alone";
        return Err(invalid(text));
    }
    let public = PublicKey::new(key.public_key().key_data().clone(), "");
    credential.public_key = Some(public.to_openssh().map_err(|_| no_key())?);
    key.to_openssh(LineEnding::LF).map_err(|_| no_key())?.as_str().clone_into(&mut credential.secret);
    credential.host_keys = new.host_key.map(parse_host_keys).transpose()?;
    Ok(())
}

/// Keys of an SSH server, one a line, with or without its name before.
fn parse_host_keys(text: &str) -> Result<String, Error> {
    let no_key = || invalid("host_key must be a line as `ssh-keyscan HOST` prints it, such as `ssh-ed25519 AAAA…`");
    let mut keys = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let named = line.split_once(' ').map(|(_, key)| key);
        let key = PublicKey::from_openssh(line).ok();
        let key = key.or_else(|| named.and_then(|key| PublicKey::from_openssh(key.trim()).ok())).ok_or_else(no_key)?;
        let bare = PublicKey::new(key.key_data().clone(), "");
        keys.push(bare.to_openssh().map_err(|_| no_key())?);
    }
    if keys.is_empty() { Err(no_key()) } else { Ok(keys.join("\n")) }
}

fn parse_name(name: &str) -> Result<String, Error> {
    if name.is_empty() || name.len() > MAX_NAME || name.contains(|c: char| c == ':' || c.is_control()) {
        return Err(Error::Invalid(format!("username must have from 1 to {MAX_NAME} bytes on one line, and no colon")));
    }
    Ok(name.to_owned())
}

/// A host with its port, if that is not the usual one.
fn parse_host(text: &str) -> Result<String, Error> {
    let problem =
        || invalid("host must be the name of a host, such as ghcr.io, git.example.com or registry.example.com:5000");
    let url: Url = format!("https://{}/", text.trim()).parse().map_err(|_| problem())?;
    let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    if !is_bare || !url.username().is_empty() || url.password().is_some() || text.contains('/') {
        return Err(problem());
    }
    let host = host_of(&url);
    Ok(host.strip_suffix(":22").map_or(host.clone(), str::to_owned))
}

fn invalid(text: &str) -> Error {
    Error::Invalid(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_known_however_it_is_written() {
        let rows = [
            ("ghcr.io", "https://ghcr.io/v2/"),
            ("GHCR.io:443", "https://ghcr.io/v2/"),
            ("docker.io", "https://registry-1.docker.io/v2/"),
            ("git.example.com:22", "ssh://git@git.example.com/a.git"),
            ("git.example.com:2222", "ssh://git@git.example.com:2222/a.git"),
            ("127.0.0.1:5000", "http://127.0.0.1:5000/v2/"),
            ("[::1]:5000", "http://[::1]:5000/v2/"),
        ];
        for (written, url) in rows {
            let url: Url = url.parse().expect("a URL");
            assert_eq!(parse_host(written).expect("a host"), host_of(&url), "{written}");
        }
        for bad in ["", "https://ghcr.io", "ghcr.io/example", "ada@ghcr.io", "a b", "ghcr.io?x", "ghcr.io#x"] {
            assert!(parse_host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn passwords_go_only_where_nobody_on_the_way_sees_them() {
        for (url, safe) in [
            ("https://git.example.com/", true),
            ("http://git.example.com/", false),
            ("http://127.0.0.1:3000/", true),
            ("http://localhost/", true),
            ("http://127.0.0.1.example.com/", false),
        ] {
            assert_eq!(is_safe(&url.parse().expect("a URL")), safe, "{url}");
        }
    }
}
