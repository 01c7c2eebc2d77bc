//! Rows of the route table as the few bytes that a router keeps of each while nobody asks for its app.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use model::routes::{AppRoute, Endpoint, Place, Proof, RouteMode, Share, WorkloadAddresses, WorkloadId};
use model::{AppId, PathPrefix};
use uuid::Uuid;

/// What has a form of few bytes.
pub(crate) trait Packed: Sized {
    fn pack(&self, to: &mut Vec<u8>);
    /// None if the bytes are not those of [`Packed::pack`].
    fn unpack(bytes: &[u8]) -> Option<Self>;

    fn packed(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.pack(&mut bytes);
        bytes
    }
}

/// Length of an id as it is written: `8-4-4-4-12` digits.
const ID: usize = 36;
/// Beside an app's mode: it has parts of hosts.
const PLACES: u64 = 4;
/// Beside an app's mode: it has ports of its own.
const TCP: u64 = 8;

impl Packed for AppId {
    fn pack(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.to_bytes());
    }

    fn unpack(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self::from_bytes)
    }
}

impl Packed for WorkloadId {
    fn pack(&self, to: &mut Vec<u8>) {
        put_text(to, &self.0);
    }

    fn unpack(bytes: &[u8]) -> Option<Self> {
        Reader(bytes).text().map(Self)
    }
}

impl Packed for AppRoute {
    fn pack(&self, to: &mut Vec<u8>) {
        put_text(to, self.name.as_str());
        put_list(to, &self.hosts, |to, host| put_text(to, host.as_str()));
        let mode = match &self.mode {
            RouteMode::Blank => 0,
            RouteMode::Maintenance => 1,
            RouteMode::NoWeb => 2,
            RouteMode::Serve(_) => 3,
        };
        let has_places = !self.places.is_empty();
        let has_ports = !self.tcp.is_empty();
        put_number(to, mode | if has_places { PLACES } else { 0 } | if has_ports { TCP } else { 0 });
        if has_places {
            put_list(to, &self.places, |to, place| {
                put_text(to, place.host.as_str());
                put_text(to, place.path.as_ref().map(PathPrefix::as_str).unwrap_or_default());
                put_number(to, place.strip.into());
            });
        }
        if let RouteMode::Serve(shares) = &self.mode {
            put_list(to, shares, |to, share| {
                put_text(to, &share.workload.0);
                put_number(to, share.weight.into());
            });
        }
        // What few apps have may take some room. Strings, numbers and lists: there is nothing in it that JSON cannot hold.
        if has_ports {
            put_text(to, &serde_json::to_string(&self.tcp).unwrap_or_default());
        }
        if let Some(policy) = &self.policy {
            to.extend(serde_json::to_vec(policy).unwrap_or_default());
        }
    }

    fn unpack(bytes: &[u8]) -> Option<Self> {
        let mut from = Reader(bytes);
        let name = from.text()?.parse().ok()?;
        let hosts = from.list(|from| from.text()?.parse().ok())?;
        let share = |from: &mut Reader<'_>| {
            Some(Share { workload: WorkloadId(from.text()?), weight: u32::try_from(from.number()?).ok()? })
        };
        let mode = from.number()?;
        let place = |from: &mut Reader<'_>| {
            let (host, path) = (from.text()?.parse().ok()?, from.text()?);
            let path = if path.is_empty() { None } else { Some(path.parse().ok()?) };
            Some(Place { host, path, strip: from.number()? == 1 })
        };
        let places = if mode & PLACES == 0 { Vec::new() } else { from.list(place)? };
        let has_ports = mode & TCP != 0;
        let mode = match mode & !(PLACES | TCP) {
            0 => RouteMode::Blank,
            1 => RouteMode::Maintenance,
            2 => RouteMode::NoWeb,
            _ => RouteMode::Serve(from.list(share)?),
        };
        let tcp = if has_ports { serde_json::from_str(&from.text()?).ok()? } else { Vec::new() };
        let policy = if from.0.is_empty() { None } else { Some(serde_json::from_slice(from.0).ok()?) };
        Some(Self { name, hosts, places, mode, policy, tcp })
    }
}

