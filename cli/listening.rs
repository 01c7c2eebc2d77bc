//! Which processes of the platform take connections from other machines: none may but the router, whatever the machine's firewall does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use serde_json::{Value, json};

/// The kernel's number of the state in which a TCP socket listens (`tcp_states.h`).
const LISTENS: &str = "0A";

/// A process that listens where others get to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    /// Which.
    pub(crate) pid: i32,
    /// What it is called.
    pub(crate) program: String,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Listener {
    /// For programs.
    pub(crate) fn to_json(&self) -> Value {
        json!({ "pid": self.pid, "program": self.program, "address": self.address })
    }
}

/// Those of the processes `ours`, of all that they started, and of whatever was told of a file in `run`, that listen on other than
/// loopback addresses of this machine.
pub(crate) fn public(ours: &[i32], run: &Path) -> Vec<Listener> {
    let sockets: BTreeMap<String, SocketAddr> =
        listening().into_iter().filter(|(_, address)| !address.ip().is_loopback()).collect();
    let mut found = Vec::new();
    for pid in family(ours, run) {
        let program = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned();
        for inode in sockets_of(pid) {
            if let Some(address) = sockets.get(&inode) {
                found.push(Listener { pid, program: program.clone(), address: *address });
            }
        }
    }
    found
}

/// Whether a process listens at all.
pub(crate) fn listens(pid: i32) -> bool {
    let own = sockets_of(pid);
    listening().iter().any(|(inode, _)| own.contains(inode))
}

/// All TCP sockets of this network namespace that listen, by their inodes. Those of other namespaces, such as instances', have others.
fn listening() -> Vec<(String, SocketAddr)> {
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
    let text: String = tables.iter().map(|table| fs::read_to_string(table).unwrap_or_default()).collect();
    text.lines().filter_map(parse).collect()
}

/// A line of `/proc/net/tcp` (proc(5)), if its socket listens.
fn parse(line: &str) -> Option<(String, SocketAddr)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (address, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    if *state != LISTENS {
        return None;
    }
    let (ip, port) = address.split_once(':')?;
    // Words of the machine's own byte order, whose bytes are those of the address.
    let words = ip.as_bytes().chunks(8).map(|word| u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok());
    let bytes: Vec<u8> = words.collect::<Option<Vec<u32>>>()?.into_iter().flat_map(u32::to_ne_bytes).collect();
    let ip: IpAddr = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(bytes) => Ipv4Addr::from(bytes).into(),
        Err(_) => Ipv6Addr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?).to_canonical(),
    };
    Some(((*inode).to_owned(), SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?)))
}

/// The processes, those that they started, and those that were told of a file in `run`, as shims are.
fn family(ours: &[i32], run: &Path) -> BTreeSet<i32> {
    let run = format!("{}/", run.display());
    let mut family: BTreeSet<i32> = ours.iter().copied().collect();
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let told = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&told).contains(&run) {
            family.insert(pid);
        }
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // The name of a program may have any characters, a closing parenthesis among them.
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse::<i32>().ok());
        parents.extend(parent.map(|parent| (pid, parent)));
    }
    loop {
        let before = family.len();
        let children: Vec<i32> =
            parents.iter().filter(|(_, parent)| family.contains(parent)).map(|one| one.0).collect();
        family.extend(children);
        if family.len() == before {
            return family;
        }
    }
}

fn sockets_of(pid: i32) -> BTreeSet<String> {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let targets = files.filter_map(|file| fs::read_link(file.path()).ok());
    targets
        .filter_map(|target| Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listener_of_ours_is_found_unless_only_this_machine_reaches_it() {
        let own = i32::try_from(std::process::id()).expect("a pid");
        let (everywhere, here) = (TcpListener::bind("0.0.0.0:0"), TcpListener::bind("127.0.0.1:0"));
        let sixth = TcpListener::bind("[::]:0").ok().and_then(|listener| Some((listener.local_addr().ok()?, listener)));
        let everywhere = everywhere.expect("a listener");
        let here = here.expect("a listener");
        let found = public(&[own], Path::new("/nowhere/at/all"));
        let is_found = |address: SocketAddr| found.iter().any(|one| one.pid == own && one.address == address);
        assert!(is_found(everywhere.local_addr().expect("an address")), "{found:?}");
        assert!(!is_found(here.local_addr().expect("an address")), "{found:?}");
        assert!(sixth.is_none_or(|(address, _)| is_found(address)), "{found:?}");
        let nobodys = public(&[], Path::new("/nowhere/at/all"));
        assert_eq!(nobodys, [], "what others do is their matter");
    }
}
