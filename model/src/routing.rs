//! How the router treats the requests to an app: the policy, as its owner words it.
//!
//! Every setting is a name and a text (`idle_timeout` = `55s`), the same in `app.json`, in the API, on the command line, where it is
//! kept, and in what routers are told: [`RoutePolicy::set`] is the one place that reads them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::app_protocol::AppProtocol;
use crate::clock::Timestamp;
use crate::domain_ask::DomainAsk;
use crate::name::Hostname;
use crate::own_page::OwnPage;
use crate::rollout::{duration, number, words};

/// A policy as it is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting, and none depends on another")]
pub struct RoutePolicy {
    /// Which instance gets a request.
    pub balance: Balance,
    /// How long it takes until an instance that just came gets as much as the others.
    pub slow_start: Duration,
    /// A client comes back to the instance that answered it first, by a cookie.
    pub affinity: bool,
    /// Requests with this go to the newer of two releases.
    pub canary_match: Option<Match>,
    /// Most requests that an instance has at once, tunnels included.
    pub max_concurrency: Option<u32>,
    /// Most requests that wait while every instance has as many as it may.
    pub queue: u32,
    /// How long one of them waits.
    pub queue_timeout: Duration,
    /// An instance that failed so often in a row is left alone for a while.
    pub ejection: Option<u32>,
    /// Per cent of the requests that may be sent to another instance when one took them and gave no answer.
    pub retries: Option<u8>,
    /// From the whole request having been sent to the first byte of the answer.
    pub first_byte_timeout: Duration,
    /// Without a byte in either direction.
    pub idle_timeout: Duration,
    /// Most bytes of a request's body.
    pub max_body: Option<u64>,
    /// Requests that did not come over TLS are sent there.
    pub https: bool,
    /// How long browsers are to come over TLS only.
    pub hsts: Option<Duration>,
    /// Requests for any other host are sent to this one.
    pub canonical_host: Option<Hostname>,
    /// Who may ask; everybody if empty.
    pub allow: Vec<IpNet>,
    /// Who may not.
    pub deny: Vec<IpNet>,
    /// Who may ask, by name and password; everybody if empty.
    pub basic_auth: Vec<Credential>,
    /// How often one client may ask.
    pub rate_limit: Option<Rate>,
    /// Whose pages may ask from a browser: origins, or `*`.
    pub cors: Vec<String>,
    /// Answers are compressed for clients that take that.
    pub compress: bool,
    /// Answers that allow it are kept for others who ask for the same.
    pub cache: bool,
    /// Most bytes of all that are kept.
    pub cache_size: u64,
    /// Most bytes of one.
    pub cache_max_answer: u64,
    /// What was kept before that is forgotten.
    pub cache_purged: Option<Timestamp>,
    /// What visitors see when there is no answer of the app.
    pub error_page: Option<OwnPage>,
    /// What they see while it is in maintenance.
    pub maintenance_page: Option<OwnPage>,
    /// Who says whether a host name that nobody knows is this app's.
    pub domain_ask: Option<DomainAsk>,
    /// What its instances speak.
    pub app_protocol: AppProtocol,
}

/// Which instance gets a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// The less loaded of two taken at random.
    TwoChoices,
    /// The least loaded.
    LeastConnections,
    /// One after the other.
    RoundRobin,
}

/// What tells a request from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// A header with this value.
    Header(String, String),
    /// A cookie with this value.
    Cookie(String, String),
}

/// A user of basic authentication.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// What one says who one is.
    pub user: String,
    /// Of the password: `$argon2id$…`, as PHC strings are.
    pub hash: String,
}

/// So often in so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// So often.
    pub count: u32,
    /// In so long.
    pub per: Duration,
}

/// Most bytes that a limit of a body may be.
const MOST_BYTES: u64 = 1 << 40;
/// Most entries of a list.
const MOST_ENTRIES: usize = 200;
/// How a hash of a password begins.
const HASH: &str = "$argon2id$";

