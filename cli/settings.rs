//! Every setting of the platform, with its default and what it means. This file is the one place where they are documented.
//!
//! A setting comes from `platform.toml` (`/etc/platform/platform.toml`, or where `PLATFORM_CONFIG` points) and is overridden by the
//! environment variable `PLATFORM_<KEY>` of the same name in capitals. A wrong one stops the start and says which line and what
//! is allowed.

mod values;

use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use builder::packages::PackageSetting;
use ipnet::IpNet;
use model::Hostname;
use nix::unistd::Pid;
use serde::Deserialize;
pub(crate) use values::Bytes;
use values::{Database, List, Percent, Seconds, TcpPorts, TlsListen};

use crate::server::Subnet;

/// Where the file is unless `PLATFORM_CONFIG` says otherwise.
const DEFAULT_FILE: &str = "/etc/platform/platform.toml";

macro_rules! settings {
    ($($(#[doc = $doc:literal])+ $key:ident: $type:ty = $default:literal,)+) => {
        /// The settings of a platform, complete.
        #[derive(Debug, Clone)]
        pub(crate) struct Settings {
            $($(#[doc = $doc])+ pub(crate) $key: $type,)+
        }

        /// What one source says: every key may be missing.
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, expecting = "settings of the form `key = value`")]
        struct Partial {
            $($key: Option<$type>,)+
        }

        impl Partial {
            fn or(self, fallback: Self) -> Self {
                Self { $($key: self.$key.or(fallback.$key),)+ }
            }

            fn complete(self) -> Result<Settings, SettingsError> {
                Ok(Settings {
                    $($key: match self.$key {
                        Some(value) => value,
                        None => from_environment(stringify!($key), $default)?.$key.ok_or(SettingsError::Default(stringify!($key)))?,
                    },)+
                })
            }
        }

        /// Key, default and meaning of every setting, in the order of the file.
        pub(crate) const REFERENCE: &[(&str, &str, &str)] = &[$((stringify!($key), $default, concat!($($doc),+)),)+];
    };
}

settings! {
    /// Directory of everything the platform keeps: database, repositories, layers, logs.
    home: PathBuf = "/var/lib/platform",
    /// Where the database is: empty means SQLite in `<home>/platform.db`; `postgres://user:password@host/name` means a database
    /// of a PostgreSQL server (`docs/database.md`).
    database: Database = "",
    /// Addresses on which the router takes requests, for apps and for the platform itself.
    listen: List<SocketAddr> = "127.0.0.1:8080,[::1]:8080",
    /// Addresses of the https entrance, with certificates of the platform's own authority (`docs/heroku.md`). `auto` is those of
    /// `listen` at port 443 beside port 80 and 363 ports higher else, such as 8443 beside 8080; `off` shuts it.
    tls_listen: TlsListen = "auto",
    /// Whether you agree to the terms of the certificate authority of `acme_directory`. Then apps can get certificates by themselves
    /// (`platform certs:auto:enable`, `docs/tls.md`).
    acme_terms_agreed: bool = "false",
    /// Directory of the certificate authority: an `https` URL of any that speaks ACME. The default is Let's Encrypt.
    acme_directory: String = "https://acme-v02.api.letsencrypt.org/directory",
    /// Where that authority writes to you; empty means nowhere.
    acme_email: String = "",
    /// PEM file of certificates that are trusted beside the machine's when the authority is asked, for one of your own.
    acme_ca: String = "",
    /// Program that puts records into DNS, for certificates of wildcards: `PROGRAM present RECORD VALUE` and `PROGRAM cleanup RECORD VALUE`.
    acme_dns_hook: String = "",
    /// Host name of the platform; an app gets `<app>.<domain>`. `localhost` needs no DNS.
    domain: Hostname = "localhost",
    /// Addresses on which the router takes `git push` over SSH for the controller; empty means none.
    ssh_listen: List<SocketAddr> = "127.0.0.1:2222,[::1]:2222",
    /// Ports that apps may get whose connections the router passes on as they are (`platform tcp:add`, `docs/tcp.md`), such as `3000-3099`, at the addresses of
    /// `listen`; empty means none.
    tcp_ports: TcpPorts = "",
    /// Networks of load balancers in front of the router, such as `10.1.0.0/16`: every connection from there, to the entrances for HTTP, https and ssh and to `tcp_ports`, has to
    /// begin with a header of the PROXY protocol (version 1 or 2), which says whose it is, or is closed (`docs/router.md`).
    proxy_protocol: List<IpNet> = "",
    /// Networks of proxies that speak HTTP in front of the router, such as a CDN: what their `X-Forwarded-*` headers say is believed; those of
    /// everybody else are replaced (`docs/router.md`).
    trusted_proxies: List<IpNet> = "",
    /// Network of the instances. Each gets an address of its own from it; change it if the machine's own networks overlap.
    subnet: Subnet = "10.210.0.0/16",
    /// Connections to the outside that one instance, one-off or build may have at once; more are refused. The machine keeps all of them in one table (`nf_conntrack_max`).
    outside_connections: NonZeroU32 = "4096",
    /// Port of the router, at the gateway of `subnet` alone, for apps that are linked to others.
    link_port: NonZeroU16 = "8480",
    /// The OCI runtime under containerd: a program such as runc or crun.
    runtime: String = "runc",
    /// Socket of a running containerd to use; empty means a private one that the platform starts and stops itself.
    containerd_socket: String = "",
    /// Folders in which the CNI plugins `ptp`, `host-local` and `loopback` are looked for.
    cni_path: List<PathBuf> = "/usr/lib/cni,/opt/cni/bin,/usr/libexec/cni",
    /// `host` passes the machine's package mirrors, proxies and CA certificates (apt, pip, npm, cargo, Go, `SSL_CERT_FILE` and its
    /// kin) into stack and app builds; `none` passes nothing; a table passes exactly what it names (`docs/packages.md`).
    packages: PackageSetting = "host",
    /// Folder in which made stack images are kept for other platforms of this machine; empty means `<home>/cache/stack`.
    stack_cache: String = "",
    /// Memory of a build.
    build_memory: Bytes = "2GiB",
    /// Whether buildpacks that are made for other Linux distributions than the stack's may build, with a warning.
    other_distros: bool = "false",
    /// Longest time of a build.
    build_time: Seconds = "15m",
    /// What a build may have on the disk at one time.
    build_disk: Bytes = "10GiB",
    /// Builds that run at once, each with its own memory; the others wait their turn. 0 means one a core.
    builds: usize = "0",
    /// A push is refused when less than this would be free on the disk of `home`.
    min_free_disk: Bytes = "1GiB",
    /// From so many per cent of the disk of `home` on, by its bytes or by its files, build caches give way, the longest unused first.
    disk_high: Percent = "85",
    /// From so many per cent on nothing is built.
    disk_full: Percent = "92",
    /// Largest push.
    push_limit: Bytes = "1GiB",
    /// API requests that one token may make, all at once or over the hour.
    requests_per_hour: NonZeroU32 = "4500",
    /// Time in which a web process must accept connections on `$PORT`.
    boot_timeout: Seconds = "60s",
    /// Time from SIGTERM to SIGKILL when an instance stops.
    stop_grace: Seconds = "30s",
    /// How often in a row an instance that ends by itself is started again at once.
    restarts_at_once: u32 = "3",
    /// Pause before the next restart; each later one is twice as long.
    restart_pause: Seconds = "30s",
    /// No pause before a restart is longer.
    restart_longest_pause: Seconds = "16m",
    /// After so many restarts in a row an instance that ends by itself stays down; 0 means never.
    restart_limit: u32 = "200",
    /// How many times over memory is promised to dynos whose size is not dedicated: it is a ceiling, which few reach at the same time
    /// (`docs/sizes.md`). 1 promises only what there is.
    memory_overcommit: NonZeroU32 = "16",
    /// Memory that is promised to nobody: for the platform and its builds. At most half of the machine's.
    reserved_memory: Bytes = "1GiB",
    /// How many times over the disk of `home` is promised to dynos.
    disk_overcommit: NonZeroU32 = "16",
    /// Networks that are not public, such as `10.1.0.0/16`, in which log drains, webhooks, buildpacks, images and archives of builds may be.
    outbound_networks: List<IpNet> = "",
    /// How long the events of the audit log are kept.
    event_retention: Seconds = "90d",
    /// How many images of an app are kept, the newest ones; that of what runs always is. One can go back only to a release whose image is there.
    kept_images: NonZeroU32 = "50",
    /// How many containers of scheduled jobs run at once on this machine; further ones wait for their turn.
    jobs_at_once: NonZeroU32 = "20",
    /// Disk space for the logs of one app; the oldest lines go first.
    log_limit: Bytes = "16MiB",
    /// Memory for the answers that the router keeps for apps with `cache=on`, of all of them together (`docs/routing.md`).
    router_cache: Bytes = "256MiB",
    /// Threads of the router; 0 means one a core.
    router_workers: usize = "0",
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// The file is there and cannot be read.
    #[error("cannot read {0}: {1}")]
    Unreadable(PathBuf, std::io::Error),
    /// The file named by `PLATFORM_CONFIG` is not there.
    #[error("PLATFORM_CONFIG names {0}, which does not exist")]
    Missing(PathBuf),
    /// A line of the file is wrong.
    #[error("{file} line {line}: {message}")]
    File {
        /// The file.
        file: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong and what is allowed.
        message: String,
    },
    /// An environment variable is wrong.
    #[error("environment variable {variable}: {message}")]
    Variable {
        /// Its name.
        variable: String,
        /// What is wrong and what is allowed.
        message: String,
    },
    /// A default that is not a value; the tests rule it out.
    #[error("setting {0} has no default")]
    Default(&'static str),
}

impl Settings {
    /// Reads file and environment.
    pub(crate) fn load() -> Result<Self, SettingsError> {
        Self::of(|name| std::env::var_os(name))
    }

    /// Those of a process that runs, from the file and that process's environment (proc(5), `/proc/pid/environ`).
    pub(crate) fn of_process(pid: Pid) -> Result<Self, SettingsError> {
        let path = PathBuf::from(format!("/proc/{pid}/environ"));
        let environ = std::fs::read(&path).map_err(|error| SettingsError::Unreadable(path, error))?;
        Self::of(|name| {
            let mut all = environ.split(|byte| *byte == 0);
            let value = all.find_map(|one| one.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
            Some(OsStr::from_bytes(value).to_owned())
        })
    }

    fn of(environment: impl Fn(&str) -> Option<OsString>) -> Result<Self, SettingsError> {
        let file = match environment("PLATFORM_CONFIG") {
            Some(path) => from_file(Path::new(&path))?.ok_or_else(|| SettingsError::Missing(path.into()))?,
            None => from_file(Path::new(DEFAULT_FILE))?.unwrap_or_default(),
        };
        let mut settings = file;
        for (key, _, _) in REFERENCE {
            if let Some(value) = environment(&variable(key)) {
                settings = from_environment(key, &value.to_string_lossy())?.or(settings);
            }
        }
        settings.complete()
    }

    /// Directory of sockets, process ids and network namespaces: gone after a reboot.
    pub(crate) fn runtime_dir(&self) -> PathBuf {
        if self.home == Path::new("/var/lib/platform") {
            return PathBuf::from("/run/platform");
        }
        PathBuf::from(format!("/run/platform-{}", self.tag()))
    }

    /// Tells this platform from others on the machine, in the names of kernel objects: 8 hex digits of the home's hash.
    pub(crate) fn tag(&self) -> String {
        use sha2::Digest;
        hex::encode(&sha2::Sha256::digest(self.home.as_os_str().as_encoded_bytes())[..4])
    }

    /// The platform's own address, without a slash at the end.
    pub(crate) fn url(&self) -> String {
        if self.port() == 80 {
            format!("http://{}", self.domain)
        } else {
            format!("http://{}:{}", self.domain, self.port())
        }
    }

    /// The addresses of this machine to listen at, whatever the port.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        let mut addresses: Vec<IpAddr> = self.listen.0.iter().map(SocketAddr::ip).collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    /// The port of the first address to listen on.
    pub(crate) fn port(&self) -> u16 {
        self.listen.0.first().map_or(80, SocketAddr::port)
    }

    /// Addresses of the https entrance; none if it is shut.
    pub(crate) fn tls_listen(&self) -> Vec<SocketAddr> {
        match &self.tls_listen {
            TlsListen::Off => Vec::new(),
            TlsListen::At(addresses) => addresses.clone(),
            TlsListen::Auto => self.listen.0.iter().filter_map(beside).collect(),
        }
    }

    /// The port of the https entrance, if it is open.
    pub(crate) fn tls_port(&self) -> Option<u16> {
        self.tls_listen().first().map(SocketAddr::port)
    }

    /// Folder in which made stack images are kept.
    pub(crate) fn stack_cache(&self) -> PathBuf {
        if self.stack_cache.is_empty() { self.home.join("cache/stack") } else { PathBuf::from(&self.stack_cache) }
    }
}

/// The same address at the port that https has beside this one's: 443 beside 80, 8443 beside 8080.
fn beside(address: &SocketAddr) -> Option<SocketAddr> {
    let port = match address.port() {
        // The system chooses both.
        0 => 0,
        port => port.checked_add(443 - 80)?,
    };
    Some(SocketAddr::new(address.ip(), port))
}

fn variable(key: &str) -> String {
    format!("PLATFORM_{}", key.to_ascii_uppercase())
}

fn from_file(path: &Path) -> Result<Option<Partial>, SettingsError> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        result => result.map_err(|error| SettingsError::Unreadable(path.to_owned(), error))?,
    };
    toml::from_str(&text).map(Some).map_err(|error| {
        let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
        SettingsError::File { file: path.to_owned(), line, message: error.message().to_owned() }
    })
}

/// One setting from text: a number or truth value as it is, anything else as a string.
fn from_environment(key: &str, text: &str) -> Result<Partial, SettingsError> {
    let is_plain = text.parse::<i64>().is_ok() || text.parse::<bool>().is_ok();
    let value = if is_plain { text.to_owned() } else { toml::Value::String(text.to_owned()).to_string() };
    toml::from_str(&format!("{key} = {value}"))
        .map_err(|error| SettingsError::Variable { variable: variable(key), message: error.message().to_owned() })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn file(text: &str) -> Result<Settings, SettingsError> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("platform.toml");
        std::fs::write(&path, text).expect("written");
        from_file(&path)?.expect("a file").complete()
    }

    /// The reference for operators. On a difference, the test prints what `docs/settings.md` must hold.
    #[test]
    fn the_reference_in_docs_is_this_file() {
        let mut text = String::from(
            "# Settings\n\nIn `/etc/platform/platform.toml` (or the file that `PLATFORM_CONFIG` names) as `key = value`, or in the environment \
             as `PLATFORM_<KEY>`, which wins. A wrong one stops the start with its line and what is allowed. Where trace spans go is in the variables of OpenTelemetry (`docs/tracing.md`).\n\n\
             | key | default | meaning |\n|---|---|---|\n",
        );
        for (key, default, meaning) in REFERENCE {
            let default = if default.is_empty() { "–".to_owned() } else { format!("`{default}`") };
            text.extend(["| `", key, "` | ", &default, " | ", meaning.trim(), " |\n"]);
        }
        let docs =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/settings.md")).unwrap_or_default();
        assert!(docs == text, "docs/settings.md must be:\n\n{text}");
    }

    #[test]
    fn every_default_is_a_value() {
        let settings = Partial::default().complete().expect("defaults");
        assert_eq!(settings.url(), "http://localhost:8080");
        assert_eq!(settings.tls_port(), Some(8443));
        assert_eq!(settings.build_memory.0, 2 << 30);
        assert_eq!(settings.runtime_dir(), Path::new("/run/platform"));
    }

    #[test]
    fn a_file_overrides_and_a_variable_overrides_the_file() {
        let settings = file("domain = \"example.com\"\nlisten = [\"0.0.0.0:80\"]\nboot_timeout = 5\n").expect("good");
        assert_eq!(settings.url(), "http://example.com");
        assert_eq!(settings.boot_timeout.0, Duration::from_secs(5));
        assert_eq!(settings.tls_listen(), ["0.0.0.0:443".parse().expect("an address")]);
        assert_eq!(file("tls_listen = \"off\"\n").expect("good").tls_port(), None);
        assert_eq!(file("tls_listen = \"[::]:4443\"\n").expect("good").tls_port(), Some(4443));
        let override_ = from_environment("build_memory", "512 MiB").expect("good");
        assert_eq!(override_.build_memory.map(|bytes| bytes.0), Some(512 << 20));
    }

    #[test]
    fn a_wrong_line_is_named_with_what_is_allowed() {
        let message = |text: &str| file(text).expect_err("refused").to_string();
        let unknown = message("domain = \"example.com\"\nlsten = 1\n");
        assert!(unknown.contains("line 2: unknown field `lsten`, expected one of `home`, `database`"), "{unknown}");
        let value = message("\n\nsubnet = \"10.0.0.1/16\"\n");
        assert!(value.contains("line 3: a subnet is written like 10.210.0.0/16"), "{value}");
        let database = message("database = \"mysql://root:secret@host/name\"\n");
        assert!(database.contains("line 1: a database is written like postgres://"), "{database}");
        assert!(!database.contains("secret"), "{database}");
        let variant = message("packages = \"some\"\n");
        assert!(variant.contains("expected `host`, `none` or a table"), "{variant}");
        let variable = from_environment("build_time", "soon").expect_err("refused").to_string();
        assert_eq!(
            variable,
            "environment variable PLATFORM_BUILD_TIME: `soon` is not a time like 30s, 15m, 1h, 90d or a number of seconds"
        );
    }
}
