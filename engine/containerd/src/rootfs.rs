//! The few files of a container's root file system that are its own from the start.

use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use engine::{Container, LayerStore, RootFs};

use crate::error::Fault;
use crate::files::Folder;
use crate::network::Resolvers;
use crate::spec::overlay_options;
use crate::targets;

/// Longer files of users or groups are no such files.
const LONGEST_FILE: u64 = 1 << 20;

/// Mount options of the container's root file system.
pub(crate) fn mount_options(container: &Container, layers: &LayerStore, folder: &Folder) -> Result<Vec<String>, Fault> {
    let lower = lower_dirs(container, layers)?;
    Ok(overlay_options(&lower, &folder.upper(), &folder.work()))
}

/// What a container is to find inside.
pub(crate) struct Inside<'a> {
    pub(crate) hostname: &'a str,
    pub(crate) resolvers: &'a Resolvers,
    /// Who root inside is outside.
    pub(crate) root: u32,
}

/// Writes into the upper layer what differs between containers: names, name servers, the app's user, a `/tmp`, places for mounts. It is
/// root's of the inside.
pub(crate) fn prepare(
    container: &Container,
    layers: &LayerStore,
    folder: &Folder,
    inside: &Inside<'_>,
) -> Result<(), Fault> {
    let Inside { hostname, resolvers, root } = *inside;
    let upper = folder.upper();
    let etc = upper.join("etc");
    fs::create_dir(&etc).map_err(Fault::on("make", &etc))?;
    let tmp = upper.join("tmp");
    fs::create_dir(&tmp).map_err(Fault::on("make", &tmp))?;
    for (path, mode) in [(&etc, 0o755), (&tmp, 0o1777)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(Fault::on("set the mode of", path))?;
    }
    for path in [&upper, &etc, &tmp] {
        lchown(path, Some(root), Some(root)).map_err(Fault::on("change the owner of", path))?;
    }
    let lower = lower_dirs(container, layers)?;
    let uid = container.uid;
    let passwd = with_line(&lower, "etc/passwd", &format!("app:x:{uid}:{uid}::/app:/bin/bash"));
    let group = with_line(&lower, "etc/group", &format!("app:x:{uid}:"));
    let files = [
        ("hostname", format!("{hostname}\n")),
        ("hosts", format!("127.0.0.1 localhost\n::1 localhost ip6-localhost\n127.0.1.1 {hostname}\n")),
        ("resolv.conf", resolvers.to_file()),
        ("passwd", passwd),
        ("group", group),
    ];
    for (name, text) in files {
        let path = etc.join(name);
        fs::write(&path, text).map_err(Fault::on("write", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).map_err(Fault::on("set the mode of", &path))?;
        lchown(&path, Some(root), Some(root)).map_err(Fault::on("change the owner of", &path))?;
    }
    container.mounts.iter().try_for_each(|mount| targets::make(mount, &lower, &upper, root))
}

/// The uppermost layer's copy of a file, with one line more: many programs ask for the name of the user that they run as.
fn with_line(lower: &[PathBuf], file: &str, line: &str) -> String {
    let mut text = lower.iter().find_map(|layer| read_in(layer, file)).unwrap_or_default();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text + line + "\n"
}

/// A small file of a layer, if it is a plain one: whoever made the layer must not make us read a file of the machine, or for ever.
fn read_in(layer: &Path, file: &str) -> Option<String> {
    let mut path = layer.to_owned();
    for part in Path::new(file) {
        path.push(part);
        let found = path.symlink_metadata().ok()?;
        let is_plain = found.is_file() && found.len() <= LONGEST_FILE;
        if !(found.is_dir() || is_plain) {
            return None;
        }
    }
    fs::read_to_string(path).ok()
}

/// The layers' directories, the uppermost first.
fn lower_dirs(container: &Container, layers: &LayerStore) -> Result<Vec<PathBuf>, Fault> {
    let RootFs::Layers(digests) = &container.rootfs;
    if digests.is_empty() {
        return Err(Fault::Refused("the container has no layers".to_owned()));
    }
    if let Some(missing) = digests.iter().find(|digest| !layers.contains(digest)) {
        return Err(Fault::Refused(format!("layer {missing} is not in the layer store")));
    }
    Ok(digests.iter().rev().map(|digest| layers.path(digest)).collect())
}

/// Whether a one-off's id may name files, containers (containerd's rule, 76 bytes) and network namespaces.
pub(crate) fn is_safe_id(id: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    id.len() <= 76 && id.split(['.', '-', '_']).all(part) && Path::new(id).components().count() == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_read_from_plain_files_only() {
        let layers = ["plain", "link", "linked-folder", "fifo"].map(|_| tempfile::tempdir().expect("a folder"));
        let [plain, link, linked, fifo] = layers.each_ref().map(|layer| layer.path().to_owned());
        for layer in [&plain, &link, &fifo] {
            fs::create_dir(layer.join("etc")).expect("a folder");
        }
        fs::write(plain.join("etc/passwd"), "root:x:0").expect("a file");
        std::os::unix::fs::symlink("/etc/hostname", link.join("etc/passwd")).expect("a link");
        std::os::unix::fs::symlink(plain.join("etc"), linked.join("etc")).expect("a link");
        nix::unistd::mkfifo(&fifo.join("etc/passwd"), nix::sys::stat::Mode::S_IRUSR).expect("a FIFO");
        assert_eq!(with_line(&[fifo, linked, link, plain], "etc/passwd", "app:x:1"), "root:x:0\napp:x:1\n");
    }

    #[test]
    fn ids_are_safe_as_file_names() {
        for good in ["build-00000000-0000-4000-8000-000000000001", "a.v1.web", "run-1"] {
            assert!(is_safe_id(good), "{good}");
        }
        for bad in ["", ".", "..", "a..b", "a/b", "-a", "a b", "ä"] {
            assert!(!is_safe_id(bad), "{bad}");
        }
    }
}
