//! Which host a request names, and whether that is the platform itself.

use std::borrow::Cow;
use std::net::IpAddr;

use model::Hostname;

/// The host of a `Host` header in lower case, without port and without the dot that may end it; none if it is no host.
pub(crate) fn parse(header: &[u8]) -> Option<Cow<'_, str>> {
    let text = std::str::from_utf8(header).ok()?;
    let (host, port) = match text.rsplit_once(':') {
        // A colon inside brackets belongs to an IPv6 address.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    if port.is_some_and(|port| port.len() > 5 || !port.bytes().all(|b| b.is_ascii_digit())) {
        return None;
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    let is_address = host.starts_with('[') && address(host).is_some();
    if host.is_empty() || host.len() > 253 || !(is_address || host.bytes().all(is_name)) {
        return None;
    }
    if host.bytes().any(|b| b.is_ascii_uppercase()) {
        return Some(Cow::Owned(host.to_ascii_lowercase()));
    }
    Some(Cow::Borrowed(host))
}

/// The hosts that mean the platform itself: its domain, `api.` before it, and any address without a name.
#[derive(Debug)]
pub(crate) struct OwnHosts {
    domain: String,
}

impl OwnHosts {
    pub(crate) fn new(domain: &Hostname) -> Self {
        Self { domain: domain.as_str().to_owned() }
    }

    pub(crate) fn contain(&self, host: &str) -> bool {
        host == self.domain || host.strip_prefix("api.") == Some(&self.domain) || address(host).is_some()
    }

    /// The same, and all that is under the domain.
    pub(crate) fn cover(&self, host: &str) -> bool {
        let is_under = host.strip_suffix(self.domain.as_str()).is_some_and(|rest| rest.ends_with('.'));
        is_under || self.contain(host)
    }
}

fn address(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse().ok().map(IpAddr::V6),
        None => host.parse().ok().map(IpAddr::V4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_folded_and_lose_their_port() {
        for (header, host) in [
            ("shop.localhost", "shop.localhost"),
            ("Shop.LocalHost:8080", "shop.localhost"),
            ("shop.localhost.", "shop.localhost"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("[::1]:8080", "[::1]"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(parse(header.as_bytes()).as_deref(), Some(host), "{header}");
        }
        for header in ["", ":80", "a/b", "x@a", "a, b", "a b", "a:b", "a:123456", "[::1", "[x]", "a:80:80", "caf\u{e9}"]
        {
            assert_eq!(parse(header.as_bytes()), None, "{header}");
        }
    }

    #[test]
    fn the_platform_answers_to_its_domain_and_to_addresses() {
        let own = OwnHosts::new(&"platform.example".parse().expect("a host name"));
        for host in ["platform.example", "api.platform.example", "10.0.0.1", "[::1]"] {
            assert!(own.contain(host), "{host}");
        }
        for host in ["shop.platform.example", "example", "xapi.platform.example", "localhost"] {
            assert!(!own.contain(host), "{host}");
        }
        for (host, is_covered) in [
            ("shop.platform.example", true),
            ("a.b.platform.example", true),
            ("platform.example", true),
            ("192.0.2.1", true),
            ("xplatform.example", false),
            ("shop.example", false),
        ] {
            assert_eq!(own.cover(host), is_covered, "{host}");
        }
    }
}
