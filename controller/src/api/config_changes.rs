//! Config vars with what Heroku's flat map has no place for: where each is given, why it changed, and what became of it when.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::{Access, MayBeHeld};
use super::config_vars::ConfigVarsAnswer;
use super::error::ApiError;
use super::input::{Body, Scalar, Text};
use super::output::{Done, List};
use super::releases::{ReleaseAnswer, answer};
use crate::Controller;
use crate::config_vars::ConfigWish;
use crate::store::Scope;

/// So many releases are looked at for the history.
const HISTORY: u32 = 1000;

/// A change of config vars.
#[derive(Deserialize, ToSchema)]
pub(super) struct CreateConfigChange {
    /// Values by name; null unsets.
    #[schema(value_type = Option<BTreeMap<String, Scalar>>)]
    vars: Option<BTreeMap<String, Option<Scalar>>>,
    /// Where some are given.
    scopes: Option<BTreeMap<String, ScopeWish>>,
    /// Why, for whoever reads the releases; at most 500 characters.
    reason: Option<Text>,
}

/// Where a config var is given: to builds only, to what runs only, or to all.
#[derive(Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ConfigVarScope)]
pub(super) enum ScopeWish {
    Build,
    Run,
    All,
}

/// What a change did.
#[derive(Serialize, ToSchema)]
#[schema(as = ConfigChange)]
pub(super) struct ConfigChangeAnswer {
    /// The release that it made; null if everything was so already.
    release: Option<ReleaseAnswer>,
    /// All config vars, after it.
    config_vars: ConfigVarsAnswer,
}

/// Where each config var is given.
#[derive(Serialize, ToSchema)]
#[schema(as = ConfigVarScopes)]
pub(super) struct ConfigVarScopes(BTreeMap<String, ScopeWish>);

/// `GET /apps/{app}/config-changes`: the newest releases that changed config vars, the newest first; names, never values.
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    access: Access,
) -> Result<List<ReleaseAnswer>, ApiError> {
    let releases = controller.store.config_history(access.app.id, HISTORY).await?;
    let deployed = controller.store.was_deployed(access.app.id).await?;
    let settings = &controller.settings;
    Ok(List(releases.iter().map(|release| answer(settings, &access.app, release, deployed)).collect()))
}

/// `POST /apps/{app}/config-changes`: 201 if it made a release, 200 if everything was so already.
pub(super) async fn create(
    State(controller): State<Arc<Controller>>,
    access: Access,
    _: MayBeHeld,
    Body(wish): Body<CreateConfigChange>,
) -> Result<Done<ConfigChangeAnswer>, ApiError> {
    let vars = wish.vars.unwrap_or_default().into_iter().map(|(name, value)| (name, value.map(|it| it.0))).collect();
    let scopes = wish.scopes.unwrap_or_default().into_iter().map(|(name, scope)| (name, scope.into())).collect();
    let wish = ConfigWish { vars, scopes, reason: wish.reason.map(|reason| reason.0) };
    let made = controller.change_config(&access.app, &access.actor, &wish).await?;
    let deployed = controller.store.was_deployed(access.app.id).await?;
    let is_new = made.is_some();
    let release = made.map(|release| answer(&controller.settings, &access.app, &release, deployed));
    let config_vars = ConfigVarsAnswer(controller.store.config(access.app.id).await?);
    let answer = ConfigChangeAnswer { release, config_vars };
    Ok(if is_new { Done::Made(answer) } else { Done::Already(answer) })
}

/// `GET /apps/{app}/config-var-scopes`
pub(super) async fn scopes(
    State(controller): State<Arc<Controller>>,
    access: Access,
) -> Result<Json<ConfigVarScopes>, ApiError> {
    let present = controller.store.present(access.app.id).await?;
    let scope = |name| ScopeWish::from(present.scopes.get(name).copied());
    Ok(Json(ConfigVarScopes(present.config.iter().map(|(name, _)| (name.to_string(), scope(name))).collect())))
}

impl From<ScopeWish> for Option<Scope> {
    fn from(wish: ScopeWish) -> Self {
        match wish {
            ScopeWish::Build => Some(Scope::Build),
            ScopeWish::Run => Some(Scope::Run),
            ScopeWish::All => None,
        }
    }
}

impl From<Option<Scope>> for ScopeWish {
    fn from(scope: Option<Scope>) -> Self {
        match scope {
            Some(Scope::Build) => Self::Build,
            Some(Scope::Run) => Self::Run,
            None => Self::All,
        }
    }
}
