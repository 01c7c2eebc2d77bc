//! Holds what the API answers, in every test, against what it says of itself. `scripts/schemathesis.sh` goes on from here.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use jsonschema::Validator;
use serde_json::{Value, json};

use super::openapi;

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| openapi::describe(&super::table()));

/// Panics if an answer is none that the route's description allows.
pub(crate) fn check(method: &str, path: &str, status: u16, body: &Value) {
    let path = path.split('?').next().unwrap_or_default();
    let Some(template) = template(method, path) else { return };
    if status == 304 || status == 405 {
        return;
    }
    let responses = &DOCUMENT["paths"][template][method.to_lowercase()]["responses"];
    let mut response = &responses[status.to_string()];
    if response.is_null() && status >= 400 {
        response = &responses["default"];
    }
    assert!(!response.is_null(), "{method} {template} says nothing of an answer {status}: {body}");
    if let Some(reference) = response["$ref"].as_str() {
        response = DOCUMENT.pointer(reference.trim_start_matches('#')).expect("described");
    }
    let schema = &response["content"]["application/json"]["schema"];
    if schema.is_null() {
        return;
    }
    let errors: Vec<_> =
        validator(schema).iter_errors(body).map(|error| format!("{error} at {}", error.instance_path)).collect();
    assert!(errors.is_empty(), "{method} {template} answered {status} with what is not described: {errors:?}\n{body}");
}

/// The described path that a path is one of. Names before parameters, as in the router.
fn template(method: &str, path: &str) -> Option<&'static str> {
    let fits = |template: &str| {
        let (wanted, given) = (template.split('/'), path.split('/'));
        wanted.clone().count() == given.clone().count()
            && wanted.zip(given).all(|(wanted, given)| wanted.starts_with('{') || wanted == given)
    };
    let paths = DOCUMENT["paths"].as_object().expect("paths").iter();
    let described = paths.filter(|(_, operations)| operations.get(method.to_lowercase()).is_some());
    described.map(|(template, _)| template.as_str()).filter(|it| fits(it)).min_by_key(|it| it.matches('{').count())
}

fn validator(schema: &Value) -> Arc<Validator> {
    static KNOWN: LazyLock<Mutex<HashMap<String, Arc<Validator>>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let make = || {
        let whole = json!({ "allOf": [schema], "components": DOCUMENT["components"] });
        let options = jsonschema::draft202012::options().should_validate_formats(true);
        Arc::new(options.build(&whole).expect("a schema"))
    };
    Arc::clone(known.entry(schema.to_string()).or_insert_with(make))
}

#[test]
#[should_panic(expected = "what is not described")]
fn an_answer_without_an_attribute_is_noticed() {
    check("GET", "/apps/shop/config-vars", 200, &json!({"A": 1}));
}

#[test]
#[should_panic(expected = "says nothing of")]
fn an_answer_of_another_status_is_noticed() {
    check("GET", "/apps/shop", 201, &json!({}));
}
