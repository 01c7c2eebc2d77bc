//! Config vars: one by one, and pasted from a `.env` file with a look at what that changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::Response;
use controller::Controller;
use controller::config_vars::{ConfigVars, ConfigWish};
use controller::store::{Contents, Release, Scope};
use serde::{Deserialize, Serialize};

use super::{show as show_page, show_again};
use crate::dotenv;
use crate::error::{PageError, refusal};
use crate::form::{Fields, Form};
use crate::notice::Notice;
use crate::session::AppVisit;
use crate::view::{Choice, Head, Inside, Moment, became, path, plural};

/// So many changes are listed.
const HISTORY: u32 = 20;

/// What is asked of the page.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Ask {
    /// Name of a config var to show the value of, or `*` for all.
    #[serde(default)]
    reveal: Option<String>,
    /// Name of a config var to put into the form.
    #[serde(default)]
    edit: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Config {
    page: Inside,
    app: Head,
    vars: Vec<Var>,
    all_revealed: bool,
    name: String,
    value: String,
    /// The form edits a config var that there is.
    is_edit: bool,
    /// Where the one in the form is given.
    scope: &'static str,
    scopes: Vec<Choice>,
    /// The newest releases that changed config vars.
    history: Vec<Changed>,
}

#[derive(Debug, Serialize)]
struct Var {
    name: String,
    /// None while it is masked.
    value: Option<String>,
    lines: usize,
    /// As part of a URL.
    encoded: String,
    /// The add-on that it tells of; none if it can be changed here.
    addon: Option<String>,
    /// Where it is given; empty if everywhere.
    scope: &'static str,
}

/// A release that changed config vars: their names, never their values.
#[derive(Debug, Serialize)]
struct Changed {
    version: u64,
    link: String,
    names: Vec<String>,
    who: String,
    when: Moment,
}

