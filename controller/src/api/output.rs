//! Answers. Each is a struct that derives `Serialize` and `ToSchema`, in one of these wrappers (or `Json` for 200, or a
//! `Page`, see `range.rs`), which give it its status. What nobody knows is null, never absent: clients crash on absent fields.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use model::Timestamp;
use serde::{Serialize, Serializer};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::store::{App, AppScope, User, UserRef};

/// The header that Heroku's client shows as a warning.
pub(super) const WARNING: HeaderName = HeaderName::from_static("x-heroku-warning");

/// 201: it was made.
pub(super) struct Created<T>(pub(super) T);

/// 201: it was made; 200: there was nothing to do.
pub(super) enum Done<T> {
    Made(T),
    Already(T),
}

/// An answer with a word of warning, which Heroku's program shows to whoever runs it.
pub(super) struct Warned<T>(pub(super) Option<String>, pub(super) T);

/// 202: it was begun, and there is nothing more to say of it.
#[derive(Serialize, ToSchema)]
pub(super) struct Accepted {}

/// 200: a list that always comes whole.
pub(super) struct List<T>(pub(super) Vec<T>);

/// A UUID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Id(String);

/// A moment, as RFC 3339 writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Time(Timestamp);

/// Something that has a name and an id.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Named {
    /// Its id.
    id: Id,
    /// Its name, which may change.
    name: String,
}

/// Something that is known by its id.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Identified {
    /// Its id.
    pub(super) id: Id,
}

/// A user, in short.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = UserReference)]
pub(super) struct UserAnswer {
    /// Its id.
    id: Id,
    /// Its address.
    email: String,
}

impl<T: Serialize> IntoResponse for Created<T> {
    fn into_response(self) -> Response {
        (StatusCode::CREATED, Json(self.0)).into_response()
    }
}

impl<T: Serialize> IntoResponse for Done<T> {
    fn into_response(self) -> Response {
        match self {
            Self::Made(made) => Created(made).into_response(),
            Self::Already(there) => Json(there).into_response(),
        }
    }
}

impl<T: IntoResponse> IntoResponse for Warned<T> {
    fn into_response(self) -> Response {
        let mut response = self.1.into_response();
        // Addresses and links are plain ASCII.
        if let Some(warning) = self.0.and_then(|text| HeaderValue::from_str(&text).ok()) {
            response.headers_mut().insert(WARNING, warning);
        }
        response
    }
}

impl IntoResponse for Accepted {
    fn into_response(self) -> Response {
        (StatusCode::ACCEPTED, Json(Self {})).into_response()
    }
}

impl<T: Serialize> IntoResponse for List<T> {
    fn into_response(self) -> Response {
        Json(self.0).into_response()
    }
}

impl Id {
    /// An id of any kind of thing, which must be a UUID.
    pub(super) fn of(id: &(impl ToString + ?Sized)) -> Self {
        Self(id.to_string())
    }
}

impl Named {
    pub(super) fn new(id: &(impl ToString + ?Sized), name: &(impl ToString + ?Sized)) -> Self {
        Self { id: Id::of(id), name: name.to_string() }
    }
}

/// The team for whose apps something is.
pub(super) fn team_of(scope: &AppScope) -> Option<Named> {
    match scope {
        AppScope::Team(team) => Some(Named::new(&team.id, team.name.as_str())),
        AppScope::App(_) | AppScope::Platform => None,
    }
}

impl Identified {
    pub(super) fn of(id: &(impl ToString + ?Sized)) -> Self {
        Self { id: Id::of(id) }
    }
}

impl From<&App> for Named {
    fn from(app: &App) -> Self {
        Self::new(&app.id, &app.name)
    }
}

impl UserAnswer {
    pub(super) fn new(id: &impl ToString, email: &str) -> Self {
        Self { id: Id::of(id), email: email.to_owned() }
    }
}

impl From<&UserRef> for UserAnswer {
    fn from(user: &UserRef) -> Self {
        Self { id: Id::of(&user.id), email: user.email.to_string() }
    }
}

impl From<&User> for UserAnswer {
    fn from(user: &User) -> Self {
        Self::from(&user.to_ref())
    }
}

impl From<Timestamp> for Time {
    fn from(time: Timestamp) -> Self {
        Self(time)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_rfc3339())
    }
}

impl PartialSchema for Id {
    fn schema() -> RefOr<Schema> {
        string("uuid")
    }
}

impl ToSchema for Id {}

impl PartialSchema for Time {
    fn schema() -> RefOr<Schema> {
        string("date-time")
    }
}

impl ToSchema for Time {}

fn string(format: &str) -> RefOr<Schema> {
    let format = Some(SchemaFormat::Custom(format.to_owned()));
    RefOr::T(ObjectBuilder::new().schema_type(Type::String).format(format).into())
}
