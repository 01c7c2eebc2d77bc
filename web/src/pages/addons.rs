//! The backing services that an app uses, and getting another.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use controller::Controller;
use controller::addons::{AddonRequest, KINDS, Kind, find_kind};
use controller::store::{Addon, AddonState, Attachment};
use model::Role;
use serde::Serialize;

use super::show as show_page;
use crate::error::{PageError, refusal};
use crate::form::Form;
use crate::live::{self, Part};
use crate::notice::Notice;
use crate::session::AppVisit;
use crate::templates;
use crate::view::{Head, Inside, Pill, path};

#[derive(Debug, Serialize)]
pub(super) struct Addons {
    page: Inside,
    app: Head,
    attachments: Vec<Attached>,
    kinds: Vec<Offer>,
    /// Add-ons of the user's other apps.
    others: Vec<Other>,
}

#[derive(Debug, Serialize)]
struct Attached {
    id: String,
    /// `DATABASE_URL`
    var: String,
    addon: String,
    kind: &'static str,
    plan: String,
    pill: Pill,
    failure: Option<String>,
    /// The app that it was made for, if that is another.
    owner: Option<String>,
    /// Page of the add-on; none if it belongs to another app.
    link: Option<String>,
}

#[derive(Debug, Serialize)]
struct Offer {
    slug: &'static str,
    name: &'static str,
    plans: Vec<PlanOffer>,
}

#[derive(Debug, Serialize)]
struct PlanOffer {
    /// `postgres:mini`
    name: String,
    description: &'static str,
}

#[derive(Debug, Serialize)]
struct Other {
    name: String,
    owner: String,
}

/// `GET /console/apps/{app}/addons`
pub(crate) async fn show(State(controller): State<Arc<Controller>>, by: AppVisit) -> Result<Response, PageError> {
    show_page(&by.visit, "addons.html", &Addons::load(&controller, &by).await?)
}

/// `GET /console/apps/{app}/addons/live`
pub(crate) async fn live(State(controller): State<Arc<Controller>>, by: AppVisit) -> Response {
    live::follow(controller, by, |controller, by| async move {
        let page = Addons::load(&controller, &by).await?;
        let part = |name| templates::block("addons.html", name, &page);
        Ok::<Vec<Part>, PageError>(vec![("head", part("head")?), ("live", part("live")?)])
    })
}

/// `POST /console/apps/{app}/addons`: a service of ours by its plan, or an outside one by its URL.
pub(crate) async fn create(
    State(controller): State<Arc<Controller>>,
    form: Form<AppVisit>,
) -> Result<Response, PageError> {
    let fields = &form.fields;
    let url = fields.filled("url").map(|url| ("url".to_owned(), url.trim().to_owned()));
    let request = AddonRequest {
        plan: fields.get("plan").to_owned(),
        name: None,
        attachment: fields.filled("as").map(|name| name.trim().to_owned()),
        config: BTreeMap::from_iter(url),
    };
    let notice = match controller.create_addon(&form.by.app, &form.by.visit.actor, request).await {
        Ok(addon) => Notice::done(format!("{} is on its way", addon.name)),
        Err(error) => Notice::refused(refusal(error)?),
    };
    Ok(notice.then(&addons_path(&form.by)))
}

/// `POST /console/apps/{app}/addons/attach`: an add-on of another app.
pub(crate) async fn attach(
    State(controller): State<Arc<Controller>>,
    form: Form<AppVisit>,
) -> Result<Response, PageError> {
    let (app, actor) = (&form.by.app, &form.by.visit.actor);
    let addon = controller.find_addon(actor, (form.fields.get("addon"), None), Role::Operate).await?;
    let name = form.fields.filled("as").map(str::trim);
    let notice = match controller.attach_addon(&addon, (app, actor), name).await {
        Ok(made) => Notice::done(format!("{} is attached as {}", made.addon_name, made.name)),
        Err(error) => Notice::refused(refusal(error)?),
    };
    Ok(notice.then(&addons_path(&form.by)))
}

/// `POST /console/apps/{app}/addons/detach`
pub(crate) async fn detach(
    State(controller): State<Arc<Controller>>,
    form: Form<AppVisit>,
) -> Result<Response, PageError> {
    let app = &form.by.app;
    let attachments = controller.store.attachments_of_app(app.id).await?;
    let wanted = attachments.iter().find(|attachment| attachment.id.to_string() == form.fields.get("attachment"));
    let notice = match wanted {
        None => Notice::refused("That attachment is gone already."),
        Some(attachment) => match controller.detach_addon(attachment, &form.by.visit.actor).await {
            Ok(()) => Notice::done(format!("{} is detached from {}", attachment.addon_name, app.name)),
            Err(error) => Notice::refused(refusal(error)?),
        },
    };
    Ok(notice.then(&addons_path(&form.by)))
}

