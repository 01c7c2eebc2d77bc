//! Registries of images on this machine: Debian's docker-registry, empty.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::until;

/// Runs until it is dropped; what is in it is gone then.
pub(crate) struct Registry {
    process: Child,
    /// `127.0.0.1:5000`, without TLS.
    pub(crate) address: String,
    /// Its own network namespace, if it has one.
    network: Option<String>,
    _folder: tempfile::TempDir,
    users: Option<tempfile::TempDir>,
}

/// Who may use a private one.
pub(crate) const USER: &str = "ada";
pub(crate) const PASSWORD: &str = "hunter2-s3cret";
/// Of that password, by bcrypt.
const HASH: &str = "$2b$05$abcdefghijklmnopqrstuudc6TwHDC38lkOMnpDnsPG4EUan2XG..";

impl Registry {
    pub(crate) fn start() -> Self {
        // Freed just before the registry takes it.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        drop(listener);
        Self::run(Command::new("docker-registry"), address, None)
    }

    /// As [`Self::start`], for nobody but [`USER`] with [`PASSWORD`].
    pub(crate) fn private() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let folder = tempfile::tempdir().expect("a folder");
        let users = folder.path().join("users");
        std::fs::write(&users, format!("{USER}:{HASH}\n")).expect("written");
        let mut command = Command::new("docker-registry");
        command.env("REGISTRY_AUTH", "htpasswd").env("REGISTRY_AUTH_HTPASSWD_REALM", "test");
        command.env("REGISTRY_AUTH_HTPASSWD_PATH", &users);
        drop(listener);
        let mut registry = Self::run(command, address, None);
        registry.users = Some(folder);
        registry
    }

    /// Beyond this machine, as far as containers can tell: they reach it, by TLS with a certificate of `authority`.
    pub(crate) fn elsewhere(authority: &Authority) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let (id, number) = (std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let (network, link) = (format!("platform-test-{id}-{number}"), format!("pt{id}x{number}"));
        let [ours, theirs] = [1, 2].map(|host| format!("10.250.{}.{}", id % 256, 4 * number + host));
        ip(&format!("netns add {network}"));
        ip(&format!("link add {link} type veth peer name eth0 netns {network}"));
        ip(&format!("addr add {ours}/30 dev {link}"));
        ip(&format!("link set {link} up"));
        ip(&format!("-n {network} addr add {theirs}/30 dev eth0"));
        ip(&format!("-n {network} link set eth0 up"));
        ip(&format!("-n {network} route add default via {ours}"));
        let certificates = tempfile::tempdir().expect("a folder");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &network, "docker-registry"]);
        authority.certify(&theirs, certificates.path());
        for (variable, file) in [("CERTIFICATE", "certificate.pem"), ("KEY", "key.pem")] {
            command.env(format!("REGISTRY_HTTP_TLS_{variable}"), certificates.path().join(file));
        }
        // They are read before it listens.
        Self::run(command, format!("{theirs}:5000"), Some(network))
    }

    fn run(mut command: Command, address: String, network: Option<String>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("config.yml");
        std::fs::write(&config, "version: 0.1\n").expect("written");
        let process = command
            .arg("serve")
            .arg(&config)
            .env("REGISTRY_STORAGE", "filesystem")
            .env("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", folder.path())
            .env("REGISTRY_HTTP_ADDR", &address)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry");
        let registry = Self { process, address, network, _folder: folder, users: None };
        until("the registry listens", || TcpStream::connect(&registry.address).is_ok());
        registry
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Some(network) = &self.network {
            // The link goes with it.
            let _ = Command::new("ip").args(["netns", "del", network]).status();
        }
    }
}

fn ip(args: &str) {
    let status = Command::new("ip").args(args.split(' ')).status().expect("ip");
    assert!(status.success(), "ip {args}");
}

/// A company's own certificate authority, which nobody else knows.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// Writes this machine's authorities, and this one after them.
    pub(crate) fn write_bundle(&self, file: &Path) {
        let named = std::env::var_os("SSL_CERT_FILE").unwrap_or_else(|| "/etc/ssl/certs/ca-certificates.crt".into());
        let others = std::fs::read_to_string(named).unwrap_or_default();
        std::fs::write(file, others + &self.certificate).expect("written");
    }

    fn certify(&self, address: &str, folder: &Path) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![address.to_owned()]).expect("an address");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        std::fs::write(folder.join("certificate.pem"), certificate.pem()).expect("written");
        std::fs::write(folder.join("key.pem"), key.serialize_pem()).expect("written");
    }
}
