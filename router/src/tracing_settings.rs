//! Where trace spans go, and which are made: by the variables that OpenTelemetry has for that.

use std::fmt;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Uri, uri};
use percent_encoding::percent_decode_str;

/// Where a collector takes spans.
const TRACES: &str = "/v1/traces";
/// What [`TracingSettings::from_environment`] reads.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
const TRACES_HEADERS: &str = "OTEL_EXPORTER_OTLP_TRACES_HEADERS";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
const TRACES_PROTOCOL: &str = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL";
const EXPORTER: &str = "OTEL_TRACES_EXPORTER";
const DISABLED: &str = "OTEL_SDK_DISABLED";
const SERVICE: &str = "OTEL_SERVICE_NAME";
const RESOURCE: &str = "OTEL_RESOURCE_ATTRIBUTES";
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";

/// Where trace spans go, and which are made.
#[derive(Clone)]
pub struct TracingSettings {
    /// Of a collector that speaks OTLP over HTTP: all of the address.
    pub endpoint: Uri,
    /// Sent along with each batch, such as a key.
    pub headers: HeaderMap,
    /// What all spans have in common, such as `service.name`.
    pub resource: Vec<(String, String)>,
    /// Which traces are sampled.
    pub sampler: Sampler,
}

/// Which traces are sampled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    /// Whoever began a trace has said whether it is.
    pub parent_based: bool,
    /// Of all others this part is: 0 is none, 1 all.
    pub ratio: f64,
}

/// One of the variables is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("environment variable {variable}: {rule}")]
pub struct TracingError {
    variable: &'static str,
    rule: &'static str,
}

