//! What an app is called, whether it is in maintenance, and its end.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use controller::Controller;
use controller::apps::AppUpdate;
use serde::Serialize;

use super::show as show_page;
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
}

/// `GET /console/apps/{app}/settings`
pub(crate) async fn show(State(controller): State<Arc<Controller>>, by: AppVisit) -> Result<Response, PageError> {
    let app = &by.app;
    let page = Settings {
        page: Inside::new(&format!("Settings of {}", app.name), &by.visit),
        owner: app.owner.email.to_string(),
        created: Moment::new(app.created_at, controller.clock.now()),
        stack: app.stack.clone(),
        buildpacks: app.buildpacks.clone(),
        maintenance: app.maintenance,
        domain: controller.settings.domain.to_string(),
        app: Head::load(&controller, &by, "settings").await?,
    };
    show_page(&by.visit, "settings.html", &page)
}

/// `POST /console/apps/{app}/rename`
pub(crate) async fn rename(
    State(controller): State<Arc<Controller>>,
    form: Form<AppVisit>,
) -> Result<Response, PageError> {
    let name = form.fields.get("name").trim().to_owned();
    let update = AppUpdate { name: Some(name), ..AppUpdate::default() };
    match controller.update_app(&form.by.app, &form.by.visit.actor, update).await {
        Ok(app) => {
            let git = controller.settings.git_url(&app.name);
            let text = format!("The app is {} now. In your working copy: git remote set-url platform {git}", app.name);
            Ok(Notice::done(text).then(&format!("{}/settings", path(&app))))
        }
        Err(error) => Ok(Notice::refused(refusal(error)?).then(&settings_path(&form.by))),
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
    match controller.delete_app(&form.by.app, &form.by.visit.actor).await {
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
        let page = |maintenance| Self {
            page: inside(),
            app: head("settings"),
            owner: HOSTILE.to_owned(),
            created: moment(),
            stack: HOSTILE.to_owned(),
            buildpacks: if maintenance { vec![HOSTILE.to_owned()] } else { vec![] },
            maintenance,
            domain: HOSTILE.to_owned(),
        };
        [page(true), page(false)]
    }
}
