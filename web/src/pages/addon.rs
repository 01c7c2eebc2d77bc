//! One add-on: who uses it, its backups, and its end.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use controller::Controller;
use controller::addons::find_kind;
use controller::store::{Addon, Transfer, TransferAction, TransferState};
use model::{Role, Timestamp};
use serde::Serialize;

use super::addons::{addons_path, kind_name, pill};
use super::show as show_page;
use crate::error::{PageError, refusal};
use crate::form::Form;
use crate::live::{self, Part};
use crate::notice::Notice;
use crate::session::AppVisit;
use crate::templates;
use crate::view::{Head, Inside, Moment, Pill, size};

#[derive(Debug, Serialize)]
pub(super) struct AddonPage {
    page: Inside,
    app: Head,
    name: String,
    path: String,
    kind: &'static str,
    plan: String,
    pill: Pill,
    failure: Option<String>,
    since: Moment,
    users: Vec<User>,
    /// It has a server of ours.
    is_ours: bool,
    can_back_up: bool,
    backups: Vec<Backup>,
}

/// An app that uses it.
#[derive(Debug, Serialize)]
struct User {
    app: String,
    var: String,
}

#[derive(Debug, Serialize)]
struct Backup {
    name: String,
    what: String,
    size: Option<String>,
    pill: Pill,
    failure: Option<String>,
    when: Moment,
    can_restore: bool,
}

type Named = Path<BTreeMap<String, String>>;

/// `GET /console/apps/{app}/addons/{addon}`
pub(crate) async fn show(
    State(controller): State<Arc<Controller>>,
    by: AppVisit,
    Path(named): Named,
) -> Result<Response, PageError> {
    let addon = find(&controller, &by, &named).await?;
    show_page(&by.visit, "addon.html", &AddonPage::load(&controller, &by, addon).await?)
}

/// `GET /console/apps/{app}/addons/{addon}/live`
pub(crate) async fn live(State(controller): State<Arc<Controller>>, by: AppVisit, Path(named): Named) -> Response {
    live::follow(controller, by, move |controller, by| {
        let named = named.clone();
        async move {
            let addon = find(&controller, &by, &named).await?;
            let page = AddonPage::load(&controller, &by, addon).await?;
            let part = |name| templates::block("addon.html", name, &page);
            Ok::<Vec<Part>, PageError>(vec![("head", part("head")?), ("live", part("live")?)])
        }
    })
}

/// `POST /console/apps/{app}/addons/{addon}/restart`
pub(crate) async fn restart(
    State(controller): State<Arc<Controller>>,
    Path(named): Named,
    form: Form<AppVisit>,
) -> Result<Response, PageError> {
    let addon = find(&controller, &form.by, &named).await?;
    let notice = match controller.restart_addon(&addon, &form.by.visit.actor).await {
        Ok(()) => Notice::done(format!("{} is restarting", addon.name)),
        Err(error) => Notice::refused(refusal(error)?),
    };
    Ok(notice.then(&addon_path(&form.by, &addon)))
}

/// `POST /console/apps/{app}/addons/{addon}/backups`
pub(crate) async fn capture(
    State(controller): State<Arc<Controller>>,
    Path(named): Named,
    form: Form<AppVisit>,
) -> Result<Response, PageError> {
    let addon = find(&controller, &form.by, &named).await?;
    let notice = match controller.capture_backup(&addon, &form.by.visit.actor).await {
        Ok(transfer) => Notice::done(format!("Backup {} is running", transfer.name())),
        Err(error) => Notice::refused(refusal(error)?),
    };
    Ok(notice.then(&addon_path(&form.by, &addon)))
}

/// `POST /console/apps/{app}/addons/{addon}/restore`
pub(crate) async fn restore(
    State(controller): State<Arc<Controller>>,
    Path(named): Named,
    form: Form<AppVisit>,
) -> Result<Response, PageError> {
    let addon = find(&controller, &form.by, &named).await?;
    let source = controller.find_transfer(addon.id, form.fields.get("backup")).await?;
    let notice = match controller.restore_backup((&addon, &form.by.visit.actor), &source).await {
        Ok(_) => Notice::done(format!("{} is being restored", source.name())),
        Err(error) => Notice::refused(refusal(error)?),
    };
    Ok(notice.then(&addon_path(&form.by, &addon)))
}

