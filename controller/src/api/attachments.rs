use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use model::{AppName, Role};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::addons::{AddonAccess, lists};
use super::auth::{Access, MayBeHeld, Need};
use super::describe::{Description, Input};
use super::error::ApiError;
use super::input::{Body, Reference, Text};
use super::output::{Created, Id, List, Named, Time};
use super::range::{Page, Range};
use crate::store::{App, Attachment};
use crate::{Actor, Controller, Error};

/// A new attachment.
#[derive(Deserialize, ToSchema)]
pub(super) struct CreateAttachment {
    /// Who is to use it.
    app: Reference,
    /// What is to be used.
    addon: Reference,
    /// What the names of its config vars begin with; one is chosen if it is absent.
    name: Option<Text>,
}

/// A name of an attachment.
#[derive(Deserialize, ToSchema)]
pub(super) struct ResolveAttachment {
    /// Its id or, in an app, its name or its add-on's.
    addon_attachment: Text,
    /// Where it means that.
    app: Option<Reference>,
}

/// An attachment: the use of an add-on by an app.
#[derive(Serialize, ToSchema)]
#[schema(as = AddonAttachment)]
pub(super) struct AttachmentAnswer {
    addon: AttachedAddon,
    app: Named,
    /// With `Accept-Inclusion: config_vars`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    config_vars: Option<Vec<String>>,
    created_at: Time,
    id: Id,
    log_input_url: Option<String>,
    /// What the names of its config vars begin with.
    name: String,
    namespace: Option<String>,
    updated_at: Time,
    web_url: Option<String>,
}

/// What is used.
#[derive(Serialize, ToSchema)]
pub(super) struct AttachedAddon {
    /// The app that it was made for.
    app: Named,
    id: Id,
    name: String,
    /// With `Accept-Inclusion: addon:plan`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    plan: Option<PlanName>,
}

/// A plan, in short.
#[derive(Serialize, ToSchema)]
pub(super) struct PlanName {
    name: String,
}

/// An attachment that the path names, by its id or, of an app, its name.
pub(super) struct AttachmentAccess {
    actor: Actor,
    attachment: Attachment,
}

impl FromRequestParts<Arc<Controller>> for AttachmentAccess {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, controller: &Arc<Controller>) -> Result<Self, ApiError> {
        let actor = Actor::from_request_parts(parts, controller).await?;
        let Need(need) = Need::from_request_parts(parts, controller).await?;
        let path = Path::<BTreeMap<String, String>>::from_request_parts(parts, controller).await;
        let path = path.map_err(|_| Error::NotFound("add-on attachment"))?;
        let app = match path.get("app") {
            Some(app) => Some(controller.find_app(&actor, app, need).await?),
            None => None,
        };
        let reference = path.get("attachment").map(String::as_str).unwrap_or_default();
        let attachment = find(controller, &actor, (reference, app.as_ref())).await?;
        if app.is_none() {
            controller.find_app(&actor, &attachment.app.to_string(), need).await?;
        }
        Ok(Self { actor, attachment })
    }
}

/// What is wanted beside the usual: `Accept-Inclusion: addon:plan,config_vars`.
pub(super) struct Inclusion {
    plan: bool,
    config_vars: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for Inclusion {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let has = |word: &str| has(&parts.headers, word);
        Ok(Self { plan: has("addon:plan"), config_vars: has("config_vars") })
    }
}

impl Input for AttachmentAccess {
    fn describe(description: &mut Description<'_>) {
        description.errors(&[404]);
    }
}

impl Input for Inclusion {
    fn describe(description: &mut Description<'_>) {
        description.header("Accept-Inclusion", "What is wanted beside the usual: `addon:plan`, `config_vars`.");
    }
}

fn has(headers: &HeaderMap, word: &str) -> bool {
    lists(headers, "accept-inclusion", word)
}

/// `GET /addon-attachments`
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    inclusion: Inclusion,
    range: Range,
) -> Result<Page<AttachmentAnswer>, ApiError> {
    let all = controller.store.attachments_of(actor.user.id).await?;
    page(&controller, &all, (&inclusion, &range)).await
}

/// `GET /apps/{app}/addon-attachments`
pub(super) async fn list_of_app(
    State(controller): State<Arc<Controller>>,
    access: Access,
    inclusion: Inclusion,
    range: Range,
) -> Result<Page<AttachmentAnswer>, ApiError> {
    let all = controller.store.attachments_of_app(access.app.id).await?;
    page(&controller, &all, (&inclusion, &range)).await
}

/// `GET /addons/{addon}/addon-attachments`
pub(super) async fn list_of_addon(
    State(controller): State<Arc<Controller>>,
    access: AddonAccess,
    inclusion: Inclusion,
    range: Range,
) -> Result<Page<AttachmentAnswer>, ApiError> {
    let all = controller.store.attachments_of_addon(access.addon.id).await?;
    page(&controller, &all, (&inclusion, &range)).await
}

