//! The folder of one build, in the layer store's staging area: what is made in it becomes layers by a rename.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::errors::BuildError;
use crate::formats::{Order, OrderEntry, OrderGroup};
use crate::tree::{chown, make_dir};
use crate::{BuildRequest, Builder};

/// Always part of a build, also when the user names the buildpacks: process types are the app's own matter.
const PROCFILE: &str = "platform/procfile";

/// Removed, in the background, when dropped.
pub(crate) struct Workspace {
    /// The folder itself; only root may enter it from the host.
    root: PathBuf,
}

impl Workspace {
    /// Makes the folder and moves the commit's files into it.
    pub(crate) fn make(builder: &Builder, request: &BuildRequest) -> Result<Self, BuildError> {
        let root = builder.layers.staging().join(format!("build-{}", request.build));
        let workspace = Self { root };
        workspace.fill(builder, request)?;
        Ok(workspace)
    }

    fn fill(&self, builder: &Builder, request: &BuildRequest) -> Result<(), BuildError> {
        let trouble = |path: &Path| {
            let path = path.to_owned();
            move |source| BuildError::Io { action: "prepare", path, source }
        };
        if self.root.exists() {
            fs::remove_dir_all(&self.root).map_err(trouble(&self.root))?;
        }
        make_dir(&self.root, 0o700).map_err(trouble(&self.root))?;
        fs::rename(&request.source, self.app()).map_err(trouble(&request.source))?;
        fs::set_permissions(self.app(), fs::Permissions::from_mode(0o755)).map_err(trouble(&self.app()))?;
        for dir in [self.layers(), self.home(), self.env_dir(), self.overlay_work(), self.trees()] {
            make_dir(&dir, 0o755).map_err(trouble(&dir))?;
        }
        let mut env = builder.packages.env.clone();
        env.extend(request.env.clone());
        for (name, value) in env {
            fs::write(self.env_dir().join(&name), value).map_err(trouble(&self.env_dir()))?;
        }
        self.write_order(builder, request)?;
        for dir in [self.app(), self.layers(), self.home(), self.platform()] {
            chown(&dir, request.uid).map_err(trouble(&dir))?;
        }
        Ok(())
    }

    fn write_order(&self, builder: &Builder, request: &BuildRequest) -> Result<(), BuildError> {
        let file = builder.buildpacks.join("order.toml");
        let trouble = |source| BuildError::Io { action: "read", path: file.clone(), source };
        let text = if request.buildpacks.is_empty() {
            fs::read_to_string(&file).map_err(trouble)?
        } else {
            toml::to_string(&chosen(&request.buildpacks)).map_err(|error| trouble(std::io::Error::other(error)))?
        };
        fs::write(self.order(), text).map_err(|source| BuildError::Io { action: "write", path: self.order(), source })
    }

    /// Removes what a container that only detected left for the host: the next one's end must not be read from it.
    pub(crate) fn forget_outcome(&self) -> Result<(), BuildError> {
        let path = self.layers().join("config");
        // Also if a buildpack made it a link to somewhere else: only the link goes then.
        fs::remove_dir_all(&path).map_err(|source| BuildError::Io { action: "remove", path, source })
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

/// The one group that a user chose.
fn chosen(ids: &[String]) -> Order {
    let entry = |id: &str, optional| {
        let (id, version) = id.split_once('@').map_or((id, None), |(id, version)| (id, Some(version.to_owned())));
        OrderEntry { id: id.to_owned(), version, optional }
    };
    let mut group: Vec<OrderEntry> = ids.iter().map(|id| entry(id, false)).collect();
    if !group.iter().any(|entry| entry.id == PROCFILE) {
        group.push(entry(PROCFILE, true));
    }
    Order { order: vec![OrderGroup { group }] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_buildpacks_are_one_group_with_the_procfile() {
        let order = toml::to_string(&chosen(&["a/b@1.0.0".into(), "c".into()])).unwrap();
        let group = &toml::from_str::<Order>(&order).unwrap().order[0].group;
        assert_eq!(
            group.iter().map(|e| (e.id.as_str(), e.optional)).collect::<Vec<_>>(),
            [("a/b", false), ("c", false), (PROCFILE, true)]
        );
        assert_eq!(group[0].version.as_deref(), Some("1.0.0"));
        let group = &chosen(&[PROCFILE.into()]).order[0].group;
        assert_eq!(group.len(), 1);
    }
}
