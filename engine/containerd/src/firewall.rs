//! What may cross the links of instances: nftables rules in a table of our own.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::sleep;

use crate::error::{Fault, HostError};
use crate::network::feed;
use crate::settings::Subnet;

/// Where clouds tell a machine its own secrets: link-local, Alibaba's, and Azure's.
const METADATA: &str = "{ 169.254.0.0/16, 100.100.100.200, 168.63.129.16 }";
/// Between two looks whether somebody flushed the machine's firewall.
const LOOK: Duration = Duration::from_secs(10);

/// Who gets through to which service: addresses of client and service, and the port. Nothing else passes between instances.
pub(crate) type Reach = BTreeSet<(Ipv4Addr, Ipv4Addr, u16)>;

/// The rules.
pub(crate) struct Firewall {
    table: String,
    subnet: Subnet,
    /// Name servers that instances may ask, wherever they are.
    resolvers: Vec<Ipv4Addr>,
    state: Mutex<State>,
}

struct State {
    reach: Reach,
    /// Whether our rules shall be there no more.
    closed: bool,
}

impl Firewall {
    /// Sets the rules. `reach` must hold what instances use that run already: who is not in it loses its connections.
    pub(crate) async fn open(
        name: &str,
        subnet: Subnet,
        resolvers: Vec<Ipv4Addr>,
        reach: Reach,
    ) -> Result<Self, HostError> {
        // nft's names have no dashes.
        let table = name.replace('-', "_");
        let firewall = Self { table, subnet, resolvers, state: Mutex::new(State { reach, closed: false }) };
        let state = firewall.state.lock().await;
        nft(&firewall.rules(&state.reach)).await.map_err(HostError::Network)?;
        drop(state);
        Ok(firewall)
    }

    /// Lets exactly those through that `wanted` returns, which is asked when it is this call's turn: the last word is the newest.
    pub(crate) async fn set_reach(&self, wanted: impl FnOnce() -> Reach) -> Result<(), Fault> {
        let mut state = self.state.lock().await;
        let wanted = wanted();
        if state.closed || state.reach == wanted {
            return Ok(());
        }
        let table = &self.table;
        let elements =
            elements(&wanted).map_or_else(String::new, |all| format!("add element inet {table} reach {all}\n"));
        if nft(&format!("flush set inet {table} reach\n{elements}")).await.is_err() {
            // Somebody flushed the rules.
            nft(&self.rules(&wanted)).await.map_err(Fault::Refused)?;
        }
        state.reach = wanted;
        Ok(())
    }

    /// Removes our rules: nothing of ours runs any more.
    pub(crate) async fn close(&self) -> Result<(), Fault> {
        self.state.lock().await.closed = true;
        nft(&self.no_rules()).await.map_err(Fault::Refused)
    }

    /// Puts our rules back when they are gone: a restart of the machine's own firewall flushes those of everybody.
    pub(crate) async fn keep(&self) {
        loop {
            sleep(LOOK).await;
            let state = self.state.lock().await;
            if state.closed {
                return;
            }
            let mut list = Command::new("nft");
            list.args(["list", "table", "inet", &self.table]).stdout(Stdio::null()).stderr(Stdio::null());
            if list.status().await.is_ok_and(|status| !status.success()) {
                tracing::warn!("the firewall's rules were removed by somebody; putting them back");
                if let Err(error) = nft(&self.rules(&state.reach)).await {
                    tracing::error!(error = %error, "instances are not kept apart");
                }
            }
        }
    }

    /// A script that removes our table, and only ours, whether it exists or not.
    fn no_rules(&self) -> String {
        let table = &self.table;
        format!("table inet {table} {{}}\ndelete table inet {table}\n")
    }

    /// A script that replaces our table in one transaction: there is no moment without rules.
    fn rules(&self, reach: &Reach) -> String {
        let (before, table, subnet) = (self.no_rules(), &self.table, self.subnet);
        let mut resolvers = String::new();
        for resolver in &self.resolvers {
            // Writing to a String cannot fail.
            let _ = writeln!(
                resolvers,
                "    ip saddr {subnet} ip daddr {resolver} meta l4proto {{ tcp, udp }} th dport 53 accept"
            );
        }
        let elements = elements(reach).map_or_else(String::new, |all| format!("    elements = {all}\n"));
        // Instances have no IPv6 address (see `netns`), so rules for IPv4 see all they send. Who may no longer reach a service
        // gets a reset for its next packet, and so does the service: neither waits for an answer that cannot come.
        format!(
            "{before}table inet {table} {{\n\
             \x20 set reach {{\n    type ipv4_addr . ipv4_addr . inet_service;\n{elements}  }}\n\
             \x20 chain between {{\n\
             \x20   ip saddr . ip daddr . tcp dport @reach accept\n\
             \x20   ip daddr . ip saddr . tcp sport @reach ct direction reply accept\n\
             \x20   meta l4proto tcp reject with tcp reset\n    drop\n  }}\n\
             \x20 chain forward {{\n    type filter hook forward priority filter; policy accept;\n\
             \x20   ip saddr {subnet} ip daddr {subnet} goto between\n\
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
}

/// As nft reads the elements of a set; `None` if there are none, which it cannot read.
fn elements(reach: &Reach) -> Option<String> {
    let all: Vec<String> =
        reach.iter().map(|(client, service, port)| format!("{client} . {service} . {port}")).collect();
    (!all.is_empty()).then(|| format!("{{ {} }}", all.join(", ")))
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
