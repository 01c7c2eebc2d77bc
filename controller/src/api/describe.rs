//! What a route says of itself, from the types of its handler: nothing is written twice, so nothing can be left out.
//!
//! Every argument of a handler is an [`Input`] and every result an [`Output`]; each adds what it knows to the route's
//! [`Description`]. [`Describe`] puts them together for functions of any number of arguments, and asks nothing of the handler.
//! `openapi.rs` makes the document of it.
//!
//! # How to add a route
//!
//! 1. The body: a struct of the types in `input.rs`, `#[derive(Deserialize, ToSchema)]`, taken as `Body(wish): Body<Wish>`.
//! 2. The answer: a struct of `Serialize` values (`Id`, `Time`, `Named` … in `output.rs`), `#[derive(Serialize, ToSchema)]`
//!    with `#[schema(as = Resource)]` for its name on the wire, returned as `Json`, `Created`, `Page` … An attribute that may
//!    be null is an `Option` and is always written; one that is left out at times (`skip_serializing_if`) says
//!    `#[schema(nullable = false)]`. Doc comments become descriptions.
//! 3. The handler: `async fn` from extractors to `Result<wrapper, ApiError>`. An extractor of its own implements [`Input`].
//! 4. One line in the table in `mod.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::HeaderMap;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::auth::{Access, MayBeHeld};
use super::error::ApiError;
use super::input::Body;
use super::output::{Accepted, Created, Done, List, WARNING, Warned};
use crate::{Actor, Controller};

/// Where the description says what every error is.
pub(super) const ERROR: &str = "#/components/responses/Error";

/// What one argument of a handler reads of the request.
pub(super) trait Input {
    /// Adds it to the description.
    fn describe(_: &mut Description<'_>) {}
}

/// What a handler answers.
pub(super) trait Output {
    /// Adds it to the description.
    fn describe(description: &mut Description<'_>);
}

#[diagnostic::on_unimplemented(
    message = "an argument of `{Self}` is no `Input`, or its result no `Output`",
    note = "see the top of `describe.rs`"
)]
/// A handler whose arguments and result can be described. `T` are their types.
pub(super) trait Describe<T> {
    /// Adds what the handler reads and answers.
    fn describe(description: &mut Description<'_>);
}

/// The schemas of everything that is sent, by name.
pub(super) type Schemas = BTreeMap<String, Value>;

/// An operation in the making, in the words of OpenAPI 3.1.
pub(super) struct Description<'a> {
    schemas: &'a mut Schemas,
    pub(super) parameters: Vec<Value>,
    pub(super) body: Option<Value>,
    pub(super) responses: Map<String, Value>,
}

impl<'a> Description<'a> {
    pub(super) fn new(schemas: &'a mut Schemas) -> Self {
        Self { schemas, parameters: Vec::new(), body: None, responses: Map::new() }
    }

    /// A header that changes the answer.
    pub(super) fn header(&mut self, name: &str, description: &str) {
        let schema = json!({ "type": "string" });
        self.parameters.push(json!({ "in": "header", "name": name, "description": description, "schema": schema }));
    }

    /// A parameter behind the path.
    pub(super) fn query(&mut self, name: &str, description: &str) {
        let schema = json!({ "type": "string" });
        self.parameters.push(json!({ "in": "query", "name": name, "description": description, "schema": schema }));
    }

    /// An answer in JSON.
    pub(super) fn answer(&mut self, status: u16, description: &str, schema: &Value) -> &mut Value {
        let content = json!({ "application/json": { "schema": schema } });
        let response = json!({ "description": description, "content": content });
        self.responses.entry(status.to_string()).or_insert(response)
    }

    /// An answer of 200 that is no JSON.
    pub(super) fn stream(&mut self, description: &str, media_type: &str) {
        self.responses.insert("200".to_owned(), json!({ "description": description, "content": { media_type: {} } }));
    }

    /// Errors that are to be expected.
    pub(super) fn errors(&mut self, statuses: &[u16]) {
        for status in statuses {
            self.responses.insert(status.to_string(), json!({ "$ref": ERROR }));
        }
    }

    /// Where the schema of a type that is read stands.
    pub(super) fn read<T: ToSchema>(&mut self) -> Value {
        self.refer::<T>(|_| {})
    }

    /// Where the schema of a type that is answered stands. Attributes that may be null are always there.
    pub(super) fn written<T: ToSchema>(&mut self) -> Value {
        self.refer::<T>(adapt_answer)
    }

