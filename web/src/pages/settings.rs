//! What an app is called, whether it is in maintenance, what holds its releases back, and its end.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use controller::apps::AppUpdate;
use controller::store::{AppScope, FreezeWindow, Lock};
use controller::{Controller, Error};
use model::Timestamp;
use serde::Serialize;

use super::{show as show_page, show_again};
use crate::error::{PageError, refusal};
use crate::form::Form;
use crate::notice::Notice;
use crate::session::AppVisit;
use crate::view::{Head, Inside, Moment, path};

#[derive(Debug, Serialize)]
pub(super) struct Settings {
    page: Inside,
    app: Head,
    owner: String,
    created: Moment,
    stack: String,
    buildpacks: Vec<String>,
    maintenance: bool,
    domain: String,
    /// Who locked it, if somebody did.
    lock: Option<LockedBy>,
    windows: Vec<Window>,
    form: Draft,
}

/// What the forms hold: what was sent and refused is not typed again.
#[derive(Debug, Default, Serialize)]
struct Draft {
    name: String,
    message: String,
    period: String,
    reason: String,
}

#[derive(Debug, Serialize)]
struct LockedBy {
    email: String,
    message: Option<String>,
    since: Moment,
}

/// A freeze window.
#[derive(Debug, Serialize)]
struct Window {
    id: String,
    period: String,
    reason: Option<String>,
    /// Whose it is, if it is not the app's.
    of: Option<String>,
    /// When it ends, if it is now.
    until: Option<String>,
    is_over: bool,
}

impl Window {
    fn new(window: FreezeWindow, now: Timestamp) -> Self {
        let of = match &window.scope {
            AppScope::App(_) => None,
            AppScope::Team(team) => Some(format!("all apps of {}", team.name)),
            AppScope::Platform => Some("all apps of this platform".to_owned()),
        };
        Self {
            id: window.id.to_string(),
            of,
            until: window.period.end_of(now).map(|end| window.period.local(end)),
            is_over: window.period.is_over(now),
            period: window.period.to_string(),
            reason: window.reason,
        }
    }
}

impl Settings {
    async fn load(controller: &Controller, by: &AppVisit) -> Result<Self, PageError> {
        let (app, now) = (&by.app, controller.clock.now());
        let locked = |lock: Lock| LockedBy {
            email: lock.by.email.to_string(),
            message: lock.message,
            since: Moment::new(lock.created_at, now),
        };
        let windows = controller.store.freezes_over(app).await.map_err(Error::from)?;
        Ok(Self {
            page: Inside::new(&format!("Settings of {}", app.name), &by.visit),
            owner: app.owner.email.to_string(),
            created: Moment::new(app.created_at, now),
            stack: app.stack.clone(),
            buildpacks: app.buildpacks.clone(),
            maintenance: app.maintenance,
            domain: controller.settings.domain.to_string(),
            lock: controller.store.lock(app.id).await.map_err(Error::from)?.map(locked),
            windows: windows.into_iter().map(|window| Window::new(window, now)).collect(),
            form: Draft { name: app.name.to_string(), ..Draft::default() },
            app: Head::load(controller, by, "settings").await?,
        })
    }
}

/// `GET /console/apps/{app}/settings`
pub(crate) async fn show(State(controller): State<Arc<Controller>>, by: AppVisit) -> Result<Response, PageError> {
    show_page(&by.visit, "settings.html", &Settings::load(&controller, &by).await?)
}

/// The page with what was refused and why.
async fn refuse(
    controller: &Controller,
    by: &AppVisit,
    error: Error,
    fill: impl FnOnce(&mut Draft),
) -> Result<Response, PageError> {
    let mut page = Settings::load(controller, by).await?;
    page.page.refuse(refusal(error)?);
    fill(&mut page.form);
    show_again("settings.html", &page)
}

/// `POST /console/apps/{app}/rename`
pub(crate) async fn rename(
    State(controller): State<Arc<Controller>>,
    form: Form<AppVisit>,
) -> Result<Response, PageError> {
    let name = form.fields.get("name").trim().to_owned();
    let update = AppUpdate { name: Some(name.clone()), ..AppUpdate::default() };
    match controller.update_app(&form.by.app, &form.by.visit.actor, update).await {
        Ok(app) => {
            let git = controller.settings.git_url(&app.name);
            let text = format!("The app is {} now. In your working copy: git remote set-url platform {git}", app.name);
            Ok(Notice::done(text).then(&format!("{}/settings", path(&app))))
        }
        Err(error) => refuse(&controller, &form.by, error, |draft| draft.name = name).await,
    }
}

/// `POST /console/apps/{app}/maintenance`
pub(crate) async fn maintenance(
    State(controller): State<Arc<Controller>>,
    form: Form<AppVisit>,
) -> Result<Response, PageError> {
    let on = form.fields.get("on") == "yes";
    let update = AppUpdate { maintenance: Some(on), ..AppUpdate::default() };
    let notice = match controller.update_app(&form.by.app, &form.by.visit.actor, update).await {
        Ok(_) if on => Notice::done("Visitors get the maintenance page now."),
        Ok(_) => Notice::done("Visitors get the app again."),
        Err(error) => Notice::refused(refusal(error)?),
    };
    Ok(notice.then(&settings_path(&form.by)))
}

