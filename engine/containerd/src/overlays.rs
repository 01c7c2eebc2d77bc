//! Overlays that are mounted into containers. They are laid on the machine, in the container's folder: root inside could not reach the
//! folders that they are made of, and would write down otherwise what is gone.

use std::fs;
use std::path::{Path, PathBuf};

use engine::{Container, Mount};
use nix::mount::{MsFlags, mount};

use crate::disk;
use crate::error::Fault;
use crate::files::{Folder, names};
use crate::spec::overlay_options;

/// What the folders begin with on which they lie.
const PREFIX: &str = "overlay-";

/// Where the overlay lies that is this mount of a container.
pub(crate) fn place(folder: &Path, index: usize) -> PathBuf {
    folder.join(format!("{PREFIX}{index}"))
}

/// Lays all of a container.
pub(crate) fn lay(container: &Container, folder: &Folder) -> Result<(), Fault> {
    for (index, one) in container.mounts.iter().enumerate() {
        let Mount::Overlay { lower, upper, work, .. } = one else { continue };
        let place = place(folder.path(), index);
        fs::create_dir(&place).map_err(Fault::on("make", &place))?;
        let options = overlay_options(lower, upper, work).join(",");
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("overlay"), &place, Some("overlay"), flags, Some(options.as_str()))
            .map_err(|error| Fault::on("mount", &place)(error.into()))?;
    }
    Ok(())
}

/// Takes all of a container away. Doing it again is no error.
pub(crate) fn take_away(folder: &Path) -> Result<(), Fault> {
    for name in names(folder).into_iter().filter(|name| name.starts_with(PREFIX)) {
        let place = folder.join(name);
        disk::unmount(&place)?;
        fs::remove_dir(&place).map_err(Fault::on("remove", &place))?;
    }
    Ok(())
}
