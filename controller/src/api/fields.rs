//! Request bodies, read as leniently as Heroku reads them: numbers may be strings, a reference may be a name, an id or an
//! object with either, `null` is as good as absent, and what nobody asks for is ignored. Every refusal names its field.

use axum::extract::{FromRequest, Request};
use serde_json::{Map, Value};

use super::describe::Input;
use super::error::ApiError;

/// Most bytes of a request body.
const MAX_BODY: usize = 1 << 20;

/// The fields of a JSON object.
#[derive(Debug, Default)]
pub(super) struct Fields(Map<String, Value>);

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        // The size is the only thing here that a client can be at fault for: a broken connection reads no answer.
        let bytes =
            axum::body::to_bytes(request.into_body(), MAX_BODY).await.map_err(|_| ApiError::too_large(MAX_BODY))?;
        Self::parse(&bytes)
    }
}

impl Input for Fields {}

impl Fields {
    fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        if bytes.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(ApiError::bad_request("The request body must be a JSON object.")),
            Err(error) => Err(ApiError::bad_request(format!("The request body is not JSON: {error}."))),
        }
    }

    /// A text.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, ApiError> {
        match self.value(name) {
            None => Ok(None),
            // PostgreSQL keeps no NUL, and nothing that people name has one.
            Some(Value::String(text)) if text.contains('\0') => Err(must_be(name, "a string without NUL")),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(_) => Err(must_be(name, "a string")),
        }
    }

    /// A text that must be there.
    pub(super) fn required_text(&self, name: &str) -> Result<String, ApiError> {
        self.text(name)?.ok_or_else(|| ApiError::invalid(format!("{name} is missing")))
    }

    /// A yes or no.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(Value::String(text)) if text == "true" || text == "false" => Ok(Some(text == "true")),
            Some(_) => Err(must_be(name, "true or false")),
        }
    }

    /// A whole number from 0.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, ApiError> {
        let number = match self.value(name) {
            None => return Ok(None),
            Some(Value::Number(number)) => number.as_u64(),
            Some(Value::String(text)) => text.parse().ok(),
            Some(_) => None,
        };
        number.map(Some).ok_or_else(|| must_be(name, "a whole number from 0"))
    }

    /// A name or an id of something else.
    pub(super) fn reference(&self, name: &str) -> Result<Option<String>, ApiError> {
        match self.value(name) {
            Some(Value::Object(object)) => match object.get("id").or_else(|| object.get("name")) {
                Some(Value::String(text)) => Ok(Some(text.clone())),
                _ => Err(must_be(name, "a name, an id, or an object with one of them")),
            },
            _ => self.text(name),
        }
    }

    /// An object; empty if it is not there.
    pub(super) fn object(&self, name: &str) -> Result<Fields, ApiError> {
        match self.value(name) {
            None => Ok(Self::default()),
            Some(Value::Object(object)) => Ok(Self(object.clone())),
            Some(_) => Err(must_be(name, "an object")),
        }
    }

    /// A list of texts.
    pub(super) fn list(&self, name: &str) -> Result<Vec<String>, ApiError> {
        let must = || must_be(name, "a list of strings");
        match self.value(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(values)) => {
                values.iter().map(|value| value.as_str().map(str::to_owned).ok_or_else(must)).collect()
            }
            Some(_) => Err(must()),
        }
    }

    /// An object of texts; numbers are taken as their text.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<(String, String)>, ApiError> {
        match self.value(name) {
            None => Ok(Vec::new()),
            Some(Value::Object(object)) => {
                let fields = Self(object.clone());
                object.keys().map(|key| Ok((key.clone(), fields.text(key)?.unwrap_or_default()))).collect()
            }
            Some(_) => Err(must_be(name, "an object of strings")),
        }
    }

    fn value(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }
}

fn must_be(name: &str, what: &str) -> ApiError {
    ApiError::invalid(format!("{name} must be {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(json: &str) -> Fields {
        Fields::parse(json.as_bytes()).expect("an object")
    }

    #[test]
    fn reads_what_clients_send() {
        let read =
            fields(r#"{"n": "2", "m": 2, "id": {"id": "x"}, "name": {"name": "y"}, "plain": "z", "null": null}"#);
        assert_eq!(read.number("n").expect("read"), Some(2));
        assert_eq!(read.number("m").expect("read"), Some(2));
        assert_eq!(read.text("m").expect("read").as_deref(), Some("2"));
        for (name, value) in [("id", "x"), ("name", "y"), ("plain", "z")] {
            assert_eq!(read.reference(name).expect("read").as_deref(), Some(value));
        }
        assert_eq!(read.flag("null").expect("read"), None);
        assert!(fields("").text("absent").expect("read").is_none());
    }

    #[test]
    fn a_refusal_names_the_field() {
        let read = fields(r#"{"a": [], "b": {"c": 1}}"#);
        let refusals = [
            read.text("a").map(|_| ()),
            read.flag("a").map(|_| ()),
            read.number("a").map(|_| ()),
            read.reference("a").map(|_| ()),
            read.required_text("missing").map(|_| ()),
            read.reference("b").map(|_| ()),
        ];
        let messages: Vec<_> = refusals.iter().map(|refusal| format!("{refusal:?}")).collect();
        for (message, name) in messages.iter().zip(["a", "a", "a", "a", "missing", "b"]) {
            assert!(message.contains(&format!("message: \"{name} ")), "{message}");
        }
        for bad in ["[1]", "{", "nul"] {
            assert!(Fields::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
