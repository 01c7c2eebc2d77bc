//! Settings that people give and that an app.json may have: which of them counts, who says so, and what is wrong with them.

use std::collections::BTreeMap;

use crate::Error;

/// Settings as they were said: names and texts.
pub(crate) type Texts = BTreeMap<String, String>;
/// The same, with those that are taken back.
pub(crate) type Changes = BTreeMap<String, Option<String>>;

/// What is set counts before what the app's app.json says; the default is what neither has.
pub(crate) fn merged(own: &Texts, set: &Texts) -> Texts {
    let mut all = own.clone();
    all.extend(set.clone());
    all
}

/// What is set after some changes.
pub(crate) fn changed(set: &Texts, changes: &Changes) -> Texts {
    let mut all = set.clone();
    for (name, text) in changes {
        match text {
            Some(text) => drop(all.insert(name.clone(), text.clone())),
            None => drop(all.remove(name)),
        }
    }
    all
}

/// Who says a setting: `app`, if it was set; `app.json`; or `default`.
pub(crate) fn source(name: &str, own: &Texts, set: &Texts) -> &'static str {
    match (set.contains_key(name), own.contains_key(name)) {
        (true, _) => "app",
        (false, true) => "app.json",
        (false, false) => "default",
    }
}

/// Hands each change to `set`, and refuses what there is no setting for, or what it cannot be. `what` has these `names`: `a job`.
pub(crate) fn change(
    what: &str,
    names: &[&'static str],
    changes: &Changes,
    mut set: impl FnMut(&str, &str) -> Result<(), String>,
) -> Result<(), Error> {
    for (name, text) in changes {
        if !names.contains(&name.as_str()) {
            let names = names.join(", ");
            return Err(Error::Invalid(format!("{name:?} is no setting of {what}; there are {names}")));
        }
        if let Some(text) = text {
            set(name, text).map_err(|rule| Error::Invalid(format!("{name} {rule}")))?;
        }
    }
    Ok(())
}

/// `min=2 max unset`
pub(crate) fn words(changes: &Changes) -> String {
    let words = changes.iter().map(|(name, text)| match text {
        Some(text) => format!("{name}={text}"),
        None => format!("{name} unset"),
    });
    words.collect::<Vec<_>>().join(" ")
}
