//! git towards places that users name.

use std::io;
use std::process::Stdio;

use http::HeaderValue;
use tokio::process::Command;
use url::Url;

use crate::outbound::{Outbound, basic};

/// git, such that it goes to `url` only, at an address that was looked at, follows no redirect, asks nobody for a password, runs
/// nothing that a repository brings, and writes no file of more than `largest` bytes. Name and password of the URL are in its
/// environment: what git is told to fetch is [`plain`].
pub(crate) async fn remote(outbound: &Outbound, url: &Url, largest: u64) -> io::Result<Command> {
    let address = outbound.resolve(url).await?;
    let (host, port) = (url.host_str().unwrap_or_default(), address.port());
    let mut settings = vec![
        ("http.followRedirects", "false".to_owned()),
        // What was looked at is what is connected to.
        ("http.curloptResolve", format!("{host}:{port}:{}", address.ip())),
        ("http.lowSpeedLimit", "1000".to_owned()),
        ("http.lowSpeedTime", "60".to_owned()),
        ("core.hooksPath", "/dev/null".to_owned()),
        ("credential.helper", String::new()),
        ("gc.auto", "0".to_owned()),
    ];
    // Not in the arguments, which everybody on the machine can read.
    let credentials = basic(url).as_ref().and_then(|value| HeaderValue::to_str(value).ok().map(str::to_owned));
    settings.extend(credentials.map(|value| ("http.extraHeader", format!("Authorization: {value}"))));
    // The machine's authorities, where git's own default is another list.
    settings.extend(std::env::var("SSL_CERT_FILE").ok().map(|file| ("http.sslCAInfo", file)));
    let mut git = Command::new("prlimit");
    git.arg(format!("--fsize={largest}")).arg("git");
    git.env("GIT_TERMINAL_PROMPT", "0").env("GIT_ALLOW_PROTOCOL", "http:https").env("LC_ALL", "C");
    git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    git.env("GIT_CONFIG_COUNT", settings.len().to_string());
    for (number, (key, value)) in settings.into_iter().enumerate() {
        git.env(format!("GIT_CONFIG_KEY_{number}"), key).env(format!("GIT_CONFIG_VALUE_{number}"), value);
    }
    git.stdin(Stdio::null()).kill_on_drop(true);
    Ok(git)
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
