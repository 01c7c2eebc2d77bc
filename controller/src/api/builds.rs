use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::apps::BuildpackAnswer;
use super::auth::{Access, MayBeHeld};
use super::error::ApiError;
use super::input::{Body, Text};
use super::output::{Accepted, Created, Id, Identified, Time, UserAnswer};
use super::range::{Page, Range};
use crate::builds::ArchiveRequest;
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

/// A build of an archive, or a deploy of an image.
#[derive(Deserialize, ToSchema)]
pub(super) struct CreateBuild {
    /// Buildpacks of this build only.
    buildpacks: Option<Vec<BuildpackWish>>,
    /// The archive or the image.
    source_blob: SourceBlobWish,
}

/// A buildpack, by its URL or by its name.
#[derive(Deserialize, ToSchema)]
pub(super) struct BuildpackWish {
    url: Option<Text>,
    name: Option<Text>,
}

/// A tar file, which may be compressed by gzip: of an app, or of an image as an OCI layout. Or an image of a registry.
#[derive(Deserialize, ToSchema)]
pub(super) struct SourceBlobWish {
    /// `SHA256:` and 64 hex digits.
    checksum: Option<Text>,
    /// A source's `get_url`, or any of `http` or `https`; or `docker://` and the name of an image.
    url: Text,
    /// What to call it: a commit, a version.
    version: Option<Text>,
}

/// What was built.
#[derive(Serialize, ToSchema)]
pub(super) struct SourceBlob {
    checksum: Option<String>,
    /// Where an archive came from, without name, password and query.
    url: String,
    /// The commit, or what its sender calls an archive.
    version: Option<String>,
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
    let build = find(&controller, &access.app, &reference).await?;
    Ok(Json(answer(&controller.settings, &access.app, &build)))
}

/// `POST /apps/{app}/builds`: it runs when this is answered; `output_stream_url` shows how it goes.
pub(super) async fn create(
    State(controller): State<Arc<Controller>>,
    access: Access,
    _: MayBeHeld,
    Body(wish): Body<CreateBuild>,
) -> Result<Created<BuildAnswer>, ApiError> {
    let blob = wish.source_blob;
    let text = |text: Option<Text>| text.map(|text| text.0);
    let buildpacks = wish.buildpacks.map(|wishes| {
        let reference = |wish: BuildpackWish| text(wish.url.or(wish.name));
        let missing = || ApiError::invalid("buildpacks must have a url or a name each");
        wishes.into_iter().map(|wish| reference(wish).ok_or_else(missing)).collect::<Result<Vec<_>, _>>()
    });
    let request = ArchiveRequest {
        url: blob.url.0,
        checksum: text(blob.checksum),
        version: text(blob.version),
        buildpacks: buildpacks.transpose()?,
    };
    let build = controller.start_build(&access.app, &access.actor, request).await?;
    Ok(Created(answer(&controller.settings, &access.app, &build)))
}

/// `DELETE /apps/{app}/builds/{build}`: cancels one that runs.
pub(super) async fn cancel(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Json<BuildAnswer>, ApiError> {
    let build = find(&controller, &access.app, &reference).await?;
    controller.cancel_build(&access.app, &access.actor, &build).await?;
    Ok(Json(answer(&controller.settings, &access.app, &build)))
}

/// `DELETE /apps/{app}/build-cache`: the next build starts from nothing.
pub(super) async fn purge_cache(
    State(controller): State<Arc<Controller>>,
    access: Access,
) -> Result<Accepted, ApiError> {
    controller.purge_build_cache(&access.app, &access.actor).await?;
    Ok(Accepted {})
}

/// A build of an app, by its id.
pub(super) async fn find(controller: &Controller, app: &App, reference: &str) -> Result<Build, Error> {
    let id = reference.parse().map_err(|_| Error::NotFound("build"))?;
    let build = controller.store.build(id).await?.filter(|build| build.app == app.id);
    build.ok_or(Error::NotFound("build"))
}

pub(super) fn answer(settings: &Settings, app: &App, build: &Build) -> BuildAnswer {
    BuildAnswer {
        app: Identified::of(&app.id),
        buildpacks: build.buildpacks.iter().map(|name| BuildpackAnswer::new(name)).collect(),
        created_at: build.created_at.into(),
        id: Id::of(&build.id),
        labs: BTreeMap::new(),
        output_stream_url: streams::build_url(settings, build),
        release: build.release.as_ref().map(Identified::of),
        slug: build.release.map(|_| Identified::of(&build.id)),
        source_blob: SourceBlob {
            checksum: build.source_checksum.clone(),
            url: build.source_url.clone().unwrap_or_default(),
            version: Some(build.commit.clone()).filter(|version| !version.is_empty()),
            version_description: build.subject.clone(),
        },
        stack: app.stack.clone(),
        status: build.status.to_string(),
        updated_at: build.updated_at.into(),
        user: UserAnswer::from(&build.user),
    }
}
