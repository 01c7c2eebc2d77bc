//! What can be said of a manifest only by who knows the platform: its sizes, its add-ons, its limits.

use manifest::{Addon, At, Manifest, Problem};
use model::AttachmentName;

use crate::addons::find_kind;
use crate::config_vars;
use crate::formation::{MAX_QUANTITY, RELEASE_PHASE};
use crate::sizes::Sizes;

/// What a push with this manifest would be told, beside what is wrong with its files. `attached` is what the app uses already: an
/// add-on of such a name is not looked for. `sizes` are those of the platform; who does not know them only warns. Asks nobody and
/// changes nothing.
pub fn check(manifest: &Manifest, attached: &[AttachmentName], sizes: Option<&Sizes>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, var) in &manifest.env {
        let value = var.value.value.as_deref();
        let checked = config_vars::check_one(name, value);
        problems.extend(checked.err().map(|error| var.error(format!("env.{name}: {error}"))));
    }
    for (process_type, scale) in &manifest.formation {
        let field = format!("formation.{process_type}");
        problems.extend(scale.value.size.as_deref().and_then(|size| check_size(scale, &field, (size, sizes))));
        let quantity = scale.value.quantity.unwrap_or(0);
        if quantity > MAX_QUANTITY {
            problems.push(scale.error(format!("{field}.quantity can be at most {MAX_QUANTITY}")));
        }
        if quantity > 0 && process_type.as_str() == RELEASE_PHASE {
            problems.push(scale.error(format!("{field}: the release process runs once for each release")));
        }
    }
    let is_missing = |addon: &&At<Addon>| stand_in(&addon.value).is_none_or(|name| !attached.contains(&name));
    for addon in manifest.addons.iter().filter(is_missing) {
        let found = find_kind(&addon.value.plan).and_then(|(kind, _)| kind.check(&addon.value.options));
        problems.extend(found.err().map(|error| addon.error(format!("addons: {error}"))));
    }
    for job in &manifest.cron {
        let size = job.value.settings.get("size");
        problems.extend(size.and_then(|size| check_size(job, "cron", (size, sizes))));
    }
    if let Some(script) = &manifest.postdeploy {
        let size = script.value.size.as_deref();
        problems.extend(size.and_then(|size| check_size(script, "scripts.postdeploy", (size, sizes))));
    }
    if let Some(stack) = manifest.stack.as_ref().filter(|stack| stack.value == "container") {
        problems.push(stack.warning("stack changes nothing: apps are built by buildpacks here, not from Dockerfiles"));
    }
    problems
}

/// The name under which an app would use a service that this platform does not have: `papertrail` is `PAPERTRAIL`.
pub(super) fn stand_in(wanted: &Addon) -> Option<AttachmentName> {
    let name = || wanted.service().to_ascii_uppercase().replace('-', "_").parse().ok();
    wanted.attachment.clone().or_else(name)
}

fn check_size<T>(place: &At<T>, field: &str, (size, sizes): (&str, Option<&Sizes>)) -> Option<Problem> {
    let built_in = Sizes::built_in();
    let known = sizes.unwrap_or(&built_in);
    let error = known.unknown(size);
    known.find(size).is_none().then(|| match sizes {
        Some(_) => place.error(format!("{field}: {error}")),
        None => place.warning(format!("{field}: {error}, and those that the platform's operator made")),
    })
}

#[cfg(test)]
mod tests {
    use manifest::{Files, Severity};

    use super::*;

    #[test]
    fn what_the_platform_does_not_have_is_told_with_its_line() {
        let text = br#"{
  "stack": "container",
  "env": {"PORT": "80", "FINE": "x"},
  "formation": {
    "web": {"quantity": 101, "size": "huge"},
    "release": {"quantity": 1}
  },
  "addons": ["mysql", "postgres:huge", "external",
             {"plan": "external", "options": {"url": "mysql://host/db"}}],
  "cron": [{"command": "true", "schedule": "@daily", "size": "small"}],
  "scripts": {"postdeploy": {"command": "seed", "size": "tiny"}}
}"#;
        let (manifest, problems) = manifest::read(Files { app_json: Some(text), heroku_yml: None });
        assert_eq!(problems, []);
        let said: Vec<_> = check(&manifest, &[], Some(&Sizes::built_in())).iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(said.join("\n"));
        let attached = ["MYSQL".parse().expect("a name")];
        let sizes = Sizes::built_in();
        assert_eq!(check(&manifest, &attached, Some(&sizes)).len(), said.len() - 1, "a stand-in is enough");
        let errors = |sizes| check(&manifest, &[], sizes).iter().filter(|it| it.severity == Severity::Error).count();
        assert_eq!(errors(None), errors(Some(&sizes)) - 3, "who does not know the platform's sizes only warns");
    }
}
