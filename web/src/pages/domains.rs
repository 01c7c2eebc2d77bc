//! Where an app answers.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use controller::Controller;
use controller::store::AcmStatus;
use serde::Serialize;

use super::{show as show_page, show_again};
use crate::error::{PageError, refusal};
use crate::form::Form;
use crate::notice::Notice;
use crate::session::AppVisit;
use crate::view::{Head, Inside, Moment, Pill, path};

#[derive(Debug, Serialize)]
pub(super) struct Domains {
    page: Inside,
    app: Head,
    names: Vec<Domain>,
    hostname: String,
    strip: bool,
}

#[derive(Debug, Serialize)]
struct Domain {
    hostname: String,
    url: String,
    /// The app does not see its path.
    strip: bool,
    custom: bool,
    since: Moment,
    /// How far the platform is with a certificate for it.
    certificate: Option<Pill>,
    /// Why no further.
    reason: String,
}

/// `GET /console/apps/{app}/domains`
pub(crate) async fn show(State(controller): State<Arc<Controller>>, by: AppVisit) -> Result<Response, PageError> {
    show_page(&by.visit, "domains.html", &Domains::load(&controller, &by, ("", false)).await?)
}

/// `POST /console/apps/{app}/domains`
pub(crate) async fn add(
    State(controller): State<Arc<Controller>>,
    form: Form<AppVisit>,
) -> Result<Response, PageError> {
    let by = &form.by;
    let wish = (form.fields.get("hostname").trim(), form.fields.filled("strip").is_some());
    match controller.add_domain(&by.app, &by.visit.actor, wish).await {
        Ok(domain) => Ok(Notice::done(format!("{} was added", domain.place)).then(&domains_path(by))),
        Err(error) => {
            let mut page = Domains::load(&controller, by, wish).await?;
            page.page.refuse(refusal(error)?);
            show_again("domains.html", &page)
        }
    }
}

/// `POST /console/apps/{app}/domains/remove`
pub(crate) async fn remove(
    State(controller): State<Arc<Controller>>,
    form: Form<AppVisit>,
) -> Result<Response, PageError> {
    let by = &form.by;
    let removed = match controller.find_domain(&by.app, form.fields.get("hostname")).await {
        Ok(domain) => controller.remove_domain(&by.app, &by.visit.actor, &domain).await.map(|()| domain),
        Err(error) => Err(error),
    };
    let notice = match removed {
        Ok(domain) => Notice::done(format!("{} was removed", domain.place)),
        Err(controller::Error::NotFound(_)) => Notice::refused("That domain is gone already."),
        Err(error) => Notice::refused(refusal(error)?),
    };
    Ok(notice.then(&domains_path(by)))
}

fn pill(status: AcmStatus) -> Pill {
    match status {
        AcmStatus::Pending => Pill::new("busy", "certificate pending"),
        AcmStatus::Failing => Pill::new("bad", "certificate failing"),
        AcmStatus::Failed => Pill::new("bad", "no certificate"),
        AcmStatus::Issued => Pill::new("good", "certificate"),
    }
}

fn domains_path(by: &AppVisit) -> String {
    format!("{}/domains", path(&by.app))
}

impl Domains {
    async fn load(controller: &Controller, by: &AppVisit, (hostname, strip): (&str, bool)) -> Result<Self, PageError> {
        let now = controller.clock.now();
        let domain = |domain: controller::domains::AppDomain| Domain {
            url: controller.settings.public_url(&domain.place.host)
                + domain.place.path.as_ref().map(model::PathPrefix::as_str).unwrap_or_default(),
            hostname: domain.place.to_string(),
            strip: domain.place.strip,
            custom: domain.custom,
            since: Moment::new(domain.created_at, now),
            certificate: match &domain.revoked {
                Some(_) => Some(Pill::new("bad", "certificate revoked")),
                None => domain.acm.as_ref().map(|(status, _)| pill(*status)),
            },
            reason: match domain.revoked {
                Some(why) => format!("Browsers may refuse the certificate: {why}"),
                None => domain.acm.and_then(|(_, reason)| reason).unwrap_or_default(),
            },
        };
        Ok(Self {
            page: Inside::new(&format!("Domains of {}", by.app.name), &by.visit),
            app: Head::load(controller, by, "domains").await?,
            names: controller.domains(&by.app).await?.into_iter().map(domain).collect(),
            hostname: hostname.to_owned(),
            strip,
        })
    }

    #[cfg(test)]
    pub(super) fn sample() -> Self {
        use crate::view::samples::{HOSTILE, head, inside, moment};
        let domain = |custom| Domain {
            hostname: HOSTILE.to_owned(),
            url: HOSTILE.to_owned(),
            strip: custom,
            custom,
            since: moment(),
            certificate: custom.then(|| pill(AcmStatus::Failing)),
            reason: HOSTILE.to_owned(),
        };
        Self {
            page: inside(),
            app: head("domains"),
            names: vec![domain(false), domain(true)],
            hostname: HOSTILE.to_owned(),
            strip: true,
        }
    }
}
