//! Typed client of the platform's API. Everything the commands and the console know of the platform goes through here.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::http::request::Builder as RequestBuilder;
use ureq::http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use ureq::tls::TlsConfig;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::{Agent, Body};
use url::Url;

use crate::error::{CliError, Kind, Result};

mod logins;
mod resources;
#[cfg(test)]
mod tests;
mod unix;

pub(crate) use logins::{BrowserLogin, LoginDecision};
pub(crate) use resources::*;

const ACCEPT: &str = "application/vnd.heroku+json; version=3";
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Speaks to one platform.
#[derive(Debug)]
pub(crate) struct Client {
    agent: Agent,
    base: Url,
    authorization: Option<String>,
    /// Of the second factor, beside a password.
    code: Option<String>,
    /// What it changes is to change even if the app is locked or frozen.
    insists: bool,
    unreachable: CliHint,
}

/// A path, and what is asked for behind it.
type Query<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)]);

/// What to do when nobody answers.
type CliHint = &'static str;

/// How the API says no (Heroku Platform API, "Errors").
#[derive(Debug, Deserialize)]
struct Refusal {
    #[serde(default)]
    id: String,
    message: String,
    /// What was not found.
    resource: Option<String>,
}

impl Client {
    /// A client of the platform at `base`, speaking for the owner of `token`.
    pub(crate) fn new(base: Url, token: Option<String>) -> Self {
        let mut config = config();
        if base
            .host_str()
            .is_some_and(|host| host == "localhost" || host.ends_with(".localhost") || host == "127.0.0.1")
        {
            // A company's proxy does not know the way to this machine's own loopback.
            config = config.proxy(None);
        }
        let authorization = token.map(|token| format!("Bearer {token}"));
        Self { agent: config.build().new_agent(), base, authorization, code: None, insists: false, unreachable: NOT_UP }
    }

    /// A client that has no token yet and comes to get one.
    pub(crate) fn with_password(base: Url, email: &str, password: &str) -> Self {
        let basic = base64::engine::general_purpose::STANDARD.encode(format!("{email}:{password}"));
        Self { authorization: Some(format!("Basic {basic}")), ..Self::new(base, None) }
    }

    /// The same with the code of a second factor.
    pub(crate) fn with_code(self, code: String) -> Self {
        Self { code: Some(code), ..self }
    }

    /// The same, changing what it changes even if the app is locked or frozen.
    pub(crate) fn insisting(self, insists: bool) -> Self {
        Self { insists, ..self }
    }

    /// A client of the platform on this machine, through the socket that only root may open.
    pub(crate) fn local(socket: &Path) -> Result<Self> {
        let base = Url::parse("http://localhost/")
            .map_err(|error| CliError::failed("Cannot name the platform").because(&error))?;
        let connector = unix::UnixConnector(socket.to_owned());
        let agent = Agent::with_parts(config().proxy(None).build(), connector, DefaultResolver::default());
        Ok(Self { agent, base, authorization: None, code: None, insists: false, unreachable: NOT_UP_HERE })
    }

    /// The address of the platform.
    pub(crate) fn base(&self) -> &Url {
        &self.base
    }

    /// What it speaks with.
    pub(crate) fn into_agent(self) -> Agent {
        self.agent
    }

    /// Reads one resource.
    pub(crate) fn get(&self, path: &[&str]) -> Result<Value> {
        body(self.send("GET", path, None, None)?)
    }

    /// Reads a whole list, however many pages it has.
    pub(crate) fn list(&self, path: &[&str]) -> Result<Value> {
        let mut all = Vec::new();
        let mut range: Option<HeaderValue> = None;
        loop {
            let response = self.send("GET", path, None, range.take())?;
            let next = response.headers().get("next-range").cloned();
            let partial = response.status() == StatusCode::PARTIAL_CONTENT;
            all.extend(typed::<Vec<Value>>(&body(response)?)?);
            match next {
                Some(next) if partial => range = Some(next),
                _ => return Ok(Value::Array(all)),
            }
        }
    }