impl Default for RoutePolicy {
    fn default() -> Self {
        Self {
            balance: Balance::TwoChoices,
            slow_start: Duration::from_secs(10),
            affinity: false,
            canary_match: None,
            max_concurrency: None,
            queue: 100,
            queue_timeout: Duration::from_secs(30),
            ejection: Some(5),
            retries: Some(20),
            first_byte_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(55),
            max_body: None,
            https: false,
            hsts: None,
            canonical_host: None,
            allow: Vec::new(),
            deny: Vec::new(),
            basic_auth: Vec::new(),
            rate_limit: None,
            cors: Vec::new(),
            compress: false,
            cache: false,
            cache_size: 64 << 20,
            cache_max_answer: 8 << 20,
            cache_purged: None,
            error_page: None,
            maintenance_page: None,
            domain_ask: None,
            app_protocol: AppProtocol::Http1,
        }
    }
}

impl RoutePolicy {
    /// The names of all settings.
    pub const SETTINGS: [&'static str; 29] = [
        "balance",
        "slow_start",
        "affinity",
        "canary_match",
        "max_concurrency",
        "queue",
        "queue_timeout",
        "ejection",
        "retries",
        "first_byte_timeout",
        "idle_timeout",
        "max_body",
        "https",
        "hsts",
        "canonical_host",
        "allow",
        "deny",
        "basic_auth",
        "rate_limit",
        "cors",
        "compress",
        "cache",
        "cache_size",
        "cache_max_answer",
        "cache_purged",
        "error_page",
        "maintenance_page",
        "domain_ask",
        "app_protocol",
    ];

    /// Sets what has this name; an error says what the text must be.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
        let text = text.trim();
        let second = Duration::from_secs(1);
        match name {
            "balance" => self.balance = text.parse()?,
            "slow_start" => self.slow_start = duration(text, Duration::ZERO)?,
            "affinity" => self.affinity = on_or_off(text)?,
            "canary_match" => self.canary_match = unless_off(text, str::parse)?,
            "max_concurrency" => self.max_concurrency = unless_off(text, |text| count(text, 1))?,
            "queue" => self.queue = count(text, 0)?,
            "queue_timeout" => self.queue_timeout = duration(text, second)?,
            "ejection" => self.ejection = unless_off(text, |text| count(text, 1))?,
            "retries" => self.retries = unless_off(text, percent)?,
            "first_byte_timeout" => self.first_byte_timeout = duration(text, second)?,
            "idle_timeout" => self.idle_timeout = duration(text, second)?,
            "max_body" => self.max_body = unless_off(text, bytes)?,
            "https" => self.https = on_or_off(text)?,
            "hsts" => self.hsts = unless_off(text, days)?,
            "canonical_host" => self.canonical_host = unless_off(text, host)?,
            "allow" => self.allow = list(text, network)?,
            "deny" => self.deny = list(text, network)?,
            "basic_auth" => self.basic_auth = credentials(text)?,
            "rate_limit" => self.rate_limit = unless_off(text, str::parse)?,
            "cors" => self.cors = list(text, origin)?,
            "compress" => self.compress = on_or_off(text)?,
            "cache" => self.cache = on_or_off(text)?,
            "cache_size" => self.cache_size = bytes(text)?,
            "cache_max_answer" => self.cache_max_answer = bytes(text)?,
            "cache_purged" => self.cache_purged = unless_off(text, moment)?,
            "error_page" => self.error_page = unless_off(text, str::parse)?,
            "maintenance_page" => self.maintenance_page = unless_off(text, str::parse)?,
            "domain_ask" => self.domain_ask = unless_off(text, str::parse)?,
            "app_protocol" => self.app_protocol = text.parse()?,
            _ => return Err(format!("one of {}", Self::SETTINGS.join(", "))),
        }
        Ok(())
    }

    /// What has this name, as [`RoutePolicy::set`] reads it.
    pub fn get(&self, name: &str) -> String {
        let flag = |on: bool| if on { "on" } else { "off" }.to_owned();
        match name {
            "balance" => self.balance.to_string(),
            "slow_start" => words(self.slow_start),
            "affinity" => flag(self.affinity),
            "canary_match" => or_off(self.canary_match.as_ref()),
            "max_concurrency" => or_off(self.max_concurrency.as_ref()),
            "queue" => self.queue.to_string(),
            "queue_timeout" => words(self.queue_timeout),
            "ejection" => or_off(self.ejection.as_ref()),
            "retries" => or_off(self.retries.map(|share| format!("{share}%")).as_ref()),
            "first_byte_timeout" => words(self.first_byte_timeout),
            "idle_timeout" => words(self.idle_timeout),
            "max_body" => or_off(self.max_body.map(bytes_words).as_ref()),
            "https" => flag(self.https),
            "hsts" => or_off(self.hsts.map(words).as_ref()),
            "canonical_host" => or_off(self.canonical_host.as_ref()),
            "allow" => joined(&self.allow),
            "deny" => joined(&self.deny),
            "basic_auth" => joined(&self.basic_auth),
            "rate_limit" => or_off(self.rate_limit.as_ref()),
            "cors" => joined(&self.cors),
            "compress" => flag(self.compress),
            "cache" => flag(self.cache),
            "cache_size" => bytes_words(self.cache_size),
            "cache_max_answer" => bytes_words(self.cache_max_answer),
            "cache_purged" => or_off(self.cache_purged.map(Timestamp::to_rfc3339_millis).as_ref()),
            "error_page" => or_off(self.error_page.as_ref()),
            "maintenance_page" => or_off(self.maintenance_page.as_ref()),
            "domain_ask" => or_off(self.domain_ask.as_ref()),
            "app_protocol" => self.app_protocol.to_string(),
            _ => String::new(),
        }
    }

    /// What has this name, as anybody may see it: without what follows from a password, and no more than fits a line.
    pub fn shown(&self, name: &str) -> String {
        match name {
            "error_page" => or_off(self.error_page.as_ref().map(OwnPage::words).as_ref()),
            "maintenance_page" => or_off(self.maintenance_page.as_ref().map(OwnPage::words).as_ref()),
            "basic_auth" => joined(&self.basic_auth.iter().map(|it| it.user.as_str()).collect::<Vec<_>>()),
            _ => self.get(name),
        }
    }

    /// The policy with these settings; what cannot be read stays as it is by default.
    pub fn from_texts(texts: &BTreeMap<String, String>) -> Self {
        let mut policy = Self::default();
        for (name, text) in texts {
            // Whoever wrote it down checked it; what an older or newer program means by it is not ours to know.
            let _ = policy.set(name, text);
        }
        policy
    }

    /// Refuses settings that cannot be together.
    pub fn check(&self) -> Result<(), String> {
        if self.canonical_host.as_ref().is_some_and(|host| host.as_str().starts_with('*')) {
            return Err("canonical_host is one host, not all below another one".to_owned());
        }
        Ok(())
    }

    /// Whether this client may ask.
    pub fn admits(&self, client: IpAddr) -> bool {
        let is_in = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&client));
        !is_in(&self.deny) && (self.allow.is_empty() || is_in(&self.allow))
    }
}

