//! Whatever a client sends, the instance that it is passed to reads of it what the router did. The instance's reader here is one that forgives
//! nothing and shares no line with the router's.

use std::net::{IpAddr, Ipv4Addr};

use http::header::{HOST, HeaderValue};

use super::head::{self, Begin};
use crate::headers::Hop;
use crate::proxy::request_head;
use crate::response::{Body, HeadReader};
use crate::strict;

/// Where the body of a request ends.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Nowhere,
    After(u64),
    Chunked,
}

/// What a head says.
#[derive(Debug, PartialEq, Eq)]
struct Meaning {
    method: String,
    target: String,
    host: Vec<u8>,
    end: End,
}

/// Reads exactly one head.
fn meaning(bytes: &[u8]) -> Result<Meaning, &'static str> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").ok_or("it does not end")?;
    if end + 4 != bytes.len() {
        return Err("something follows it");
    }
    let lines: Vec<&[u8]> = split(&bytes[..end]);
    let (first, rest) = lines.split_first().ok_or("it is empty")?;
    let words: Vec<&[u8]> = first.split(|byte| *byte == b' ').collect();
    let [method, target, b"HTTP/1.1"] = words[..] else { return Err("its first line is not one of three words") };
    if !is_token(method) || target.is_empty() || !target.iter().all(|byte| *byte > b' ' && *byte != 0x7f) {
        return Err("its first line has what no line may have");
    }
    let (mut hosts, mut lengths, mut encodings) = (Vec::new(), Vec::new(), Vec::new());
    for line in rest {
        let colon = line.iter().position(|byte| *byte == b':').ok_or("a line has no colon")?;
        let (name, value) = (&line[..colon], line[colon + 1..].strip_prefix(b" ").ok_or("a value stands close")?);
        if !is_token(name) || value != value.trim_ascii() || value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0))
        {
            return Err("a header has what none may have");
        }
        let list = match name.to_ascii_lowercase().as_slice() {
            b"host" => &mut hosts,
            b"content-length" => &mut lengths,
            b"transfer-encoding" => &mut encodings,
            _ => continue,
        };
        list.push(value);
    }
    let [host] = hosts[..] else { return Err("it has not one host") };
    let end = match (&lengths[..], &encodings[..]) {
        ([], []) => End::Nowhere,
        ([length], []) => {
            let digits = std::str::from_utf8(length).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            End::After(digits.and_then(|text| text.parse().ok()).ok_or("its length is no number")?)
        }
        ([], [b"chunked"]) => End::Chunked,
        _ => return Err("it ends in two ways"),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Meaning { method: text(method), target: text(target), host: host.to_vec(), end })
}

fn split(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    while let Some(at) = bytes.windows(2).position(|two| two == b"\r\n") {
        lines.push(&bytes[..at]);
        bytes = &bytes[at + 2..];
    }
    lines.push(bytes);
    lines
}

