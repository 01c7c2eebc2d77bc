use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use model::Role;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::addon_services::{PRICE, PlanAnswer, PriceAnswer, ServiceAnswer, short_plan, short_service};
use super::attachments;
use super::auth::{Access, MayBeHeld, Need};
use super::describe::{Description, Input};
use super::error::ApiError;
use super::input::{Body, Flag, Reference, Text, Texts};
use super::output::{Accepted, Created, Id, List, Named, Time};
use super::range::{Page, Range};
use crate::addons::{AddonRequest, ClientRequest, failure, find_kind};
use crate::store::{Addon, AddonState};
use crate::{Actor, Controller, Error};

/// A new add-on.
#[derive(Deserialize, ToSchema)]
pub(super) struct CreateAddon {
    /// A service, or a service and a plan: `postgres`, `postgres:mini`.
    plan: Reference,
    /// Its name; one is chosen if it is absent.
    name: Option<Text>,
    /// How the app uses it.
    attachment: Option<CreateAddonAttachment>,
    /// What its service wants to know.
    config: Option<Texts>,
}

/// How an app uses a new add-on.
#[derive(Deserialize, ToSchema)]
pub(super) struct CreateAddonAttachment {
    /// What the names of its config vars begin with.
    name: Option<Text>,
}

/// What an add-on is to become.
#[derive(Deserialize, ToSchema)]
pub(super) struct UpdateAddon {
    /// Another of the same service.
    plan: Option<Reference>,
}

/// How an add-on is destroyed.
#[derive(Deserialize, ToSchema)]
pub(super) struct DeleteAddon {
    /// Also if other apps use it.
    force: Option<Flag>,
}

/// A name of an add-on.
#[derive(Deserialize, ToSchema)]
pub(super) struct ResolveAddon {
    /// Its name or id or, in an app, that of an attachment.
    addon: Text,
    /// Where it means that.
    app: Option<Reference>,
}

/// How an add-on's own client is to run.
#[derive(Deserialize, ToSchema)]
pub(super) struct OpenAddonSession {
    args: Option<Vec<Text>>,
    env: Option<Texts>,
    /// Whether it gets pipes and no terminal.
    force_no_tty: Option<Flag>,
}

/// An add-on.
#[derive(Serialize, ToSchema)]
#[schema(as = Addon)]
pub(super) struct AddonAnswer {
    actions: Vec<Named>,
    addon_service: ServiceOrName,
    /// The app that it was made for.
    app: Named,
    billed_price: PriceAnswer,
    billing_entity: BillingEntity,
    /// What that app finds it by.
    config_vars: Vec<String>,
    created_at: Time,
    id: Id,
    name: String,
    plan: PlanOrName,
    provider_id: String,
    /// Why it cannot be used yet, or any more.
    provision_message: String,
    state: String,
    updated_at: Time,
    web_url: Option<String>,
}

/// Whole with `Accept-Expansion: addon_service`.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum ServiceOrName {
    Service(ServiceAnswer),
    Name(Named),
}

/// Whole with `Accept-Expansion: plan`.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum PlanOrName {
    Plan(PlanAnswer),
    Name(Named),
}

/// Who pays.
#[derive(Serialize, ToSchema)]
pub(super) struct BillingEntity {
    id: Id,
    name: String,
    r#type: &'static str,
}

/// What an attached app gets.
#[derive(Serialize, ToSchema)]
pub(super) struct AddonVar {
    name: String,
    value: String,
}

/// An add-on's own client.
#[derive(Serialize, ToSchema)]
pub(super) struct AddonSession {
    /// Where to connect to it, once.
    attach_url: String,
}

/// An add-on that the path names, and who works on it.
pub(super) struct AddonAccess {
    pub(super) actor: Actor,
    pub(super) addon: Addon,
}

impl FromRequestParts<Arc<Controller>> for AddonAccess {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, controller: &Arc<Controller>) -> Result<Self, ApiError> {
        let actor = Actor::from_request_parts(parts, controller).await?;
        let Need(need) = Need::from_request_parts(parts, controller).await?;
        let path = Path::<BTreeMap<String, String>>::from_request_parts(parts, controller).await;
        let path = path.map_err(|_| Error::NotFound("add-on"))?;
        let app = match path.get("app") {
            Some(app) => Some(controller.find_app(&actor, app, Role::View).await?),
            None => None,
        };
        let reference = path.get("addon").ok_or(Error::NotFound("add-on"))?;
        let addon = controller.find_addon(&actor, (reference, app.as_ref()), need).await?;
        Ok(Self { actor, addon })
    }
}

