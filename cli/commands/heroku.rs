//! `heroku`: Heroku's own program, against a platform.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use url::Url;

use crate::client::Client;
use crate::context::{self, Context};
use crate::credentials;
use crate::error::{CliError, Result};
use crate::forward::{self, Door};
use crate::server;
use crate::trust::{self, Entrance};

/// Run Heroku's own program, `heroku`, against this platform
///
/// Everything after `heroku` is for that program, which must be installed (`npm install -g heroku`). It works with the login of this
/// program, sends nothing to Heroku, and leaves ~/.netrc and your git settings alone. Apps that it makes get a git remote
/// named heroku, to which `git push` works afterwards without it.
#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    after_help = "\
Examples:
  $ platform heroku create my-app
  $ platform heroku run bash -a my-app
  $ platform heroku help ps"
)]
pub(crate) struct Heroku {
    /// What `heroku` is told
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    args: Vec<OsString>,
}

impl Heroku {
    /// Returns the exit status of `heroku`.
    pub(crate) fn run(self, cx: &Context) -> Result<u8> {
        let (api, client) = (cx.api()?, cx.client()?);
        let token = context::token(&api)?;
        let entrance = trust::learn(&client)?;
        if let Some(entrance) = &entrance {
            trust::tell_git(&api, entrance)?;
        } else {
            cx.out.note(
                "This platform has no https entrance: `git push` by heroku's remotes and `heroku run` do not work.",
            );
        }
        let files = tempfile::tempdir()
            .map_err(|error| CliError::failed("Cannot make a folder for temporary files").because(&error))?;
        let mut environment = trusting(files.path(), entrance.as_ref())?;
        let status = server::runtime()?.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await;
            let listener = listener.map_err(|error| CliError::failed("Cannot listen on 127.0.0.1").because(&error))?;
            let port = listener.local_addr().map_or(0, |address| address.port());
            let git = entrance.as_ref().map_or(&api, |entrance| &entrance.url);
            environment.extend(redirecting(port, &api, git, &token));
            let mut child = start(&self.args, &environment)?;
            let agent = Client::new(api.clone(), None).into_agent();
            tokio::spawn(forward::serve(listener, Door { base: api, agent, token }));
            wait(&mut child).await.map_err(|error| CliError::failed("Cannot wait for `heroku`").because(&error))
        })?;
        Ok(exit_status(status))
    }
}

type Variables = Vec<(&'static str, OsString)>;

/// What makes `heroku` speak to this platform through the door at `port`, and to nobody else.
fn redirecting(port: u16, api: &Url, git: &Url, token: &str) -> Variables {
    let door = format!("http://127.0.0.1:{port}");
    let direct = credentials::key(api).to_owned();
    let git_host = match (git.host_str().unwrap_or_default(), git.port()) {
        (host, Some(port)) => format!("{host}:{port}"),
        (host, None) => host.to_owned(),
    };
    let no_proxy = std::env::var("NO_PROXY").or_else(|_| std::env::var("no_proxy")).unwrap_or_default();
    let no_proxy = format!("{no_proxy},127.0.0.1,localhost").trim_start_matches(',').to_owned();
    [
        ("HEROKU_HOST", door.clone()),
        ("HEROKU_API_KEY", token.to_owned()),
        ("HEROKU_GIT_HOST", git_host),
        // A name only: scheme and port are those of HEROKU_HOST.
        ("HEROKU_DATA_HOST", "127.0.0.1".to_owned()),
        // What these services are called here.
        ("HEROKU_POSTGRESQL_ADDON_NAME", "postgres".to_owned()),
        ("HEROKU_REDIS_ADDON_NAME", "redis".to_owned()),
        ("HEROKU_PARTICLEBOARD_URL", door.clone()),
        ("HEROKU_EXEC_URL", door.clone()),
        ("HEROKU_ANALYTICS_URL", door.clone()),
        ("PGDIAGNOSE_URL", door),
        // These are asked without a token, and so do not get through the door.
        ("HEROKU_LOGIN_HOST", direct.clone()),
        ("HEROKU_BUILDPACK_REGISTRY_URL", direct),
        ("DISABLE_TELEMETRY", "true".to_owned()),
        ("HEROKU_SKIP_ANALYTICS", "1".to_owned()),
        ("HEROKU_DISABLE_AUTOUPDATE", "true".to_owned()),
        ("HEROKU_SKIP_NEW_VERSION_CHECK", "true".to_owned()),
        ("HEROKU_NETRC_WRITE", "true".to_owned()),
        ("NO_PROXY", no_proxy.clone()),
        ("no_proxy", no_proxy),
    ]
    .map(|(name, value)| (name, value.into()))
    .into()
}

/// What makes `heroku` and the git that it runs trust the platform's authority beside those that they trust anyway. `heroku` writes
/// to the user's git settings with nearly every command: what it writes goes to a file that begins with theirs.
fn trusting(folder: &Path, entrance: Option<&Entrance>) -> Result<Variables> {
    let settings = folder.join("gitconfig");
    let mut text: String =
        git_settings().iter().map(|path| ["[include]\n\tpath = ", &quoted(path), "\n"].concat()).collect();
    let mut variables = vec![("GIT_CONFIG_GLOBAL", settings.clone().into_os_string())];
    if let Some(Entrance { url, authority }) = entrance {
        let lines = ["[http \"", credentials::key(url), "\"]\n\tsslCAInfo = ", &quoted(authority), "\n"];
        text.extend(lines);
        let bundle = |name: &str| -> io::Result<PathBuf> {
            let mut certificates = match std::env::var_os(name) {
                Some(theirs) => fs::read(theirs)?,
                None => Vec::new(),
            };
            certificates.push(b'\n');
            certificates.extend(fs::read(authority)?);
            let path = folder.join(format!("{name}.pem"));
            fs::write(&path, certificates)?;
            Ok(path)
        };
        let read = |error| CliError::failed("Cannot read certificates to trust").because(&error);
        variables.push(("NODE_EXTRA_CA_CERTS", bundle("NODE_EXTRA_CA_CERTS").map_err(read)?.into()));
        if std::env::var_os("GIT_SSL_CAINFO").is_some() {
            // It outdoes all settings.
            variables.push(("GIT_SSL_CAINFO", bundle("GIT_SSL_CAINFO").map_err(read)?.into()));
        }
    }
    fs::write(&settings, text).map_err(|error| CliError::failed("Cannot write settings for git").because(&error))?;
    Ok(variables)
}

/// The files of the user's git settings, whether they are there or not (git-config(1), "FILES").
fn git_settings() -> Vec<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(file) = variable("GIT_CONFIG_GLOBAL") {
        return vec![file];
    }
    let home = variable("HOME");
    let config = variable("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
    config.map(|it| it.join("git/config")).into_iter().chain(home.map(|it| it.join(".gitconfig"))).collect()
}

fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.to_string_lossy().replace('\\', r"\\").replace('"', r#"\""#))
}

fn start(args: &[OsString], environment: &Variables) -> Result<Child> {
    let mut command = Command::new("heroku");
    command.args(args).envs(environment.iter().map(|(name, value)| (name, value)));
    // Each would lead elsewhere.
    for name in ["HEROKU_HEADERS", "HEROKU_CLOUD", "HEROKU_API_TOKEN", "HEROKU_POSTGRESQL_HOST", "HEROKU_REDIS_HOST"] {
        command.env_remove(name);
    }
    command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => CliError::failed("The program `heroku` is not installed").hint(
            "It comes with Node.js 20 or later: `npm install -g heroku`. This program does all of it as well: `platform --help`.",
        ),
        _ => CliError::failed("Cannot start `heroku`").because(&error),
    })
}