    /// Reads the newest `max` of a list that is ordered by version.
    pub(crate) fn newest(&self, path: &[&str], max: u32) -> Result<Value> {
        self.newest_by("version", (path, &[]), max)
    }

    /// Reads the newest `max` of a list that is ordered by `key`: of those that a query asks for.
    pub(crate) fn newest_by(&self, key: &str, (path, query): Query<'_>, max: u32) -> Result<Value> {
        let request = self.request_with("GET", path, query);
        let request = request.header(header::RANGE, format!("{key} ..; order=desc,max={max}"));
        body(self.run(request.body(()).map_err(|error| malformed(&error))?)?)
    }

    /// Opens a stream of server-sent events, from now on or after the one with the id `last`.
    pub(crate) fn events(&self, (path, query): Query<'_>, last: Option<&str>) -> Result<impl Read + use<>> {
        let mut request = self.request_with("GET", path, query);
        if let Some(headers) = request.headers_mut() {
            headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            headers.extend(last.and_then(|id| Some((HeaderName::from_static("last-event-id"), id.parse().ok()?))));
        }
        let response = self.run(request.body(()).map_err(|error| malformed(&error))?)?;
        Ok(response.into_body().into_reader())
    }

    /// Sends a stream to an address that the API named. The address itself is the permission to write it.
    pub(crate) fn send_to(&self, address: &str, stream: &mut dyn Read) -> Result<()> {
        let request = Request::put(address).header(header::CONTENT_TYPE, "application/octet-stream");
        let request = request.body(ureq::SendBody::from_reader(stream)).map_err(|error| malformed(&error))?;
        self.run(request).map(drop)
    }

    /// Makes something.
    pub(crate) fn post(&self, path: &[&str], content: &Value) -> Result<Value> {
        body(self.send("POST", path, Some(content), None)?)
    }

    /// Makes something, and reads how that goes.
    pub(crate) fn post_and_follow(&self, path: &[&str], content: &Value) -> Result<impl Read + use<>> {
        let request = self.request("POST", path).header(header::CONTENT_TYPE, "application/json");
        let request = request.header(header::ACCEPT_ENCODING, "identity").body(content.to_string());
        Ok(self.run(request.map_err(|error| malformed(&error))?)?.into_body().into_reader())
    }

    /// Makes or changes something, and reads what a header of the answer says beside it.
    pub(crate) fn send_for(
        &self,
        (method, name): (&str, &str),
        path: &[&str],
        content: &Value,
    ) -> Result<(Value, Option<String>)> {
        let response = self.send(method, path, Some(content), None)?;
        let said = response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok((body(response)?, said))
    }

    /// Changes something.
    pub(crate) fn patch(&self, path: &[&str], content: &Value) -> Result<Value> {
        body(self.send("PATCH", path, Some(content), None)?)
    }

    /// Puts something in the place of what is there.
    pub(crate) fn put(&self, path: &[&str], content: &Value) -> Result<Value> {
        body(self.send("PUT", path, Some(content), None)?)
    }

    /// Takes something away.
    pub(crate) fn delete(&self, path: &[&str]) -> Result<Value> {
        body(self.send("DELETE", path, None, None)?)
    }

    /// Takes something away, and says how.
    pub(crate) fn delete_with(&self, path: &[&str], content: &Value) -> Result<Value> {
        body(self.send("DELETE", path, Some(content), None)?)
    }

    /// The same for what is said behind the path.
    pub(crate) fn delete_by(&self, (path, query): Query<'_>) -> Result<Value> {
        let request = self.request_with("DELETE", path, query).body(());
        body(self.run(request.map_err(|error| malformed(&error))?)?)
    }

    /// Reads a resource that is no JSON, as it comes.
    pub(crate) fn read(&self, path: &[&str]) -> Result<impl Read + use<>> {
        Ok(self.send("GET", path, None, None)?.into_body().into_reader())
    }

