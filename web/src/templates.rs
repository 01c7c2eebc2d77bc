//! The templates, compiled in. What is not valid fails the tests, and every value is escaped.

use std::sync::LazyLock;

use serde::Serialize;
use tera::{Context, Tera};

use crate::error::PageError;

macro_rules! templates {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../templates/", $name)))),*]
    };
}

/// Name and text of each.
const FILES: &[(&str, &str)] = templates![
    "access.html",
    "account.html",
    "account_audit.html",
    "activity.html",
    "addon.html",
    "addons.html",
    "app.html",
    "app_audit.html",
    "apps.html",
    "base.html",
    "build.html",
    "components.html",
    "config.html",
    "door.html",
    "domains.html",
    "error.html",
    "invitation.html",
    "jobs.html",
    "keys.html",
    "login.html",
    "logs.html",
    "new_app.html",
    "overview.html",
    "paste.html",
    "release.html",
    "rollback.html",
    "security.html",
    "settings.html",
    "setup.html",
    "sign_in.html",
    "team.html",
    "teams.html",
    "tokens.html",
];

static TEMPLATES: LazyLock<Result<Tera, String>> = LazyLock::new(|| {
    let mut tera = Tera::new();
    // Every template: nothing here is anything but HTML.
    tera.autoescape_on([".html"]);
    tera.add_raw_templates(FILES.iter().copied()).map_err(|error| error.to_string())?;
    Ok(tera)
});

/// A whole page.
pub(crate) fn page(template: &str, content: &impl Serialize) -> Result<String, PageError> {
    let values = Context::from_serialize(content)?;
    Ok(tera()?.render(template, &values)?)
}

/// One block of a page.
pub(crate) fn block(template: &str, block: &str, content: &impl Serialize) -> Result<String, PageError> {
    let values = Context::from_serialize(content)?;
    Ok(tera()?.render_block(template, block, &values)?)
}

fn tera() -> Result<&'static Tera, PageError> {
    TEMPLATES.as_ref().map_err(|error| PageError::Template(error.clone()))
}
