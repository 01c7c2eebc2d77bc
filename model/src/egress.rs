//! What the containers of an app may reach outside.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Most rules of a policy.
const MOST_RULES: usize = 100;
/// Most ports and ranges of a rule.
const MOST_PORTS: usize = 50;

/// A policy: what is done with packets that no rule is about, and rules, each about the opposite.
///
/// ```
/// # use model::Egress;
/// let text = r#"{"default": "deny", "rules": [{"to": "203.0.113.0/24", "ports": "443,8000-8999"}, {"to": "private"}]}"#;
/// let policy: Egress = serde_json::from_str(text).unwrap();
/// assert!(policy.check().is_ok());
/// assert_eq!(policy.rules[1].to_string(), "private");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Egress {
    /// What happens to everything that no rule is about.
    pub default: Verdict,
    /// What happens the other way round.
    #[serde(default)]
    pub rules: Vec<EgressRule>,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It passes.
    Allow,
    /// It is refused, and its sender is told.
    Deny,
}

/// Where something goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressRule {
    /// Which addresses.
    pub to: Destination,
    /// Which ports of TCP and UDP; none: all, and every other protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Ports>,
}

/// Addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// Those that anybody on the Internet may have.
    Public,
    /// Those that are not: of private networks, of carriers' own ones, and for special purposes.
    Private,
    /// Those of a network, by its address and the length of its prefix.
    Network(Ipv4Addr, u8),
}

/// Ports and ranges of them, both ends included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports(Vec<(u16, u16)>);

/// What is wrong with a policy, and what is right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EgressError(String);

impl Egress {
    /// Refuses what is too long.
    pub fn check(&self) -> Result<(), EgressError> {
        if self.rules.len() <= MOST_RULES {
            return Ok(());
        }
        Err(EgressError(format!("a policy has at most {MOST_RULES} rules, not {}", self.rules.len())))
    }
}

impl fmt::Display for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.default.fmt(f)?;
        let but =
            |(index, rule): (usize, &EgressRule)| format!("{}{rule}", if index == 0 { " all but " } else { ", " });
        self.rules.iter().enumerate().try_for_each(|rule| f.write_str(&but(rule)))
    }
}

impl Verdict {
    /// The opposite.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Allow => Self::Deny,
            Self::Deny => Self::Allow,
        }
    }
}

impl FromStr for Verdict {
    type Err = EgressError;

    fn from_str(text: &str) -> Result<Self, EgressError> {
        match text {
            "allow" => Ok(Self::Allow),
            "deny" => Ok(Self::Deny),
            _ => Err(EgressError(format!("the default is allow or deny, not {text:?}"))),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

impl FromStr for EgressRule {
    type Err = EgressError;

    /// `public`, `private:5432`, `203.0.113.0/24:443,8000-8999`
    fn from_str(text: &str) -> Result<Self, EgressError> {
        match text.split_once(':') {
            Some((to, ports)) => Ok(Self { to: to.parse()?, ports: Some(ports.parse()?) }),
            None => Ok(Self { to: text.parse()?, ports: None }),
        }
    }
}

impl fmt::Display for EgressRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.ports {
            Some(ports) => write!(f, "{}:{ports}", self.to),
            None => self.to.fmt(f),
        }
    }
}

impl FromStr for Destination {
    type Err = EgressError;

    fn from_str(text: &str) -> Result<Self, EgressError> {
        let wrong = || {
            EgressError(format!(
                "{text:?} is no destination: use public, private, an IPv4 address, or a network like 203.0.113.0/24 without host bits"
            ))
        };
        match text {
            "public" => return Ok(Self::Public),
            "private" => return Ok(Self::Private),
            _ => {}
        }
        let (address, prefix) = text.split_once('/').unwrap_or((text, "32"));
        let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        let is_network = prefix <= 32 && address.to_bits().trailing_zeros() >= 32 - u32::from(prefix);
        if is_network { Ok(Self::Network(address, prefix)) } else { Err(wrong()) }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Public => f.write_str("public"),
            Self::Private => f.write_str("private"),
            Self::Network(address, 32) => address.fmt(f),
            Self::Network(address, prefix) => write!(f, "{address}/{prefix}"),
        }
    }
}

impl FromStr for Ports {
    type Err = EgressError;

    fn from_str(text: &str) -> Result<Self, EgressError> {
        let wrong = || EgressError(format!("{text:?} are no ports: write 443, or 80,443, or 8000-8999"));
        let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong);
        let mut all = Vec::new();
        for part in text.split(',') {
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (port(first)?, port(last)?),
                None => (port(part)?, port(part)?),
            };
            if first > last {
                return Err(wrong());
            }
            all.push((first, last));
        }
        if all.len() > MOST_PORTS {
            return Err(EgressError(format!("a rule has at most {MOST_PORTS} ports and ranges, not {}", all.len())));
        }
        // Who reads them may want no two that overlap.
        all.sort_unstable();
        let mut apart: Vec<(u16, u16)> = Vec::new();
        for (first, last) in all {
            match apart.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => apart.push((first, last)),
            }
        }
        Ok(Self(apart))
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |(first, last): &(u16, u16)| {
            if first == last { first.to_string() } else { format!("{first}-{last}") }
        };
        f.write_str(&self.0.iter().map(part).collect::<Vec<_>>().join(","))
    }
}

macro_rules! as_text {
    ($($type:ty)+) => {$(
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}

as_text! { Destination Ports }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_as_they_are_written() {
        for text in ["public", "private:5432", "203.0.113.0/24:443,8000-8999", "0.0.0.0/0", "192.0.2.7:53"] {
            assert_eq!(text.parse::<EgressRule>().expect("good").to_string(), text);
        }
        assert_eq!("public:443, 80,440-443,444".parse::<EgressRule>().expect("good").to_string(), "public:80,440-444");
        for bad in
            ["", "everywhere", "203.0.113.7/24", "203.0.113.0/33", "public:", "public:0", "public:9-8", "::1/128"]
        {
            let error = bad.parse::<EgressRule>().expect_err(bad).to_string();
            assert!(error.contains("use public, private") || error.contains("write 443"), "{bad}: {error}");
        }
    }

    #[test]
    fn a_policy_has_an_end() {
        let rule: EgressRule = "public:443".parse().expect("good");
        let policy = |count| Egress { default: Verdict::Deny, rules: vec![rule.clone(); count] };
        assert!(policy(100).check().is_ok() && policy(101).check().is_err());
        let json = serde_json::to_string(&policy(1)).expect("JSON");
        assert_eq!(json, r#"{"default":"deny","rules":[{"to":"public","ports":"443"}]}"#);
        assert_eq!(serde_json::from_str::<Egress>(&json).expect("good"), policy(1));
    }
}
