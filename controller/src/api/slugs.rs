//! What a build made, in the two forms that Heroku has for it. Both have the id of the build.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use model::Image;
use serde::Serialize;
use utoipa::ToSchema;

use super::auth::Access;
use super::builds::find;
use super::catalog::STACK_ID;
use super::error::ApiError;
use super::output::{Id, Named, Time};
use crate::store::Build;
use crate::{Controller, Error};

/// The result of a build.
#[derive(Serialize, ToSchema)]
#[schema(as = Slug)]
pub(super) struct SlugAnswer {
    blob: SlugBlob,
    buildpack_provided_description: Option<String>,
    /// Digest of the image.
    checksum: Option<String>,
    commit: Option<String>,
    commit_description: Option<String>,
    created_at: Time,
    deleted_at: Option<Time>,
    id: Id,
    process_types: BTreeMap<String, String>,
    /// Bytes that it adds to the stack.
    size: Option<u64>,
    stack: Named,
    updated_at: Time,
}

/// Where its bytes are. An image is kept in layers that it shares with others, and has no URL.
#[derive(Serialize, ToSchema)]
pub(super) struct SlugBlob {
    method: &'static str,
    url: &'static str,
}

/// The result of a build as an image.
#[derive(Serialize, ToSchema)]
#[schema(as = OciImage)]
pub(super) struct ImageAnswer {
    architecture: Option<String>,
    base_image_name: String,
    base_top_layer: String,
    buildpacks: Vec<ImageBuildpack>,
    commit: String,
    commit_description: String,
    created_at: Time,
    digest: String,
    id: Id,
    image_repo: String,
    process_types: BTreeMap<String, ImageProcess>,
    stack: Named,
    updated_at: Time,
}

/// A buildpack that took part.
#[derive(Serialize, ToSchema)]
pub(super) struct ImageBuildpack {
    homepage: Option<String>,
    id: String,
    version: String,
}

/// A process type of an image.
#[derive(Serialize, ToSchema)]
pub(super) struct ImageProcess {
    command: String,
    name: String,
    #[serde(rename = "type")]
    process_type: String,
    working_dir: String,
}

/// `GET /apps/{app}/slugs/{slug}`
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Json<SlugAnswer>, ApiError> {
    let (build, image) = result(&controller, &access, &reference).await?.ok_or(Error::NotFound("slug"))?;
    let commands = image.processes.iter().map(|process| (process.process_type.to_string(), command(process)));
    Ok(Json(SlugAnswer {
        blob: SlugBlob { method: "GET", url: "" },
        buildpack_provided_description: build.buildpacks.first().cloned(),
        checksum: Some(image.digest.to_string().replacen("sha256", "SHA256", 1)),
        commit: Some(build.commit.clone()).filter(|commit| !commit.is_empty()),
        commit_description: build.subject.clone(),
        created_at: build.created_at.into(),
        deleted_at: None,
        id: Id::of(&build.id),
        process_types: commands.collect(),
        size: build.size_bytes,
        stack: Named::new(STACK_ID, &access.app.stack),
        updated_at: build.updated_at.into(),
    }))
}

/// `GET /apps/{app}/oci-images/{image}`
pub(super) async fn image(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Json<ImageAnswer>, ApiError> {
    let (build, image) = result(&controller, &access, &reference).await?.ok_or(Error::NotFound("oci image"))?;
    let buildpack = |text: &String| {
        let (id, version) = text.split_once('@').unwrap_or((text, ""));
        ImageBuildpack { homepage: None, id: id.to_owned(), version: version.to_owned() }
    };
    let processes = image.processes.iter().map(|process| {
        let name = process.process_type.to_string();
        let working_dir = image.config.working_dir.clone();
        let answer =
            ImageProcess { command: command(process), name: name.clone(), process_type: name.clone(), working_dir };
        (name, answer)
    });
    Ok(Json(ImageAnswer {
        architecture: Some(std::env::consts::ARCH.replace("x86_64", "amd64").replace("aarch64", "arm64")),
        base_image_name: access.app.stack.clone(),
        base_top_layer: image.layers.first().map(|layer| layer.diff_id.to_string()).unwrap_or_default(),
        buildpacks: build.buildpacks.iter().map(buildpack).collect(),
        commit: build.commit.clone(),
        commit_description: build.subject.clone().unwrap_or_default(),
        created_at: build.created_at.into(),
        digest: image.digest.to_string(),
        id: Id::of(&build.id),
        image_repo: access.app.name.to_string(),
        process_types: processes.collect(),
        stack: Named::new(STACK_ID, &access.app.stack),
        updated_at: build.updated_at.into(),
    }))
}

pub(super) async fn result(
    controller: &Controller,
    access: &Access,
    reference: &str,
) -> Result<Option<(Build, Image)>, ApiError> {
    let Ok(build) = find(controller, &access.app, reference).await else { return Ok(None) };
    Ok(controller.store.image_of_build(build.id).await?.map(|image| (build, image)))
}

fn command(process: &model::Process) -> String {
    let words = process.command.iter().chain(&process.args);
    words.cloned().collect::<Vec<_>>().join(" ")
}
