//! Config vars: the environment of an app's processes. A change makes a release.

use std::collections::BTreeMap;
use std::fmt;

use model::ConfigVarName;
use serde::{Deserialize, Serialize};

use crate::releases::reason;
use crate::store::{App, Change, NewRelease, Release, Scope, StoreError};
use crate::{Actor, Controller, Error};

/// Most bytes of one value.
pub const MAX_VALUE_BYTES: usize = 64 * 1024;
/// Most bytes of all names and values of an app, so that with the image's own environment they always pass execve.
pub const MAX_TOTAL_BYTES: usize = 256 * 1024;

/// So many names are listed in a release's description.
const NAMES_SHOWN: usize = 10;

/// Names that the platform gives to every process itself.
const RESERVED: &[&str] = &["PORT", "DYNO"];

/// The config vars of one release. Values are secrets: `Debug` shows the names only.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConfigVars(BTreeMap<ConfigVarName, String>);

impl ConfigVars {
    /// Names and values in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&ConfigVarName, &str)> {
        self.0.iter().map(|(name, value)| (name, value.as_str()))
    }

    /// The value of a name.
    pub fn get(&self, name: &ConfigVarName) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// As the environment of a process.
    pub fn to_env(&self) -> BTreeMap<String, String> {
        self.iter().map(|(name, value)| (name.to_string(), value.to_owned())).collect()
    }

    /// Sets what has a value and unsets what has none; says whether that changed anything.
    pub fn apply(&mut self, patch: &BTreeMap<ConfigVarName, Option<String>>) -> bool {
        let before = self.0.clone();
        for (name, value) in patch {
            match value {
                Some(value) => self.0.insert(name.clone(), value.clone()),
                None => self.0.remove(name),
            };
        }
        before != self.0
    }

    /// Bytes of all names and values.
    pub fn total_bytes(&self) -> usize {
        self.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
    }
}

impl fmt::Debug for ConfigVars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A wish to change config vars, as a user words it.
#[derive(Default)]
pub struct ConfigWish {
    /// Values by name; `None` unsets.
    pub vars: BTreeMap<String, Option<String>>,
    /// Where some are given: in one place only, or, by `None`, everywhere.
    pub scopes: BTreeMap<String, Option<Scope>>,
    /// Why, for people.
    pub reason: Option<String>,
}

impl Controller {
    /// Sets and unsets (`None`) config vars and returns the release that this made; none if it changed nothing.
    pub async fn set_config(
        &self,
        app: &App,
        actor: &Actor,
        patch: &BTreeMap<String, Option<String>>,
    ) -> Result<Option<Release>, Error> {
        self.change_config(app, actor, &ConfigWish { vars: patch.clone(), ..ConfigWish::default() }).await
    }

    /// Changes config vars and where they are given, and returns the release that this made; none if it changed nothing.
    pub async fn change_config(&self, app: &App, actor: &Actor, wish: &ConfigWish) -> Result<Option<Release>, Error> {
        self.check_held(app, actor).await?;
        let vars = check(&wish.vars)?;
        let scopes: BTreeMap<_, _> =
            wish.scopes.iter().map(|(name, scope)| Ok((parsed(name)?, *scope))).collect::<Result<_, Error>>()?;
        let attachments = self.store.attachments_of_app(app.id).await?;
        // Also while the add-on is on its way: its config var is to come.
        let is_attached = |name: &&ConfigVarName| {
            attachments.iter().any(|it| name.as_str().strip_suffix("_URL") == Some(it.name.as_str()))
        };
        if let Some(name) = vars.keys().find(is_attached) {
            return Err(StoreError::Attached(name.clone()).into());
        }
        let description = describe(&vars, &scopes);
        let reason = reason(wish.reason.as_deref())?;
        let change = Change::Config(&vars, &scopes);
        let new = NewRelease {
            app: app.id,
            user: actor.user.id,
            description: &description,
            reason: reason.as_deref(),
            change,
        };
        let release = self.store.create_release(new, &self.stamp(actor)).await?;
        if let Some(release) = &release {
            self.note(app, actor, &format!("{description}: release v{}", release.version));
            self.changed.app(app.id);
        }
        Ok(release)
    }
}

fn parsed(name: &str) -> Result<ConfigVarName, Error> {
    name.parse().map_err(|rule| Error::Invalid(format!("Config var {name:?} is not valid: {rule}")))
}

fn check(patch: &BTreeMap<String, Option<String>>) -> Result<BTreeMap<ConfigVarName, Option<String>>, Error> {
    let mut checked = BTreeMap::new();
    for (name, value) in patch {
        let name = parsed(name)?;
        check_one(&name, value.as_deref())?;
        checked.insert(name, value.clone());
    }
    Ok(checked)
}

/// Refuses what no process can be given.
pub(crate) fn check_one(name: &ConfigVarName, value: Option<&str>) -> Result<(), Error> {
    if RESERVED.contains(&name.as_str()) {
        return Err(Error::Invalid(format!("Config var {name} is set by the platform and cannot be changed")));
    }
    match value {
        Some(value) if value.contains('\0') => {
            Err(Error::Invalid(format!("Config var {name} contains a NUL byte, which no process can be given")))
        }
        Some(value) if value.len() > MAX_VALUE_BYTES => Err(Error::Invalid(format!(
            "Config var {name} has {} bytes; at most {MAX_VALUE_BYTES} are possible",
            value.len()
        ))),
        _ => Ok(()),
    }
}