impl fmt::Debug for TracingSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers are secret.
        f.debug_struct("TracingSettings").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl TracingSettings {
    /// What the variables of an environment say; none if they name no collector, or turn spans off.
    pub fn from_environment(read: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, TracingError> {
        // An empty one is as good as none.
        let read = |name| read(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let is_off = read(DISABLED).is_some_and(|value| value.eq_ignore_ascii_case("true"))
            || read(EXPORTER).is_some_and(|value| value == "none");
        let (variable, address) = match (read(TRACES_ENDPOINT), read(ENDPOINT)) {
            _ if is_off => return Ok(None),
            (Some(whole), _) => (TRACES_ENDPOINT, whole),
            (None, Some(base)) => (ENDPOINT, format!("{}{TRACES}", base.trim_end_matches('/'))),
            (None, None) => return Ok(None),
        };
        let one_of = |first, second| read(first).map(|it| (first, it)).or(read(second).map(|it| (second, it)));
        if let Some((variable, protocol)) = one_of(TRACES_PROTOCOL, PROTOCOL)
            && protocol != "http/protobuf"
        {
            return Err(TracingError { variable, rule: "spans are sent by http/protobuf only" });
        }
        let (variable_of_headers, headers) = one_of(TRACES_HEADERS, HEADERS).unwrap_or((HEADERS, String::new()));
        let service = read(SERVICE).map(|name| ("service.name".to_owned(), name));
        let mut resource: Vec<_> = service.into_iter().collect();
        for (key, value) in pairs(&read(RESOURCE).unwrap_or_default())
            .ok_or(TracingError { variable: RESOURCE, rule: "attributes are written like key=value,key=value" })?
        {
            add(&mut resource, (&key, &value));
        }
        add(&mut resource, ("service.name", "platform-router"));
        add(&mut resource, ("service.version", env!("CARGO_PKG_VERSION")));
        Ok(Some(Self {
            endpoint: endpoint(&address).ok_or(TracingError {
                variable,
                rule: "a collector is written like http://collector:4318 (OTLP over HTTP); a key goes into OTEL_EXPORTER_OTLP_HEADERS",
            })?,
            headers: header_map(&headers).ok_or(TracingError {
                variable: variable_of_headers,
                rule: "headers are written like authorization=Bearer%20KEY,x-tenant=shop",
            })?,
            resource,
            sampler: sampler(read(SAMPLER).as_deref(), read(SAMPLER_ARG).as_deref())?,
        }))
    }
}

fn endpoint(address: &str) -> Option<Uri> {
    let is_good = |uri: &Uri| {
        let authority = uri.authority().map(uri::Authority::as_str);
        matches!(uri.scheme_str(), Some("http" | "https")) && authority.is_some_and(|it| !it.contains('@'))
    };
    address.parse().ok().filter(is_good)
}

fn add(attributes: &mut Vec<(String, String)>, (key, value): (&str, &str)) {
    if !attributes.iter().any(|(known, _)| known == key) {
        attributes.push((key.to_owned(), value.to_owned()));
    }
}

/// `key=value,key=value`, with what else may be in a value as `%20`.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let decoded = |text: &str| Some(percent_decode_str(text.trim()).decode_utf8().ok()?.into_owned());
    let pair = |part: &str| {
        let (key, value) = part.split_once('=')?;
        Some((decoded(key)?, decoded(value)?))
    };
    text.split(',').filter(|part| !part.trim().is_empty()).map(pair).collect()
}

fn header_map(text: &str) -> Option<HeaderMap> {
    let header = |(name, value): (String, String)| {
        let mut value = HeaderValue::try_from(value).ok()?;
        value.set_sensitive(true);
        Some((HeaderName::try_from(name).ok()?, value))
    };
    pairs(text)?.into_iter().map(header).collect()
}

fn sampler(name: Option<&str>, argument: Option<&str>) -> Result<Sampler, TracingError> {
    let name = name.unwrap_or("parentbased_always_on");
    let (parent_based, rest) = name.strip_prefix("parentbased_").map_or((false, name), |rest| (true, rest));
    let wrong = |variable, rule| TracingError { variable, rule };
    let ratio = match (rest, argument) {
        ("always_on", _) | ("traceidratio", None) => 1.0,
        ("always_off", _) => 0.0,
        ("traceidratio", Some(part)) => part
            .parse()
            .ok()
            .filter(|part| (0.0..=1.0).contains(part))
            .ok_or(wrong(SAMPLER_ARG, "the part of all traces that is sampled is a number from 0 to 1, such as 0.1"))?,
        _ => {
            let rule = "a sampler is one of always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off, \
                        parentbased_traceidratio";
            return Err(wrong(SAMPLER, rule));
        }
    };
    Ok(Sampler { parent_based, ratio })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<TracingSettings>, TracingError> {
        TracingSettings::from_environment(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_variables_of_opentelemetry_say_where_spans_go() {
        assert!(read(&[(SERVICE, "edge")]).expect("good").is_none(), "no collector");
        assert!(read(&[(ENDPOINT, "http://c:4318"), (EXPORTER, "none")]).expect("good").is_none());
        assert!(read(&[(ENDPOINT, "http://c:4318"), (DISABLED, "true")]).expect("good").is_none());
        let settings = read(&[
            (ENDPOINT, "http://c:4318/"),
            (HEADERS, "authorization=Bearer%20key, x-tenant=shop"),
            (SERVICE, "edge"),
            (RESOURCE, "service.name=other,deployment.environment.name=live%2C1"),
            (SAMPLER, "traceidratio"),
            (SAMPLER_ARG, "0.25"),
        ]);
        let settings = settings.expect("good").expect("some");
        assert_eq!(settings.endpoint, "http://c:4318/v1/traces");
        assert_eq!(
            (&settings.headers["authorization"], &settings.headers["x-tenant"]),
            (&"Bearer key".parse().expect("a value"), &"shop".parse().expect("a value"))
        );
        let resource: Vec<_> = settings.resource.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(resource[..2], ["service.name=edge", "deployment.environment.name=live,1"]);
        assert_eq!(settings.sampler, Sampler { parent_based: false, ratio: 0.25 });
        assert!(!format!("{settings:?}").contains("key"), "{settings:?}");
        let whole = read(&[(ENDPOINT, "http://c:4318"), (TRACES_ENDPOINT, "https://traces.example.com/in")]);
        let whole = whole.expect("good").expect("some");
        assert_eq!(whole.endpoint, "https://traces.example.com/in");
        assert_eq!(whole.sampler, Sampler { parent_based: true, ratio: 1.0 });
        assert_eq!(whole.resource[0], ("service.name".to_owned(), "platform-router".to_owned()));
    }

    #[test]
    fn a_wrong_variable_is_told_without_what_is_secret() {
        for (variable, value) in [
            (ENDPOINT, "collector:4318/secret"),
            (TRACES_ENDPOINT, "https://user:secret@traces.example.com"),
            (HEADERS, "Bearer secret"),
            (SAMPLER, "secret"),
            (PROTOCOL, "grpc"),
        ] {
            let all = [(variable, value), (ENDPOINT, "http://c:4318")];
            let error = read(&all).expect_err(variable).to_string();
            assert!(error.starts_with(&format!("environment variable {variable}: ")), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