/// As the texts of whatever is not as it is by default. What a newer program knows more is passed over; a text that says nothing is an error.
impl Serialize for RoutePolicy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let default = Self::default();
        let pair = |name: &&'static str| {
            let text = self.get(name);
            (text != default.get(name)).then_some((*name, text))
        };
        Self::SETTINGS.iter().filter_map(pair).collect::<BTreeMap<_, _>>().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RoutePolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut policy = Self::default();
        for (name, text) in BTreeMap::<String, String>::deserialize(deserializer)? {
            if Self::SETTINGS.contains(&name.as_str()) {
                policy.set(&name, &text).map_err(|rule| D::Error::custom(format!("{name} {rule}")))?;
            }
        }
        Ok(policy)
    }
}

impl FromStr for Balance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "two-choices" => Ok(Self::TwoChoices),
            "least-connections" => Ok(Self::LeastConnections),
            "round-robin" => Ok(Self::RoundRobin),
            _ => Err(format!("must be two-choices, least-connections or round-robin, not {text:?}")),
        }
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TwoChoices => "two-choices",
            Self::LeastConnections => "least-connections",
            Self::RoundRobin => "round-robin",
        })
    }
}

impl FromStr for Match {
    type Err = String;

    /// `header:X-Canary=yes`, `cookie:canary=yes`
    fn from_str(text: &str) -> Result<Self, String> {
        let must = || format!("must be header:NAME=VALUE, cookie:NAME=VALUE or off, not {text:?}");
        let (kind, pair) = text.split_once(':').ok_or_else(must)?;
        let (name, value) = pair.split_once('=').ok_or_else(must)?;
        let is_value = value.bytes().all(|byte| matches!(byte, b'!'..=b'~') && !b",;\"\\".contains(&byte));
        if !is_token(name) || value.is_empty() || value.len() > 200 || !is_value {
            return Err(must());
        }
        match kind {
            "header" => Ok(Self::Header(name.to_ascii_lowercase(), value.to_owned())),
            "cookie" => Ok(Self::Cookie(name.to_owned(), value.to_owned())),
            _ => Err(must()),
        }
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name, value) => write!(f, "header:{name}={value}"),
            Self::Cookie(name, value) => write!(f, "cookie:{name}={value}"),
        }
    }
}

