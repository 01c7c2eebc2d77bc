//! Images from a Dockerfile: buildah makes them, in a container that is root only among users of its own. Its layers are kept for the
//! app's next build.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use model::ProcessType;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use tokio::sync::mpsc;

use crate::errors::BuildError;
use crate::import::{ForeignImage, ImageSource};
use crate::patience::Patience;
use crate::workspace::Workspace;
use crate::{BuildRequest, Builder, Built, Phases, blocking};

mod access;
mod bases;
mod inside;
mod nest;
mod steps;
pub(crate) mod text;

pub use inside::main;
pub(crate) use inside::{Given, Making, REBASABLE, Step, Task};
pub(crate) use nest::Nest;

/// A longer Dockerfile is none.
const LONGEST_FILE: u64 = 4 << 20;
/// The Dockerfile with the machine's variables, in the folder of settings.
const DOCKERFILE: &str = "Dockerfile";

/// Files with a Dockerfile that makes an image from them.
#[derive(Debug, Clone)]
pub struct Dockerfile {
    /// The commit's files, on the layer store's file system. The build takes the folder over and removes it.
    pub files: PathBuf,
    /// The Dockerfile, from the top of these; what it copies is in its folder.
    pub path: String,
    /// The stage that is wanted; the last one if none.
    pub target: Option<String>,
    /// Values for its `ARG`s.
    pub args: BTreeMap<String, String>,
    /// Command lines of process types.
    pub processes: BTreeMap<ProcessType, String>,
}

type Request = BuildRequest<Dockerfile>;

impl Builder {
    pub(crate) async fn build_by_dockerfile(
        &self,
        request: Request,
        (phases, output): (&mut Phases, &mpsc::Sender<String>),
    ) -> Result<Built, BuildError> {
        let (builder, said) = (self.clone(), output.clone());
        // A cancelled build drops this, and `waiting` with it.
        let (patience, _waiting) = Patience::for_at_most(self.limits.time);
        let prepared = blocking(move || {
            let stack = builder.begin()?;
            let mut say = |line: &str| drop(said.blocking_send(line.to_owned()));
            let root = builder.nest_root(&stack, &patience, &mut say)?;
            let workspace = Workspace::make(&builder, request.build)?;
            workspace.take(&request.source.files)?;
            let nest = Nest::make(&builder, (request.app, request.uid), workspace.root(), workspace.app())?;
            let making = making(&request.source, &nest).map_err(|source| BuildError::Io {
                action: "prepare",
                path: workspace.root().to_owned(),
                source,
            })?;
            Ok((request, stack, root, workspace, nest, making))
        });
        // The last of these goes first: what is kept leaves the folder before that is removed.
        let (request, stack, root, workspace, mut nest, making) = prepared.await?;
        phases.end("prepare");
        let _ = output.send(format!("-----> Building {}", request.source.path)).await;
        let bases = self.bring_bases(&request, &workspace, &nest, output).await?;
        phases.end("fetch");
        let task = Task::of(self, vec![making]).starting_from(bases);
        let oneoff = nest.oneoff(self, (request.build, root), &task, Vec::new());
        // The same build may have asked buildpacks first; what is left of their container may not have gone yet, and both have one name.
        self.engine.kill(&oneoff.id).await?;
        self.run_nest(&workspace, (&mut nest, oneoff), BuildError::Dockerfile, output).await?;
        phases.end("build");
        let _ = output.send(nest.storage.keep(self.kept_bytes())).await;
        let layout = nest.out.clone();
        drop(nest);
        let (request, Dockerfile { path, processes, .. }) = request.swap(());
        let place = ImageSource::Layout(layout.clone());
        let (request, ()) = request.swap(ForeignImage { name: format!("of {path}"), place, processes });
        let built = self.take_over((request, stack, workspace), (None, layout), output).await?;
        phases.end("import");
        Ok(built)
    }
}

/// What buildah is to do with the app's Dockerfile.
fn making(source: &Dockerfile, nest: &Nest) -> io::Result<Making> {
    let mut args = nest.dockerfile(DOCKERFILE, &read(&nest.files, &source.path)?)?;
    // The later one of the same name wins.
    args.extend(source.args.iter().map(|(name, value)| format!("--build-arg={name}={value}")));
    args.extend(source.target.iter().map(|target| format!("--target={target}")));
    let own = format!("{}.dockerignore", source.path);
    if nest.files.join(&own).is_file() {
        args.push(format!("--ignorefile=/workspace/{own}"));
    }
    let file = Path::new("/workspace").join(&source.path);
    args.push(file.parent().unwrap_or(Path::new("/workspace")).display().to_string());
    Ok(Making::one(args))
}

/// The app's Dockerfile. It may be a link, but to nothing of this machine.
fn read(app: &Path, dockerfile: &str) -> io::Result<String> {
    let folder = fs::File::open(app)?;
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT);
    let mut text = String::new();
    fs::File::from(openat2(&folder, dockerfile, how)?).take(LONGEST_FILE).read_to_string(&mut text)?;
    Ok(text)
}
