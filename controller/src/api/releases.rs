use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use model::{AttachmentName, ProcessType};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::{Access, MayBeHeld};
use super::config_vars::ConfigVarsAnswer;
use super::error::ApiError;
use super::input::{Body, Flag, Reference, Text};
use super::output::{Done, Id, Identified, Named, Time, UserAnswer};
use super::range::{Page, Range};
use crate::releases::{RollbackWish, Warning, is_eligible};
use crate::store::{App, AttachedAddon, ConfigChanges, ProcessScale, Release, Slug};
use crate::{Controller, Settings, streams};

/// The way back to an earlier release.
#[derive(Deserialize, ToSchema)]
pub(super) struct CreateRelease {
    /// Its id or version.
    release: Reference,
    /// Whether the app stays scaled as it is.
    keep_formation: Option<Flag>,
    /// Why, for whoever reads the releases; at most 500 characters.
    reason: Option<Text>,
}

/// A release.
#[derive(Serialize, ToSchema)]
#[schema(as = Release)]
pub(super) struct ReleaseAnswer {
    addon_plan_names: Vec<String>,
    app: Named,
    artifacts: Vec<Identified>,
    /// The add-ons that its app used when it was made; null if that is not remembered.
    attachments: Option<Vec<AttachedAnswer>>,
    /// What became of config vars against the release before.
    config_changes: Vec<ConfigVarChange>,
    created_at: Time,
    /// Whether it is the one that runs.
    current: bool,
    /// What it changed.
    description: String,
    /// Whether one can go back to it.
    eligible_for_rollback: bool,
    /// Why it failed; Heroku has no word for it.
    failure: Option<String>,
    /// How its app was scaled when it was made; null if that is not remembered.
    formation: Option<Vec<ScaleAnswer>>,
    id: Id,
    /// Whether what it ran was removed, since its app has newer images: one cannot go back to it.
    image_removed: bool,
    oci_image: Option<Identified>,
    /// Where the output of its release phase is; null if it has none.
    output_stream_url: Option<String>,
    /// Why it was made, in the words of who made it.
    reason: Option<String>,
    /// What its image was built from.
    slug: Option<ReleaseSlugAnswer>,
    status: String,
    updated_at: Time,
    user: UserAnswer,
    version: u64,
    /// What to know about it; only in the answer to a rollback.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    warnings: Option<Vec<WarningAnswer>>,
}

/// The build that made an image.
#[derive(Serialize, ToSchema)]
#[schema(as = ReleaseSlug)]
pub(super) struct ReleaseSlugAnswer {
    id: Id,
    /// In full.
    commit: String,
    /// First line of the commit's message.
    commit_description: Option<String>,
}

/// An add-on that an app uses, as a release knows it.
#[derive(Serialize, ToSchema)]
#[schema(as = ReleaseAttachment)]
pub(super) struct AttachedAnswer {
    /// Of the attachment.
    name: String,
    addon: Named,
    /// `postgres:mini`
    plan: String,
}

/// How a process type is scaled.
#[derive(Serialize, ToSchema)]
#[schema(as = ProcessScale)]
pub(super) struct ScaleAnswer {
    r#type: String,
    quantity: u32,
    size: String,
}

/// What became of a config var.
#[derive(Serialize, ToSchema)]
pub(super) struct ConfigVarChange {
    name: String,
    /// `added`, `changed` or `removed`.
    change: String,
}

/// What to know before or after a rollback.
#[derive(Serialize, ToSchema)]
#[schema(as = Warning)]
pub(super) struct WarningAnswer {
    id: String,
    message: String,
}

/// `GET /apps/{app}/releases`
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    access: Access,
    range: Range,
) -> Result<Page<ReleaseAnswer>, ApiError> {
    let part = controller.store.releases_slice(access.app.id, &range.0).await?;
    let deployed = controller.store.was_deployed(access.app.id).await?;
    Ok(range.part(part.map(|release| answer(&controller.settings, &access.app, &release, deployed))))
}

/// `GET /apps/{app}/releases/{release}`
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Json<ReleaseAnswer>, ApiError> {
    let release = controller.find_release(&access.app, &reference).await?;
    let deployed = controller.store.was_deployed(access.app.id).await?;
    Ok(Json(answer(&controller.settings, &access.app, &release, deployed)))
}