    /// Makes something of a file, as it is read.
    pub(crate) fn upload(&self, path: &[&str], file: &std::fs::File) -> Result<Value> {
        let request = self.request("POST", path).header(header::CONTENT_TYPE, "application/octet-stream").body(file);
        body(self.run(request.map_err(|error| malformed(&error))?)?)
    }

    /// Reads bytes, as they come.
    pub(crate) fn download(&self, (path, query): Query<'_>) -> Result<impl Read + use<>> {
        let request = self.request_with("GET", path, query).header(header::ACCEPT_ENCODING, "identity");
        Ok(self.run(request.body(()).map_err(|error| malformed(&error))?)?.into_body().into_reader())
    }

    /// Puts a file somewhere, as it is read.
    pub(crate) fn put_file(&self, (path, query): Query<'_>, file: &std::fs::File) -> Result<Value> {
        let request = self.request_with("PUT", path, query);
        let request = request.header(header::CONTENT_TYPE, "application/octet-stream").body(file);
        body(self.run(request.map_err(|error| malformed(&error))?)?)
    }

    /// Opens a stream that the API named, such as the lines of a log session. The address itself is the permission to read it.
    pub(crate) fn open(&self, address: &str) -> Result<impl Read + use<>> {
        let request =
            Request::get(address).header(header::ACCEPT, "text/plain").header(header::ACCEPT_ENCODING, "identity");
        let response = self.run(request.body(()).map_err(|error| malformed(&error))?)?;
        Ok(response.into_body().into_reader())
    }

    fn send(
        &self,
        method: &str,
        path: &[&str],
        content: Option<&Value>,
        range: Option<HeaderValue>,
    ) -> Result<Response<Body>> {
        let mut request = self.request(method, path);
        if let Some(range) = range {
            request = request.header(header::RANGE, range);
        }
        match content {
            None => self.run(request.body(()).map_err(|error| malformed(&error))?),
            Some(content) => {
                let request = request.header(header::CONTENT_TYPE, "application/json").body(content.to_string());
                self.run(request.map_err(|error| malformed(&error))?)
            }
        }
    }

    fn request(&self, method: &str, path: &[&str]) -> RequestBuilder {
        self.request_with(method, path, &[])
    }

    fn request_with(&self, method: &str, path: &[&str], query: &[(&str, &str)]) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        if self.insists && method != "GET" {
            url.query_pairs_mut().append_pair("force", "true");
        }
        let request = Request::builder().method(method).uri(url.as_str()).header(header::ACCEPT, ACCEPT);
        let request = match &self.code {
            Some(code) => request.header("heroku-two-factor-code", code),
            None => request,
        };
        match &self.authorization {
            Some(authorization) => request.header(header::AUTHORIZATION, authorization),
            None => request,
        }
    }

    fn run(&self, request: Request<impl ureq::AsSendBody>) -> Result<Response<Body>> {
        let response = self.agent.run(request).map_err(|error| self.no_answer(&error))?;
        if response.status().is_success() { Ok(response) } else { Err(refusal(response)) }
    }

    fn no_answer(&self, cause: &ureq::Error) -> CliError {
        let base = self.base.as_str().trim_end_matches('/');
        let error = CliError::new(Kind::Unreachable, format!("Cannot reach the platform at {base}"));
        let error = error.hint(self.unreachable);
        match cause {
            ureq::Error::Io(cause) => error.because(cause),
            cause => error.because(cause),
        }
    }
}

const NOT_UP: CliHint = "Is it up? Start it with `platform up` on its machine, see how it is with `platform status`,\n\
                         or name another address with --api or PLATFORM_API.";
const NOT_UP_HERE: CliHint = "This command works on the platform's own machine, as root, while it is up: `sudo platform up`.\n\
                              If the platform has its state elsewhere, set PLATFORM_HOME as you did for `platform up`.";

/// An answer of the API as the type that a command wants.
pub(crate) fn typed<T: DeserializeOwned>(value: &Value) -> Result<T> {
    T::deserialize(value).map_err(|error| {
        CliError::failed("The platform's answer is not what this program expects")
            .because(&error)
            .hint("Do the versions fit? `platform --version` is this program's.")
    })
}