#[derive(Debug, Serialize)]
pub(super) struct Paste {
    page: Inside,
    app: Head,
    text: String,
    /// What applying the text would do; none before it was looked at.
    changes: Option<Vec<Change>>,
    unchanged: usize,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Change {
    name: String,
    change: &'static str,
}

/// `GET /console/apps/{app}/config`
pub(crate) async fn show(
    State(controller): State<Arc<Controller>>,
    by: AppVisit,
    Query(ask): Query<Ask>,
) -> Result<Response, PageError> {
    let mut page = Config::load(&controller, &by, &ask).await?;
    let edited = ask.edit.and_then(|name| page.vars.iter().position(|var| var.name == name));
    if let Some(at) = edited {
        let config = controller.store.config(by.app.id).await?;
        page.name.clone_from(&page.vars[at].name);
        page.value =
            config.iter().find(|(name, _)| name.as_str() == page.name).map(|(_, v)| v.to_owned()).unwrap_or_default();
        page.scope = page.vars[at].scope;
        page.is_edit = true;
    }
    show_page(&by.visit, "config.html", &page)
}

/// `POST /console/apps/{app}/config`
pub(crate) async fn set(
    State(controller): State<Arc<Controller>>,
    form: Form<AppVisit>,
) -> Result<Response, PageError> {
    let name = form.fields.get("name").trim().to_owned();
    let value = form.fields.get("value").to_owned();
    let vars = BTreeMap::from([(name.clone(), Some(value.clone()))]);
    let scopes = BTreeMap::from([(name.clone(), scope(form.fields.get("scope")))]);
    match change(&controller, &form.by, ConfigWish { vars, scopes, reason: None }).await? {
        Ok(notice) => Ok(notice.then(&config_path(&form.by))),
        Err(text) => {
            let mut page = Config::load(&controller, &form.by, &Ask::default()).await?;
            page.page.refuse(text);
            (page.name, page.value) = (name, value);
            page.scope = word(scope(form.fields.get("scope")));
            show_again("config.html", &page)
        }
    }
}

/// `POST /console/apps/{app}/config/remove`
pub(crate) async fn remove(
    State(controller): State<Arc<Controller>>,
    form: Form<AppVisit>,
) -> Result<Response, PageError> {
    let patch = BTreeMap::from([(form.fields.get("name").to_owned(), None)]);
    let wish = ConfigWish { vars: patch, ..ConfigWish::default() };
    let notice = change(&controller, &form.by, wish).await?.unwrap_or_else(Notice::refused);
    Ok(notice.then(&config_path(&form.by)))
}

/// `GET /console/apps/{app}/config/paste`
pub(crate) async fn paste(State(controller): State<Arc<Controller>>, by: AppVisit) -> Result<Response, PageError> {
    show_page(&by.visit, "paste.html", &Paste::load(&controller, &by, "").await?)
}

/// `POST /console/apps/{app}/config/paste`: shows what the text would change, and changes nothing.
pub(crate) async fn preview(
    State(controller): State<Arc<Controller>>,
    form: Form<AppVisit>,
) -> Result<Response, PageError> {
    let mut page = Paste::load(&controller, &form.by, form.fields.get("text")).await?;
    match patch(&form.fields) {
        Ok(patch) => {
            let config = controller.store.config(form.by.app.id).await?;
            (page.changes, page.unchanged) = compare(&config, &patch);
            show_page(&form.by.visit, "paste.html", &page)
        }
        Err(text) => {
            page.page.refuse(text);
            show_again("paste.html", &page)
        }
    }
}

/// `POST /console/apps/{app}/config/apply`
pub(crate) async fn apply(
    State(controller): State<Arc<Controller>>,
    form: Form<AppVisit>,
) -> Result<Response, PageError> {
    let result = match patch(&form.fields) {
        Ok(vars) => change(&controller, &form.by, ConfigWish { vars, ..ConfigWish::default() }).await?,
        Err(text) => Err(text),
    };
    match result {
        Ok(notice) => Ok(notice.then(&config_path(&form.by))),
        Err(text) => {
            let mut page = Paste::load(&controller, &form.by, form.fields.get("text")).await?;
            page.page.refuse(text);
            show_again("paste.html", &page)
        }
    }
}

fn config_path(by: &AppVisit) -> String {
    format!("{}/config", path(&by.app))
}

/// Changes config vars; the inner error is for the person.
async fn change(controller: &Controller, by: &AppVisit, wish: ConfigWish) -> Result<Result<Notice, String>, PageError> {
    match controller.change_config(&by.app, &by.visit.actor, &wish).await {
        Ok(Some(release)) => Ok(Ok(Notice::done(format!("{}: this is v{}", release.description, release.version)))),
        Ok(None) => Ok(Ok(Notice::done("Nothing changed, so there is no new release."))),
        Err(error) => Ok(Err(refusal(error)?)),
    }
}

/// What the pasted text sets.
fn patch(fields: &Fields) -> Result<BTreeMap<String, Option<String>>, String> {
    let variables = dotenv::parse(fields.get("text"))?;
    if variables.is_empty() {
        return Err("There is no NAME=value in this text.".to_owned());
    }
    Ok(variables.into_iter().map(|variable| (variable.name, Some(variable.value))).collect())
}

/// What changes, and how many stay.
fn compare(config: &ConfigVars, patch: &BTreeMap<String, Option<String>>) -> (Option<Vec<Change>>, usize) {
    let now: BTreeMap<&str, &str> = config.iter().map(|(name, value)| (name.as_str(), value)).collect();
    let change = |(name, value): (&String, &Option<String>)| {
        let change = match now.get(name.as_str()) {
            None => "added",
            Some(old) if Some(*old) != value.as_deref() => "changed",
            Some(_) => return None,
        };
        Some(Change { name: name.clone(), change })
    };
    let changes: Vec<Change> = patch.iter().filter_map(change).collect();
    let unchanged = patch.len() - changes.len();
    (Some(changes), unchanged)
}

/// Where a config var is given, as the form says it.
fn scope(word: &str) -> Option<Scope> {
    match word {
        "build" => Some(Scope::Build),
        "run" => Some(Scope::Run),
        _ => None,
    }
}

fn word(scope: Option<Scope>) -> &'static str {
    match scope {
        Some(Scope::Build) => "build",
        Some(Scope::Run) => "run",
        None => "",
    }
}

fn scopes() -> Vec<Choice> {
    vec![
        Choice::new("", "to builds and to what runs"),
        Choice::new("run", "only to what runs"),
        Choice::new("build", "only to builds"),
    ]
}