impl Packed for WorkloadAddresses {
    fn pack(&self, to: &mut Vec<u8>) {
        put_list(to, &self.healthy, put_endpoint);
        put_list(to, &self.resting, put_endpoint);
        put_number(to, self.starting.into());
        put_number(to, self.crashed.into());
        put_number(to, self.drain.as_secs());
        put_number(to, self.drain.subsec_nanos().into());
    }

    fn unpack(bytes: &[u8]) -> Option<Self> {
        let mut from = Reader(bytes);
        let (healthy, resting) = (from.list(Reader::endpoint)?, from.list(Reader::endpoint)?);
        let (starting, crashed) = (u32::try_from(from.number()?).ok()?, u32::try_from(from.number()?).ok()?);
        let drain = Duration::new(from.number()?, u32::try_from(from.number()?).ok()?);
        Some(Self { healthy, resting, starting, crashed, drain })
    }
}

/// Small numbers take one byte.
pub(crate) fn put_number(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    to.push(number.to_le_bytes()[0]);
}

/// How many it takes.
pub(crate) fn number_length(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

/// An id at the beginning of a text, as most have it, takes 16 bytes. The number before the text says how long the rest is, and whether there
/// is one.
fn put_text(to: &mut Vec<u8>, text: &str) {
    let begin = text.get(..ID).and_then(|begin| Some((begin, Uuid::try_parse(begin).ok()?)));
    let id = begin.filter(|(begin, id)| id.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == *begin);
    let rest = if id.is_some() { &text[ID..] } else { text };
    put_number(to, (rest.len() as u64) << 1 | u64::from(id.is_some()));
    if let Some((_, id)) = id {
        to.extend_from_slice(id.as_bytes());
    }
    to.extend_from_slice(rest.as_bytes());
}

fn put_list<T>(to: &mut Vec<u8>, items: &[T], put: impl Fn(&mut Vec<u8>, &T)) {
    put_number(to, items.len() as u64);
    for item in items {
        put(to, item);
    }
}

fn put_endpoint(to: &mut Vec<u8>, endpoint: &Endpoint) {
    put_text(to, &endpoint.instance);
    put_text(to, &endpoint.dyno);
    let flags = u8::from(endpoint.address.is_ipv6()) | u8::from(endpoint.proof.is_some()) << 1;
    to.push(flags);
    match endpoint.address {
        SocketAddr::V4(address) => to.extend_from_slice(&address.ip().octets()),
        SocketAddr::V6(address) => {
            to.extend_from_slice(&address.ip().octets());
            put_number(to, address.flowinfo().into());
            put_number(to, address.scope_id().into());
        }
    }
    put_number(to, endpoint.address.port().into());
    if let Some(Proof { pid, started, netns }) = endpoint.proof {
        for number in [u64::from(pid), started, netns] {
            put_number(to, number);
        }
    }
}

/// What is left to be read.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn number(&mut self) -> Option<u64> {
        let (mut number, mut shift) = (0, 0);
        loop {
            let (first, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                return Some(number);
            }
            shift += 7;
            if shift > 63 {
                return None;
            }
        }
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    fn text(&mut self) -> Option<String> {
        let number = self.number()?;
        let mut text = String::new();
        if number & 1 == 1 {
            text.push_str(Uuid::from_bytes(self.array()?).hyphenated().encode_lower(&mut Uuid::encode_buffer()));
        }
        text.push_str(std::str::from_utf8(self.bytes(usize::try_from(number >> 1).ok()?)?).ok()?);
        Some(text)
    }

    fn list<T>(&mut self, read: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        (0..self.number()?).map(|_| read(self)).collect()
    }

    fn endpoint(&mut self) -> Option<Endpoint> {
        let (instance, dyno) = (self.text()?, self.text()?);
        let [flags] = self.array()?;
        let address = if flags & 1 == 0 {
            let ip = Ipv4Addr::from(self.array::<4>()?);
            SocketAddr::new(IpAddr::V4(ip), self.port()?)
        } else {
            let ip = Ipv6Addr::from(self.array::<16>()?);
            let (flow, scope) = (u32::try_from(self.number()?).ok()?, u32::try_from(self.number()?).ok()?);
            SocketAddr::V6(SocketAddrV6::new(ip, self.port()?, flow, scope))
        };
        let proof = if flags & 2 == 0 {
            None
        } else {
            Some(Proof { pid: u32::try_from(self.number()?).ok()?, started: self.number()?, netns: self.number()? })
        };
        Some(Endpoint { instance, dyno, address, proof })
    }

    fn port(&mut self) -> Option<u16> {
        u16::try_from(self.number()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use model::{Introduction, RoutePolicy, TcpRoute};

    use super::*;

    fn comes_back<T: Packed + PartialEq + std::fmt::Debug>(row: &T) -> usize {
        let bytes = row.packed();
        assert_eq!(T::unpack(&bytes).as_ref(), Some(row));
        for end in 0..bytes.len() {
            // Half a row is none, or another one; it is no panic.
            let _ = T::unpack(&bytes[..end]);
        }
        bytes.len()
    }

    #[test]
    fn a_number_takes_as_many_bytes_as_is_said() {
        for bits in 0..64 {
            for number in [1 << bits, (1_u64 << bits) - 1, u64::MAX >> bits] {
                let mut bytes = Vec::new();
                put_number(&mut bytes, number);
                assert_eq!(bytes.len(), number_length(number), "{number}");
                assert_eq!(Reader(&bytes).number(), Some(number));
            }
        }
    }

    #[test]
    fn every_row_comes_back_as_it_was() {
        for text in [
            "shop",
            "",
            "00000000-0000-4000-8000-000000000001.v1.web",
            "ABCDEF00-0000-4000-8000-000000000001.v1.web",
            "00000000-0000-4000-8000-000000000001",
            "ein Name mit ümlaut, der länger ist als eine Kennung",
        ] {
            comes_back(&WorkloadId(text.to_owned()));
        }
        let hosts = ["shop.example", "*.shop.example"].map(|host| host.parse().expect("a host name"));
        let route = |mode| AppRoute {
            name: "shop".parse().expect("a name"),
            hosts: hosts.to_vec(),
            places: vec![],
            mode,
            policy: None,
            tcp: vec![],
        };
        let share = |weight| Share { workload: WorkloadId("w".to_owned()), weight };
        let served = RouteMode::Serve(vec![share(0), share(u32::MAX)]);
        for mode in [RouteMode::Blank, RouteMode::Maintenance, RouteMode::NoWeb, served] {
            comes_back(&route(mode));
        }
        let mut policy = RoutePolicy::default();
        policy.set("queue", "5").expect("a setting");
        let policy = Some(Box::new(policy));
        comes_back(&AppRoute { policy: policy.clone(), ..route(RouteMode::Blank) });
        let [place, stripped] = [false, true].map(|strip| Place {
            host: hosts[0].clone(),
            path: Some("/api".parse().expect("a path")),
            strip,
        });
        let tcp = TcpRoute {
            port: 3042,
            host: Some(hosts[0].clone()),
            terminate: true,
            target_port: Some(1883),
            idle: Duration::from_secs(7),
            introduce: Some(Introduction::V2),
            shares: vec![share(1)],
        };
        comes_back(&AppRoute { tcp: vec![tcp.clone()], ..route(RouteMode::NoWeb) });
        comes_back(&AppRoute {
            places: vec![place, stripped],
            policy,
            tcp: vec![tcp],
            ..route(RouteMode::serve(WorkloadId("w".into())))
        });

        let proof = Proof { pid: u32::MAX, started: u64::MAX, netns: 4_026_532_000 };
        let endpoint = |address: &str, proof| Endpoint {
            instance: "i1".to_owned(),
            dyno: "web.1".to_owned(),
            address: address.parse().expect("an address"),
            proof,
        };
        let healthy = vec![endpoint("10.1.2.3:5000", Some(proof)), endpoint("[fd00::1]:65535", None)];
        let (resting, drain) = (vec![endpoint("127.0.0.1:1", None)], Duration::new(30, 999_999_999));
        comes_back(&WorkloadAddresses { healthy, resting, starting: 1, crashed: u32::MAX, drain });
        comes_back(&WorkloadAddresses::default());
    }
}
