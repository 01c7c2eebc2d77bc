//! What a setting can be: each kind of value as text, and the rule that a wrong one is told.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};

/// Where the database is; empty means the platform's own file. It may hold a password, so it is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Database(pub String);

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Database(..)")
    }
}

impl FromStr for Database {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_known = text.is_empty() || text.starts_with("postgres://") || text.starts_with("postgresql://");
        // The text itself may hold a password.
        let rule =
            "a database is written like postgres://user:password@host/name, or empty for the platform's own file";
        is_known.then(|| Self(text.to_owned())).ok_or_else(|| rule.to_owned())
    }
}

/// A number of bytes: `512MiB`, `2GiB`, or a plain number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        measure(text, &[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40), ("", 1)])
            .map(Self)
            .ok_or_else(|| format!("`{text}` is not a size like 512MiB, 2GiB or a number of bytes"))
    }
}

/// A length of time: `30s`, `15m`, `1h`, `90d`, or a plain number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seconds(pub Duration);

impl FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        measure(text, &[("s", 1), ("m", 60), ("h", 3600), ("d", 86400), ("", 1)])
            .map(|seconds| Self(Duration::from_secs(seconds)))
            .ok_or_else(|| format!("`{text}` is not a time like 30s, 15m, 1h, 90d or a number of seconds"))
    }
}

/// A share: `85` or `85%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Percent(pub u8);

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.trim_end_matches('%').trim().parse::<u8>().ok().filter(|number| (1..=100).contains(number));
        number.map(Self).ok_or_else(|| format!("`{text}` is not a share like 85 or 85%, from 1 to 100"))
    }
}

fn measure(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim()))?.1;
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// Several values: an array, or one string with commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct List<T>(pub Vec<T>);

impl<T: FromStr<Err: fmt::Display>> FromStr for List<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = |part: &str| part.trim().parse().map_err(|error| format!("`{part}`: {error}"));
        text.split(',').filter(|part| !part.trim().is_empty()).map(parse).collect::<Result<_, _>>().map(Self)
    }
}

/// Ports that apps may get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TcpPorts(pub model::TcpPorts);

impl FromStr for TcpPorts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self)
    }
}

/// Where the https entrance is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TlsListen {
    /// Beside the plain one.
    Auto,
    /// Nowhere.
    Off,
    /// At these addresses.
    At(Vec<SocketAddr>),
}

impl FromStr for TlsListen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            _ => match text.parse::<List<SocketAddr>>() {
                Ok(List(addresses)) if !addresses.is_empty() => Ok(Self::At(addresses)),
                _ => Err(format!("`{text}` is neither `auto` nor `off` nor addresses like 0.0.0.0:443")),
            },
        }
    }
}

struct Text<T>(std::marker::PhantomData<T>);

impl<'de, T: FromStr<Err: fmt::Display>> Visitor<'de> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a number or a list of strings")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<T, A::Error> {
        let mut texts = Vec::new();
        while let Some(item) = items.next_element::<String>()? {
            texts.push(item);
        }
        self.visit_str(&texts.join(","))
    }
}

macro_rules! deserialize_from_text {
    ($($type:ident $(<$param:ident>)?;)+) => {$(
        impl<'de $(, $param: FromStr<Err: fmt::Display>)?> Deserialize<'de> for $type $(<$param>)? {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(Text(std::marker::PhantomData))
            }
        }
    )+};
}

deserialize_from_text! {
    Bytes;
    Database;
    Seconds;
    Percent;
    List<T>;
    TcpPorts;
    TlsListen;
}