/// `POST /addon-attachments`
pub(super) async fn create(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    _: MayBeHeld,
    Body(wish): Body<CreateAttachment>,
) -> Result<Created<AttachmentAnswer>, ApiError> {
    let app = controller.find_app(&actor, &wish.app.0, Role::Operate).await?;
    let addon = controller.find_addon(&actor, (&wish.addon.0, Some(&app)), Role::Operate).await?;
    let name = wish.name.map(|it| it.0);
    let made = controller.attach_addon(&addon, (&app, &actor), name.as_deref()).await?;
    Ok(Created(short_answer(&made)))
}

/// `GET /addon-attachments/{attachment}`, `GET /apps/{app}/addon-attachments/{attachment}`
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    access: AttachmentAccess,
    inclusion: Inclusion,
) -> Result<Json<AttachmentAnswer>, ApiError> {
    Ok(Json(answer(&controller, &access.attachment, &inclusion).await?))
}

/// `DELETE /addon-attachments/{attachment}`
pub(super) async fn delete(
    State(controller): State<Arc<Controller>>,
    access: AttachmentAccess,
    _: MayBeHeld,
) -> Result<Json<AttachmentAnswer>, ApiError> {
    controller.detach_addon(&access.attachment, &access.actor).await?;
    Ok(Json(short_answer(&access.attachment)))
}

/// `POST /actions/addon-attachments/resolve`
pub(super) async fn resolve(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    inclusion: Inclusion,
    Body(wish): Body<ResolveAttachment>,
) -> Result<List<AttachmentAnswer>, ApiError> {
    let app = match wish.app {
        Some(Reference(app)) => Some(controller.find_app(&actor, &app, Role::View).await?),
        None => None,
    };
    let attachment = find(&controller, &actor, (&wish.addon_attachment.0, app.as_ref())).await?;
    Ok(List(vec![answer(&controller, &attachment, &inclusion).await?]))
}

/// The first config var of an attachment.
pub(super) fn config_var(attachment: &Attachment) -> String {
    format!("{}_URL", attachment.name)
}

/// By id; of an app also by name, with or without `_URL`, and by the add-on's name.
async fn find(
    controller: &Controller,
    actor: &Actor,
    (reference, app): (&str, Option<&App>),
) -> Result<Attachment, ApiError> {
    let all = match app {
        Some(app) => controller.store.attachments_of_app(app.id).await?,
        None => controller.store.attachments_of(actor.user.id).await?,
    };
    let is_wanted = |attachment: &&Attachment| {
        let is_named = attachment.name.as_str() == reference || config_var(attachment) == reference;
        let is_of = attachment.addon_name.as_str() == reference || attachment.addon.to_string() == reference;
        attachment.id.to_string() == reference || (app.is_some() && (is_named || is_of))
    };
    Ok(all.iter().find(is_wanted).cloned().ok_or(Error::NotFound("add-on attachment"))?)
}

async fn page(
    controller: &Controller,
    attachments: &[Attachment],
    (inclusion, range): (&Inclusion, &Range),
) -> Result<Page<AttachmentAnswer>, ApiError> {
    let mut answers = Vec::with_capacity(attachments.len());
    for attachment in attachments {
        answers.push(answer(controller, attachment, inclusion).await?);
    }
    Ok(range.page(answers, "name"))
}

async fn answer(
    controller: &Controller,
    attachment: &Attachment,
    inclusion: &Inclusion,
) -> Result<AttachmentAnswer, ApiError> {
    let mut answer = short_answer(attachment);
    if inclusion.config_vars {
        answer.config_vars = Some(vec![config_var(attachment)]);
    }
    if inclusion.plan
        && let Some(addon) = controller.store.addon(attachment.addon).await?
    {
        answer.addon.plan = Some(PlanName { name: format!("{}:{}", addon.kind, addon.plan) });
    }
    Ok(answer)
}

fn short_answer(attachment: &Attachment) -> AttachmentAnswer {
    AttachmentAnswer {
        addon: AttachedAddon {
            app: Named::new(&attachment.addon_app, attachment.addon_app_name.as_ref().map_or("", AppName::as_str)),
            id: Id::of(&attachment.addon),
            name: attachment.addon_name.to_string(),
            plan: None,
        },
        app: Named::new(&attachment.app, &attachment.app_name),
        config_vars: None,
        created_at: attachment.created_at.into(),
        id: Id::of(&attachment.id),
        log_input_url: None,
        name: attachment.name.to_string(),
        namespace: None,
        updated_at: attachment.created_at.into(),
        web_url: None,
    }
}