    fn refer<T: ToSchema>(&mut self, adapt: fn(&mut Value)) -> Value {
        let mut found = vec![(T::name().into_owned(), T::schema())];
        T::schemas(&mut found);
        for (name, schema) in found {
            let mut schema = json!(schema);
            adapt(&mut schema);
            let known = self.schemas.entry(name.clone()).or_insert_with(|| schema.clone());
            debug_assert!(*known == schema, "two types are called {name} in the API");
        }
        json!({ "$ref": format!("#/components/schemas/{}", T::name()) })
    }
}

/// utoipa takes every `Option` for something that can be left out; answers leave nothing out that can be null. And of the
/// variants of an answer one may be part of another, so that both fit.
fn adapt_answer(schema: &mut Value) {
    if let Some(variants) = schema.as_object_mut().and_then(|schema| schema.remove("oneOf")) {
        schema["anyOf"] = variants;
    }
    let Some(properties) = schema["properties"].as_object() else { return };
    let is_null = |schema: &Value| schema["type"] == "null";
    let is_nullable = |schema: &Value| {
        let types = schema["type"].as_array().is_some_and(|types| types.contains(&json!("null")));
        types || schema["oneOf"].as_array().is_some_and(|one_of| one_of.iter().any(is_null))
    };
    let nullable: Vec<Value> =
        properties.iter().filter(|(_, schema)| is_nullable(schema)).map(|(name, _)| json!(name)).collect();
    if nullable.is_empty() {
        return;
    }
    match schema["required"].as_array_mut() {
        Some(required) => required.extend(nullable),
        None => schema["required"] = nullable.into(),
    }
}

impl Input for State<Arc<Controller>> {}
impl<T> Input for Path<T> {}
impl Input for HeaderMap {}
impl Input for Request {}

/// Whoever has a token.
impl Input for Actor {}

impl Input for Access {
    fn describe(description: &mut Description<'_>) {
        description.errors(&[404]);
    }
}

impl Input for MayBeHeld {
    fn describe(description: &mut Description<'_>) {
        description.query("force", "`true`: even if the app is locked or frozen. Needs the role admin.");
        description.errors(&[423]);
    }
}

impl<T: ToSchema> Input for Body<T> {
    fn describe(description: &mut Description<'_>) {
        let schema = description.read::<T>();
        description.body = Some(json!({ "content": { "application/json": { "schema": schema } } }));
        description.errors(&[400, 408, 413, 422]);
    }
}

impl<T: ToSchema> Output for Json<T> {
    fn describe(description: &mut Description<'_>) {
        let schema = description.written::<T>();
        description.answer(200, "It is so.", &schema);
    }
}

impl<T: ToSchema> Output for List<T> {
    fn describe(description: &mut Description<'_>) {
        let schema = json!({ "type": "array", "items": description.written::<T>() });
        description.answer(200, "All of them.", &schema);
    }
}

impl<T: ToSchema> Output for Created<T> {
    fn describe(description: &mut Description<'_>) {
        let schema = description.written::<T>();
        description.answer(201, "It was made.", &schema);
        description.errors(&[409, 422]);
    }
}

impl<T: Output> Output for Warned<T> {
    fn describe(description: &mut Description<'_>) {
        T::describe(description);
        let header = json!({ "description": "What whoever asks should know.", "schema": { "type": "string" } });
        for answer in description.responses.values_mut().filter(|answer| answer["content"].is_object()) {
            answer["headers"] = json!({ WARNING.as_str(): header });
        }
    }
}

impl<T: ToSchema> Output for Done<T> {
    fn describe(description: &mut Description<'_>) {
        Created::<T>::describe(description);
        let schema = description.written::<T>();
        description.answer(200, "It was so already.", &schema);
    }
}

impl Output for Accepted {
    fn describe(description: &mut Description<'_>) {
        let schema = description.written::<Self>();
        description.answer(202, "It was begun.", &schema);
    }
}

/// A route that always refuses.
impl Output for ApiError {
    fn describe(_: &mut Description<'_>) {}
}

impl<T: Output> Output for Result<T, ApiError> {
    fn describe(description: &mut Description<'_>) {
        T::describe(description);
    }
}

macro_rules! describe {
    ($($argument:ident)*) => {
        impl<H, Future, Answer, $($argument,)*> Describe<($($argument,)*)> for H
        where
            H: FnOnce($($argument),*) -> Future,
            Future: std::future::Future<Output = Answer>,
            Answer: Output,
            $($argument: Input,)*
        {
            fn describe(description: &mut Description<'_>) {
                $($argument::describe(description);)*
                Answer::describe(description);
            }
        }
    };
}

describe!();
describe!(A);
describe!(A B);
describe!(A B C);
describe!(A B C D);
describe!(A B C D E);
describe!(A B C D E F);
