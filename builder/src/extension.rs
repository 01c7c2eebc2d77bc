//! The generate phase: image extensions of the group write Dockerfiles for the images that the app is built and run on (Image
//! Extension spec). Runs inside the build container; what is written is applied by the host, in [`crate::extend`].

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::buildpack::Buildpack;
use crate::errors::Failure;
use crate::formats::escaped;
use crate::lifecycle::{Paths, read_if_there};
use crate::plan::Resolution;
use crate::{build, gather, tree};

pub(crate) mod rules;

/// Tells the lifecycle in the container what its image and the run image were extended by.
pub(crate) const VARIABLE: &str = "PLATFORM_EXTENDED";
/// Its value when they were extended just now, by what this very build generated: nothing is generated again.
pub(crate) const JUST_NOW: &str = "just-now";

/// A longer Dockerfile is none.
const LONGEST_FILE: u64 = 1 << 20;
/// A folder for both images.
const CONTEXT: &str = "context";

/// Which image a Dockerfile is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    /// The one that buildpacks run on.
    Build,
    /// The one that the app runs on.
    Run,
}

impl Target {
    /// As the specification calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Run => "run",
        }
    }

    /// The file that an extension writes for it.
    pub(crate) fn file(self) -> String {
        format!("{}.Dockerfile", self.name())
    }

    /// The folder of what only this image's Dockerfile copies from.
    fn context(self) -> String {
        format!("{CONTEXT}.{}", self.name())
    }
}

/// A Dockerfile that an extension wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Step {
    /// Id of the extension.
    pub(crate) extension: String,
    pub(crate) target: Target,
    pub(crate) dockerfile: String,
    /// Values of its arguments.
    pub(crate) args: Vec<Arg>,
    /// The folder of the extension's output that it copies from; none for the app's.
    pub(crate) context: Option<String>,
}

/// `[[build.args]]`, `[[run.args]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Arg {
    pub(crate) name: String,
    pub(crate) value: String,
}

/// What all extensions of a group wrote, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Generated {
    /// The same for what comes out the same; none if it never does.
    pub(crate) key: Option<String>,
    pub(crate) steps: Vec<Step>,
}

/// `extend-config.toml`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Config {
    build: Args,
    run: Args,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Args {
    args: Vec<Arg>,
}

/// Names that extensions provide: they meet all that is required of them.
pub(crate) fn met(extensions: &[&Buildpack], resolution: &Resolution) -> BTreeSet<String> {
    let ids: Vec<String> = extensions.iter().map(|extension| extension.plan_id()).collect();
    let theirs = resolution.entries.iter().filter(|entry| entry.providers.iter().any(|id| ids.contains(id)));
    theirs.flat_map(|entry| &entry.requires).map(|require| require.name.clone()).collect()
}

/// Runs `bin/generate` of each of the extensions, and reads what it wrote.
pub(crate) fn generate(
    paths: &Paths,
    extensions: &[&Buildpack],
    resolution: &Resolution,
) -> Result<Generated, Failure> {
    let mut steps = Vec::new();
    let mut met = BTreeSet::new();
    for extension in extensions {
        let plan = build::plan_for(&extension.plan_id(), resolution, &met);
        met.extend(plan.entries.iter().map(|entry| entry.name.clone()));
        let output = paths.generated_by(extension.id());
        if extension.dir.join("bin/generate").exists() {
            let failed = |how| Failure::ExtensionFailed { extension: extension.name(), how };
            build::run(paths, extension, &plan, &paths.base_env())?.map_err(failed)?;
        } else {
            take_static(extension, &output).map_err(|error| Failure::io("copy what an extension brings", &error))?;
        }
        let invalid = |problem| Failure::ExtensionInvalid { extension: extension.name(), problem };
        steps.extend(read(extension.id(), &output).map_err(invalid)?);
    }
    let key = key(paths, &steps).map_err(|error| Failure::io("read what an extension copies", &error))?;
    Ok(Generated { key, steps })
}

/// An extension without a program brings what one would write.
fn take_static(extension: &Buildpack, output: &Path) -> io::Result<()> {
    let there = extension.dir.join("generate");
    if there.is_dir() { gather::copy(&there, output) } else { fs::create_dir_all(output) }
}

/// The Dockerfiles in an extension's output, or what is wrong with it.
fn read(id: &str, output: &Path) -> Result<Vec<Step>, String> {
    let is_there = |name: &str| output.join(name).is_dir();
    let own = [Target::Build, Target::Run].map(Target::context);
    if is_there(CONTEXT)
        && let Some(own) = own.iter().find(|own| is_there(own))
    {
        return Err(format!("it wrote both of the folders {CONTEXT} and {own}"));
    }
    let text = |name: &str| read_if_there(&output.join(name)).map_err(|error| format!("{name}: {error}"));
    let config = text("extend-config.toml")?.unwrap_or_default();
    let config: Config = toml::from_str(&config).map_err(|error| format!("extend-config.toml: {}", error.message()))?;
    let mut steps = Vec::new();
    for (target, args) in [(Target::Run, config.run.args), (Target::Build, config.build.args)] {
        let file = target.file();
        if fs::metadata(output.join(&file)).is_ok_and(|found| found.len() > LONGEST_FILE) {
            return Err(format!("{file} has more than {LONGEST_FILE} bytes"));
        }
        let Some(dockerfile) = text(&file)? else { continue };
        rules::check(target, &dockerfile)?;
        if let Some(odd) = args.iter().find(|arg| arg.name.is_empty() || arg.name.contains(['=', '\0'])) {
            return Err(format!("extend-config.toml: {:?} is not a name of an argument", odd.name));
        }
        let context = [CONTEXT.to_owned(), target.context()].into_iter().find(|name| is_there(name));
        steps.push(Step { extension: id.to_owned(), target, dockerfile, args, context });
    }
    Ok(steps)
}

/// A digest of everything that the images depend on beside what they begin as.
fn key(paths: &Paths, steps: &[Step]) -> io::Result<Option<String>> {
    let mut hash = Sha256::new();
    for step in steps {
        let Ok(checked) = rules::check(step.target, &step.dockerfile) else { return Ok(None) };
        if checked.is_anew {
            return Ok(None);
        }
        hash.update(serde_json::to_vec(step)?);
        let folder = step.context.as_ref().map(|name| paths.generated_by(&step.extension).join(name));
        if checked.copies {
            hash.update(tree::diff_id(&folder.unwrap_or_else(|| paths.app.clone()))?.as_str());
        }
    }
    Ok(Some(hex::encode(hash.finalize())))
}

impl Paths {
    /// Where an extension writes.
    pub(crate) fn generated_by(&self, id: &str) -> std::path::PathBuf {
        self.generated.join(escaped(id))
    }
}
