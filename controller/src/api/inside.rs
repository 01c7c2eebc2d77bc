//! Files and ports of dynos that run. Heroku's program reaches them by a server of its own.

use std::io;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::request::Parts;
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;
use utoipa::ToSchema;

use super::auth::Access;
use super::backups::Content;
use super::describe::{Description, Input};
use super::error::ApiError;
use super::output::Created;
use crate::Controller;

/// A port of a dyno that can be reached from elsewhere.
#[derive(Serialize, ToSchema)]
#[schema(as = PortForward)]
pub(super) struct ForwardAnswer {
    /// A WebSocket for each connection, until nobody has come for an hour: binary frames are bytes, `{"eof":true}` is the end of what
    /// is sent.
    attach_url: String,
    /// As `web.1`.
    dyno: String,
    port: u16,
}

/// What came into a dyno.
#[derive(Serialize, ToSchema)]
#[schema(as = CopiedFiles)]
pub(super) struct CopiedAnswer {
    /// As `web.1`.
    dyno: String,
    path: String,
}

/// Which file or folder: `?path=/app/log`.
pub(super) struct At(String);

impl<S: Send + Sync> FromRequestParts<S> for At {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let query = parts.uri.query().unwrap_or_default();
        let path = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "path");
        path.map(|(_, path)| Self(path.into_owned())).ok_or_else(|| ApiError::invalid("path is missing"))
    }
}

impl Input for At {
    fn describe(description: &mut Description<'_>) {
        description.query("path", "The absolute path of a file or folder in the dyno.");
        description.errors(&[409, 422]);
    }
}

/// `POST /apps/{app}/dynos/{dyno}/ports/{port}`: makes a port of a dyno reachable, also one that only the dyno itself reaches.
pub(super) async fn forward(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, dyno, port)): Path<(String, String, String)>,
) -> Result<Created<ForwardAnswer>, ApiError> {
    let port: u16 = port
        .parse()
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| ApiError::invalid("port must be between 1 and 65535"))?;
    let (dyno, attach_url) = controller.forward((&access.app, &access.actor), &dyno, port).await?;
    Ok(Created(ForwardAnswer { attach_url, dyno: dyno.name.to_string(), port }))
}

/// `GET /apps/{app}/dynos/{dyno}/files`: a file or folder, with what is in it, as a tar archive. Of what is in it, only files, folders
/// and symbolic links.
pub(super) async fn download(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, dyno)): Path<(String, String)>,
    At(path): At,
) -> Result<Content, ApiError> {
    let archive = controller.files((&access.app, &access.actor), &dyno, &path).await?;
    Ok(Content::new("files.tar", Body::from_stream(archive)))
}

/// `PUT /apps/{app}/dynos/{dyno}/files`: unpacks a tar archive into a folder or, if there is none, beside where it would be, under its
/// name.
pub(super) async fn upload(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, dyno)): Path<(String, String)>,
    At(path): At,
    request: Request,
) -> Result<Json<CopiedAnswer>, ApiError> {
    let archive = request.into_body().into_data_stream().map_err(io::Error::other).boxed();
    let dyno = controller.put_files((&access.app, &access.actor), &dyno, (&path, archive)).await?;
    Ok(Json(CopiedAnswer { dyno: dyno.name.to_string(), path }))
}