/// `POST /console/apps/{app}/addons/{addon}/destroy`: only with its name typed.
pub(crate) async fn destroy(
    State(controller): State<Arc<Controller>>,
    Path(named): Named,
    form: Form<AppVisit>,
) -> Result<Response, PageError> {
    let addon = find(&controller, &form.by, &named).await?;
    if form.fields.get("confirm").trim() != addon.name.as_str() {
        let text = format!("Nothing was destroyed: type {} to confirm.", addon.name);
        return Ok(Notice::refused(text).then(&addon_path(&form.by, &addon)));
    }
    match controller.destroy_addon(&addon, &form.by.visit.actor, false).await {
        Ok(()) => Ok(Notice::done(format!("{} was destroyed", addon.name)).then(&addons_path(&form.by))),
        Err(error) => Ok(Notice::refused(refusal(error)?).then(&addon_path(&form.by, &addon))),
    }
}

/// The add-on that the path names, which was made for the app.
async fn find(controller: &Controller, by: &AppVisit, named: &BTreeMap<String, String>) -> Result<Addon, PageError> {
    let name = named.get("addon").ok_or(PageError::NoPage)?;
    let addon = controller.find_addon(&by.visit.actor, (name, Some(&by.app)), Role::View).await?;
    Some(addon).filter(|addon| addon.app == by.app.id).ok_or(PageError::NoPage)
}

fn addon_path(by: &AppVisit, addon: &Addon) -> String {
    format!("{}/{}", addons_path(by), addon.name)
}

impl AddonPage {
    async fn load(controller: &Controller, by: &AppVisit, addon: Addon) -> Result<Self, PageError> {
        let now = controller.clock.now();
        let server = find_kind(&addon.kind)?.0.server();
        let attachments = controller.store.attachments_of_addon(addon.id).await?;
        let user = |attachment: &controller::store::Attachment| User {
            app: attachment.app_name.to_string(),
            var: format!("{}_URL", attachment.name),
        };
        let transfers = controller.store.transfers(addon.id).await?;
        Ok(Self {
            page: Inside::new(addon.name.as_str(), &by.visit),
            app: Head::load(controller, by, "addons").await?,
            path: addon_path(by, &addon),
            kind: kind_name(&addon.kind),
            pill: pill(&addon),
            since: Moment::new(addon.created_at, now),
            users: attachments.iter().map(user).collect(),
            is_ours: server.is_some(),
            can_back_up: server.is_some_and(|server| server.backup.is_some()),
            backups: transfers.iter().rev().map(|transfer| Backup::new(transfer, now)).collect(),
            name: addon.name.to_string(),
            plan: addon.plan,
            failure: addon.failure,
        })
    }
}

impl Backup {
    fn new(transfer: &Transfer, now: Timestamp) -> Self {
        let what = match (transfer.action, transfer.source) {
            (TransferAction::Capture, _) => "Backup".to_owned(),
            (TransferAction::Upload, _) => "Uploaded backup".to_owned(),
            (TransferAction::Restore, Some(source)) => format!("Restore of b{source:03}"),
            (TransferAction::Restore, None) => "Restore".to_owned(),
        };
        Self {
            name: transfer.name(),
            what,
            size: transfer.is_backup().then(|| size(transfer.bytes)),
            pill: match transfer.state {
                TransferState::Running => Pill::new("busy", "Running"),
                TransferState::Succeeded => Pill::new("good", "Done"),
                TransferState::Failed => Pill::new("bad", "Failed"),
            },
            failure: transfer.failure.clone(),
            when: Moment::new(transfer.created_at, now),
            can_restore: transfer.is_backup(),
        }
    }
}

#[cfg(test)]
impl AddonPage {
    pub(super) fn samples() -> [Self; 2] {
        use crate::view::samples::{HOSTILE, head, inside, moment};
        let backup = |can_restore: bool| Backup {
            name: HOSTILE.to_owned(),
            what: HOSTILE.to_owned(),
            size: can_restore.then(|| size(1)),
            pill: Pill::new("good", "Done"),
            failure: (!can_restore).then(|| HOSTILE.to_owned()),
            when: moment(),
            can_restore,
        };
        let page = |full: bool| Self {
            page: inside(),
            app: head("addons"),
            name: HOSTILE.to_owned(),
            path: HOSTILE.to_owned(),
            kind: "PostgreSQL",
            plan: HOSTILE.to_owned(),
            pill: Pill::new("good", "Ready"),
            failure: full.then(|| HOSTILE.to_owned()),
            since: moment(),
            users: if full { vec![User { app: HOSTILE.to_owned(), var: HOSTILE.to_owned() }] } else { vec![] },
            is_ours: full,
            can_back_up: true,
            backups: if full { vec![backup(true), backup(false)] } else { vec![] },
        };
        [page(true), page(false)]
    }
}
