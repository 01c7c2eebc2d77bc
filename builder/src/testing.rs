//! What several tests need.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use walkdir::WalkDir;

/// A real overlay mount in a temporary directory; unmounted when dropped.
pub(crate) struct Overlay {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) lower: PathBuf,
    pub(crate) upper: PathBuf,
    pub(crate) mounted: PathBuf,
    is_mounted: bool,
}

impl Overlay {
    /// Mounts over a lower directory that `fill` fills.
    pub(crate) fn new(fill: &dyn Fn(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [lower, upper, work, mounted] = ["lower", "upper", "work", "mounted"].map(|name| dir.path().join(name));
        for path in [&lower, &upper, &work, &mounted] {
            fs::create_dir(path).unwrap();
        }
        fill(&lower);
        let options = format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
        mount(Some("overlay"), &mounted, Some("overlay"), MsFlags::empty(), Some(options.as_str())).unwrap();
        Self { dir, lower, upper, mounted, is_mounted: true }
    }

    pub(crate) fn unmount(&mut self) {
        if std::mem::take(&mut self.is_mounted) {
            umount2(&self.mounted, MntFlags::MNT_DETACH).unwrap();
        }
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        self.unmount();
    }
}

/// Every path of a tree with its content, one a line.
pub(crate) fn listing(tree: &Path) -> String {
    let mut text = String::new();
    for entry in WalkDir::new(tree).min_depth(1).sort_by_file_name() {
        let entry = entry.unwrap();
        let content = if entry.path_is_symlink() {
            format!("-> {}", fs::read_link(entry.path()).unwrap().display())
        } else if entry.file_type().is_file() {
            fs::read_to_string(entry.path()).unwrap()
        } else {
            "/".to_owned()
        };
        writeln!(text, "{} {content}", entry.path().strip_prefix(tree).unwrap().display()).unwrap();
    }
    text
}
