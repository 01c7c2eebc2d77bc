//! A registry of images on this machine: Debian's docker-registry, empty.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use crate::until;

/// Runs until it is dropped; what is in it is gone then.
pub(crate) struct Registry {
    process: Child,
    /// `127.0.0.1:5000`, without TLS.
    pub(crate) address: String,
    _folder: tempfile::TempDir,
}

impl Registry {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        // Freed just before the registry takes it.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        drop(listener);
        let config = folder.path().join("config.yml");
        std::fs::write(&config, "version: 0.1\n").expect("written");
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .env("REGISTRY_STORAGE", "filesystem")
            .env("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", folder.path())
            .env("REGISTRY_HTTP_ADDR", &address)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry");
        let registry = Self { process, address, _folder: folder };
        until("the registry listens", || TcpStream::connect(&registry.address).is_ok());
        registry
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
