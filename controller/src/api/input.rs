//! Request bodies, read as leniently as Heroku reads them: a number may be a string, a string may be a number, a reference may
//! be a name, an id or an object with either, `null` is as good as absent, and what nobody asks for is ignored.
//!
//! A body is a struct that derives `Deserialize` and `ToSchema`, made of the types here; what may be absent is an `Option`. A
//! handler takes it as [`Body`]. Every refusal names its field with its path: `updates[1].quantity must be …`.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use utoipa::openapi::schema::{AdditionalProperties, AnyOf, AnyOfBuilder, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{Object, RefOr};
use utoipa::{PartialSchema, ToSchema};

use super::error::ApiError;

/// Most bytes of a request body.
const MAX_BODY: usize = 1 << 20;
/// Longest time in which a body comes.
const BODY_TIME: Duration = Duration::from_secs(30);

/// The JSON object that a request brings. An empty body is an empty object.
pub(super) struct Body<T>(pub(super) T);

/// A text. Numbers are taken as their text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text(pub(super) String);

/// A text with any characters in it. Numbers, true and false are taken as their text.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Scalar(pub(super) String);

/// A whole number from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count(pub(super) u64);

/// A yes or no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flag(pub(super) bool);

/// The name or the id of something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference(pub(super) String);

/// An object of texts. Numbers are taken as their text, null as an empty one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Texts(pub(super) BTreeMap<String, String>);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        read(&read_body(request.into_body()).await?).map(Self)
    }
}

/// A whole body, if it is not too large and comes in time.
pub(super) async fn read_body(body: axum::body::Body) -> Result<Bytes, ApiError> {
    read_within(BODY_TIME, body).await
}

async fn read_within(limit: Duration, body: axum::body::Body) -> Result<Bytes, ApiError> {
    let bytes = tokio::time::timeout(limit, axum::body::to_bytes(body, MAX_BODY)).await;
    let bytes = bytes.map_err(|_| ApiError::timeout("The request body did not come in time."))?;
    // The size is the only thing here that a client can be at fault for: a broken connection reads no answer.
    bytes.map_err(|_| ApiError::too_large(MAX_BODY))
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let bytes = if bytes.trim_ascii().is_empty() { b"{}" } else { bytes };
    let body = serde_json::from_slice::<Value>(bytes)
        .map_err(|error| ApiError::bad_request(format!("The request body is not JSON: {error}.")))?;
    if !body.is_object() {
        return Err(ApiError::bad_request("The request body must be a JSON object."));
    }
    serde_path_to_error::deserialize(body)
        .map_err(|error| ApiError::invalid(refusal(&error.path().to_string(), &error.inner().to_string())))
}

/// What serde found wrong, in words for whoever sent it.
fn refusal(path: &str, what: &str) -> String {
    let inside = if path == "." { String::new() } else { format!("{path}.") };
    if let Some(field) = what.strip_prefix("missing field ") {
        return format!("{inside}{} is missing", field.trim_matches('`'));
    }
    if what.starts_with("invalid type: null") {
        return format!("{path} is missing");
    }
    match what.rsplit_once(", expected ") {
        Some((_, "a sequence")) => format!("{path} must be a list"),
        Some((_, expected)) if expected.starts_with("struct ") || expected == "a map" => {
            format!("{path} must be an object")
        }
        Some((_, expected)) => format!("{path} must be {expected}"),
        None => format!("{path} {what}"),
    }
}

/// A type that is read out of any JSON by a function, and what the API's description says of it.
macro_rules! lenient {
    ($($name:ident: $read:ident, $schema:ident;)*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let value = Value::deserialize(deserializer)?;
                if value.is_null() {
                    return Err(D::Error::custom("is missing"));
                }
                $read(value).map(Self).map_err(|must| D::Error::custom(format!("must be {must}")))
            }
        }

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                RefOr::T($schema().into())
            }
        }

        impl ToSchema for $name {}
    )*};
}

lenient! {
    Text: text, text_schema;
    Scalar: scalar, scalar_schema;
    Count: count, count_schema;
    Flag: flag, flag_schema;
    Reference: reference, reference_schema;
    Texts: texts, texts_schema;
}

fn text(value: Value) -> Result<String, &'static str> {
    match value {
        // PostgreSQL keeps no NUL, and nothing that people name has one.
        Value::String(text) if text.contains('\0') => Err("a string without NUL"),
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err("a string"),
    }
}

fn scalar(value: Value) -> Result<String, &'static str> {
    match value {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(flag) => Ok(flag.to_string()),
        _ => Err("a string"),
    }
}

fn count(value: Value) -> Result<u64, &'static str> {
    let count = match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    count.ok_or("a whole number from 0")
}

fn flag(value: Value) -> Result<bool, &'static str> {
    match value {
        Value::Bool(flag) => Ok(flag),
        Value::String(text) if text == "true" || text == "false" => Ok(text == "true"),
        _ => Err("true or false"),
    }
}

fn reference(value: Value) -> Result<String, &'static str> {
    let wrong = "a name, an id, or an object with one of them";
    let value = match value {
        Value::Object(mut object) => {
            let id = object.remove("id").filter(|id| !id.is_null());
            id.or_else(|| object.remove("name")).ok_or(wrong)?
        }
        value => value,
    };
    text(value).map_err(|_| wrong)
}

fn texts(value: Value) -> Result<BTreeMap<String, String>, &'static str> {
    let wrong = "an object of strings";
    let Value::Object(object) = value else { return Err(wrong) };
    let read = |(name, value): (String, Value)| {
        let value = if value.is_null() { String::new() } else { text(value).map_err(|_| wrong)? };
        Ok((name, value))
    };
    object.into_iter().map(read).collect()
}

