//! The engine of a single machine: containerd runs the containers, the *host role* keeps them alive.
//!
//! The role is one process. It holds nothing that an app needs in order to go on running: containers live under containerd's
//! shims, their output goes to files, what is desired is on disk. So it may be killed at any moment, and so may containerd;
//! on start it takes over what runs, starts what is missing and removes the rest ([`serve`]). The controller talks to it
//! through [`HostClient`], routers follow its feed of healthy addresses. What runs stops only when somebody asks for it, with
//! [`HostClient::stop_all`] for all of it.
//!
//! Files, under `<home>/host`: `workloads/<id>.json` (what is desired), `instances/<id>/` (one container each: its record, its
//! writable layer, its output), `blank/` (empty disks to copy), `pasts/<id>.<n>.json` (what crashed how often), `asleep/<id>.json` (what sleeps), `ended/<id>.json` (how a one-off ended, until its caller
//! knows); and `<home>/volumes/<name>`, with `.image-<name>` if it has a size. Under the run directory: `host.sock`, `addresses.sock`, `netns/<id>`, `leases/`.

mod api;
mod cgroup;
mod client;
mod config;
mod container;
mod containerd;
mod copy;
mod disk;
mod down;
mod error;
mod exec;
mod files;
mod firewall;
mod forward;
mod health;
mod host;
mod logs;
mod moment;
mod netns;
mod network;
mod oneoff;
mod orphans;
mod overlays;
mod past;
mod pipes;
mod remote;
mod rootfs;
mod settings;
mod shims;
mod slot;
mod spec;
mod targets;
mod tenants;
mod users;
mod volumes;
mod wire;

pub use client::HostClient;
pub use config::containerd_config;
pub use error::HostError;
pub use settings::{HostSettings, Subnet, SubnetError};

/// Keeps this machine's workloads alive for as long as the process lives. Waits for containerd if it is not there.
pub async fn serve(settings: HostSettings) -> Result<(), HostError> {
    let (host, left) = host::Host::open(settings).await?;
    host.recover(left);
    let (socket, addresses) = (host.settings.socket(), host.settings.addresses_socket());
    let on = |path: &std::path::Path| {
        let path = path.to_owned();
        move |source| HostError::Files { action: "listen on", path, source }
    };
    let listener = engine::feed::listen(&socket).map_err(on(&socket))?;
    let api = axum::serve(listener, api::router(std::sync::Arc::clone(&host)));
    tokio::select! {
        served = async { api.await } => served.map_err(on(&socket)),
        served = host.feed.clone().serve(&addresses) => served.map_err(on(&addresses)),
        () = host.keep_asleep() => Ok(()),
    }
}
