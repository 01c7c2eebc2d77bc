//! Whom the operator lets speak for others: load balancers that say at the begin of a connection whose it is (PROXY protocol), and proxies
//! whose headers say whose a request is.

use std::io;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// How a header of version 2 begins.
const VERSION_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// How one of version 1 begins.
const VERSION_1: &[u8] = b"PROXY ";
/// No header of version 1 is longer, with its end of line.
const LONGEST_1: usize = 107;
/// Of version 2, what comes after the length: addresses, and what load balancers add.
const LONGEST_2: usize = 4096;
/// Up to the length of what follows.
const BEGIN_2: usize = 16;

/// Networks of the operator's.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    /// Connections from there begin with a header of the PROXY protocol.
    pub(crate) balancers: Vec<IpNet>,
    /// Requests from there say themselves whose they are.
    pub(crate) proxies: Vec<IpNet>,
}

impl Trust {
    pub(crate) fn is_balancer(&self, peer: IpAddr) -> bool {
        contains(&self.balancers, peer)
    }

    pub(crate) fn is_proxy(&self, peer: IpAddr) -> bool {
        contains(&self.proxies, peer)
    }
}

fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    // Of a listener on `[::]`, an IPv4 client has an address of IPv6.
    !networks.is_empty() && networks.iter().any(|network| network.contains(&address.to_canonical()))
}

/// Whose a connection is, and where that client went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) client: SocketAddr,
    pub(crate) asked: SocketAddr,
}

/// Reads the header that a connection has to begin with, and not a byte more. `None`: the load balancer speaks for itself, to see whether
/// anybody is there.
pub(crate) async fn introduction(stream: &mut TcpStream) -> io::Result<Option<Ends>> {
    let mut header = vec![0; VERSION_2.len()];
    stream.read_exact(&mut header).await?;
    if header == VERSION_2 {
        header.resize(BEGIN_2, 0);
        stream.read_exact(&mut header[VERSION_2.len()..]).await?;
        let length = usize::from(u16::from_be_bytes([header[BEGIN_2 - 2], header[BEGIN_2 - 1]]));
        if length > LONGEST_2 {
            return Err(garbled());
        }
        header.resize(BEGIN_2 + length, 0);
        stream.read_exact(&mut header[BEGIN_2..]).await?;
    } else if header.starts_with(VERSION_1) {
        read_line(stream, &mut header).await?;
    } else {
        return Err(garbled());
    }
    ends(&header)
}

/// Reads up to the end of the line.
async fn read_line(stream: &mut TcpStream, line: &mut Vec<u8>) -> io::Result<()> {
    while !line.ends_with(b"\n") {
        let (begin, mut rest) = (line.len(), [0; LONGEST_1]);
        let room = LONGEST_1.saturating_sub(begin);
        // What comes after the line is the client's.
        let there = stream.peek(&mut rest[..room]).await?;
        if there == 0 {
            return Err(garbled());
        }
        let wanted = memchr::memchr(b'\n', &rest[..there]).map_or(there, |end| end + 1);
        line.resize(begin + wanted, 0);
        stream.read_exact(&mut line[begin..]).await?;
    }
    Ok(())
}

fn ends(header: &[u8]) -> io::Result<Option<Ends>> {
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    let (parsed, length) = ProxyHeader::parse(header, config).map_err(|_| garbled())?;
    match parsed.proxied_address() {
        _ if length != header.len() => Err(garbled()),
        Some(address) if address.protocol != Protocol::Stream => Err(garbled()),
        address => Ok(address.map(|address| Ends { client: address.source, asked: address.destination })),
    }
}

fn garbled() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no header of the PROXY protocol")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust(networks: &[&str]) -> Vec<IpNet> {
        networks.iter().map(|network| network.parse().expect("a network")).collect()
    }

    #[test]
    fn an_address_of_ipv4_is_the_same_one_in_ipv6() {
        let networks = trust(&["10.0.0.0/8", "2001:db8::/32"]);
        let is_in = |address: &str| contains(&networks, address.parse().expect("an address"));
        assert!(is_in("10.1.2.3") && is_in("::ffff:10.1.2.3") && is_in("2001:db8::7"));
        assert!(!is_in("11.1.2.3") && !is_in("::ffff:11.1.2.3") && !is_in("2001:db9::7"));
    }

    #[test]
    fn a_header_says_whose_a_connection_is_or_nothing_or_is_no_header() {
        let ends_of = |header: &[u8]| ends(header).ok();
        let address = |text: &str| text.parse().expect("an address");
        let two = Ends { client: address("203.0.113.7:50000"), asked: address("192.0.2.1:443") };
        assert_eq!(ends_of(b"PROXY TCP4 203.0.113.7 192.0.2.1 50000 443\r\n"), Some(Some(two)));
        let six = Ends { client: address("[2001:db8::7]:50000"), asked: address("[2001:db8::1]:443") };
        assert_eq!(ends_of(b"PROXY TCP6 2001:db8::7 2001:db8::1 50000 443\r\n"), Some(Some(six)));
        assert_eq!(ends_of(b"PROXY UNKNOWN\r\n"), Some(None));
        for garbled in [
            &b"PROXY TCP4 203.0.113.7 192.0.2.1 50000 443\n"[..],
            b"PROXY TCP4 203.0.113.7 2001:db8::1 50000 443\r\n",
            b"PROXY TCP4 203.0.113.7 192.0.2.1 50000 66000\r\n",
            b"PROXY TCP4 203.0.113.7 192.0.2.1 50000\r\n",
            b"PROXY UDP4 203.0.113.7 192.0.2.1 50000 443\r\n",
        ] {
            assert_eq!(ends_of(garbled), None, "{}", String::from_utf8_lossy(garbled));
        }
    }

    #[test]
    fn a_binary_header_may_carry_more_than_addresses() {
        let header = |kind: u8, family: u8, rest: &[u8]| {
            let length = u16::try_from(rest.len()).expect("short");
            let mut header = [VERSION_2, &[kind, family], &length.to_be_bytes()].concat();
            header.extend_from_slice(rest);
            header
        };
        let addresses = [203, 0, 113, 7, 192, 0, 2, 1, 0xc3, 0x50, 0x01, 0xbb];
        let with_more = [&addresses[..], &[0xea, 0, 2, 1, 2]].concat();
        let expected = Some(Some("203.0.113.7:50000".parse().expect("an address")));
        let client = |header: &[u8]| ends(header).ok().map(|ends| ends.map(|ends| ends.client));
        assert_eq!(client(&header(0x21, 0x11, &addresses)), expected);
        assert_eq!(client(&header(0x21, 0x11, &with_more)), expected);
        assert_eq!(client(&header(0x20, 0x00, &[])), Some(None), "the load balancer itself");
        assert_eq!(client(&header(0x21, 0x12, &addresses)), None, "UDP");
        assert_eq!(client(&header(0x21, 0x11, &addresses[..11])), None, "cut off");
        assert_eq!(client(&header(0x31, 0x11, &addresses)), None, "another version");
    }
}
