//! The folder of one build, in the layer store's staging area: what is made in it becomes layers by a rename.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use model::BuildId;

use crate::errors::BuildError;
use crate::fetch::Fetched;
use crate::gather::{Gathered, Gathering};
use crate::project::Project;
use crate::tree::{chown, make_dir};
use crate::{BuildRequest, Builder, Buildpacks};

/// Removed, in the background, when dropped.
pub(crate) struct Workspace {
    /// The folder itself; only root may enter it from the host.
    root: PathBuf,
}

impl Workspace {
    /// Makes the folder, with nothing in it.
    pub(crate) fn make(builder: &Builder, build: BuildId) -> Result<Self, BuildError> {
        let root = builder.layers.staging().join(format!("build-{build}"));
        let workspace = Self { root };
        if workspace.root.exists() {
            fs::remove_dir_all(&workspace.root).map_err(prepare(&workspace.root))?;
        }
        make_dir(&workspace.root, 0o700).map_err(prepare(&workspace.root))?;
        Ok(workspace)
    }

    /// Moves the files that are built into it.
    pub(crate) fn take(&self, source: &Path) -> Result<(), BuildError> {
        fs::rename(source, self.app()).map_err(prepare(source))
    }

    /// Puts everything else into it that the build finds, and says what it can use.
    pub(crate) fn fill(
        &self,
        builder: &Builder,
        request: &BuildRequest<Buildpacks>,
        (project, fetched): (&Project, &Fetched),
    ) -> Result<Gathered, BuildError> {
        fs::set_permissions(self.app(), fs::Permissions::from_mode(0o755)).map_err(prepare(&self.app()))?;
        for dir in [self.layers(), self.home(), self.env_dir(), self.overlay_work(), self.trees()] {
            make_dir(&dir, 0o755).map_err(prepare(&dir))?;
        }
        let mut env = builder.packages.env.clone();
        env.extend(project.env.clone());
        env.extend(request.source.env.clone());
        for (name, value) in env {
            fs::write(self.env_dir().join(&name), value).map_err(prepare(&self.env_dir()))?;
        }
        // A folder that is left out may hold a buildpack all the same.
        let chosen = &request.source.chosen;
        let gathering = Gathering { ours: &builder.buildpacks, app: &self.app(), chosen, project, fetched };
        let gathered = gathering.gather(&self.buildpacks(), &self.extensions())?;
        let text =
            toml::to_string(&gathered.order).map_err(|error| prepare(&self.order())(std::io::Error::other(error)))?;
        fs::write(self.order(), text).map_err(prepare(&self.order()))?;
        project.leave_out(&self.app()).map_err(prepare(&self.app()))?;
        let extensions = Some(self.extensions()).filter(|dir| dir.exists());
        for dir in
            [self.app(), self.layers(), self.home(), self.platform(), self.buildpacks()].into_iter().chain(extensions)
        {
            chown(&dir, request.uid).map_err(prepare(&dir))?;
        }
        Ok(gathered)
    }

    /// `/cnb/extensions` of the build, if it has any.
    pub(crate) fn extensions(&self) -> PathBuf {
        self.root.join("extensions")
    }

    /// `/cnb/buildpacks` of the build: its own copy, which it may change.
    pub(crate) fn buildpacks(&self) -> PathBuf {
        self.root.join("buildpacks")
    }

    /// Removes what a container that only detected left for the host: the next one's end must not be read from it.
    pub(crate) fn forget_outcome(&self) -> Result<(), BuildError> {
        for name in ["config", "generated"] {
            let path = self.layers().join(name);
            // Also if a buildpack made it a link to somewhere else: only the link goes then.
            match fs::remove_dir_all(&path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(BuildError::Io { action: "remove", path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// All that the build writes is in here.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The commit's files: `/app` of the build.
    pub(crate) fn app(&self) -> PathBuf {
        self.root.join("app")
    }

    /// Takes what the build writes into `/layers`.
    pub(crate) fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    /// The overlay's own directory.
    pub(crate) fn overlay_work(&self) -> PathBuf {
        self.root.join("work")
    }

    /// `HOME` of the build.
    pub(crate) fn home(&self) -> PathBuf {
        self.root.join("home")
    }

    /// `/platform` of the build.
    pub(crate) fn platform(&self) -> PathBuf {
        self.root.join("platform")
    }

    fn env_dir(&self) -> PathBuf {
        self.platform().join("env")
    }

    /// `/cnb/order.toml` of the build.
    pub(crate) fn order(&self) -> PathBuf {
        self.root.join("order.toml")
    }

    /// Where the trees of new layers are put together.
    pub(crate) fn trees(&self) -> PathBuf {
        self.root.join("trees")
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        let root = std::mem::take(&mut self.root);
        // Node's modules take a while to remove, and nobody should wait for it.
        std::thread::spawn(move || {
            if let Err(error) = fs::remove_dir_all(&root)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(path = %root.display(), %error, "cannot remove a finished build's folder");
            }
        });
    }
}

fn prepare(path: &Path) -> impl FnOnce(std::io::Error) -> BuildError {
    let path = path.to_owned();
    move |source| BuildError::Io { action: "prepare", path, source }
}
