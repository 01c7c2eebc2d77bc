//! The API's description of itself, made of the table of routes and of what their handlers say (`describe.rs`).

use std::sync::OnceLock;

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::auth::Right;
use super::describe::{Description, ERROR, Output, Schemas};
use super::error::ApiError;
use super::routing::Route;

const SCHEMAS: &str = "#/components/schemas/";

/// A document that describes the API.
pub(super) struct Document {
    media_type: &'static str,
    text: &'static str,
}

impl IntoResponse for Document {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, self.media_type)], self.text).into_response()
    }
}

impl Output for Document {
    fn describe(description: &mut Description<'_>) {
        let schema = json!({ "type": "object" });
        let answer = description.answer(200, "The document.", &schema);
        answer["content"]["application/schema+json"] = json!({ "schema": schema });
    }
}

/// `GET /openapi.json`: every route, as OpenAPI 3.1.
pub(super) async fn openapi() -> Document {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = TEXT.get_or_init(|| describe(&super::table()).to_string());
    Document { media_type: "application/json", text }
}

/// `GET /schema`: everything that is sent and answered, as JSON Schema 2020-12, and where.
pub(super) async fn schema() -> Document {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = TEXT.get_or_init(|| hyper_schema(describe(&super::table())).to_string());
    Document { media_type: "application/schema+json", text }
}

/// The description of all routes as OpenAPI 3.1.
pub(super) fn describe(table: &[Route]) -> Value {
    let mut schemas = Schemas::new();
    let mut paths = Map::new();
    for route in table {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.as_str().to_lowercase()] = operation(route, &mut schemas);
    }
    let error = Description::new(&mut schemas).written::<ApiError>();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Platform API",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            "description": "The Heroku Platform API v3, and what this platform has beside it. Every answer has a `Request-Id`; \
                what a GET answers has an `ETag`, and `If-None-Match` spares what is known.",
        },
        "servers": [{ "url": "/" }],
        "security": [{ "token": [] }, { "password": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {
                "Error": {
                    "description": "It cannot be; the message says why.",
                    "content": { "application/json": { "schema": error } },
                },
            },
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer" },
                "password": { "type": "http", "scheme": "basic", "description": "The token is the password." },
            },
        },
    })
}

fn operation(route: &Route, schemas: &mut Schemas) -> Value {
    let mut description = Description::new(schemas);
    (route.describe)(&mut description);
    let Description { parameters, body, mut responses, .. } = description;
    let is_open = route.right == Right::Anyone;
    for (status, error) in [("401", !is_open), ("403", route.right.role().is_some()), ("429", !is_open)] {
        if error {
            responses.insert(status.to_owned(), json!({ "$ref": ERROR }));
        }
    }
    responses.insert("default".to_owned(), json!({ "$ref": ERROR }));
    let mut operation = json!({
        "operationId": operation_id(route),
        "tags": [tag(route.path)],
        "parameters": path_parameters(route.path).chain(parameters).collect::<Vec<_>>(),
        "responses": responses,
    });
    if let Some(body) = body {
        operation["requestBody"] = body;
    }
    if is_open {
        operation["security"] = json!([]);
    }
    operation
}

/// `{app}` and its like.
fn path_parameters(path: &str) -> impl Iterator<Item = Value> {
    let names = path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    names.map(|name| json!({ "in": "path", "name": name, "required": true, "schema": { "type": "string" } }))
}

/// `get-apps-app-releases`: as unique as method and path are.
fn operation_id(route: &Route) -> String {
    let path = route.path.replace(['{', '}'], "").replace(['/', '.'], "-");
    format!("{}{path}", route.method.as_str().to_lowercase())
}

/// What a route is about: of an app, what follows it.
fn tag(path: &str) -> &str {
    let mut literals = path.split('/').filter(|segment| !segment.is_empty() && !segment.starts_with('{'));
    let first = literals.next().unwrap_or_default();
    if matches!(first, "apps" | "account" | "oauth" | "actions") { literals.next().unwrap_or(first) } else { first }
}

/// The same as one JSON schema: a definition of each resource, and a link to each route.
fn hyper_schema(mut document: Value) -> Value {
    let mut links = Vec::new();
    for (path, operations) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in operations.as_object().into_iter().flatten() {
            let good =
                operation["responses"].as_object().into_iter().flatten().find(|(status, _)| status.starts_with('2'));
            links.push(json!({
                "href": path,
                "method": method.to_uppercase(),
                "rel": operation["operationId"],
                "schema": operation["requestBody"]["content"]["application/json"]["schema"],
                "targetSchema": good.map(|(_, answer)| &answer["content"]["application/json"]["schema"]),
            }));
        }
    }
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Platform API",
        "$defs": document["components"]["schemas"].take(),
        "links": links,
    });
    redirect(&mut schema);
    schema
}

/// Definitions of a JSON schema stand elsewhere than those of OpenAPI.
fn redirect(value: &mut Value) {
    match value {
        Value::Object(object) => object.values_mut().for_each(redirect),
        Value::Array(values) => values.iter_mut().for_each(redirect),
        Value::String(text) => {
            if let Some(name) = text.strip_prefix(SCHEMAS) {
                *text = format!("#/$defs/{name}");
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::testing::http::Server;

    fn refs(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(object) => {
                found.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
                object.values().for_each(|value| refs(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| refs(value, found)),
            _ => {}
        }
    }

    #[tokio::test]
    async fn every_route_is_described_to_anybody_and_every_reference_leads_somewhere() {
        let server = Server::start().await;
        let stranger = server.stranger();
        let document = stranger.get("/openapi.json").await.body;
        let schema = stranger.get("/schema").await;
        assert_eq!(schema.header("content-type"), "application/schema+json");
        let mut ids = BTreeSet::new();
        for route in super::super::table() {
            let operation = &document["paths"][route.path][route.method.as_str().to_lowercase()];
            let id = operation["operationId"].as_str().expect("described");
            assert!(ids.insert(id.to_owned()), "{id} is there twice");
            let links = schema.body["links"].as_array().expect("links");
            assert!(links.iter().any(|link| link["rel"] == id), "{id} is not in the schema");
        }
        for document in [&document, &schema.body] {
            let mut found = BTreeSet::new();
            refs(document, &mut found);
            assert!(found.len() > 5, "{found:?}");
            for found in found {
                assert!(document.pointer(found.trim_start_matches('#')).is_some(), "{found} leads nowhere");
            }
        }
    }
}