fn one_of(types: &[Type]) -> SchemaType {
    types.iter().cloned().collect()
}

fn text_schema() -> Object {
    let object = ObjectBuilder::new().schema_type(one_of(&[Type::String, Type::Number]));
    object.pattern(Some(r"^[^\u0000]*$")).description(Some("A text; a number is taken as its text.")).build()
}

fn scalar_schema() -> Object {
    let object = ObjectBuilder::new().schema_type(one_of(&[Type::String, Type::Number, Type::Boolean, Type::Null]));
    object.description(Some("A text, or null for none; a number, true and false are taken as their text.")).build()
}

fn count_schema() -> Object {
    let object = ObjectBuilder::new().schema_type(one_of(&[Type::Integer, Type::String])).minimum(Some(0));
    object.pattern(Some("^[0-9]+$")).description(Some("A whole number from 0, which may be written as text.")).build()
}

fn flag_schema() -> Object {
    let values = [json!(true), json!(false), json!("true"), json!("false")];
    ObjectBuilder::new()
        .schema_type(one_of(&[Type::Boolean, Type::String]))
        .enum_values(Some(values))
        .description(Some("A yes or no, which may be written as text."))
        .build()
}

fn reference_schema() -> AnyOf {
    let object = |field: &str| ObjectBuilder::new().property(field, text_schema()).required(field).build();
    AnyOfBuilder::new()
        .item(text_schema())
        .item(object("id"))
        .item(object("name"))
        .description(Some("A name, an id, or an object with one of them."))
        .build()
}

fn texts_schema() -> Object {
    ObjectBuilder::new()
        .additional_properties(Some(AdditionalProperties::RefOr(RefOr::T(text_schema().into()))))
        .description(Some("Texts by their names."))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only what is refused matters here")]
    struct Order {
        name: Text,
        count: Option<Count>,
        urgent: Option<Flag>,
        of: Option<Reference>,
        env: Option<Texts>,
        lines: Option<Vec<Line>>,
        inner: Option<Line>,
        colour: Option<Colour>,
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only what is refused matters here")]
    struct Line {
        amount: Count,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Colour {
        Red,
        Green,
    }

    fn refused(body: &str) -> String {
        format!("{:?}", read::<Order>(body.as_bytes()).expect_err(body))
    }

    #[test]
    fn reads_what_clients_send() {
        let sent = r#"{"name": 5, "count": "2", "urgent": "true", "of": {"id": null, "name": "x"}, "unknown": [],
            "env": {"COLUMNS": 80, "A": "b", "C": null}, "lines": [{"amount": 1}], "inner": null}"#;
        let order = read::<Order>(sent.as_bytes()).expect("read");
        assert_eq!((order.name.0.as_str(), order.count, order.urgent), ("5", Some(Count(2)), Some(Flag(true))));
        assert_eq!(order.of, Some(Reference("x".to_owned())));
        let texts = [("A", "b"), ("C", ""), ("COLUMNS", "80")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(order.env, Some(Texts(texts.into())));
        assert_eq!((order.lines.map(|lines| lines.len()), order.inner.is_none()), (Some(1), true));
        for of in [r#""x""#, r#"{"id": "x"}"#, r#"{"name": "x", "other": 1}"#] {
            let order = read::<Order>(format!(r#"{{"name": "n", "of": {of}}}"#).as_bytes()).expect("read");
            assert_eq!(order.of, Some(Reference("x".to_owned())), "{of}");
        }
    }

    #[test]
    fn a_refusal_names_the_field_with_its_path() {
        for (body, expected) in [
            ("", "name is missing"),
            (r#"{"name": null}"#, "name is missing"),
            (r#"{"name": []}"#, "name must be a string"),
            (r#"{"name": "a\u0000"}"#, "name must be a string without NUL"),
            (r#"{"name": "n", "count": -1}"#, "count must be a whole number from 0"),
            (r#"{"name": "n", "urgent": 1}"#, "urgent must be true or false"),
            (r#"{"name": "n", "of": {}}"#, "of must be a name, an id, or an object with one of them"),
            (r#"{"name": "n", "env": {"A": {}}}"#, "env must be an object of strings"),
            (r#"{"name": "n", "lines": {}}"#, "lines must be a list"),
            (r#"{"name": "n", "lines": [{"amount": 1}, 5]}"#, "lines[1] must be an object"),
            (r#"{"name": "n", "lines": [{"amount": 1}, {}]}"#, "lines[1].amount is missing"),
            (r#"{"name": "n", "lines": [{"amount": "x"}]}"#, "lines[0].amount must be a whole number from 0"),
            (r#"{"name": "n", "lines": [null]}"#, "lines[0] is missing"),
            (r#"{"name": "n", "inner": {"amount": null}}"#, "inner.amount is missing"),
            (r#"{"name": "n", "colour": "blue"}"#, "colour must be `red` or `green`"),
        ] {
            let refused = refused(body);
            assert!(refused.contains(&format!("message: \"{expected}\"")), "{body}: {refused}");
            assert!(refused.contains("422"), "{refused}");
        }
        for bad in ["[1]", "{", "nul", "\"x\"", "{\"a\": 1e999}"] {
            assert!(refused(bad).contains("400"), "{bad}");
        }
        assert!(format!("{:?}", read::<Order>(b"{\"name\": \"\xff\"}").expect_err("no UTF-8")).contains("400"));
    }

    #[tokio::test]
    async fn a_body_is_not_waited_for_longer_than_it_may_take() {
        let never = axum::body::Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        let refused = read_within(Duration::ZERO, never).await.expect_err("too slow");
        assert!(format!("{refused:?}").contains("408"), "{refused:?}");
    }
}