/// `GET /apps/{app}/releases/{release}/config-vars`
pub(super) async fn config_vars(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Json<ConfigVarsAnswer>, ApiError> {
    let release = controller.find_release(&access.app, &reference).await?;
    Ok(Json(ConfigVarsAnswer(controller.store.release_config(release.id).await?)))
}

/// `POST /apps/{app}/releases`: back to `release`. 201 if that made a release, 200 if the app is what it was already.
pub(super) async fn rollback(
    State(controller): State<Arc<Controller>>,
    access: Access,
    _: MayBeHeld,
    Body(wish): Body<CreateRelease>,
) -> Result<Done<ReleaseAnswer>, ApiError> {
    let target = controller.find_release(&access.app, &wish.release.0).await?;
    let keep_formation = wish.keep_formation.is_some_and(|flag| flag.0);
    let wish = RollbackWish { keep_formation, reason: wish.reason.map(|reason| reason.0) };
    let done = controller.rollback((&access.app, &access.actor), &target, &wish).await?;
    let deployed = controller.store.was_deployed(access.app.id).await?;
    let mut release = answer(&controller.settings, &access.app, &done.release, deployed);
    release.warnings = Some(done.warnings.iter().map(WarningAnswer::from).collect());
    Ok(if done.is_new { Done::Made(release) } else { Done::Already(release) })
}

/// `POST /apps/{app}/actions/rebase`: onto the newest run image of its stack, without a build. 201 if that made a release, 200
/// with the present one if the app is there already.
pub(super) async fn rebase(
    State(controller): State<Arc<Controller>>,
    access: Access,
    _: MayBeHeld,
) -> Result<Done<ReleaseAnswer>, ApiError> {
    let made = controller.rebase(&access.app, &access.actor).await?;
    let deployed = controller.store.was_deployed(access.app.id).await?;
    let answer = |release: &Release| answer(&controller.settings, &access.app, release, deployed);
    Ok(match made {
        Some(release) => Done::Made(answer(&release)),
        None => Done::Already(answer(&controller.current_release(&access.app).await?)),
    })
}

pub(super) fn answer(settings: &Settings, app: &App, release: &Release, app_was_deployed: bool) -> ReleaseAnswer {
    let attachments = release.attachments.as_ref();
    let mut plans: Vec<_> = attachments.into_iter().flatten().map(|(_, addon)| addon.plan.clone()).collect();
    plans.sort();
    let attachments = attachments.map(|all| all.iter().map(|(name, addon)| AttachedAnswer::new(name, addon)).collect());
    let formation = release.formation.as_ref();
    ReleaseAnswer {
        addon_plan_names: plans,
        app: Named::from(app),
        artifacts: Vec::new(),
        attachments,
        config_changes: config_var_changes(&release.config_changes),
        created_at: release.created_at.into(),
        current: release.current,
        description: release.description.clone(),
        eligible_for_rollback: is_eligible(release, app_was_deployed),
        failure: release.failure.clone(),
        formation: formation.map(|all| all.iter().map(|(name, scale)| ScaleAnswer::new(name, scale)).collect()),
        id: Id::of(&release.id),
        image_removed: release.image_removed_at.is_some(),
        oci_image: None,
        output_stream_url: streams::release_url(settings, release),
        reason: release.reason.clone(),
        slug: release.slug.as_ref().map(ReleaseSlugAnswer::from),
        status: release.status.to_string(),
        updated_at: release.updated_at.into(),
        user: UserAnswer::from(&release.user),
        version: release.version,
        warnings: None,
    }
}

pub(super) fn config_var_changes(changes: &ConfigChanges) -> Vec<ConfigVarChange> {
    changes
        .iter()
        .map(|(name, change)| ConfigVarChange { name: name.to_string(), change: change.to_string() })
        .collect()
}

impl From<&Slug> for ReleaseSlugAnswer {
    fn from(slug: &Slug) -> Self {
        let (id, commit) = (Id::of(&slug.build), slug.commit.clone());
        Self { id, commit, commit_description: slug.subject.clone() }
    }
}

impl From<&Warning> for WarningAnswer {
    fn from(warning: &Warning) -> Self {
        Self { id: warning.id.to_owned(), message: warning.message.clone() }
    }
}

impl AttachedAnswer {
    pub(super) fn new(name: &AttachmentName, it: &AttachedAddon) -> Self {
        let addon = Named::new(&it.addon, &it.name);
        Self { name: name.to_string(), addon, plan: it.plan.clone() }
    }
}

impl ScaleAnswer {
    pub(super) fn new(process_type: &ProcessType, scale: &ProcessScale) -> Self {
        Self { r#type: process_type.to_string(), quantity: scale.quantity, size: scale.size.clone() }
    }
}