impl FromStr for Rate {
    type Err = String;

    /// `100/1m`
    fn from_str(text: &str) -> Result<Self, String> {
        let must = || format!("must be a number of requests and a time, like 100/1m, or off, not {text:?}");
        let (times, per) = text.split_once('/').ok_or_else(must)?;
        let times = number(times, 1, 1_000_000).map_err(|_| must())?;
        let per = duration(per, Duration::from_secs(1)).map_err(|_| must())?;
        Ok(Self { count: u32::try_from(times).map_err(|_| must())?, per })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, words(self.per))
    }
}

impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.user, self.hash)
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.user)
    }
}

impl Credential {
    /// Whether that is a hash and no password.
    pub fn is_hash(text: &str) -> bool {
        text.starts_with(HASH)
    }

    /// Users and what stands after their names, as `basic_auth` has them: `ada:secret,bob:other`. A comma in a password is one if no colon
    /// comes after it.
    pub fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
        let must = || "must be users with passwords, like ada:secret,bob:other, or off".to_owned();
        let mut pairs: Vec<(String, String)> = Vec::new();
        for part in text.split(',') {
            match (part.split_once(':'), pairs.last_mut()) {
                (Some((user, rest)), _) => pairs.push((user.trim().to_owned(), rest.to_owned())),
                (None, Some((_, before))) => {
                    before.push(',');
                    before.push_str(part);
                }
                (None, None) => return Err(must()),
            }
        }
        let is_good = |(user, rest): &(String, String)| {
            let is_name = user.bytes().all(|byte| matches!(byte, b'!'..=b'~'));
            is_name && !user.is_empty() && user.len() <= 100 && !rest.is_empty() && rest.len() <= 300
        };
        if pairs.iter().all(is_good) && pairs.len() <= MOST_ENTRIES { Ok(pairs) } else { Err(must()) }
    }
}

fn credentials(text: &str) -> Result<Vec<Credential>, String> {
    if is_none(text) {
        return Ok(Vec::new());
    }
    let credential = |(user, hash): (String, String)| {
        // The platform hashes what it is given; here is only what anybody may read who reads the app's code.
        let is_hash = Credential::is_hash(&hash) && hash.matches('$').count() == 5;
        if is_hash { Ok(Credential { user, hash }) } else { Err(format!("must have {HASH}… for a password")) }
    };
    Credential::pairs(text)?.into_iter().map(credential).collect()
}

fn is_none(text: &str) -> bool {
    text.is_empty() || text == "off"
}

fn unless_off<T>(text: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Result<Option<T>, String> {
    if text == "off" {
        return Ok(None);
    }
    read(text).map(Some).map_err(|rule| if rule.contains(" off") { rule } else { format!("{rule}, or off") })
}

fn or_off(value: Option<&impl fmt::Display>) -> String {
    value.map_or_else(|| "off".to_owned(), ToString::to_string)
}

fn list<T>(text: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    if is_none(text) {
        return Ok(Vec::new());
    }
    let entries: Vec<T> = text.split(',').map(|part| read(part.trim())).collect::<Result<_, _>>()?;
    if entries.len() > MOST_ENTRIES {
        return Err(format!("must have at most {MOST_ENTRIES} entries, not {}", entries.len()));
    }
    Ok(entries)
}

fn joined(list: &[impl fmt::Display]) -> String {
    if list.is_empty() { "off".to_owned() } else { list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",") }
}

fn on_or_off(text: &str) -> Result<bool, String> {
    match text {
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        _ => Err(format!("must be on or off, not {text:?}")),
    }
}

fn count(text: &str, least: u64) -> Result<u32, String> {
    number(text, least, 100_000).map(|number| u32::try_from(number).unwrap_or(u32::MAX))
}

/// `20%`
fn percent(text: &str) -> Result<u8, String> {
    let share = text.strip_suffix('%').unwrap_or(text).parse().ok().filter(|share| (1..=100).contains(share));
    share.ok_or_else(|| format!("must be a share from 1% to 100%, not {text:?}"))
}

