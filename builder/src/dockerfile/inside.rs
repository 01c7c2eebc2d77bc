//! What runs in the container of a build by a Dockerfile: buildah, and what watches it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use serde::{Deserialize, Serialize};

use super::bases::{Base, KEPT_AS};
use crate::disk;
use crate::usage::Watch;

/// Where buildah keeps its images and layers.
pub(super) const STORAGE: &str = "/containers/storage";
/// What the image is called in there.
const NAME: &str = "localhost/image";
/// A list, empty or not, of containers in which an interrupted build ran its steps.
const CONTAINERS: &str = "overlay-containers/containers.json";

/// What is to be done, on its way into the container.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Task {
    /// Of the container, to say how much of it was used.
    pub(super) memory_bytes: u64,
    /// What may stay for the next build.
    pub(super) kept_bytes: u64,
    /// Images that it may start from, fetched by whoever may see them.
    pub(super) bases: Vec<Base>,
    /// Arguments of `buildah build`.
    pub(super) args: Vec<String>,
}

/// Builds, and writes the image as an OCI layout to `/out`. Ends as buildah ends.
pub fn main(argv: &[OsString]) -> ExitCode {
    let task = argv.get(1).and_then(|text| serde_json::from_str::<Task>(text.to_str()?).ok());
    let Some(task) = task else { return ExitCode::from(2) };
    let watch = Watch::start(Path::new("/sys/fs/cgroup"));
    if has_leftovers() {
        buildah(["rm", "--all"]);
    }
    let first =
        ["build", "--isolation=chroot", "--layers", "--network=host", "--pull=newer", "--format=oci", "--tag", NAME];
    for base in task.bases.iter().filter(|base| base.is_new) {
        take_over(base);
    }
    let context = |name: &String, base: &Base| format!("--build-context={name}=container-image://{}", base.kept_as);
    let contexts = task.bases.iter().flat_map(|base| base.names.iter().map(move |name| context(name, base)));
    let contexts: Vec<_> = contexts.collect();
    let wanted = contexts.iter().chain(&task.args).map(String::as_str);
    let mut code = buildah(first.into_iter().chain(wanted));
    if code == 0 {
        code = buildah(["push", "--quiet", NAME, "oci:/out:image"]);
    }
    if disk::written(Path::new(STORAGE)) > task.kept_bytes {
        // All but what the newest image is made of.
        let old = said(&["images", "--format", "{{.Name}}:{{.Tag}}", "--filter", &format!("reference={KEPT_AS}")]);
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
    let id = said(&["pull", "--quiet", &base.layout()]);
    buildah(["tag", id.trim(), &base.kept_as]);
}

/// What buildah prints, if it does what it is told.
fn said(args: &[&str]) -> String {
    let output = Command::new("buildah").args(args).stderr(Stdio::inherit()).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
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

#[expect(clippy::print_stdout, reason = "this is a process of its own and the host reads its output")]
fn say(line: &str) {
    println!("{line}");
}