/// Which parts of an add-on are wanted whole: `Accept-Expansion: addon_service,plan`.
pub(super) struct Expansion {
    service: bool,
    plan: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for Expansion {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self {
            service: lists(&parts.headers, "accept-expansion", "addon_service"),
            plan: lists(&parts.headers, "accept-expansion", "plan"),
        })
    }
}

impl Input for AddonAccess {
    fn describe(description: &mut Description<'_>) {
        description.errors(&[404]);
    }
}

impl Input for Expansion {
    fn describe(description: &mut Description<'_>) {
        description.header("Accept-Expansion", "What is wanted whole: `addon_service`, `plan`.");
    }
}

/// Whether a header that is a list has this word in it.
pub(super) fn lists(headers: &HeaderMap, header: &str, word: &str) -> bool {
    let values = headers.get_all(header).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|listed| listed.trim() == word)
}

/// `GET /addons`
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    expansion: Expansion,
    range: Range,
) -> Result<Page<AddonAnswer>, ApiError> {
    let addons = controller.store.addons_of(actor.user.id).await?;
    Ok(range.page(answers(&controller, &addons, &expansion).await?, "name"))
}

/// `GET /apps/{app}/addons`: those that were made for the app, and those that it uses.
pub(super) async fn list_of_app(
    State(controller): State<Arc<Controller>>,
    access: Access,
    expansion: Expansion,
    range: Range,
) -> Result<Page<AddonAnswer>, ApiError> {
    let attachments = controller.store.attachments_of_app(access.app.id).await?;
    let mut addons = controller.store.addons_of_app(access.app.id).await?;
    for attachment in attachments.iter().filter(|attachment| attachment.addon_app != access.app.id) {
        if !addons.iter().any(|addon| addon.id == attachment.addon) {
            addons.extend(controller.store.addon(attachment.addon).await?);
        }
    }
    Ok(range.page(answers(&controller, &addons, &expansion).await?, "name"))
}

/// `POST /apps/{app}/addons`
pub(super) async fn create(
    State(controller): State<Arc<Controller>>,
    access: Access,
    _: MayBeHeld,
    expansion: Expansion,
    Body(wish): Body<CreateAddon>,
) -> Result<Created<AddonAnswer>, ApiError> {
    let request = AddonRequest {
        plan: wish.plan.0,
        name: wish.name.map(|it| it.0),
        attachment: wish.attachment.and_then(|it| it.name).map(|it| it.0),
        config: wish.config.unwrap_or_default().0,
    };
    let addon = controller.create_addon(&access.app, &access.actor, request).await?;
    Ok(Created(answer(&controller, &addon, &expansion).await?))
}

/// `GET /addons/{addon}`, `GET /apps/{app}/addons/{addon}`
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    access: AddonAccess,
    expansion: Expansion,
) -> Result<Json<AddonAnswer>, ApiError> {
    Ok(Json(answer(&controller, &access.addon, &expansion).await?))
}

/// `PATCH /apps/{app}/addons/{addon}`: another plan of the same service.
pub(super) async fn update(
    State(controller): State<Arc<Controller>>,
    access: AddonAccess,
    expansion: Expansion,
    Body(wish): Body<UpdateAddon>,
) -> Result<Json<AddonAnswer>, ApiError> {
    let addon = match wish.plan {
        Some(Reference(plan)) => controller.change_plan(&access.addon, &access.actor, &plan).await?,
        None => access.addon,
    };
    Ok(Json(answer(&controller, &addon, &expansion).await?))
}

/// `DELETE /apps/{app}/addons/{addon}`
pub(super) async fn delete(
    State(controller): State<Arc<Controller>>,
    access: AddonAccess,
    _: MayBeHeld,
    Body(wish): Body<DeleteAddon>,
) -> Result<Json<AddonAnswer>, ApiError> {
    let force = wish.force.is_some_and(|it| it.0);
    let mut gone = answer(&controller, &access.addon, &Expansion { service: false, plan: false }).await?;
    controller.destroy_addon(&access.addon, &access.actor, force).await?;
    "deprovisioned".clone_into(&mut gone.state);
    Ok(Json(gone))
}

