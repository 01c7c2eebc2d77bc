use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use engine::Restart;
use model::{AppName, Hostname, NameError, TcpPorts};

/// What the controller must be told. Everything has been checked when it gets here.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Folder of all state: repositories, build output, logs.
    pub home: PathBuf,
    /// The platform's own domain; apps are its subdomains.
    pub domain: Hostname,
    /// Port of the public entrance.
    pub port: u16,
    /// Port of the https entrance, if it is open.
    pub tls_port: Option<u16>,
    /// Where the router of this machine takes requests.
    pub entrance: Option<SocketAddr>,
    /// The same over TLS.
    pub tls_entrance: Option<SocketAddr>,
    /// The certificate of the authority that signed the https entrance's.
    pub authority: PathBuf,
    /// How certificates are got from an authority; none if the operator has not agreed to its terms.
    pub acme: Option<Acme>,
    /// Where git is served over SSH; nowhere if empty.
    pub ssh_listen: Vec<SocketAddr>,
    /// Ports that apps may get whose connections routers pass on as they are.
    pub tcp_ports: TcpPorts,
    /// Where instances reach routers, for the sake of other apps.
    pub gateway: Ipv4Addr,
    /// Name of the stack of new apps: `debian-13`.
    pub stack: String,
    /// This program; git hooks are this under another name.
    pub program: PathBuf,
    /// Where the control socket is.
    pub control_socket: PathBuf,
    /// Largest push, in bytes.
    pub push_limit: u64,
    /// How many requests one token may make, all at once or over the hour.
    pub requests_per_hour: NonZeroU32,
    /// Time in which a web process must accept connections.
    pub boot_timeout: Duration,
    /// Time from SIGTERM to SIGKILL when an instance stops.
    pub stop_grace: Duration,
    /// When an instance that ended by itself is started again.
    pub restart: Restart,
    /// How many times over memory is promised that is nobody's alone.
    pub memory_overcommit: NonZeroU32,
    /// Bytes of memory that are promised to nobody.
    pub reserved_memory: u64,
    /// How many times over the disk is promised.
    pub disk_overcommit: NonZeroU32,
    /// How long events are kept.
    pub event_retention: Duration,
    /// From so many per cent of the disk on build caches give way.
    pub disk_high: u8,
    /// How many images of an app are kept, the newest ones.
    pub kept_images: NonZeroU32,
    /// How many containers of jobs run at once.
    pub jobs_at_once: NonZeroU32,
}

/// A certificate authority that speaks ACME.
#[derive(Debug, Clone)]
pub struct Acme {
    /// URL of its directory.
    pub directory: String,
    /// Where it writes to the operator.
    pub email: Option<String>,
    /// PEM of certificates that are trusted beside the machine's when it is asked.
    pub ca: Option<PathBuf>,
    /// The program that puts records into DNS.
    pub dns_hook: Option<PathBuf>,
}

impl Settings {
    /// Where the API answers, without a slash at the end.
    pub fn api_url(&self) -> String {
        self.public_url(&self.domain)
    }

    /// Where an app answers by default.
    pub fn default_host(&self, app: &AppName) -> Result<Hostname, NameError> {
        format!("{app}.{}", self.domain).parse()
    }

    /// The public URL of a host, without a slash at the end.
    pub fn public_url(&self, host: &Hostname) -> String {
        match self.port {
            80 => format!("http://{host}"),
            port => format!("http://{host}:{port}"),
        }
    }

    /// Where an app's repository is pushed to.
    pub fn git_url(&self, app: &AppName) -> String {
        format!("{}/{app}.git", self.api_url())
    }

    /// Where the API answers over https, if it does.
    pub fn https_url(&self) -> Option<String> {
        self.tls_port.map(|port| match port {
            443 => format!("https://{}", self.domain),
            port => format!("https://{}:{port}", self.domain),
        })
    }

    /// Where an app's repository is pushed to by Heroku's clients, which know no way but https; as [`Settings::git_url`] where
    /// there is no such entrance.
    pub fn https_git_url(&self, app: &AppName) -> String {
        self.https_url().map_or_else(|| self.git_url(app), |url| format!("{url}/{app}.git"))
    }

    /// Where an app's repository is pushed to over SSH, if it is.
    pub fn ssh_url(&self, app: &AppName) -> Option<String> {
        let address = self.ssh_listen.first()?;
        Some(format!("ssh://git@{}:{}/{app}.git", self.domain, address.port()))
    }
}
