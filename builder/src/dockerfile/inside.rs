//! What runs in the container of a build by Dockerfiles: buildah, and what watches it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use serde::{Deserialize, Serialize};

use super::bases::{Base, KEPT_AS};
use crate::metadata::REBASABLE_LABEL;
use crate::usage::Watch;
use crate::{Builder, disk};

/// Where buildah keeps its images and layers.
const STORAGE: &str = "/containers/storage";
/// Where what is kept begins.
const KEPT: &str = "/containers";
/// What the image is called in there.
const NAME: &str = "localhost/image";
/// A list, empty or not, of containers in which an interrupted build ran its steps.
const CONTAINERS: &str = "overlay-containers/containers.json";
/// The file, beside an image, that says whether all of its Dockerfiles said so.
pub(crate) const REBASABLE: &str = "rebasable";

/// What is to be done, on its way into the container.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Task {
    /// Of the container, to say how much of it was used.
    memory_bytes: u64,
    /// What may stay for the next build.
    kept_bytes: u64,
    /// Images that they may start from, fetched by whoever may see them.
    bases: Vec<Base>,
    images: Vec<Making>,
}

/// How one image is made.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Making {
    /// What it is called while it is made.
    pub(crate) name: String,
    /// The folder of the OCI layout that it is written to.
    pub(crate) layout: String,
    /// Whether the Dockerfiles are image extensions' ones.
    pub(crate) extends: bool,
    /// What the first of them begins with, if that is given. Only the image's own layers are written then.
    pub(crate) given: Option<Given>,
    pub(crate) steps: Vec<Step>,
}

/// An image that is not made here.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Given {
    /// What it is called.
    pub(crate) name: String,
    /// What it is: the same is not taken twice.
    pub(crate) key: String,
    /// Whether earlier builds took it already.
    pub(crate) is_kept: bool,
}

/// One Dockerfile.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Step {
    /// Arguments of `buildah build`.
    pub(crate) args: Vec<String>,
    /// Whether it is told what comes before it, as `base_image`.
    pub(crate) on_base: bool,
    /// Whether it is told the user of that, as `user_id` and `group_id`.
    pub(crate) wants_user: bool,
    /// Whether it says if its image may be put on another base.
    pub(crate) says_rebasable: bool,
}

impl Task {
    /// Within the limits of a build.
    pub(crate) fn of(builder: &Builder, images: Vec<Making>) -> Self {
        Self { memory_bytes: builder.limits.memory_bytes, kept_bytes: builder.kept_bytes(), bases: Vec::new(), images }
    }

    /// With images that its Dockerfiles name.
    pub(super) fn starting_from(self, bases: Vec<Base>) -> Self {
        Self { bases, ..self }
    }
}

impl Making {
    /// By a single Dockerfile.
    pub(super) fn one(args: Vec<String>) -> Self {
        let step = Step { args, on_base: false, wants_user: false, says_rebasable: false };
        Self { name: NAME.to_owned(), layout: "/out".to_owned(), extends: false, given: None, steps: vec![step] }
    }

    /// Ends as buildah ends.
    fn make(&self, contexts: &[String]) -> u8 {
        let mut before = String::new();
        if let Some(given) = &self.given {
            match given.take(&self.layout) {
                0 => before.clone_from(&given.name),
                code => return code,
            }
        }
        let mut is_rebasable = true;
        for (index, step) in self.steps.iter().enumerate() {
            let is_last = index + 1 == self.steps.len();
            let name = if is_last { self.name.clone() } else { format!("{}-{}", self.name, index + 1) };
            let code = step.apply((&before, &name), contexts);
            if code != 0 {
                return code;
            }
            let label = format!("{{{{index .OCIv1.Config.Labels {REBASABLE_LABEL:?}}}}}");
            // Each has to say so itself, not only one before it.
            is_rebasable &= step.says_rebasable && inspect(&name, &label).is_some_and(|value| value == "true");
            before = name;
        }
        // What is there already is not written again, and not compressed: it is never read.
        let plain = self.given.as_ref().map(|_| "--disable-compression");
        let to = format!("oci:{}:image", self.layout);
        let code = buildah(["push", "--quiet"].into_iter().chain(plain).chain([self.name.as_str(), &to]));
        if self.extends && fs::write(Path::new(&self.layout).join(REBASABLE), is_rebasable.to_string()).is_err() {
            return 1;
        }
        code
    }
}

