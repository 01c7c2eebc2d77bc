use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;

use super::apps::BuildpackAnswer;
use super::auth::Access;
use super::error::ApiError;
use super::output::{Id, Identified, Time, UserAnswer};
use super::range::{Page, Range};
use crate::store::{App, Build};
use crate::{Controller, Error, Settings, streams};

/// A build.
#[derive(Serialize, ToSchema)]
#[schema(as = Build)]
pub(super) struct BuildAnswer {
    app: Identified,
    /// Those that it was built with.
    buildpacks: Vec<BuildpackAnswer>,
    created_at: Time,
    id: Id,
    labs: BTreeMap<String, String>,
    /// Where its output is, without a token.
    output_stream_url: String,
    /// What came of it.
    release: Option<Identified>,
    slug: Option<Identified>,
    source_blob: SourceBlob,
    stack: String,
    status: String,
    updated_at: Time,
    user: UserAnswer,
}

/// What was built.
#[derive(Serialize, ToSchema)]
pub(super) struct SourceBlob {
    checksum: Option<String>,
    url: String,
    /// The commit.
    version: String,
    /// The first line of its message.
    version_description: Option<String>,
}

/// `GET /apps/{app}/builds`
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    access: Access,
    range: Range,
) -> Result<Page<BuildAnswer>, ApiError> {
    let part = controller.store.builds_slice(access.app.id, &range.0).await?;
    Ok(range.part(part.map(|build| answer(&controller.settings, &access.app, &build))))
}

/// `GET /apps/{app}/builds/{build}`
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Json<BuildAnswer>, ApiError> {
    let id = reference.parse().map_err(|_| Error::NotFound("build"))?;
    let build = controller.store.build(id).await?.filter(|build| build.app == access.app.id);
    Ok(Json(answer(&controller.settings, &access.app, &build.ok_or(Error::NotFound("build"))?)))
}

fn answer(settings: &Settings, app: &App, build: &Build) -> BuildAnswer {
    BuildAnswer {
        app: Identified::of(&app.id),
        buildpacks: build.buildpacks.iter().map(|name| BuildpackAnswer::new(name)).collect(),
        created_at: build.created_at.into(),
        id: Id::of(&build.id),
        labs: BTreeMap::new(),
        output_stream_url: streams::build_url(settings, build),
        release: build.release.as_ref().map(Identified::of),
        slug: None,
        source_blob: SourceBlob {
            checksum: None,
            url: String::new(),
            version: build.commit.clone(),
            version_description: build.subject.clone(),
        },
        stack: app.stack.clone(),
        status: build.status.to_string(),
        updated_at: build.updated_at.into(),
        user: UserAnswer::from(&build.user),
    }
}
