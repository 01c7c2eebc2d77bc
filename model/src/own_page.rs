//! A page of an app's own, which its visitors see in the place of one of the router's.

use std::fmt;
use std::str::FromStr;

/// Longest page that is given as it is, in bytes.
const LONGEST_PAGE: usize = 64 << 10;
/// Longest address of one.
const LONGEST_URL: usize = 2000;

/// What visitors see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnPage {
    /// What is at this address, in a frame.
    At(String),
    /// This HTML.
    Html(String),
}

impl OwnPage {
    /// In a few words.
    pub fn words(&self) -> String {
        match self {
            Self::At(url) => url.clone(),
            Self::Html(html) => format!("HTML of {} bytes", html.len()),
        }
    }
}

impl FromStr for OwnPage {
    type Err = String;

    /// `https://www.example.com/sorry.html`, `//www.example.com/sorry.html`, `<h1>Sorry</h1>`
    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with('<') && text.len() <= LONGEST_PAGE {
            return Ok(Self::Html(text.to_owned()));
        }
        let scheme = ["https://", "http://", "//"].into_iter().find_map(|scheme| text.strip_prefix(scheme));
        let is_part = |byte: u8| matches!(byte, b'!'..=b'~') && !b"\"'<>\\^`{|}".contains(&byte);
        let is_rest = |rest: &str| !rest.is_empty() && !rest.starts_with('/') && rest.bytes().all(is_part);
        if text.len() <= LONGEST_URL && scheme.is_some_and(is_rest) {
            return Ok(Self::At(text.to_owned()));
        }
        Err(format!(
            "must be the address of a page like https://www.example.com/sorry.html, or HTML of at most {} KiB that begins \
             with <, or off",
            LONGEST_PAGE >> 10
        ))
    }
}

impl fmt::Display for OwnPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::At(text) | Self::Html(text) => text,
        })
    }
}