pub(super) fn addons_path(by: &AppVisit) -> String {
    format!("{}/addons", path(&by.app))
}

/// How far an add-on is.
pub(super) fn pill(addon: &Addon) -> Pill {
    match addon.state {
        AddonState::Provisioning => Pill::new("busy", "Starting"),
        AddonState::Provisioned if addon.kind == "external" => Pill::new("calm", "Outside"),
        AddonState::Provisioned => Pill::new("good", "Ready"),
        AddonState::Failed => Pill::new("bad", "Failed"),
        AddonState::Removing => Pill::new("warn", "Removing"),
    }
}

/// What a kind is called in sentences.
pub(super) fn kind_name(slug: &str) -> &'static str {
    find_kind(slug).map_or("Add-on", |(kind, _)| kind.human_name())
}

impl Addons {
    async fn load(controller: &Controller, by: &AppVisit) -> Result<Self, PageError> {
        let app = &by.app;
        let mut attachments = Vec::new();
        for attachment in controller.store.attachments_of_app(app.id).await? {
            if let Some(addon) = controller.store.addon(attachment.addon).await? {
                attachments.push(Attached::new(by, attachment, addon));
            }
        }
        let addons = controller.store.addons_of(by.visit.actor.user.id).await?;
        let is_attached = |addon: &Addon| attachments.iter().any(|attached| attached.addon == addon.name.as_str());
        let others = addons.iter().filter(|addon| addon.state == AddonState::Provisioned && !is_attached(addon));
        let other = |addon: &Addon| Other {
            name: addon.name.to_string(),
            owner: addon.app_name.as_ref().map(ToString::to_string).unwrap_or_default(),
        };
        Ok(Self {
            page: Inside::new(&format!("Add-ons of {}", app.name), &by.visit),
            app: Head::load(controller, by, "addons").await?,
            others: others.map(other).collect(),
            attachments,
            kinds: KINDS.iter().copied().filter(|kind| kind.server().is_some()).map(Offer::new).collect(),
        })
    }
}

impl Attached {
    fn new(by: &AppVisit, attachment: Attachment, addon: Addon) -> Self {
        let is_own = addon.app == by.app.id;
        Self {
            id: attachment.id.to_string(),
            var: format!("{}_URL", attachment.name),
            kind: kind_name(&addon.kind),
            pill: pill(&addon),
            link: is_own.then(|| format!("{}/{}", addons_path(by), addon.name)),
            owner: attachment.addon_app_name.filter(|_| !is_own).map(|name| name.to_string()),
            addon: addon.name.to_string(),
            plan: addon.plan,
            failure: addon.failure,
        }
    }
}

impl Offer {
    fn new(kind: &dyn Kind) -> Self {
        let plan = |plan: &controller::addons::Plan| PlanOffer {
            name: format!("{}:{}", kind.slug(), plan.name),
            description: plan.description,
        };
        Self { slug: kind.slug(), name: kind.human_name(), plans: kind.plans().iter().map(plan).collect() }
    }
}

#[cfg(test)]
impl Addons {
    pub(super) fn samples() -> [Self; 2] {
        use crate::view::samples::{HOSTILE, head, inside};
        let attached = |own: bool| Attached {
            id: HOSTILE.to_owned(),
            var: HOSTILE.to_owned(),
            addon: HOSTILE.to_owned(),
            kind: "PostgreSQL",
            plan: HOSTILE.to_owned(),
            pill: Pill::new("bad", HOSTILE),
            failure: own.then(|| HOSTILE.to_owned()),
            owner: (!own).then(|| HOSTILE.to_owned()),
            link: own.then(|| HOSTILE.to_owned()),
        };
        let page = |attachments: Vec<Attached>| Self {
            page: inside(),
            app: head("addons"),
            others: attachments.iter().map(|_| Other { name: HOSTILE.to_owned(), owner: HOSTILE.to_owned() }).collect(),
            attachments,
            kinds: KINDS.iter().copied().map(Offer::new).collect(),
        };
        [page(vec![]), page(vec![attached(true), attached(false)])]
    }
}