fn host(text: &str) -> Result<Hostname, String> {
    text.parse().map_err(|_| format!("must be a host name like www.example.com, not {text:?}"))
}

fn network(text: &str) -> Result<IpNet, String> {
    let must = || format!("must be addresses and networks like 203.0.113.7,2001:db8::/32, not {text:?}");
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    let network: IpNet = text.parse().map_err(|_| must())?;
    if network.trunc() == network { Ok(network) } else { Err(must()) }
}

/// `https://app.example.com`, as browsers write it, or `*`.
fn origin(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let is_host = |host: &str| {
        let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.:[]".contains(&byte);
        !host.is_empty() && host.len() <= 260 && host.bytes().all(is_part)
    };
    if text == "*" || rest.is_some_and(is_host) {
        return Ok(text.to_owned());
    }
    Err(format!("must be origins like https://app.example.com, or *, not {text:?}"))
}

/// Days as well as whatever a duration can be; at most two years.
fn days(text: &str) -> Result<Duration, String> {
    let most = 730;
    match text.strip_suffix('d').and_then(|days| days.parse::<u64>().ok()) {
        Some(days) if days <= most => Ok(Duration::from_secs(days * 86_400)),
        Some(_) => Err(format!("must be at most {most}d")),
        None => duration(text, Duration::ZERO),
    }
}

/// `10MiB`, `512KiB`, `1GiB`, or bytes.
fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match text.strip_prefix(digits).unwrap_or_default() {
        "" => Some(0),
        "KiB" => Some(10),
        "MiB" => Some(20),
        "GiB" => Some(30),
        _ => None,
    };
    let bytes = digits.parse::<u64>().ok().zip(shift).and_then(|(number, shift)| number.checked_mul(1 << shift));
    let bytes = bytes.filter(|bytes| *bytes <= MOST_BYTES);
    bytes.ok_or_else(|| format!("must be a size like 512KiB, 10MiB or 1GiB, not {text:?}"))
}

/// `2026-11-23T06:22:00.000Z`
fn moment(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).ok_or_else(|| format!("must be a moment like 2026-11-23T06:22:00Z, not {text:?}"))
}

