//! Addresses and isolation: CNI plugins give every instance its own link, nftables says what may cross it.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::sleep;

use crate::error::{Fault, HostError};
use crate::netns;
use crate::settings::{HostSettings, Subnet};

const CNI_VERSION: &str = "0.4.0";
const INTERFACE: &str = "eth0";
/// Where clouds tell a machine its own secrets: link-local, Alibaba's, and Azure's.
const METADATA: &str = "{ 169.254.0.0/16, 100.100.100.200, 168.63.129.16 }";
/// Between two looks whether somebody flushed the machine's firewall.
const LOOK: Duration = Duration::from_secs(10);

/// The network of all instances.
pub(crate) struct Network {
    name: String,
    subnet: Subnet,
    plugin: PathBuf,
    plugin_path: std::ffi::OsString,
    namespaces: PathBuf,
    leases: PathBuf,
    mtu: u32,
    /// Whether our rules shall be there no more.
    closed: Mutex<bool>,
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
    /// Sets the firewall up and finds the plugins. Instances that run already keep their links.
    pub(crate) async fn open(settings: &HostSettings) -> Result<Self, HostError> {
        let missing = |plugin: &str| {
            HostError::Network(format!(
                "the CNI plugin {plugin} is in none of {:?}; install containernetworking-plugins",
                settings.cni_bin_dirs
            ))
        };
        let find = |plugin: &str| settings.cni_bin_dirs.iter().map(|dir| dir.join(plugin)).find(|path| path.is_file());
        let plugin = find("ptp").ok_or_else(|| missing("ptp"))?;
        find("host-local").ok_or_else(|| missing("host-local"))?;
        let resolvers = Resolvers::read();
        let network = Self {
            name: settings.namespace.clone(),
            subnet: settings.subnet,
            plugin,
            plugin_path: std::env::join_paths(&settings.cni_bin_dirs)
                .map_err(|error| HostError::Network(error.to_string()))?,
            namespaces: settings.netns(),
            leases: settings.leases(),
            mtu: outside_mtu().unwrap_or(1500),
            closed: Mutex::new(false),
            resolvers,
        };
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")
            .map_err(|error| HostError::Network(format!("IPv4 forwarding cannot be switched on: {error}")))?;
        nft(&network.rules()).await.map_err(HostError::Network)?;
        Ok(network)
    }

    /// The file that names the network namespace of container `id`.
    pub(crate) fn namespace(&self, id: &str) -> PathBuf {
        self.namespaces.join(id)
    }

    /// Links the existing namespace of `id` and returns its address.
    pub(crate) async fn add(&self, id: &str) -> Result<Ipv4Addr, Fault> {
        let output = self.plugin("ADD", id, &self.namespace(id)).await?;
        let refused = |what: String| Fault::Network(format!("{what}: {}", String::from_utf8_lossy(&output)));
        let added: Added = serde_json::from_slice(&output).map_err(|error| refused(error.to_string()))?;
        let address = added.ips.first().and_then(|ip| ip.address.split('/').next()?.parse().ok());
        address.ok_or_else(|| refused("no address".to_owned()))
    }

    /// Takes the link and the address of `id` back and removes its namespace. Doing it again is no error.
    pub(crate) async fn remove(&self, id: &str) -> Result<(), Fault> {
        let namespace = self.namespace(id);
        // Without a namespace the plugin only gives the address back (CNI specification, DEL).
        let argument = if netns::exists(&namespace) { namespace.as_path() } else { Path::new("") };
        self.plugin("DEL", id, argument).await?;
        netns::remove(&namespace).map_err(Fault::on("remove", &namespace))
    }

