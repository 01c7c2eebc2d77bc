//! What may cross the links of instances: nftables rules in a table of our own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::Duration;

use model::{AppId, Destination, Egress, EgressRule, Verdict};

use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::sleep;

use crate::error::{Fault, HostError};
use crate::network::feed;
use crate::settings::{HostSettings, Subnet};

/// Where clouds tell a machine its own secrets: link-local, Alibaba's, and Azure's.
const METADATA: &str = "{ 169.254.0.0/16, 100.100.100.200, 168.63.129.16 }";
/// Between two looks whether somebody flushed the machine's firewall.
const LOOK: Duration = Duration::from_secs(10);

/// Who gets through to which service: addresses of client and service, and the port. Nothing else passes between instances.
pub(crate) type Reach = BTreeSet<(Ipv4Addr, Ipv4Addr, u16)>;

/// Networks that are not public: of organisations, of carriers, of links, and for special purposes (RFC 6890).
const PRIVATE: &str = "{ 0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.0.0.0/24, \
    192.168.0.0/16, 198.18.0.0/15, 224.0.0.0/3 }";

/// What shall get through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Passages {
    /// To services.
    pub(crate) reach: Reach,
    /// Through routers to other apps: addresses of clients, and the ports by which they are asked for.
    pub(crate) links: BTreeSet<(Ipv4Addr, u16)>,
    /// To the outside, of apps that have a policy.
    pub(crate) policies: BTreeMap<AppId, Egress>,
    /// Which app's policy holds for whom.
    pub(crate) sources: BTreeMap<Ipv4Addr, AppId>,
}

/// The rules.
pub(crate) struct Firewall {
    table: String,
    subnet: Subnet,
    link_port: u16,
    /// Connections to the outside that one address may have: the machine keeps a table of all, which nobody may fill up for the others.
    most: u32,
    /// Name servers that instances may ask, wherever they are.
    resolvers: Vec<Ipv4Addr>,
    state: Mutex<State>,
}

struct State {
    passages: Passages,
    /// Whether our rules shall be there no more.
    closed: bool,
}

impl Firewall {
    /// Sets the rules. `passages` must hold what instances use that run already: who is not in it loses its connections.
    pub(crate) async fn open(
        settings: &HostSettings,
        resolvers: Vec<Ipv4Addr>,
        passages: Passages,
    ) -> Result<Self, HostError> {
        // nft's names have no dashes.
        let table = settings.namespace.replace('-', "_");
        let (subnet, most, link_port) = (settings.subnet, settings.outside_connections, settings.link_port);
        let firewall =
            Self { table, subnet, link_port, most, resolvers, state: Mutex::new(State { passages, closed: false }) };
        let state = firewall.state.lock().await;
        nft(&firewall.rules(&state.passages)).await.map_err(HostError::Network)?;
        drop(state);
        Ok(firewall)
    }

