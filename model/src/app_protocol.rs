//! What the instances of an app speak.

use std::fmt;
use std::str::FromStr;

/// By the names that TLS has for it (ALPN).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppProtocol {
    /// `http/1.1`
    Http1,
    /// `h2c`: HTTP/2 without TLS, from the first byte on (RFC 9113 section 3.3).
    H2c,
}

impl FromStr for AppProtocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "http/1.1" => Ok(Self::Http1),
            "h2c" => Ok(Self::H2c),
            _ => Err(format!("must be http/1.1 or h2c, not {text:?}")),
        }
    }
}

impl fmt::Display for AppProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http1 => "http/1.1",
            Self::H2c => "h2c",
        })
    }
}
