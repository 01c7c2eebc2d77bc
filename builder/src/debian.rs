//! Debian packages that an app needs at the root of its file system: a built-in image extension (Image Extension spec).
//!
//! A buildpack's plan may require the name `apt` with lists of packages, `run` for the image and `build` for the build besides.
//! The platform provides it: each list becomes a layer over the run or build image, made once for all apps that ask for the same.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use model::Digest;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::errors::{BuildError, Failure};
use crate::formats::{DetectPlan, PlanSections, Provide};
use crate::metadata::Cache;
use crate::patience::Patience;
use crate::plan::{Member, Resolution};
use crate::stack::{Stack, StackError};
use crate::{Builder, Job, blocking};

/// Id of the extension among the providers of a plan.
const EXTENSION: &str = "platform/apt";
/// What it provides.
const NAME: &str = "apt";
/// Tells the lifecycle in the container which packages that has.
pub(crate) const VARIABLE: &str = "PLATFORM_PACKAGES";

/// Makes layers of Debian packages.
pub trait PackageLayers: Send + Sync {
    /// The layer that these packages add to the image `base`, if it is made.
    fn find(&self, base: &Digest, packages: &BTreeSet<PackageName>) -> Result<Option<Digest>, StackError>;

    /// Makes it, unless somebody else did meanwhile, and gives up when `patience` is over. What goes on is told to `output` line
    /// by line.
    fn make(
        &self,
        base: &Digest,
        packages: &BTreeSet<PackageName>,
        patience: &Patience,
        output: &mut dyn FnMut(&str),
    ) -> Result<Digest, StackError>;
}

/// A Debian package's name (Debian Policy, "Source" and "Package"): nothing that a shell or apt reads as anything else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PackageName(String);

impl PackageName {
    /// As apt takes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PackageName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let is_name = (2..=100).contains(&text.len())
            && text.bytes().next().is_some_and(is_plain)
            && text.bytes().all(|byte| is_plain(byte) || b"+-.".contains(&byte));
        if is_name { Ok(Self(text.to_owned())) } else { Err(format!("{text:?} is not the name of a Debian package")) }
    }
}

impl TryFrom<String> for PackageName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<PackageName> for String {
    fn from(name: PackageName) -> Self {
        name.0
    }
}

impl fmt::Display for PackageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The packages of one build.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Packages {
    /// In the image, and there while it is built.
    pub(crate) run: BTreeSet<PackageName>,
    /// There only while the image is built.
    pub(crate) build: BTreeSet<PackageName>,
}

/// Packages with the layers that hold them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Installed {
    pub(crate) packages: Packages,
    /// The image that `build` lies on.
    pub(crate) base: Digest,
    /// Over the build image.
    pub(crate) build: Digest,
    /// Over the run image; none if the app needs none there.
    pub(crate) run: Option<Digest>,
}

/// The extension as a member of every group, before all others.
pub(crate) fn member() -> Member {
    let provides = vec![Provide { name: NAME.to_owned() }];
    let first = PlanSections { provides, requires: Vec::new() };
    Member { id: EXTENSION.to_owned(), optional: true, plan: DetectPlan { first, or: Vec::new() } }
}

impl Packages {
    /// What a resolved plan asks the extension for.
    pub(crate) fn of(resolution: &Resolution) -> Result<Self, Failure> {
        let mut packages = Self::default();
        let entries = resolution.entries.iter().filter(|entry| entry.providers.iter().any(|id| id == EXTENSION));
        for require in entries.flat_map(|entry| &entry.requires) {
            let asked: Self =
                require.metadata.clone().try_into().map_err(|error: toml::de::Error| Failure::Unusable {
                    what: "the list of packages in a build plan".to_owned(),
                    problem: error.message().to_owned(),
                })?;
            packages.run.extend(asked.run);
            packages.build.extend(asked.build);
        }
        packages.build.retain(|package| !packages.run.contains(package));
        Ok(packages)
    }