/// `Set A, B config vars`, as Heroku words it. Long lists are cut, since people read them in a table.
fn describe(vars: &BTreeMap<ConfigVarName, Option<String>>, scopes: &BTreeMap<ConfigVarName, Option<Scope>>) -> String {
    let names = |names: Vec<&str>| match names.split_at_checked(NAMES_SHOWN) {
        Some((shown, more)) if !more.is_empty() => format!("{} and {} more", shown.join(", "), more.len()),
        _ => names.join(", "),
    };
    let of = |set: bool| {
        names(vars.iter().filter(|(_, value)| value.is_some() == set).map(|(name, _)| name.as_str()).collect())
    };
    match (of(true).as_str(), of(false).as_str()) {
        ("", "") => format!("Give {} config vars elsewhere", names(scopes.keys().map(ConfigVarName::as_str).collect())),
        (set, "") => format!("Set {set} config vars"),
        ("", removed) => format!("Remove {removed} config vars"),
        (set, removed) => format!("Set {set} config vars, remove {removed}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestController;

    async fn set(test: &TestController, app: &App, user: &Actor, name: &str, value: &str) -> Result<(), Error> {
        let patch = BTreeMap::from([(name.to_owned(), Some(value.to_owned()))]);
        test.controller.set_config(app, user, &patch).await.map(|_| ())
    }

    #[tokio::test]
    async fn what_no_process_could_be_given_is_refused_by_name() {
        let test = TestController::new().await;
        let user = test.actor(&test.user("ada@example.com").await);
        let app = test.app(&user.user, "configured").await;
        let long = "x".repeat(MAX_VALUE_BYTES + 1);
        for (name, value) in [("1A", ""), ("A-B", ""), ("PORT", "80"), ("NUL", "a\0b"), ("LONG", &long)] {
            let refused = set(&test, &app, &user, name, value).await;
            assert!(matches!(&refused, Err(Error::Invalid(message)) if message.contains(name)), "{name}: {refused:?}");
        }
        for name in ["A", "B", "C"] {
            set(&test, &app, &user, name, &long[1..]).await.expect("set");
        }
        assert!(matches!(set(&test, &app, &user, "D", &long[1..]).await, Err(Error::Invalid(_))), "too much together");
        let releases = test.controller.store.releases(app.id).await.expect("readable");
        assert_eq!(releases.last().map(|release| release.description.as_str()), Some("Set C config vars"));
        let many = (0..12).map(|n| (format!("N{n:02}"), Some(String::new()))).collect();
        let release = test.controller.set_config(&app, &user, &many).await.expect("set").expect("a release");
        assert!(release.description.ends_with("N08, N09 and 2 more config vars"), "{}", release.description);
        assert!(!format!("{:?}", test.controller.store.config(app.id).await.expect("readable")).contains("xx"));
    }

    #[tokio::test]
    async fn a_config_var_is_given_where_its_scope_says() {
        let test = TestController::new().await;
        let user = test.user("ada@example.com").await;
        let (app, actor) = (test.app(&user, "scoped").await, test.actor(&user));
        let change = async |vars: &[(&str, Option<&str>)], scopes: &[(&str, Option<Scope>)]| {
            let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned))).collect();
            let scopes = scopes.iter().map(|(name, scope)| ((*name).to_owned(), *scope)).collect();
            let wish = ConfigWish { vars, scopes, reason: None };
            test.controller.change_config(&app, &actor, &wish).await
        };
        let given = async || {
            let present = test.controller.store.present(app.id).await.expect("readable");
            let names = |place| present.environment(place).into_keys().collect::<Vec<_>>().join(" ");
            (names(Scope::Build), names(Scope::Run))
        };
        let both = |build: &str, run: &str| (build.to_owned(), run.to_owned());
        let first = [("ALL", Some("1")), ("BUILD", Some("1")), ("RUN", Some("1"))];
        change(&first, &[("BUILD", Some(Scope::Build)), ("RUN", Some(Scope::Run))])
            .await
            .expect("set")
            .expect("a release");
        assert_eq!(given().await, both("ALL BUILD", "ALL RUN"));
        change(&[("RUN", Some("2"))], &[]).await.expect("set").expect("a release");
        assert_eq!(given().await, both("ALL BUILD", "ALL RUN"), "another value does not widen it");
        let moved = change(&[], &[("BUILD", None)]).await.expect("set").expect("a release");
        assert_eq!(moved.config_changes.len(), 1);
        assert_eq!(given().await, both("ALL BUILD", "ALL BUILD RUN"));
        assert!(change(&[], &[("BUILD", None)]).await.expect("set").is_none(), "it is so already");
        change(&[("RUN", None)], &[]).await.expect("unset").expect("a release");
        change(&[("RUN", Some("3"))], &[]).await.expect("set").expect("a release");
        assert_eq!(given().await, both("ALL BUILD RUN", "ALL BUILD RUN"), "what was unset is forgotten");
        let refused = change(&[], &[("NONE", Some(Scope::Run))]).await;
        assert!(matches!(&refused, Err(Error::Invalid(message)) if message.contains("NONE")), "{refused:?}");
    }
}