async fn history(controller: &Controller, by: &AppVisit) -> Result<Vec<Changed>, PageError> {
    let now = controller.clock.now();
    let releases = controller.store.config_history(by.app.id, HISTORY).await?;
    let changed = |release: &Release| Changed {
        version: release.version,
        link: format!("{}/releases/v{}", path(&by.app), release.version),
        names: release.config_changes.iter().map(|(name, change)| format!("{name} {}", became(*change))).collect(),
        who: release.user.email.to_string(),
        when: Moment::new(release.created_at, now),
    };
    Ok(releases.iter().map(changed).collect())
}

impl Config {
    async fn load(controller: &Controller, by: &AppVisit, ask: &Ask) -> Result<Self, PageError> {
        let Contents { config, scopes: given, .. } = controller.store.present(by.app.id).await?;
        let attachments = controller.store.attachments_of_app(by.app.id).await?;
        let addon_of = |name: &str| {
            let prefix = name.strip_suffix("_URL")?;
            let attachment = attachments.iter().find(|attachment| attachment.name.as_str() == prefix)?;
            Some(attachment.addon_name.to_string())
        };
        let all_revealed = ask.reveal.as_deref() == Some("*");
        let var = |(name, value): (&model::ConfigVarName, &str)| {
            let is_revealed = all_revealed || ask.reveal.as_deref() == Some(name.as_str());
            Var {
                name: name.to_string(),
                value: is_revealed.then(|| value.to_owned()),
                lines: value.lines().count(),
                encoded: url::form_urlencoded::byte_serialize(name.as_str().as_bytes()).collect(),
                addon: addon_of(name.as_str()),
                scope: word(given.get(name).copied()),
            }
        };
        let vars: Vec<Var> = config.iter().map(var).collect();
        let title = format!("{} of {}", plural(vars.len() as u64, "config var"), by.app.name);
        Ok(Self {
            page: Inside::new(&title, &by.visit),
            app: Head::load(controller, by, "config").await?,
            vars,
            all_revealed,
            name: String::new(),
            value: String::new(),
            is_edit: false,
            scope: "",
            scopes: scopes(),
            history: history(controller, by).await?,
        })
    }
}

impl Paste {
    async fn load(controller: &Controller, by: &AppVisit, text: &str) -> Result<Self, PageError> {
        Ok(Self {
            page: Inside::new("Paste a .env file", &by.visit),
            app: Head::load(controller, by, "config").await?,
            text: text.to_owned(),
            changes: None,
            unchanged: 0,
        })
    }
}

#[cfg(test)]
mod samples {
    use super::*;
    use crate::view::samples::{HOSTILE, head, inside, moment};

    impl Config {
        pub(in crate::pages) fn samples() -> [Self; 2] {
            let var = |value: Option<String>| Var {
                name: HOSTILE.to_owned(),
                addon: value.clone(),
                value,
                lines: 2,
                encoded: HOSTILE.to_owned(),
                scope: "run",
            };
            let changed = || Changed {
                version: 3,
                link: HOSTILE.to_owned(),
                names: vec![HOSTILE.to_owned()],
                who: HOSTILE.to_owned(),
                when: moment(),
            };
            let page = |vars: Vec<Var>| Self {
                page: inside(),
                app: head("config"),
                is_edit: !vars.is_empty(),
                vars,
                all_revealed: false,
                name: HOSTILE.to_owned(),
                value: HOSTILE.to_owned(),
                scope: "run",
                scopes: scopes(),
                history: vec![changed(), changed()],
            };
            [page(vec![var(None), var(Some(HOSTILE.to_owned()))]), page(vec![])]
        }
    }

    impl Paste {
        pub(in crate::pages) fn samples() -> [Self; 3] {
            let page =
                |changes| Self { page: inside(), app: head("config"), text: HOSTILE.to_owned(), changes, unchanged: 1 };
            [page(None), page(Some(vec![])), page(Some(vec![Change { name: HOSTILE.to_owned(), change: "added" }]))]
        }
    }

    #[test]
    fn a_pasted_file_is_compared_by_value() {
        let config: ConfigVars = serde_json::from_str(r#"{"SAME":"1","OTHER":"1"}"#).expect("config");
        let fields = Fields::parse(b"text=SAME%3D1%0D%0AOTHER%3D2%0D%0ANEW%3D3");
        let of = |name: &str, change| Change { name: name.to_owned(), change };
        let (changes, unchanged) = compare(&config, &patch(&fields).expect("read"));
        assert_eq!(changes, Some(vec![of("NEW", "added"), of("OTHER", "changed")]));
        assert_eq!(unchanged, 1);
    }
}