/// `POST /console/apps/{app}/lock`: locks it with a message, or unlocks it.
pub(crate) async fn lock(
    State(controller): State<Arc<Controller>>,
    form: Form<AppVisit>,
) -> Result<Response, PageError> {
    let (app, actor) = (&form.by.app, &form.by.visit.actor);
    let message = form.fields.get("message");
    let done = if form.fields.get("on") == "yes" {
        let message = Some(message).filter(|message| !message.trim().is_empty());
        controller.lock(app, actor, message).await.map(|_| "Nobody deploys or configures the app now.")
    } else {
        controller.unlock(app, actor).await.map(|_| "The app can be deployed and configured again.")
    };
    match done {
        Ok(text) => Ok(Notice::done(text).then(&settings_path(&form.by))),
        Err(error) => refuse(&controller, &form.by, error, |draft| message.clone_into(&mut draft.message)).await,
    }
}

/// `POST /console/apps/{app}/freezes`
pub(crate) async fn freeze(
    State(controller): State<Arc<Controller>>,
    form: Form<AppVisit>,
) -> Result<Response, PageError> {
    let scope = AppScope::App(form.by.app.id);
    let (period, reason) = (form.fields.get("period"), form.fields.get("reason"));
    match controller.freeze(&form.by.visit.actor, scope, (period, Some(reason))).await {
        Ok(_) => Ok(Notice::done("The freeze window was added.").then(&settings_path(&form.by))),
        Err(error) => {
            let fill = |draft: &mut Draft| {
                period.clone_into(&mut draft.period);
                reason.clone_into(&mut draft.reason);
            };
            refuse(&controller, &form.by, error, fill).await
        }
    }
}

/// `POST /console/apps/{app}/freezes/remove`
pub(crate) async fn unfreeze(
    State(controller): State<Arc<Controller>>,
    form: Form<AppVisit>,
) -> Result<Response, PageError> {
    let done = match controller.find_freeze(&AppScope::App(form.by.app.id), form.fields.get("window")).await {
        Ok(window) => controller.unfreeze(&form.by.visit.actor, &window).await,
        Err(error) => Err(error),
    };
    let notice = match done {
        Ok(()) => Notice::done("The freeze window was removed."),
        Err(error) => Notice::refused(refusal(error)?),
    };
    Ok(notice.then(&settings_path(&form.by)))
}

/// `POST /console/apps/{app}/delete`: only with the app's name typed.
pub(crate) async fn delete(
    State(controller): State<Arc<Controller>>,
    form: Form<AppVisit>,
) -> Result<Response, PageError> {
    let name = form.by.app.name.as_str();
    if form.fields.get("confirm").trim() != name {
        let text = format!("Nothing was deleted: type {name} to confirm.");
        return Ok(Notice::refused(text).then(&settings_path(&form.by)));
    }
    let volumes = form.fields.get("volumes").parse().ok();
    match controller.delete_app(&form.by.app, &form.by.visit.actor, volumes).await {
        Ok(()) => Ok(Notice::done(format!("{name} was deleted")).then("/console/apps")),
        Err(error) => Ok(Notice::refused(refusal(error)?).then(&settings_path(&form.by))),
    }
}

fn settings_path(by: &AppVisit) -> String {
    format!("{}/settings", path(&by.app))
}

#[cfg(test)]
impl Settings {
    pub(super) fn samples() -> [Self; 2] {
        use crate::view::samples::{HOSTILE, head, inside, moment};
        let window = |n| Window {
            id: HOSTILE.to_owned(),
            period: HOSTILE.to_owned(),
            reason: (n == 0).then(|| HOSTILE.to_owned()),
            of: (n == 1).then(|| HOSTILE.to_owned()),
            until: (n == 1).then(|| HOSTILE.to_owned()),
            is_over: n == 2,
        };
        let page = |maintenance| Self {
            page: inside(),
            app: head("settings"),
            owner: HOSTILE.to_owned(),
            created: moment(),
            stack: HOSTILE.to_owned(),
            buildpacks: if maintenance { vec![HOSTILE.to_owned()] } else { vec![] },
            maintenance,
            domain: HOSTILE.to_owned(),
            lock: maintenance.then(|| LockedBy {
                email: HOSTILE.to_owned(),
                message: Some(HOSTILE.to_owned()),
                since: moment(),
            }),
            windows: (0..3).filter(|_| maintenance).map(window).collect(),
            form: Draft {
                name: HOSTILE.to_owned(),
                message: HOSTILE.to_owned(),
                period: HOSTILE.to_owned(),
                reason: HOSTILE.to_owned(),
            },
        };
        [page(true), page(false)]
    }
}