    /// Reads [`VARIABLE`].
    pub(crate) fn from_variable(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    fn is_empty(&self) -> bool {
        self.run.is_empty() && self.build.is_empty()
    }

    fn in_build(&self) -> BTreeSet<PackageName> {
        self.run.union(&self.build).cloned().collect()
    }
}

impl Installed {
    /// What the app's last build had, if it is still there: the next one starts with it.
    pub(crate) fn remembered(builder: &Builder, stack: &Stack, cache: &Cache) -> Option<Self> {
        let last = cache.packages.clone()?;
        let has = |layer: &Digest| builder.layers.contains(layer);
        (last.base == stack.build && has(&last.build) && last.run.as_ref().is_none_or(has)).then_some(last)
    }

    /// The value of [`VARIABLE`].
    pub(crate) fn variable(installed: Option<&Self>) -> String {
        // Sets of strings always can be written into memory.
        installed.and_then(|installed| serde_json::to_string(&installed.packages).ok()).unwrap_or_default()
    }

    /// How the image names its layer of packages.
    pub(crate) fn created_by(&self) -> String {
        format!("Debian packages: {}", names(&self.packages.run))
    }

    /// The layers, for those who ask what is in use.
    pub(crate) fn layers(&self) -> impl Iterator<Item = Digest> {
        [Some(self.build.clone()), self.run.clone()].into_iter().flatten()
    }
}

/// The layers of `packages`, made if this machine does not have them yet; none for no packages.
pub(crate) async fn install(
    job: &Arc<Job>,
    packages: Packages,
    output: &mpsc::Sender<String>,
) -> Result<Option<Installed>, BuildError> {
    if packages.is_empty() {
        return Ok(None);
    }
    let (job, output) = (Arc::clone(job), output.clone());
    // A cancelled build drops this, and `waiting` with it.
    let (patience, _waiting) = Patience::for_at_most(job.builder.limits.time);
    blocking(move || {
        // A receiver that went away does not stop the build.
        let mut say = |line: &str| drop(output.blocking_send(line.to_owned()));
        let mut layer = |base: &Digest, packages: &BTreeSet<PackageName>| {
            layer(&job.builder, (&job.stack, base), packages, &patience, &mut say)
        };
        let build = layer(&job.stack.build, &packages.in_build())?;
        let run = if packages.run.is_empty() { None } else { Some(layer(&job.stack.run, &packages.run)?) };
        Ok(Some(Installed { packages, base: job.stack.build.clone(), build, run }))
    })
    .await
}

/// The layer of `packages` over an image of the stack, made if this machine does not have it yet.
pub(crate) fn layer(
    builder: &Builder,
    (stack, base): (&Stack, &Digest),
    packages: &BTreeSet<PackageName>,
    patience: &Patience,
    say: &mut dyn FnMut(&str),
) -> Result<Digest, BuildError> {
    let maker = &builder.debian;
    let found = if let Some(layer) = maker.find(base, packages)? {
        layer
    } else {
        let place = if *base == stack.run { "image" } else { "build" };
        say(&format!("-----> Installing Debian packages for the {place}, once for all apps: {}", names(packages)));
        let mut show = |line: &str| {
            if let Some(step) = progress(line) {
                say(&step);
            }
        };
        maker.make(base, packages, patience, &mut show).map_err(|error| match error {
            StackError::GivenUp => BuildError::TimeLimit { limit: builder.limits.time },
            StackError::Failed { output, .. } => BuildError::Packages { packages: names(packages), output },
            other => other.into(),
        })?
    };
    // Nothing refers to it until the build is done: without this, one that nobody used for a while might be taken away.
    builder.layers.touch(&found)?;
    Ok(found)
}

/// What mmdebstrap says when a step begins, and what the user reads.
const STEPS: [(&str, &str); 4] = [
    ("I: running apt-get update", "Reading what there is"),
    ("I: downloading packages", "Downloading"),
    ("I: extracting archives", "Unpacking"),
    ("I: installing", "Installing"),
];

fn progress(line: &str) -> Option<String> {
    let step = STEPS.iter().find(|(said, _)| line.starts_with(said));
    step.map(|(_, shown)| format!("       {shown}"))
}

fn names(packages: &BTreeSet<PackageName>) -> String {
    packages.iter().map(PackageName::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_installers_words_only_its_steps_are_shown() {
        assert_eq!(progress("I: installing essential packages...").as_deref(), Some("       Installing"));
        assert_eq!(progress("I: main() received signal PIPE: waiting for setup..."), None);
        assert_eq!(progress("Setting up ruby (1:3.3)"), None);
    }
}
