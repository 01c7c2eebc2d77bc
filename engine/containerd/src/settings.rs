use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use engine::LayerStore;
use model::{Clock, LogSink, Random};

/// What the host role is told when it starts.
#[derive(Clone)]
pub struct HostSettings {
    /// State that must survive reboots; the role keeps its own under `<home>/host`, volumes are under `<home>/volumes`.
    pub home: PathBuf,
    /// Sockets and network namespaces; may be empty after a reboot. Short: the path of a Unix socket has at most 107 bytes.
    pub run_dir: PathBuf,
    /// Where containerd listens.
    pub containerd_socket: PathBuf,
    /// Name of everything that is shared with the rest of the machine: the containerd namespace, the parent cgroup, the
    /// nftables table and the CNI network. Letters, digits and dashes.
    pub namespace: String,
    /// Where the CNI plugins `ptp`, `host-local` and `static` are, in order of preference.
    pub cni_bin_dirs: Vec<PathBuf>,
    /// Addresses of instances, the last sixteenth of them those of services. No other network that this machine talks to may overlap.
    pub subnet: Subnet,
    /// Connections to the outside that an instance may have at once.
    pub outside_connections: u32,
    /// The routers' port for those that are linked to other apps, at the network's gateway.
    pub link_port: u16,
    /// The OCI runtime that the shim executes: `runc`, `crun`, or a path.
    pub runtime: String,
    /// Where layers live.
    pub layers: LayerStore,
    /// Takes the output of instances and the platform's lines about them.
    pub log: Arc<dyn LogSink>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Instance ids are made of this.
    pub random: Arc<dyn Random>,
}

impl HostSettings {
    /// The socket on which [`crate::HostClient`] finds the role.
    pub fn socket(&self) -> PathBuf {
        self.run_dir.join("host.sock")
    }

    /// The socket on which routers follow the addresses of healthy instances.
    pub fn addresses_socket(&self) -> PathBuf {
        self.run_dir.join("addresses.sock")
    }

    pub(crate) fn workloads(&self) -> PathBuf {
        self.home.join("host/workloads")
    }

    pub(crate) fn instances(&self) -> PathBuf {
        self.home.join("host/instances")
    }

    /// Empty disks.
    pub(crate) fn blanks(&self) -> PathBuf {
        self.home.join("host/blank")
    }

    /// How one-offs with a log ended, until somebody was told.
    pub(crate) fn ended(&self) -> PathBuf {
        self.home.join("host/ended")
    }

    /// What crashed how often.
    pub(crate) fn pasts(&self) -> PathBuf {
        self.home.join("host/pasts")
    }

    /// Which workloads sleep.
    pub(crate) fn asleep(&self) -> PathBuf {
        self.home.join("host/asleep")
    }

    /// Which apps reach which.
    pub(crate) fn links(&self) -> PathBuf {
        self.home.join("host/links.json")
    }

    /// What apps may reach outside, where that is not everything.
    pub(crate) fn egress(&self) -> PathBuf {
        self.home.join("host/egress")
    }

    pub(crate) fn volumes(&self) -> PathBuf {
        self.home.join("volumes")
    }

    pub(crate) fn netns(&self) -> PathBuf {
        self.run_dir.join("netns")
    }

    pub(crate) fn leases(&self) -> PathBuf {
        self.run_dir.join("leases")
    }
}

/// An IPv4 network, `10.210.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct Subnet {
    base: Ipv4Addr,
    prefix: u8,
}

/// A network that cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a subnet is written like 10.210.0.0/16: a private IPv4 network of /8 to /24 without host bits")]
pub struct SubnetError;

impl Subnet {
    pub(crate) fn prefix(self) -> u8 {
        self.prefix
    }

    /// Instances send everything here.
    pub fn gateway(self) -> Ipv4Addr {
        self.at(1)
    }

    /// Addresses above this one are for services.
    pub(crate) fn last_of_instances(self) -> Ipv4Addr {
        self.at(self.size() / 16 * 15 - 1)
    }

    /// How many instances may have an address.
    pub(crate) fn instances(self) -> u32 {
        // Its own and the gateway's are nobody's.
        self.size() / 16 * 15 - 2
    }

    /// The addresses that services may have.
    pub(crate) fn of_services(self) -> impl Iterator<Item = Ipv4Addr> {
        (self.size() / 16 * 15 + 1..self.size() - 1).map(move |host| self.at(host))
    }

    fn size(self) -> u32 {
        1 << (32 - self.prefix)
    }

    fn at(self, host: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base.to_bits() + host)
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let (base, prefix) = text.split_once('/').ok_or(SubnetError)?;
        let base: Ipv4Addr = base.parse().map_err(|_| SubnetError)?;
        let prefix: u8 = prefix.parse().map_err(|_| SubnetError)?;
        let is_network = (8..=24).contains(&prefix) && base.to_bits().trailing_zeros() >= u32::from(32 - prefix);
        if is_network && base.is_private() { Ok(Self { base, prefix }) } else { Err(SubnetError) }
    }
}

impl TryFrom<String> for Subnet {
    type Error = SubnetError;

    fn try_from(text: String) -> Result<Self, SubnetError> {
        text.parse()
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_is_a_private_network() {
        assert_eq!("10.210.0.0/16".parse::<Subnet>().expect("good").to_string(), "10.210.0.0/16");
        for bad in ["10.210.0.0", "10.210.0.1/16", "8.8.0.0/16", "10.0.0.0/30", "10.0.0.0/x", "fd00::/8"] {
            assert_eq!(bad.parse::<Subnet>(), Err(SubnetError), "{bad}");
        }
    }

    #[test]
    fn services_have_the_end_of_a_subnet() {
        let subnet: Subnet = "10.210.0.0/16".parse().expect("good");
        let text = |address: Ipv4Addr| address.to_string();
        assert_eq!(
            (text(subnet.gateway()), text(subnet.last_of_instances())),
            ("10.210.0.1".into(), "10.210.239.255".into())
        );
        let services: Vec<Ipv4Addr> = subnet.of_services().collect();
        assert_eq!((text(services[0]), text(services[4093])), ("10.210.240.1".into(), "10.210.255.254".into()));
        assert_eq!(services.len(), 4094);
        assert_eq!("10.1.2.0/24".parse::<Subnet>().expect("good").of_services().count(), 14);
    }
}