fn is_token(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// Panics if an instance would read another request of these bytes than the router does. True if there is a request that an instance gets.
pub(crate) fn check(bytes: &[u8]) -> bool {
    let read = |bytes: &[u8]| head::read(&mut HeadReader::default(), bytes);
    let text = || String::from_utf8_lossy(bytes);
    let Ok(Begin::Request(request, length)) = read(bytes) else { return false };
    for early in [length / 2, length.saturating_sub(2), length - 1] {
        let begin = read(&bytes[..early]);
        assert!(!matches!(begin, Ok(Begin::Request(..))), "{early} bytes are enough of {:?}", text());
    }
    let Ok(clear) = strict::check(&request) else { return false };
    let (parts, ()) = request.into_parts();
    let end = match clear.body {
        Body::Length(length) => End::After(length),
        Body::Chunked(_) => End::Chunked,
        _ if parts.headers.contains_key("content-length") => End::After(0),
        _ => End::Nowhere,
    };
    let hop = Hop::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 80, None);
    let id = || HeaderValue::from_static("made-up");
    let (_, sent) = request_head((&parts, None), matches!(clear.body, Body::Chunked(_)), &hop, 1, id);
    let target = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let ours = Meaning {
        method: parts.method.to_string(),
        target: String::from_utf8_lossy(target.as_bytes()).into_owned(),
        host: parts.headers[HOST].as_bytes().to_vec(),
        end,
    };
    let theirs = meaning(&sent);
    assert_eq!(theirs.as_ref(), Ok(&ours), "{:?} became {:?}", text(), String::from_utf8_lossy(&sent));
    // Where the message is beyond doubt, nothing else was made of it.
    if let Ok(plain) = meaning(&bytes[..length]) {
        let is_absolute = plain.target.contains("://");
        assert!(is_absolute || plain == ours, "{:?} was read as {ours:?}", text());
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Dice;

    fn one<'a>(dice: &mut Dice, of: &[&'a str]) -> &'a str {
        of[dice.below(of.len())]
    }

    /// A request that may be good, and from time to time is nearly so.
    fn request(dice: &mut Dice) -> Vec<u8> {
        let mut text = String::new();
        text += one(dice, &["", "", "", "\r\n"]);
        text += one(dice, &["GET", "POST", "PURGE", "OPTIONS", "get", "CONNECT", "G@T"]);
        text += one(dice, &[" ", " ", " ", " ", "  ", "\t"]);
        text += one(
            dice,
            &["/", "/a?b=c", "/%00", "*", "http://a.test/x", "http://b.test/", "a.test:80", "/caf\u{e9}", "/a#b"],
        );
        text += one(dice, &[" HTTP/1.1", " HTTP/1.1", " HTTP/1.1", " HTTP/1.0", " HTTP/2.0", ""]);
        text += one(dice, &["\r\n", "\r\n", "\r\n", "\n"]);
        let lines = [
            "Content-Length: 5",
            "Content-Length: 0",
            "Content-Length: 5, 5",
            "content-length:5 ",
            "Content-Length: +5",
            "Content_Length: 7",
            "Content-Length: 99999999999999999999",
            "Transfer-Encoding: chunked",
            "Transfer-Encoding: Chunked ",
            "Transfer-Encoding: x, chunked",
            "Transfer_Encoding: chunked",
            "Host: b.test",
            "Connection: close, Host, Content-Length, Transfer-Encoding",
            "Connection: upgrade",
            "Upgrade: websocket",
            "Upgrade: h2c",
            "Expect: 100-continue",
            "TE: trailers",
            "Trailer: Content-Length",
            "X-Own: caf\u{e9}",
            "X-Empty:",
            "X-Forwarded-For: 1.1.1.1",
            "X-Request-Id: 0123456789-0123456789",
            "bad line",
            "X-Bad : y",
            " folded",
        ];
        let own = dice.below(4);
        for number in 0..4 {
            if number == own {
                text += one(dice, &["Host: a.test", "host:a.test", "Host: a.test:80"]);
            } else if dice.below(2) == 0 {
                text += one(dice, &lines);
            } else {
                continue;
            }
            text += one(dice, &["\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n"]);
        }
        text += one(dice, &["\r\n", "\r\n", "\r\n", "\n", ""]);
        text += one(dice, &["hello", "5\r\nhello\r\n0\r\n\r\n", "GET /hidden HTTP/1.1\r\nHost: a.test\r\n\r\n", ""]);
        let mut bytes = text.into_bytes();
        while dice.below(3) == 0 && !bytes.is_empty() {
            let at = dice.below(bytes.len());
            match dice.below(3) {
                0 => drop(bytes.remove(at)),
                1 => bytes.insert(at, b"\r\n:; \0\x7f,a0\t\xff"[dice.below(12)]),
                _ => bytes.swap(at, dice.below(at + 1)),
            }
        }
        bytes
    }

    #[test]
    fn an_instance_reads_what_we_read_of_every_request() {
        let mut dice = Dice::new(&model::clock::SystemRandom);
        let passed = (0..100_000).filter(|_| check(&request(&mut dice))).count();
        assert!(passed > 5_000, "{passed} are good");
    }
}
