//! Places in a container at which something is mounted. Root inside may make none in a folder of an image, which belongs to nobody
//! there, so they are made before it begins.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown};
use std::path::{Component, Path, PathBuf};

use engine::Mount;

use crate::error::Fault;

/// Makes what is missing of a mount's place in the writable layer over `lower`, owned by `root`.
pub(crate) fn make(mount: &Mount, lower: &[PathBuf], upper: &Path, root: u32) -> Result<(), Fault> {
    let (target, is_file) = match mount {
        Mount::Bind { source, target, .. } => (target, source.is_file()),
        Mount::Overlay { target, .. } | Mount::Volume { target, .. } => (target, false),
    };
    let parts: Vec<_> = target
        .components()
        .filter_map(|part| match part {
            Component::Normal(part) => Some(part),
            _ => None,
        })
        .collect();
    let mut place = PathBuf::new();
    let mut folders = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        place.push(part);
        match look(&place, lower, upper) {
            Found::Folder(meta) => folders.push((place.clone(), meta)),
            // The runtime follows links inside, or says what is wrong.
            Found::Other => return Ok(()),
            Found::Nothing => {
                let path = upper.join(&place);
                return above(&folders, upper)
                    .and_then(|()| below(&path, &parts[index + 1..], is_file, root))
                    .map_err(Fault::on("make", &path));
            }
        }
    }
    Ok(())
}

enum Found {
    Folder(fs::Metadata),
    Nothing,
    Other,
}

fn look(place: &Path, lower: &[PathBuf], upper: &Path) -> Found {
    let mut layers = std::iter::once(upper).chain(lower.iter().map(PathBuf::as_path));
    let found = layers.find_map(|layer| layer.join(place).symlink_metadata().ok());
    match found {
        Some(meta) if meta.is_dir() => Found::Folder(meta),
        // So an overlay says that what is below is gone.
        Some(meta) if meta.file_type().is_char_device() && meta.rdev() == 0 => Found::Nothing,
        Some(_) => Found::Other,
        None => Found::Nothing,
    }
}

/// Folders that lower layers have, as these have them.
fn above(folders: &[(PathBuf, fs::Metadata)], upper: &Path) -> io::Result<()> {
    for (place, meta) in folders {
        let path = upper.join(place);
        if path.symlink_metadata().is_err() {
            fs::create_dir(&path)?;
            lchown(&path, Some(meta.uid()), Some(meta.gid()))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(meta.mode() & 0o7777))?;
        }
    }
    Ok(())
}

/// What no layer has.
fn below(first: &Path, rest: &[&std::ffi::OsStr], is_file: bool, root: u32) -> io::Result<()> {
    let mut path = first.to_owned();
    for part in rest {
        folder(&path, root)?;
        path.push(part);
    }
    if is_file {
        fs::File::create(&path)?;
        return lchown(&path, Some(root), Some(root));
    }
    folder(&path, root)
}

fn folder(path: &Path, root: u32) -> io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    lchown(path, Some(root), Some(root))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_made_as_far_as_it_is_missing() {
        let folders = [(); 3].map(|()| tempfile::tempdir().expect("a folder"));
        let [upper, above, below] = folders.each_ref().map(|folder| folder.path().to_owned());
        fs::create_dir_all(below.join("var/lib")).expect("a folder");
        fs::set_permissions(below.join("var"), fs::Permissions::from_mode(0o711)).expect("its mode");
        std::os::unix::fs::symlink("/var/lib", above.join("link")).expect("a link");
        let lower = [above, below];
        let volume = |target: &str| Mount::Volume { name: "data".to_owned(), target: target.into() };
        for target in ["/var/lib/some/data", "/var/lib", "/link/data", "/new"] {
            make(&volume(target), &lower, &upper, 7).expect("made");
        }
        let file = Mount::Bind { source: "/etc/passwd".into(), target: "/var/lib/file".into(), read_only: true };
        make(&file, &lower, &upper, 7).expect("made");
        let meta = |path: &str| upper.join(path).symlink_metadata().expect("it is there");
        assert_eq!((meta("var").mode() & 0o777, meta("var").uid()), (0o711, 0));
        assert_eq!((meta("var/lib/some").uid(), meta("var/lib/some/data").uid(), meta("new").uid()), (7, 7, 7));
        assert!(meta("var/lib/file").is_file() && !upper.join("link").exists());
    }
}