fn bytes_words(bytes: u64) -> String {
    let unit = [(30, "GiB"), (20, "MiB"), (10, "KiB")]
        .into_iter()
        .find(|(shift, _)| bytes != 0 && bytes.trailing_zeros() >= *shift);
    unit.map_or_else(|| bytes.to_string(), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}

fn is_token(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.!#$%&'*+^`|~".contains(&byte);
    !name.is_empty() && name.len() <= 100 && name.bytes().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASHED: &str =
        "ada:$argon2id$v=19$m=12288,t=3,p=1$c2FsdA$aGFzaA,bob:$argon2id$v=19$m=12288,t=3,p=1$c2FsdA$aGFzaA";

    #[test]
    fn every_setting_is_written_as_it_is_read() {
        let mut policy = RoutePolicy::default();
        for (name, text) in [
            ("balance", "round-robin"),
            ("slow_start", "0s"),
            ("affinity", "on"),
            ("canary_match", "header:x-canary=yes"),
            ("max_concurrency", "50"),
            ("queue", "7"),
            ("queue_timeout", "5s"),
            ("ejection", "off"),
            ("retries", "5%"),
            ("first_byte_timeout", "2m"),
            ("idle_timeout", "1h"),
            ("max_body", "10MiB"),
            ("https", "on"),
            ("hsts", "365d"),
            ("canonical_host", "www.example.com"),
            ("allow", "203.0.113.7/32,2001:db8::/32"),
            ("deny", "10.0.0.0/8"),
            ("basic_auth", HASHED),
            ("rate_limit", "100/1m"),
            ("cors", "https://a.example,http://localhost:3000"),
            ("compress", "on"),
            ("cache", "on"),
            ("cache_size", "32MiB"),
            ("cache_max_answer", "512KiB"),
            ("cache_purged", "2026-11-23T06:22:00.123Z"),
            ("error_page", "<h1>Sorry, off for a while</h1>"),
            ("maintenance_page", "//www.example.com/a?b=c"),
            ("domain_ask", "/internal/domain-allowed"),
            ("app_protocol", "h2c"),
        ] {
            policy.set(name, text).expect(name);
            assert_eq!(policy.get(name), text, "{name}");
        }
        assert!(RoutePolicy::SETTINGS.iter().all(|name| policy.get(name) != RoutePolicy::default().get(name)));
        assert_eq!(policy.shown("error_page"), "HTML of 31 bytes");
        assert_eq!(policy.shown("basic_auth"), "ada,bob", "nobody is shown what follows from a password");
        let json = serde_json::to_string(&policy).expect("JSON");
        assert_eq!(serde_json::from_str::<RoutePolicy>(&json).expect("readable"), policy);
        assert_eq!(serde_json::to_string(&RoutePolicy::default()).expect("JSON"), "{}");
        assert!(!format!("{policy:?}").contains("argon2"));
    }

    #[test]
    fn what_a_newer_program_says_is_passed_over_and_what_says_nothing_is_refused() {
        let read = serde_json::from_str::<RoutePolicy>;
        let newer = read(r#"{"teleport":"on","queue":"3"}"#).expect("readable");
        assert_eq!(newer, RoutePolicy { queue: 3, ..RoutePolicy::default() });
        let wrong = read(r#"{"queue":"many"}"#).expect_err("nothing").to_string();
        assert!(wrong.contains("queue must be a whole number"), "{wrong}");
    }

    #[test]
    fn what_cannot_be_is_refused_by_rule() {
        for (name, text) in [
            ("balance", "random"),
            ("affinity", "maybe"),
            ("canary_match", "x-canary"),
            ("canary_match", "header:x canary=1"),
            ("canary_match", "cookie:a=b;c"),
            ("max_concurrency", "0"),
            ("queue", "-1"),
            ("retries", "0%"),
            ("retries", "101"),
            ("first_byte_timeout", "0s"),
            ("max_body", "10MB"),
            ("max_body", "9999999GiB"),
            ("hsts", "731d"),
            ("canonical_host", "not a host"),
            ("allow", "10.0.0.1/8"),
            ("deny", "example.com"),
            ("basic_auth", "ada:secret"),
            ("basic_auth", "ada"),
            ("rate_limit", "100"),
            ("rate_limit", "0/1m"),
            ("cors", "app.example.com"),
            ("cors", "https://app.example.com/path"),
            ("cache_size", "much"),
            ("cache_purged", "yesterday"),
            ("error_page", "sorry.html"),
            ("error_page", "https://"),
            ("maintenance_page", "javascript://x"),
            ("maintenance_page", "https://a.example/\"><script>"),
            ("domain_ask", "domain-allowed"),
            ("domain_ask", "//example.com/allowed"),
            ("domain_ask", "https:///allowed"),
            ("domain_ask", "/allowed?x=y"),
            ("domain_ask", "ftp://example.com/"),
            ("app_protocol", "h2"),
        ] {
            let rule = RoutePolicy::default().set(name, text).expect_err(text);
            assert!(rule.starts_with("must "), "{name} {text}: {rule}");
        }
        let mut policy = RoutePolicy::default();
        assert!(policy.set("speed", "1").expect_err("unknown").contains("rate_limit"));
        policy.set("canonical_host", "*.example.com").expect("a host name");
        assert!(policy.check().is_err());
    }

    #[test]
    fn who_is_denied_is_not_admitted_by_being_allowed() {
        let mut policy = RoutePolicy::default();
        let admits = |policy: &RoutePolicy, text: &str| policy.admits(text.parse().expect("an address"));
        assert!(admits(&policy, "10.1.2.3"));
        policy.set("deny", "10.1.0.0/16").expect("networks");
        assert!(!admits(&policy, "10.1.2.3") && admits(&policy, "10.2.2.3"));
        policy.set("allow", "10.0.0.0/8,::1").expect("networks");
        assert!(!admits(&policy, "10.1.2.3") && admits(&policy, "10.2.2.3"));
        assert!(admits(&policy, "::1") && !admits(&policy, "192.0.2.1"));
    }

    #[test]
    fn a_comma_in_a_password_is_one_if_no_colon_comes_after_it() {
        let pair = |user: &str, rest: &str| (user.to_owned(), rest.to_owned());
        let pairs = Credential::pairs("ada:a,b,bob:c:d").expect("pairs");
        assert_eq!(pairs, [pair("ada", "a,b"), pair("bob", "c:d")]);
        assert!(Credential::pairs("ada").is_err() && Credential::pairs("ada:").is_err());
    }
}