    /// Ids of all containers that hold an address or a namespace.
    pub(crate) fn ids(&self) -> Vec<String> {
        let files = |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
        let named = files(&self.namespaces).filter_map(|path| path.file_name()?.to_str().map(str::to_owned));
        // host-local keeps one file for each address, with the container's id in its first line.
        let leases = files(&self.leases.join(&self.name))
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().parse::<IpAddr>().is_ok()))
            .filter_map(|path| std::fs::read_to_string(path).ok()?.lines().next().map(|id| id.trim().to_owned()));
        named.chain(leases).filter(|id| !id.is_empty()).collect()
    }

    async fn plugin(&self, command: &str, id: &str, namespace: &Path) -> Result<Vec<u8>, Fault> {
        let config = json!({
            "cniVersion": CNI_VERSION,
            "name": self.name,
            "type": "ptp",
            "ipMasq": false,
            "mtu": self.mtu,
            "ipam": {
                "type": "host-local",
                "dataDir": self.leases,
                "ranges": [[{ "subnet": self.subnet.to_string() }]],
                "routes": [{ "dst": "0.0.0.0/0" }],
            },
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

    /// Removes our firewall rules: nothing of ours runs any more.
    pub(crate) async fn close(&self) -> Result<(), Fault> {
        let mut closed = self.closed.lock().await;
        *closed = true;
        nft(&self.no_rules()).await.map_err(Fault::Refused)
    }

    /// Puts our rules back when they are gone: a restart of the machine's own firewall flushes those of everybody.
    pub(crate) async fn keep_rules(&self) {
        loop {
            sleep(LOOK).await;
            let closed = self.closed.lock().await;
            if *closed {
                return;
            }
            let mut list = Command::new("nft");
            list.args(["list", "table", "inet", &self.table()]).stdout(Stdio::null()).stderr(Stdio::null());
            if list.status().await.is_ok_and(|status| !status.success()) {
                tracing::warn!("the firewall's rules were removed by somebody; putting them back");
                if let Err(error) = nft(&self.rules()).await {
                    tracing::error!(error = %error, "instances are not kept apart");
                }
            }
        }
    }

    /// A script that removes our table, and only ours, whether it exists or not.
    fn no_rules(&self) -> String {
        let table = self.table();
        format!("table inet {table} {{}}\ndelete table inet {table}\n")
    }

    /// A script that replaces our table in one transaction: there is no moment without rules.
    fn rules(&self) -> String {
        let (before, table, subnet) = (self.no_rules(), self.table(), self.subnet);
        let mut resolvers = String::new();
        for resolver in &self.resolvers.servers {
            // Writing to a String cannot fail.
            let _ = writeln!(
                resolvers,
                "    ip saddr {subnet} ip daddr {resolver} meta l4proto {{ tcp, udp }} th dport 53 accept"
            );
        }
        // Instances have no IPv6 address (see `netns`), so rules for IPv4 see all they send.
        format!(
            "{before}table inet {table} {{\n\
             \x20 chain forward {{\n    type filter hook forward priority filter; policy accept;\n\
             \x20   ip daddr {subnet} ct state established,related accept\n\
             \x20   ip daddr {subnet} drop\n{resolvers}\
             \x20   ip saddr {subnet} ip daddr {METADATA} drop\n  }}\n\
             \x20 chain input {{\n    type filter hook input priority filter; policy accept;\n\
             \x20   ip saddr {subnet} ct state established,related accept\n{resolvers}\
             \x20   ip saddr {subnet} drop\n  }}\n\
             \x20 chain postrouting {{\n    type nat hook postrouting priority srcnat; policy accept;\n\
             \x20   ip saddr {subnet} ip daddr != {subnet} masquerade\n  }}\n}}\n"
        )
    }

    fn table(&self) -> String {
        // nft's names have no dashes.
        self.name.replace('-', "_")
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

async fn nft(script: &str) -> Result<(), String> {
    let mut nft = Command::new("nft");
    nft.args(["-f", "-"]);
    let output = feed(nft, script.as_bytes()).await.map_err(|error| format!("nft cannot be run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("nft refused the rules: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

async fn feed(mut command: Command, input: &[u8]) -> std::io::Result<std::process::Output> {
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
