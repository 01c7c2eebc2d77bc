//! The first deploy: config vars, buildpacks and add-ons that the app wants and does not have.

use std::collections::{BTreeMap, BTreeSet};

use manifest::{APP_JSON, EnvVar, Manifest};
use model::{ConfigVarName, Role};

use crate::apps::AppUpdate;
use crate::builds::{Output, Refused};
use crate::config_vars::ConfigVars;
use crate::store::App;
use crate::{Actor, Controller, Error};

/// Random bytes of a secret that is made up.
const SECRET_BYTES: usize = 32;

impl Controller {
    /// Gives an app what it wants before its first deploy; on later ones only says which config vars it lacks. Returns the app as it
    /// is then.
    pub(crate) async fn set_up(
        self: &std::sync::Arc<Self>,
        (app, actor): (&App, &Actor),
        manifest: &Manifest,
        output: &mut Output,
    ) -> Result<App, Refused> {
        let config = self.store.config(app.id).await?;
        let missing = missing(manifest, &config);
        if self.store.was_live(app.id).await? {
            for (name, _) in &missing {
                let text = format!("{APP_JSON} requires {name}, which is not set: platform config:set {name}=…");
                output.line(&format!(" !     {text} -a {}", app.name)).await;
            }
            return Ok(app.clone());
        }
        if !missing.is_empty() {
            return Err(Refused::Said(requirement(app, &missing)));
        }
        self.store.set_postdeploy_due(app.id, manifest.postdeploy.is_some()).await?;
        if !manifest.env.is_empty() || !manifest.addons.is_empty() || !manifest.buildpacks.is_empty() {
            // Whoever may only deploy changes none of this, neither here nor there.
            self.check_role(actor, app, Role::Operate).await.map_err(|error| Refused::Said(error.to_string()))?;
            output.line(&format!("-----> Setting up {} as its files say", app.name)).await;
        }
        self.choose_buildpacks((app, actor), manifest, output).await?;
        self.set_defaults((app, actor), (manifest, &config), output).await?;
        self.provide_addons((app, actor), &manifest.addons, output).await?;
        Ok(self.store.app(app.id).await?.ok_or(Error::NotFound("app"))?)
    }

    async fn choose_buildpacks(
        &self,
        (app, actor): (&App, &Actor),
        manifest: &Manifest,
        output: &mut Output,
    ) -> Result<(), Refused> {
        let buildpacks: Vec<_> = manifest.buildpacks.iter().map(|buildpack| buildpack.value.clone()).collect();
        if buildpacks.is_empty() || !app.buildpacks.is_empty() {
            return Ok(());
        }
        output.line(&format!("       Buildpacks: {}", buildpacks.join(", "))).await;
        let update = AppUpdate { buildpacks: Some(buildpacks), ..AppUpdate::default() };
        self.update_app(app, actor, update).await?;
        Ok(())
    }

    async fn set_defaults(
        &self,
        (app, actor): (&App, &Actor),
        (manifest, config): (&Manifest, &ConfigVars),
        output: &mut Output,
    ) -> Result<(), Refused> {
        let coming =
            manifest.addons.iter().filter_map(|addon| super::addons::vars(&addon.value)).collect::<BTreeSet<_>>();
        let (mut patch, mut said) = (BTreeMap::new(), Vec::new());
        for (name, var) in &manifest.env {
            if config.get(name).is_some() || coming.contains(name) {
                continue;
            }
            let Some(value) = self.value_of(&var.value) else { continue };
            said.push(if var.value.value.is_some() { name.to_string() } else { format!("{name} (made up)") });
            patch.insert(name.to_string(), Some(value));
        }
        if !patch.is_empty() {
            self.set_config(app, actor, &patch).await?;
            output.line(&format!("       Config vars: {}", said.join(", "))).await;
        }
        Ok(())
    }

    fn value_of(&self, var: &EnvVar) -> Option<String> {
        let make_up = || {
            let mut bytes = [0; SECRET_BYTES];
            self.random.fill(&mut bytes);
            hex::encode(bytes)
        };
        var.value.clone().or_else(|| var.generated.then(make_up))
    }
}

/// What the app requires and neither has nor gets.
fn missing<'a>(manifest: &'a Manifest, config: &ConfigVars) -> Vec<(&'a ConfigVarName, Option<&'a str>)> {
    let coming: BTreeSet<_> = manifest.addons.iter().filter_map(|addon| super::addons::vars(&addon.value)).collect();
    let lacks = |(name, var): &(&ConfigVarName, &manifest::At<EnvVar>)| {
        let EnvVar { value, required, generated, .. } = &var.value;
        *required && value.is_none() && !generated && config.get(name).is_none() && !coming.contains(*name)
    };
    let lacking = manifest.env.iter().filter(lacks);
    lacking.map(|(name, var)| (name, var.value.description.as_deref())).collect()
}

fn requirement(app: &App, missing: &[(&ConfigVarName, Option<&str>)]) -> String {
    let width = missing.iter().map(|(name, _)| name.as_str().len()).max().unwrap_or(0);
    let line = |(name, what): &(&ConfigVarName, Option<&str>)| {
        format!("  {:width$}  {}", name.as_str(), what.unwrap_or_default()).trim_end().to_owned()
    };
    let lines: Vec<_> = missing.iter().map(line).collect();
    let settings: Vec<_> = missing.iter().map(|(name, _)| format!("{name}=…")).collect();
    format!(
        "{} cannot do without config vars that are not set ({APP_JSON}, env):\n{}\n\nSet them and push again:\n  platform config:set {} -a {}",
        app.name,
        lines.join("\n"),
        settings.join(" "),
        app.name
    )
}
