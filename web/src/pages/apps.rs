//! The list of apps, and making one.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::Response;
use controller::Controller;
use controller::apps::AppRequest;
use controller::overview::AppOverview;
use model::Timestamp;
use serde::{Deserialize, Serialize};

use super::{show, show_again};
use crate::error::{PageError, refusal};
use crate::form::Form;
use crate::respond::see_other;
use crate::session::Visit;
use crate::view::{Inside, Moment, Pill, also, path};

/// Apps on one page.
const PAGE: usize = 50;

/// What to show of the list.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Search {
    #[serde(default)]
    q: String,
    #[serde(default)]
    page: Option<usize>,
}

#[derive(Debug, Serialize)]
pub(super) struct Apps {
    page: Inside,
    rows: Vec<Row>,
    q: String,
    /// All apps of the user.
    total: usize,
    /// Those that were searched for.
    found: usize,
    previous: Option<usize>,
    next: Option<usize>,
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    path: String,
    host: String,
    pill: Pill,
    also: Option<Pill>,
    /// The release that serves; none before the first deploy.
    version: Option<u64>,
    last: String,
    when: Moment,
}

#[derive(Debug, Serialize)]
pub(super) struct NewApp {
    page: Inside,
    name: String,
    domain: String,
}

/// `GET /console/apps`
pub(crate) async fn list(
    State(controller): State<Arc<Controller>>,
    visit: Visit,
    Query(search): Query<Search>,
) -> Result<Response, PageError> {
    let user = &visit.actor.user;
    let wanted = search.q.trim().to_lowercase();
    let total = controller.store.count_apps(user.id, "").await?;
    let found = match wanted.as_str() {
        "" => total,
        part => controller.store.count_apps(user.id, part).await?,
    };
    let pages = found.div_ceil(PAGE).max(1);
    let number = search.page.unwrap_or(1).clamp(1, pages);
    let (apps, now) = (controller.overview(user, &wanted, ((number - 1) * PAGE, PAGE)).await?, controller.clock.now());
    let page = Apps {
        page: Inside::new("Apps", &visit),
        rows: apps.iter().map(|seen| Row::new(&controller, seen, now)).collect(),
        total,
        found,
        previous: (number > 1).then(|| number - 1),
        next: (number < pages).then_some(number + 1),
        q: search.q,
    };
    show(&visit, "apps.html", &page)
}

/// `GET /console/new`
pub(crate) async fn new(State(controller): State<Arc<Controller>>, visit: Visit) -> Result<Response, PageError> {
    show(&visit, "new_app.html", &NewApp::new(&controller, &visit, String::new()))
}

/// `POST /console/apps`
pub(crate) async fn create(
    State(controller): State<Arc<Controller>>,
    form: Form<Visit>,
) -> Result<Response, PageError> {
    let name = form.fields.get("name").trim();
    let request = AppRequest { name: (!name.is_empty()).then(|| name.to_owned()), ..AppRequest::default() };
    match controller.create_app(&form.by.actor, request).await {
        Ok(app) => Ok(see_other(&path(&app))),
        Err(error) => {
            let mut page = NewApp::new(&controller, &form.by, name.to_owned());
            page.page.refuse(refusal(error)?);
            show_again("new_app.html", &page)
        }
    }
}

impl Row {
    fn new(controller: &Controller, seen: &AppOverview, now: Timestamp) -> Self {
        let summary = &seen.summary;
        let host = controller.settings.default_host(&summary.app.name);
        Self {
            name: summary.app.name.to_string(),
            path: path(&summary.app),
            host: host.map(|host| host.to_string()).unwrap_or_default(),
            pill: Pill::of_app(seen.state),
            also: also(seen),
            version: summary.image.is_some().then_some(summary.version),
            last: summary.newest.description.clone(),
            when: Moment::new(summary.newest.created_at, now),
        }
    }
}

impl NewApp {
    fn new(controller: &Controller, visit: &Visit, name: String) -> Self {
        Self { page: Inside::new("New app", visit), name, domain: controller.settings.domain.to_string() }
    }

    #[cfg(test)]
    pub(super) fn sample() -> Self {
        use crate::view::samples::{HOSTILE, inside};
        Self { page: inside(), name: HOSTILE.to_owned(), domain: HOSTILE.to_owned() }
    }
}

#[cfg(test)]
impl Apps {
    pub(super) fn samples() -> [Self; 2] {
        use crate::view::samples::{HOSTILE, inside, moment};
        let row = |version: Option<u64>| Row {
            name: HOSTILE.to_owned(),
            path: HOSTILE.to_owned(),
            host: HOSTILE.to_owned(),
            pill: Pill::new("good", HOSTILE),
            also: version.map(|_| Pill::new("bad", HOSTILE)),
            version,
            last: HOSTILE.to_owned(),
            when: moment(),
        };
        let empty =
            Self { page: inside(), rows: vec![], q: String::new(), total: 0, found: 0, previous: None, next: None };
        let full = Self {
            page: inside(),
            rows: vec![row(None), row(Some(3))],
            q: HOSTILE.to_owned(),
            total: 60,
            found: 60,
            previous: Some(1),
            next: Some(3),
        };
        [empty, full]
    }
}
