//! OTLP over HTTP: the few messages of `opentelemetry.proto.collector.trace.v1` that a router sends, and how it sends them.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderMap, RETRY_AFTER, USER_AGENT};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use prost::{Message, Oneof};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use crate::{TracingSettings, tls};

/// `SPAN_KIND_SERVER`
pub(crate) const SERVER: i32 = 2;
/// `SPAN_KIND_CLIENT`
pub(crate) const CLIENT: i32 = 3;
/// `STATUS_CODE_ERROR`
pub(crate) const ERROR: i32 = 2;
/// For one attempt.
const LIMIT: Duration = Duration::from_secs(10);
/// Pauses before the next attempts.
const PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];
/// No collector makes us wait longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Bytes of an answer that are read.
const ANSWER: usize = 64 << 10;

type Failed = Box<dyn Error + Send + Sync>;

#[derive(Clone, PartialEq, Message)]
struct ExportRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected_spans: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Span {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) id: Vec<u8>,
    #[prost(string, tag = "3")]
    pub(crate) trace_state: String,
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    pub(crate) name: String,
    #[prost(int32, tag = "6")]
    pub(crate) kind: i32,
    #[prost(fixed64, tag = "7")]
    pub(crate) start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    pub(crate) end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    pub(crate) attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    pub(crate) status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    pub(crate) flags: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Status {
    #[prost(string, tag = "2")]
    pub(crate) message: String,
    #[prost(int32, tag = "3")]
    pub(crate) code: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(oneof = "Value", tags = "1, 3")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Value {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(int64, tag = "3")]
    Number(i64),
}

pub(crate) fn text(key: &str, value: impl Into<String>) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(Value::Text(value.into())) }) }
}

pub(crate) fn number(key: &str, value: u64) -> KeyValue {
    let value = i64::try_from(value).unwrap_or(i64::MAX);
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(Value::Number(value)) }) }
}

/// Sends batches to one collector.
pub(crate) struct Exporter {
    endpoint: Uri,
    headers: HeaderMap,
    resource: Resource,
    /// Made when it is first needed: the certificates that the machine trusts are many.
    tls: Option<TlsConnector>,
}

impl Exporter {
    pub(crate) fn new(settings: &TracingSettings) -> Self {
        let attributes = settings.resource.iter().map(|(key, value)| text(key, value)).collect();
        let (endpoint, headers) = (settings.endpoint.clone(), settings.headers.clone());
        Self { endpoint, headers, resource: Resource { attributes }, tls: None }
    }

    /// Sends a batch, again if the collector says so or cannot be reached; fails when it was of no use.
    pub(crate) async fn send(&mut self, spans: Vec<Span>) -> Result<(), Failed> {
        let scope = Scope { name: "platform.router".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans }];
        let resource_spans = vec![ResourceSpans { resource: Some(self.resource.clone()), scope_spans }];
        let body = Bytes::from(ExportRequest { resource_spans }.encode_to_vec());
        for pause in PAUSES.map(Some).into_iter().chain([None]) {
            let failure = match timeout(LIMIT, self.post(body.clone())).await {
                Ok(Ok((status, _, answer))) if status.is_success() => return accepted(&answer),
                Ok(Ok((status, wait, _))) if is_temporary(status) => (format!("it answered {status}").into(), wait),
                Ok(Ok((status, _, _))) => return Err(format!("it answered {status}").into()),
                Ok(Err(error)) => (error, None),
                Err(_) => ("it did not answer in time".into(), None),
            };
            let Some(pause) = pause else { return Err(failure.0) };
            sleep(failure.1.unwrap_or(pause).min(LONGEST_PAUSE)).await;
        }
        Ok(())
    }

    /// One attempt: the status, how long to wait before the next one, and the answer.
    async fn post(&mut self, body: Bytes) -> Result<(StatusCode, Option<Duration>, Bytes), Failed> {
        let host = self.endpoint.host().ok_or("the address has no host")?.to_owned();
        let is_tls = self.endpoint.scheme_str() == Some("https");
        let port = self.endpoint.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
        let authority = self.endpoint.authority().map_or("", |authority| authority.as_str());
        let path = self.endpoint.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::post(path).header(HOST, authority).header(CONTENT_TYPE, "application/x-protobuf");
        request = request.header(USER_AGENT, concat!("platform-router/", env!("CARGO_PKG_VERSION")));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body))?;
        let response = if is_tls {
            let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())?;
            let stream = self.connector()?.connect(name, stream).await?;
            exchange(stream, request).await?
        } else {
            exchange(stream, request).await?
        };
        let (head, body) = response.into_parts();
        let wait = head.headers.get(RETRY_AFTER).and_then(|wait| wait.to_str().ok()?.parse().ok());
        Ok((head.status, wait.map(Duration::from_secs), body))
    }

    fn connector(&mut self) -> Result<TlsConnector, Failed> {
        if let Some(known) = &self.tls {
            return Ok(known.clone());
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let config =
            ClientConfig::builder_with_provider(Arc::new(tls::provider())).with_safe_default_protocol_versions()?;
        let connector = TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth()));
        Ok(self.tls.insert(connector).clone())
    }
}

/// One request on a connection of its own: there is one a second at most.
async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, Failed>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let response = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, ANSWER).collect().await?.to_bytes();
        Ok(Response::from_parts(head, body))
    };
    let response = response.await;
    driver.abort();
    response
}

/// The collector may take it later (OTLP 1.5, "Retryable response codes").
fn is_temporary(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

/// What a collector left out of what it took.
fn accepted(answer: &[u8]) -> Result<(), Failed> {
    let partly = ExportResponse::decode(answer).ok().and_then(|answer| answer.partial_success);
    match partly {
        Some(partly) if partly.rejected_spans > 0 => {
            Err(format!("it rejected {} of them: {}", partly.rejected_spans, partly.error_message).into())
        }
        _ => Ok(()),
    }
}
