//! Addresses: CNI plugins give every instance a link of its own.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::error::{Fault, HostError};
use crate::firewall::{Firewall, Passages};
use crate::netns;
use crate::settings::{HostSettings, Subnet};

const CNI_VERSION: &str = "0.4.0";
/// What each container calls its link.
pub(crate) const INTERFACE: &str = "eth0";
/// The network of all instances.
pub(crate) struct Network {
    name: String,
    subnet: Subnet,
    plugin: PathBuf,
    plugin_path: std::ffi::OsString,
    namespaces: PathBuf,
    leases: PathBuf,
    mtu: u32,
    /// Says what may cross the links.
    pub(crate) firewall: Firewall,
    /// For `/etc/resolv.conf` of every container.
    pub(crate) resolvers: Resolvers,
}

#[derive(Deserialize)]
struct Added {
    ips: Vec<AddedAddress>,
}

#[derive(Deserialize)]
struct AddedAddress {
    address: String,
}

#[derive(Deserialize)]
struct PluginError {
    msg: String,
    #[serde(default)]
    details: String,
}

impl Network {
    /// Sets the firewall up and finds the plugins. Instances that run already keep their links, and what `passages` lets through.
    pub(crate) async fn open(settings: &HostSettings, passages: Passages) -> Result<Self, HostError> {
        let missing = |plugin: &str| {
            HostError::Network(format!(
                "the CNI plugin {plugin} is in none of {:?}; install containernetworking-plugins",
                settings.cni_bin_dirs
            ))
        };
        let find = |plugin: &str| settings.cni_bin_dirs.iter().map(|dir| dir.join(plugin)).find(|path| path.is_file());
        let plugin = find("ptp").ok_or_else(|| missing("ptp"))?;
        for ipam in ["host-local", "static"] {
            find(ipam).ok_or_else(|| missing(ipam))?;
        }
        let resolvers = Resolvers::read();
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")
            .map_err(|error| HostError::Network(format!("IPv4 forwarding cannot be switched on: {error}")))?;
        Ok(Self {
            name: settings.namespace.clone(),
            subnet: settings.subnet,
            plugin,
            plugin_path: std::env::join_paths(&settings.cni_bin_dirs)
                .map_err(|error| HostError::Network(error.to_string()))?,
            namespaces: settings.netns(),
            leases: settings.leases(),
            mtu: outside_mtu().unwrap_or(1500),
            firewall: Firewall::open(settings, resolvers.servers.clone(), passages).await?,
            resolvers,
        })
    }

    /// The file that names the network namespace of container `id`.
    pub(crate) fn namespace(&self, id: &str) -> PathBuf {
        self.namespaces.join(id)
    }

    /// Links the existing namespace of `id` and returns its address: a free one, or the one that it must have.
    pub(crate) async fn add(&self, id: &str, fixed: Option<Ipv4Addr>) -> Result<Ipv4Addr, Fault> {
        let ipam = fixed.map_or_else(|| self.any_address(), |address| self.fixed_address(address));
        let output = self.plugin("ADD", id, &self.namespace(id), &ipam).await?;
        let refused = |what: String| Fault::Network(format!("{what}: {}", String::from_utf8_lossy(&output)));
        let added: Added = serde_json::from_slice(&output).map_err(|error| refused(error.to_string()))?;
        let address = added.ips.first().and_then(|ip| ip.address.split('/').next()?.parse().ok());
        address.ok_or_else(|| refused("no address".to_owned()))
    }

    /// Takes the link of `id` back and removes its namespace. Its address stays its own. Doing it again is no error.
    pub(crate) async fn unlink(&self, id: &str) -> Result<(), Fault> {
        let namespace = self.namespace(id);
        if netns::exists(&namespace) {
            // Whichever address: the plugin for fixed ones gives none back.
            self.plugin("DEL", id, &namespace, &self.fixed_address(self.subnet.gateway())).await?;
        }
        netns::remove(&namespace).map_err(Fault::on("remove", &namespace))
    }

    /// The address of `id`, if it has one that is not fixed, as [`Network::give_back`] takes it.
    pub(crate) fn leases_of(&self, id: &str) -> Vec<PathBuf> {
        self.all_leases().filter(|(_, owner)| owner == id).map(|(lease, _)| lease).collect()
    }