fn config() -> ureq::config::ConfigBuilder<ureq::typestate::AgentScope> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Agent::config_builder()
        .tls_config(TlsConfig::builder().unversioned_rustls_crypto_provider(provider).build())
        .http_status_as_error(false)
        .timeout_connect(Some(CONNECT_LIMIT))
        .user_agent(concat!("platform-cli/", env!("CARGO_PKG_VERSION")))
}

fn body(mut response: Response<Body>) -> Result<Value> {
    let mut text = String::new();
    let read = response.body_mut().as_reader().read_to_string(&mut text);
    read.map_err(|error| {
        CliError::new(Kind::Unreachable, "The platform's answer broke off").because(&error).hint(NOT_UP)
    })?;
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&text).map_err(|error| {
        CliError::failed("The platform's answer is not JSON")
            .because(&error)
            .hint("Is the address that of a platform? Name it with --api or PLATFORM_API.")
    })
}

fn refusal(mut response: Response<Body>) -> CliError {
    let status = response.status();
    let text = response.body_mut().read_to_string().unwrap_or_default();
    let Ok(refusal) = serde_json::from_str::<Refusal>(&text) else {
        let error = CliError::new(Kind::Unreachable, format!("The platform answered {status} and gave no reason"));
        return error.hint("Its controller may be starting: try again in a moment, or look at `platform status`.");
    };
    let message = refusal.message.trim_end_matches('.');
    match status {
        StatusCode::UNAUTHORIZED => CliError::new(Kind::Login, message)
            .hint("Log in with `platform login`. If PLATFORM_TOKEN is set, it is what was not accepted."),
        _ if refusal.resource.as_deref() == Some("lock") => CliError::failed("The app is not locked"),
        // What holds a release back, and what lifts that.
        StatusCode::LOCKED => {
            let (what, then) = message.split_once('\n').unwrap_or((message, "Try again later."));
            CliError::failed(what.trim_end_matches('.')).hint(then)
        }
        _ if refusal.id == "two_factor" => CliError::new(Kind::TwoFactor, message),
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY => CliError::new(Kind::Unreachable, message)
            .hint("Its controller may be starting: try again in a moment, or look at `platform status`."),
        _ => {
            let listed = refusal.resource.as_deref().and_then(where_it_is_listed);
            let mut error = CliError::failed(message);
            error.missing = refusal.resource;
            match listed {
                Some(command) => error.hint(format!("`platform {command}` shows what there is.")),
                None => error,
            }
        }
    }
}

/// The command that lists what somebody named wrongly.
fn where_it_is_listed(resource: &str) -> Option<&'static str> {
    match resource {
        "app" => Some("apps"),
        "add_on" | "add_on attachment" => Some("addons"),
        "add_on_service" | "add-on_service" => Some("addons:services"),
        "backup" => Some("pg:backups"),
        "release" => Some("releases"),
        "dyno" => Some("ps"),
        "process_type" => Some("ps:scale"),
        "domain" => Some("domains"),
        "collaborator" => Some("access"),
        "pipeline" => Some("pipelines"),
        "team" => Some("teams"),
        "team_member" => Some("members"),
        "key" => Some("keys"),
        "freeze_window" => Some("freezes"),
        "authorization" => Some("authorizations"),
        "app_transfer" => Some("apps:transfers"),
        "user" => Some("users"),
        _ => None,
    }
}

fn malformed(error: &ureq::http::Error) -> CliError {
    CliError::usage("The address or the token has characters that no request can carry").because(error)
}

/// Reads a stream to its end, line by line.
pub(crate) fn lines(stream: impl Read) -> impl Iterator<Item = io::Result<String>> {
    let mut reader = io::BufReader::new(stream);
    std::iter::from_fn(move || {
        let mut line = Vec::new();
        match io::BufRead::read_until(&mut reader, b'\n', &mut line) {
            Ok(0) => None,
            Ok(_) => Some(Ok(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned())),
            Err(error) => Some(Err(error)),
        }
    })
}
