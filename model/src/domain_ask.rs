//! Whom an app wants to be asked whether a host name that nobody knows is one of its customers'.

use std::fmt;
use std::str::FromStr;

/// Longest address or path.
const LONGEST: usize = 2000;

/// Where the question goes: `?domain=<host>` is added to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DomainAsk {
    /// To this path of the app itself.
    Path(String),
    /// To this address.
    Url(String),
}

impl FromStr for DomainAsk {
    type Err = String;

    /// `/internal/domain-allowed`, `https://www.example.com/domain-allowed`
    fn from_str(text: &str) -> Result<Self, String> {
        let is_part = |byte: u8| matches!(byte, b'!'..=b'~') && !b"\"'<>\\^`{|}#?".contains(&byte);
        let is_sound = text.len() <= LONGEST && text.bytes().all(is_part);
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        match rest {
            _ if !is_sound => {}
            Some(rest) if !rest.is_empty() && !rest.starts_with(['/', ':', '@']) => {
                return Ok(Self::Url(text.to_owned()));
            }
            None if text.starts_with('/') && !text.starts_with("//") => return Ok(Self::Path(text.to_owned())),
            _ => {}
        }
        Err(format!(
            "must be a path of the app like /domain-allowed, an address like https://www.example.com/domain-allowed, or off, \
             not {text:?}"
        ))
    }
}

impl fmt::Display for DomainAsk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Path(text) | Self::Url(text) => text,
        })
    }
}
