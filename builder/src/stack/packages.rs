//! Layers of Debian packages over an image of the stack.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use model::Digest;
use serde::{Deserialize, Serialize};
use walkdir::WalkDir;

use super::{
    CLEAN, OVERLAY, Recipe, SUITE, StackError, StackSettings, failed, lock, make_folder, read_record, short_hash,
    write_record,
};
use crate::debian::{PackageLayers, PackageName};
use crate::patience::Patience;

/// What apt and the making of an image leave, and what every container gets of its own.
const REMAINS: [&str; 9] =
    ["dev", "etc/apt", "etc/hostname", "etc/machine-id", "etc/resolv.conf", "run", "tmp", "var/cache/apt", "var/log"];

/// What is kept of a made layer.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    layer: Digest,
}

impl PackageLayers for StackSettings {
    fn find(&self, base: &Digest, packages: &BTreeSet<PackageName>) -> Result<Option<Digest>, StackError> {
        let record: Option<Record> = read_record(&self.record(base, packages))?;
        Ok(record.map(|record| record.layer).filter(|layer| self.layers.contains(layer)))
    }

    fn make(
        &self,
        base: &Digest,
        packages: &BTreeSet<PackageName>,
        patience: &Patience,
        output: &mut dyn FnMut(&str),
    ) -> Result<Digest, StackError> {
        let folder = self.folder();
        make_folder(&folder)?;
        let _lock = lock(&folder, "Another build is installing packages; waiting for it...", output)?;
        if let Some(layer) = self.find(base, packages)? {
            return Ok(layer);
        }
        if patience.is_over() {
            return Err(StackError::GivenUp);
        }
        let making = Making { folder: self.layers.staging().join("packages") };
        let recipe = Recipe { folder: &making.folder, packages: &self.packages, patience };
        let upper = making.install(&recipe, &self.layers.path(base), packages, output)?;
        strip(&upper).map_err(failed("clear", &upper))?;
        let layer = (self.digest)(&upper).map_err(failed("read", &upper))?;
        let staging = fs::File::open(self.layers.staging()).map_err(failed("open", &upper))?;
        nix::unistd::syncfs(&staging).map_err(|error| failed("sync", &upper)(error.into()))?;
        self.layers.insert(&layer, &upper)?;
        self.layers.sync()?;
        write_record(&self.record(base, packages), &Record { layer: layer.clone() })?;
        Ok(layer)
    }
}

impl StackSettings {
    fn folder(&self) -> PathBuf {
        self.home.join("stacks/packages")
    }

    fn record(&self, base: &Digest, packages: &BTreeSet<PackageName>) -> PathBuf {
        let names: Vec<&str> = packages.iter().map(PackageName::as_str).collect();
        self.folder().join(format!("{}.json", short_hash(&[base.as_str(), &names.join(" "), CLEAN, OVERLAY, SUITE])))
    }
}

/// The folder in which a layer comes to be; removed when dropped.
struct Making {
    folder: PathBuf,
}

impl Making {
    /// Returns the folder of what the packages add to the image in `base`. The caller holds the lock.
    fn install(
        &self,
        recipe: &Recipe<'_>,
        base: &Path,
        packages: &BTreeSet<PackageName>,
        output: &mut dyn FnMut(&str),
    ) -> Result<PathBuf, StackError> {
        self.remove().map_err(failed("remove", &self.folder))?;
        let [upper, work, root] = ["upper", "work", "root"].map(|name| self.folder.join(name));
        for folder in [&upper, &work, &root] {
            make_folder(folder)?;
        }
        recipe.write()?;
        let names: Vec<&str> = packages.iter().map(PackageName::as_str).collect();
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh"]).arg(self.folder.join("overlay")).args([base, &upper, &work, &root]);
        command.args(["mmdebstrap", "--variant=custom", "--skip=check/empty"]);
        command.arg(format!("--include={}", names.join(",")));
        // A layer cannot say that something below it is gone.
        command.arg("--aptopt=APT::Get::Remove \"false\";");
        recipe.run(command, "root", output)?;
        Ok(upper)
    }

    fn remove(&self) -> std::io::Result<()> {
        if self.folder.exists() { fs::remove_dir_all(&self.folder) } else { Ok(()) }
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            tracing::warn!(path = %self.folder.display(), %error, "cannot remove the folder of installed packages");
        }
    }
}

/// Takes out what is no part of the packages, and every sign that a file of the image was removed: it stays.
fn strip(upper: &Path) -> std::io::Result<()> {
    for remains in REMAINS {
        let path = upper.join(remains);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&path)?,
            Ok(_) => fs::remove_file(&path)?,
            Err(_) => {}
        }
    }
    for entry in WalkDir::new(upper) {
        let entry = entry?;
        let kind = entry.file_type();
        if kind.is_char_device() {
            fs::remove_file(entry.path())?;
        } else if kind.is_dir() && xattr::get(entry.path(), OPAQUE)?.is_some() {
            xattr::remove(entry.path(), OPAQUE)?;
        }
    }
    Ok(())
}

/// Marks a directory of an overlay through which nothing below it shows.
const OPAQUE: &str = "trusted.overlay.opaque";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Overlay, listing};

    #[test]
    fn what_remains_of_the_making_is_no_part_of_the_layer() {
        let mut overlay = Overlay::new(&|lower| {
            for folder in ["usr/bin", "usr/share/old", "tmp", "dev"] {
                fs::create_dir_all(lower.join(folder)).unwrap();
            }
            fs::write(lower.join("usr/bin/old"), "1").unwrap();
        });
        let root = &overlay.mounted;
        fs::write(root.join("usr/bin/ruby"), "2").unwrap();
        fs::remove_file(root.join("usr/bin/old")).unwrap();
        fs::remove_dir(root.join("usr/share/old")).unwrap();
        fs::create_dir(root.join("usr/share/old")).unwrap();
        fs::write(root.join("tmp/x"), "").unwrap();
        fs::write(root.join("dev/null"), "").unwrap();
        overlay.unmount();
        strip(&overlay.upper).unwrap();
        insta::assert_snapshot!(listing(&overlay.upper), @r#"
        usr /
        usr/bin /
        usr/bin/ruby 2
        usr/share /
        usr/share/old /
        "#);
        assert!(xattr::get(overlay.upper.join("usr/share/old"), OPAQUE).unwrap().is_none());
    }
}