/// `POST /actions/addons/resolve`: what a name means, in an app or everywhere.
pub(super) async fn resolve(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    expansion: Expansion,
    Body(wish): Body<ResolveAddon>,
) -> Result<List<AddonAnswer>, ApiError> {
    let app = match wish.app {
        Some(Reference(app)) => Some(controller.find_app(&actor, &app, Role::View).await?),
        None => None,
    };
    let found = controller.find_addons(&actor, &wish.addon.0, app.as_ref()).await?;
    if found.is_empty() {
        return Err(Error::NotFound("add-on").into());
    }
    Ok(List(answers(&controller, &found, &expansion).await?))
}

/// `GET /addons/{addon}/config`: what an attached app gets.
pub(super) async fn config(
    State(controller): State<Arc<Controller>>,
    access: AddonAccess,
) -> Result<List<AddonVar>, ApiError> {
    let attachments = controller.store.attachments_of_addon(access.addon.id).await?;
    let Some(attachment) = attachments.first() else { return Ok(List(Vec::new())) };
    let vars = controller.attachment_vars(&attachment.name, &access.addon).await?;
    Ok(List(vars.into_iter().map(|(name, value)| AddonVar { name: name.to_string(), value }).collect()))
}

/// `POST /addons/{addon}/actions/restart`; Heroku has no word for it.
pub(super) async fn restart(
    State(controller): State<Arc<Controller>>,
    access: AddonAccess,
) -> Result<Accepted, ApiError> {
    controller.restart_addon(&access.addon, &access.actor).await?;
    Ok(Accepted {})
}

/// `POST /addons/{addon}/sessions`: the service's own client. Heroku's is on the user's machine and comes in over the internet.
pub(super) async fn open_session(
    State(controller): State<Arc<Controller>>,
    access: AddonAccess,
    Body(wish): Body<OpenAddonSession>,
) -> Result<Created<AddonSession>, ApiError> {
    let request = ClientRequest {
        args: wish.args.unwrap_or_default().into_iter().map(|it| it.0).collect(),
        env: wish.env.unwrap_or_default().0.into_iter().collect(),
        no_tty: wish.force_no_tty.is_some_and(|it| it.0),
    };
    let attach_url = controller.addon_session(&access.addon, &access.actor, request).await?;
    Ok(Created(AddonSession { attach_url }))
}

async fn answers(
    controller: &Controller,
    addons: &[Addon],
    expansion: &Expansion,
) -> Result<Vec<AddonAnswer>, ApiError> {
    let mut answers = Vec::with_capacity(addons.len());
    for addon in addons {
        answers.push(answer(controller, addon, expansion).await?);
    }
    Ok(answers)
}

async fn answer(controller: &Controller, addon: &Addon, expansion: &Expansion) -> Result<AddonAnswer, ApiError> {
    let (kind, plan) = find_kind(&format!("{}:{}", addon.kind, addon.plan))?;
    let attachments = controller.store.attachments_of_addon(addon.id).await?;
    let own = attachments.iter().filter(|attachment| attachment.app == addon.app);
    let config_vars: Vec<String> = own.map(attachments::config_var).collect();
    let message = match addon.state {
        AddonState::Provisioning => "It is being made. The app restarts once it can be used.".to_owned(),
        AddonState::Provisioned => String::new(),
        AddonState::Failed | AddonState::Removing => failure(addon).to_owned(),
    };
    let app_name = addon.app_name.as_ref().map(ToString::to_string).unwrap_or_default();
    Ok(AddonAnswer {
        actions: Vec::new(),
        addon_service: if expansion.service {
            ServiceOrName::Service(ServiceAnswer::new(kind))
        } else {
            ServiceOrName::Name(short_service(kind))
        },
        app: Named::new(&addon.app, &app_name),
        billed_price: PRICE,
        billing_entity: BillingEntity { id: Id::of(&addon.app), name: app_name, r#type: "app" },
        config_vars,
        created_at: addon.created_at.into(),
        id: Id::of(&addon.id),
        name: addon.name.to_string(),
        plan: if expansion.plan {
            PlanOrName::Plan(PlanAnswer::new(kind, plan))
        } else {
            PlanOrName::Name(short_plan(kind, plan))
        },
        provider_id: addon.id.to_string(),
        provision_message: message,
        state: addon.state.to_string(),
        updated_at: addon.updated_at.into(),
        web_url: None,
    })
}
