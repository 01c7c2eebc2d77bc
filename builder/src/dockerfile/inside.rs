//! What runs in the container of a build by a Dockerfile: buildah, and what watches it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use serde::{Deserialize, Serialize};

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
    let mut code = buildah(first.into_iter().chain(task.args.iter().map(String::as_str)));
    if code == 0 {
        code = buildah(["push", "--quiet", NAME, "oci:/out:image"]);
    }
    if disk::written(Path::new(STORAGE)) > task.kept_bytes {
        // All but what the newest image is made of.
        buildah(["prune"]);
    }
    if let Some(watch) = watch {
        say(&watch.end().describe(task.memory_bytes));
    }
    ExitCode::from(code)
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