    /// Lets exactly that through that `wanted` returns, which is asked when it is this call's turn: the last word is the newest. One
    /// transaction changes what is different, and nothing else.
    pub(crate) async fn set(&self, wanted: impl FnOnce() -> Passages) -> Result<(), Fault> {
        let mut state = self.state.lock().await;
        let wanted = wanted();
        if state.closed || state.passages == wanted {
            return Ok(());
        }
        if nft(&self.change(&state.passages, &wanted)).await.is_err() {
            // Somebody flushed the rules.
            nft(&self.rules(&wanted)).await.map_err(Fault::Refused)?;
        }
        state.passages = wanted;
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
                if let Err(error) = nft(&self.rules(&state.passages)).await {
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

    /// A script that changes, in one transaction, what is not as it shall be.
    fn change(&self, now: &Passages, wanted: &Passages) -> String {
        let table = &self.table;
        let mut script = String::new();
        // Writing to a String cannot fail, here and below.
        let mut say = |line: String| {
            let _ = writeln!(script, "{line}");
        };
        let gone = now.sources.iter().filter(|(source, app)| wanted.sources.get(*source) != Some(*app));
        if let Some(gone) = braces(gone.map(|(source, _)| source.to_string())) {
            say(format!("delete element inet {table} egress {gone}"));
        }
        for app in now.policies.keys().filter(|app| !wanted.policies.contains_key(app)) {
            say(format!("flush chain inet {table} {0}\ndelete chain inet {table} {0}", chain(*app)));
        }
        for (app, policy) in wanted.policies.iter().filter(|(app, policy)| now.policies.get(*app) != Some(*policy)) {
            let chain = chain(*app);
            say(format!("add chain inet {table} {chain}\nflush chain inet {table} {chain}"));
            policy_rules(policy).for_each(|rule| say(format!("add rule inet {table} {chain} {rule}")));
        }
        let new = wanted.sources.iter().filter(|(source, app)| now.sources.get(*source) != Some(*app));
        if let Some(new) = braces(new.map(door)) {
            say(format!("add element inet {table} egress {new}"));
        }
        if let Some(gone) = braces(now.reach.difference(&wanted.reach).map(passage)) {
            say(format!("delete element inet {table} reach {gone}"));
        }
        if let Some(new) = braces(wanted.reach.difference(&now.reach).map(passage)) {
            say(format!("add element inet {table} reach {new}"));
        }
        if let Some(gone) = braces(now.links.difference(&wanted.links).copied().map(link)) {
            say(format!("delete element inet {table} links {gone}"));
        }
        if let Some(new) = braces(wanted.links.difference(&now.links).copied().map(link)) {
            say(format!("add element inet {table} links {new}"));
        }
        script
    }

    /// A script that replaces our table in one transaction: there is no moment without rules.
    fn rules(&self, passages: &Passages) -> String {
        let (before, table, subnet, most) = (self.no_rules(), &self.table, self.subnet, self.most);
        let mut resolvers = String::new();
        for resolver in &self.resolvers {
            // Writing to a String cannot fail, here and below.
            let _ = writeln!(
                resolvers,
                "    ip saddr {subnet} ip daddr {resolver} meta l4proto {{ tcp, udp }} th dport 53 accept"
            );
        }
        let listed = |all: Option<String>| all.map_or_else(String::new, |all| format!("    elements = {all}\n"));
        let (reach, sources) =
            (listed(braces(passages.reach.iter().map(passage))), listed(braces(passages.sources.iter().map(door))));
        let (links, gateway, link_port) =
            (listed(braces(passages.links.iter().copied().map(link))), subnet.gateway(), self.link_port);
        let mut policies = String::new();
        for (app, policy) in &passages.policies {
            let rules = policy_rules(policy).collect::<Vec<_>>().join("\n    ");
            let _ = write!(policies, "  chain {} {{\n    {rules}\n  }}\n", chain(*app));
        }
        // An instance that lost its link has no route any more: what the router still sends it would go by the machine's default
        // route, and whoever answers there would answer for the app.
        // Instances have no IPv6 address (see `netns`), so rules for IPv4 see all they send. Who may no longer reach a service
        // gets a reset for its next packet, and so does the service: neither waits for an answer that cannot come.
        format!(
            "{before}table inet {table} {{\n\
             \x20 set reach {{\n    type ipv4_addr . ipv4_addr . inet_service;\n{reach}  }}\n\
             \x20 set links {{\n    type ipv4_addr . inet_service;\n{links}  }}\n\
             \x20 chain refused {{\n    meta l4proto tcp reject with tcp reset\n    reject with icmpx admin-prohibited\n  }}\n\
             {policies}\
             \x20 set connections {{\n    type ipv4_addr;\n    size 65535;\n    flags dynamic;\n  }}\n\
             \x20 map egress {{\n    type ipv4_addr : verdict;\n{sources}  }}\n\
             \x20 chain between {{\n\
             \x20   ip saddr . ip daddr . tcp dport @reach accept\n\
             \x20   ip daddr . ip saddr . tcp sport @reach ct direction reply accept\n\
             \x20   meta l4proto tcp reject with tcp reset\n    drop\n  }}\n\
             \x20 chain forward {{\n    type filter hook forward priority filter; policy accept;\n\
             \x20   ip saddr {subnet} ip daddr {subnet} goto between\n\
             \x20   ip daddr {subnet} ct state established,related accept\n\
             \x20   ip daddr {subnet} drop\n{resolvers}\
             \x20   ip saddr {subnet} ip daddr {METADATA} drop\n\
             \x20   ip saddr {subnet} ct state new add @connections {{ ip saddr ct count over {most} }} goto refused\n\
             \x20   ip saddr vmap @egress\n  }}\n\
             \x20 chain input {{\n    type filter hook input priority filter; policy accept;\n\
             \x20   ip saddr {subnet} tcp dport {link_port} ct status dnat ip saddr . ct original proto-dst @links accept\n\
             \x20   ip saddr {subnet} tcp dport {link_port} reject with tcp reset\n\
             \x20   ip saddr {subnet} ct state established,related accept\n{resolvers}\
             \x20   ip saddr {subnet} drop\n  }}\n\
             \x20 chain prerouting {{\n    type nat hook prerouting priority dstnat; policy accept;\n\
             \x20   ip daddr {gateway} ip saddr . tcp dport @links redirect to :{link_port}\n  }}\n\
             \x20 chain output {{\n    type filter hook output priority filter; policy accept;\n\
             \x20   ip daddr {subnet} oifname != \"lo\" oifname != \"veth*\" goto refused\n  }}\n\
             \x20 chain postrouting {{\n    type nat hook postrouting priority srcnat; policy accept;\n\
             \x20   ip saddr {subnet} ip daddr != {subnet} masquerade\n  }}\n}}\n"
        )
    }
}

/// An element of the set of those who get through to services.
fn passage((client, service, port): &(Ipv4Addr, Ipv4Addr, u16)) -> String {
    format!("{client} . {service} . {port}")
}

/// An element of the set of those who get through to other apps.
fn link((client, port): (Ipv4Addr, u16)) -> String {
    format!("{client} . {port}")
}

/// An element of the map of those for whom a policy holds.
fn door((source, app): (&Ipv4Addr, &AppId)) -> String {
    format!("{source} : goto {}", chain(*app))
}

/// What the rules of an app's policy are called.
fn chain(app: AppId) -> String {
    format!("app_{}", app.to_string().replace('-', "_"))
}

/// A policy's rules as nft reads them, in their order.
fn policy_rules(policy: &Egress) -> impl Iterator<Item = String> {
    let verdict = |verdict: Verdict| match verdict {
        Verdict::Allow => "accept",
        Verdict::Deny => "goto refused",
    };
    let (default, other) = (verdict(policy.default), verdict(policy.default.other()));
    policy.rules.iter().map(move |rule| format!("{} {other}", matching(rule))).chain([default.to_owned()])
}

fn matching(rule: &EgressRule) -> String {
    let to = match rule.to {
        Destination::Public => format!("ip daddr != {PRIVATE}"),
        Destination::Private => format!("ip daddr {PRIVATE}"),
        Destination::Network(..) => format!("ip daddr {}", rule.to),
    };
    match &rule.ports {
        Some(ports) => format!("{to} meta l4proto {{ tcp, udp }} th dport {{ {ports} }}"),
        None => to,
    }
}

/// As nft reads elements; `None` if there are none, which it cannot read.
fn braces(all: impl Iterator<Item = String>) -> Option<String> {
    let all: Vec<String> = all.collect();
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