/// Waits for the program's end. What the terminal tells it, it is told itself; other signals are passed on.
async fn wait(child: &mut Child) -> io::Result<ExitStatus> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    loop {
        let pass_on = tokio::select! {
            status = child.wait() => return status,
            _ = interrupt.recv() => continue,
            _ = quit.recv() => continue,
            _ = terminate.recv() => Signal::SIGTERM,
            _ = hang_up.recv() => Signal::SIGHUP,
        };
        if let Some(pid) = child.id() {
            // It may have ended just now.
            let _ = kill(Pid::from_raw(pid.cast_signed()), pass_on);
        }
    }
}

/// As a shell has it: 128 more than the signal that ended a program.
fn exit_status(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| Some(128 + status.signal()?)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leads_elsewhere() {
        let api = Url::parse("https://platform.example.com").unwrap();
        let git = Url::parse("https://platform.example.com:8443").unwrap();
        let variables = redirecting(1234, &api, &git, "secret");
        let value =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_str().unwrap());
        assert_eq!(value("HEROKU_HOST"), Some("http://127.0.0.1:1234"));
        assert_eq!(value("HEROKU_PARTICLEBOARD_URL"), Some("http://127.0.0.1:1234"));
        assert_eq!(value("HEROKU_LOGIN_HOST"), Some("https://platform.example.com"));
        assert_eq!(value("HEROKU_GIT_HOST"), Some("platform.example.com:8443"));
        assert_eq!(value("DISABLE_TELEMETRY"), Some("true"));
        for (name, value) in &variables {
            assert!(!value.to_str().unwrap().contains("heroku.com"), "{name}");
        }
    }

    #[test]
    fn gits_settings_begin_with_the_users_own() {
        let folder = tempfile::tempdir().unwrap();
        let authority = folder.path().join("authority.pem");
        fs::write(&authority, "CERTIFICATE").unwrap();
        let entrance = Entrance { url: Url::parse("https://localhost:8443/").unwrap(), authority };
        let variables = trusting(folder.path(), Some(&entrance)).unwrap();
        let settings = variables.iter().find(|(name, _)| *name == "GIT_CONFIG_GLOBAL").unwrap();
        let text = fs::read_to_string(&settings.1).unwrap();
        assert!(text.starts_with("[include]\n\tpath = \""), "{text}");
        assert!(text.contains("[http \"https://localhost:8443\"]\n\tsslCAInfo = \""), "{text}");
        let node = variables.iter().find(|(name, _)| *name == "NODE_EXTRA_CA_CERTS").unwrap();
        assert!(fs::read_to_string(&node.1).unwrap().ends_with("CERTIFICATE"));
    }

    #[test]
    fn the_status_is_that_of_the_program() {
        assert_eq!(exit_status(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(exit_status(ExitStatus::from_raw(15)), 143);
    }
}