impl Given {
    /// Takes it out of the layout, which is for the image that is made of it from then on.
    fn take(&self, layout: &str) -> u8 {
        if !self.is_kept {
            // By this name it is known from then on. What it answers is another one, and nobody's business.
            let from = format!("oci:{layout}:{}", self.name);
            if ask(["pull", "--quiet", &from]).is_none() {
                return 1;
            }
        }
        let note = Path::new(KEPT).join(self.name.rsplit('/').next().unwrap_or_default());
        let written = fs::write(note, &self.key).and_then(|()| fs::remove_file(Path::new(layout).join("index.json")));
        match written {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                say(&format!("cannot take the image: {error}"));
                1
            }
            _ => 0,
        }
    }
}

impl Step {
    fn apply(&self, (before, name): (&str, &str), contexts: &[String]) -> u8 {
        let first = ["build", "--isolation=chroot", "--layers", "--network=host", "--format=oci", "--tag", name]
            .map(str::to_owned);
        let mut args = first.to_vec();
        if self.on_base {
            args.push("--pull=missing".to_owned());
            args.push(format!("--build-arg=base_image={before}"));
        } else {
            args.push("--pull=newer".to_owned());
        }
        if self.wants_user {
            let user = inspect(before, "{{.OCIv1.Config.User}}").unwrap_or_default();
            let (user, group) = user.split_once(':').unwrap_or((&user, ""));
            args.push(format!("--build-arg=user_id={user}"));
            args.push(format!("--build-arg=group_id={group}"));
        }
        args.extend(contexts.iter().chain(&self.args).cloned());
        buildah(args)
    }
}

/// Builds, and writes the images as OCI layouts. Ends as buildah ends.
pub fn main(argv: &[OsString]) -> ExitCode {
    let task = argv.get(1).and_then(|text| serde_json::from_str::<Task>(text.to_str()?).ok());
    let Some(task) = task else { return ExitCode::from(2) };
    let watch = Watch::start(Path::new("/sys/fs/cgroup"));
    if has_leftovers() {
        buildah(["rm", "--all"]);
    }
    for base in task.bases.iter().filter(|base| base.is_new) {
        take_over(base);
    }
    let context = |name: &String, base: &Base| format!("--build-context={name}=container-image://{}", base.kept_as);
    let contexts = task.bases.iter().flat_map(|base| base.names.iter().map(move |name| context(name, base)));
    let contexts: Vec<_> = contexts.collect();
    let code = task.images.iter().map(|image| image.make(&contexts)).find(|code| *code != 0).unwrap_or(0);
    if disk::written(Path::new(STORAGE)) > task.kept_bytes {
        // All but what the newest image is made of.
        let old = ask(["images", "--format", "{{.Name}}:{{.Tag}}", "--filter", &format!("reference={KEPT_AS}")]);
        let old = old.unwrap_or_default();
        for name in old.lines().filter(|name| !task.bases.iter().any(|base| base.kept_as == *name)) {
            buildah(["rmi", name]);
        }
        buildah(["prune"]);
    }
    if let Some(watch) = watch {
        say(&watch.end().describe(task.memory_bytes));
    }
    ExitCode::from(code)
}

/// Gives an image of the host a name of ours. What goes wrong with it, the build says where it needs it.
fn take_over(base: &Base) {
    let id = ask(["pull", "--quiet", &base.layout()]).unwrap_or_default();
    buildah(["tag", &id, &base.kept_as]);
}

fn has_leftovers() -> bool {
    fs::metadata(Path::new(STORAGE).join(CONTAINERS)).is_ok_and(|list| list.len() > "[]".len() as u64)
}

fn buildah<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> u8 {
    match Command::new("buildah").args(args).status() {
        Ok(status) => status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1),
        Err(error) => {
            say(&format!("buildah cannot be started: {error}"));
            1
        }
    }
}

/// What buildah answers, if it does.
fn ask<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Option<String> {
    let answer = Command::new("buildah").args(args).stderr(Stdio::inherit()).output().ok()?;
    answer.status.success().then(|| String::from_utf8_lossy(&answer.stdout).trim().to_owned())
}

fn inspect(image: &str, what: &str) -> Option<String> {
    ask(["inspect", "--type=image", &format!("--format={what}"), image])
}

#[expect(clippy::print_stdout, reason = "this is a process of its own and the host reads its output")]
fn say(line: &str) {
    println!("{line}");
}