    /// Gives addresses back: others may have them from now on. Doing it again is no error.
    pub(crate) fn give_back(leases: &[PathBuf]) -> Result<(), Fault> {
        for lease in leases {
            match std::fs::remove_file(lease) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Fault::on("remove", lease)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Ids of all containers that hold an address or a namespace.
    pub(crate) fn ids(&self) -> Vec<String> {
        let files = |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
        let named = files(&self.namespaces).filter_map(|path| path.file_name()?.to_str().map(str::to_owned));
        named.chain(self.all_leases().map(|(_, id)| id)).filter(|id| !id.is_empty()).collect()
    }

    /// The addresses that host-local gave out, as files, each with the container's id. The plugin keeps one file for each, which begins with it.
    fn all_leases(&self) -> impl Iterator<Item = (PathBuf, String)> {
        let entries = std::fs::read_dir(self.leases.join(&self.name)).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter_map(|path| {
            path.file_name()?.to_str()?.parse::<IpAddr>().ok()?;
            let owner = std::fs::read_to_string(&path).ok()?.lines().next()?.trim().to_owned();
            Some((path, owner))
        })
    }

    /// Whether an instance was given this address, in a time when all were theirs.
    pub(crate) fn is_leased(&self, address: Ipv4Addr) -> bool {
        self.leases.join(&self.name).join(address.to_string()).exists()
    }

    fn any_address(&self) -> Value {
        json!({
            "type": "host-local",
            "dataDir": self.leases,
            "ranges": [[{ "subnet": self.subnet.to_string(), "rangeEnd": self.subnet.last_of_instances() }]],
            "routes": [{ "dst": "0.0.0.0/0" }],
        })
    }

    fn fixed_address(&self, address: Ipv4Addr) -> Value {
        let address = format!("{address}/{}", self.subnet.prefix());
        json!({
            "type": "static",
            "addresses": [{ "address": address, "gateway": self.subnet.gateway() }],
            "routes": [{ "dst": "0.0.0.0/0" }],
        })
    }

    async fn plugin(&self, command: &str, id: &str, namespace: &Path, ipam: &Value) -> Result<Vec<u8>, Fault> {
        let config = json!({
            "cniVersion": CNI_VERSION,
            "name": self.name,
            "type": "ptp",
            "ipMasq": false,
            "mtu": self.mtu,
            "ipam": ipam,
        });
        let environment = [
            ("CNI_COMMAND", command.as_ref()),
            ("CNI_CONTAINERID", id.as_ref()),
            ("CNI_NETNS", namespace.as_os_str()),
            ("CNI_IFNAME", INTERFACE.as_ref()),
            ("CNI_PATH", self.plugin_path.as_os_str()),
        ];
        let mut plugin = Command::new(&self.plugin);
        plugin.env_clear().envs(environment);
        let output = feed(plugin, config.to_string().as_bytes()).await.map_err(Fault::on("run", &self.plugin))?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Fault::Network(match serde_json::from_slice::<PluginError>(&output.stdout) {
            Ok(error) => format!("{} {}", error.msg, error.details).trim().to_owned(),
            Err(_) => format!("{} {}", output.status, said.trim()),
        }))
    }
}

/// The machine's name servers, as far as a container can reach them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolvers {
    servers: Vec<Ipv4Addr>,
    others: Vec<String>,
}

impl Resolvers {
    /// From the machine's own files. `127.…` is systemd-resolved or another local forwarder, which an instance cannot
    /// reach; systemd-resolved writes down whom it asks itself.
    fn read() -> Self {
        let read = |path: &str| Self::parse(&std::fs::read_to_string(path).unwrap_or_default());
        let own = read("/etc/resolv.conf");
        if own.servers.is_empty() { read("/run/systemd/resolve/resolv.conf") } else { own }
    }

    fn parse(text: &str) -> Self {
        let mut found = Self { servers: Vec::new(), others: Vec::new() };
        for line in text.lines() {
            match line.split_whitespace().collect::<Vec<_>>().as_slice() {
                ["nameserver", server] => match server.parse::<Ipv4Addr>() {
                    Ok(server) if !server.is_loopback() => found.servers.push(server),
                    // Instances speak IPv4 only.
                    _ => {}
                },
                ["search" | "options" | "domain", ..] => found.others.push(line.trim().to_owned()),
                _ => {}
            }
        }
        found
    }

    /// `/etc/resolv.conf` for a container.
    pub(crate) fn to_file(&self) -> String {
        let servers = self.servers.iter().map(|server| format!("nameserver {server}\n"));
        servers.chain(self.others.iter().map(|line| format!("{line}\n"))).collect()
    }
}

/// The largest packet of the interface with the default route: a larger one of our own would get lost on the way out.
fn outside_mtu() -> Option<u32> {
    let routes = std::fs::read_to_string("/proc/net/route").ok()?;
    let fields = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let default = routes.lines().skip(1).map(fields).find(|route| route.get(1).is_some_and(|to| to == "00000000"))?;
    std::fs::read_to_string(format!("/sys/class/net/{}/mtu", default.first()?)).ok()?.trim().parse().ok()
}

/// Runs a program with this input to its end.
pub(crate) async fn feed(mut command: Command, input: &[u8]) -> std::io::Result<std::process::Output> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input).await?;
    }
    child.wait_with_output().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_get_the_name_servers_that_they_can_reach() {
        let file = "# made by hand\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nnameserver fd00::1\nsearch example.com\noptions edns0\n";
        assert_eq!(Resolvers::parse(file).to_file(), "nameserver 10.0.0.2\nsearch example.com\noptions edns0\n");
        assert!(Resolvers::parse("nameserver 127.0.0.53\n").servers.is_empty());
    }
}
