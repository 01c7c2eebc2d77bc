//! What changes from one release to another, and back.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;

use super::auth::Access;
use super::error::ApiError;
use super::releases::{
    AttachedAnswer, ConfigVarChange, ReleaseSlugAnswer, ScaleAnswer, WarningAnswer, config_var_changes,
};
use crate::Controller;
use crate::changes::Changes;

/// What changes.
#[derive(Serialize, ToSchema)]
#[schema(as = Changes)]
pub(super) struct ChangesAnswer {
    /// Other code; null if it is the same.
    code: Option<CodeChange>,
    /// Config vars by name, never their values.
    config_vars: Vec<ConfigVarChange>,
    /// Uses of add-ons.
    attachments: Vec<AttachmentChange>,
    /// How process types are scaled.
    formation: Vec<FormationChange>,
    /// Process types and their commands.
    process_types: Vec<ProcessChange>,
}

/// Other code.
#[derive(Serialize, ToSchema)]
pub(super) struct CodeChange {
    from: Option<ReleaseSlugAnswer>,
    to: Option<ReleaseSlugAnswer>,
}

/// Another use of an add-on.
#[derive(Serialize, ToSchema)]
pub(super) struct AttachmentChange {
    name: String,
    from: Option<AttachedAnswer>,
    to: Option<AttachedAnswer>,
}

/// A process type that is scaled otherwise.
#[derive(Serialize, ToSchema)]
pub(super) struct FormationChange {
    r#type: String,
    from: Option<ScaleAnswer>,
    to: Option<ScaleAnswer>,
}

/// A process type that comes, goes, or has another command.
#[derive(Serialize, ToSchema)]
pub(super) struct ProcessChange {
    r#type: String,
    from: Option<String>,
    to: Option<String>,
}

/// What a rollback would do.
#[derive(Serialize, ToSchema)]
pub(super) struct RollbackPreview {
    /// Against what the next release would be otherwise.
    changes: ChangesAnswer,
    /// What to know before.
    warnings: Vec<WarningAnswer>,
}

/// `GET /apps/{app}/releases/{release}/rollback`: what going back to it would change.
pub(super) async fn preview(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Json<RollbackPreview>, ApiError> {
    let target = controller.find_release(&access.app, &reference).await?;
    let preview = controller.preview_rollback((&access.app, &access.actor), &target, false).await?;
    let warnings = preview.warnings.iter().map(WarningAnswer::from).collect();
    Ok(Json(RollbackPreview { changes: changes(preview.changes), warnings }))
}

/// `GET /apps/{app}/releases/{release}/diff/{other}`: what `other` has that `release` has not.
pub(super) async fn diff(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, release, other)): Path<(String, String, String)>,
) -> Result<Json<ChangesAnswer>, ApiError> {
    let old = controller.find_release(&access.app, &release).await?;
    let new = controller.find_release(&access.app, &other).await?;
    Ok(Json(changes(controller.changes(&old, &new).await?)))
}

fn changes(all: Changes) -> ChangesAnswer {
    let code = all.code.map(|it| CodeChange {
        from: it.from.as_ref().map(ReleaseSlugAnswer::from),
        to: it.to.as_ref().map(ReleaseSlugAnswer::from),
    });
    let attachments = all.attachments.iter().map(|it| AttachmentChange {
        name: it.name.to_string(),
        from: it.from.as_ref().map(|addon| AttachedAnswer::new(&it.name, addon)),
        to: it.to.as_ref().map(|addon| AttachedAnswer::new(&it.name, addon)),
    });
    let formation = all.formation.iter().map(|it| FormationChange {
        r#type: it.process_type.to_string(),
        from: it.from.as_ref().map(|scale| ScaleAnswer::new(&it.process_type, scale)),
        to: it.to.as_ref().map(|scale| ScaleAnswer::new(&it.process_type, scale)),
    });
    let processes = all.process_types.into_iter();
    let processes = processes.map(|it| ProcessChange { r#type: it.process_type.to_string(), from: it.from, to: it.to });
    ChangesAnswer {
        code,
        config_vars: config_var_changes(&all.config),
        attachments: attachments.collect(),
        formation: formation.collect(),
        process_types: processes.collect(),
    }
}
