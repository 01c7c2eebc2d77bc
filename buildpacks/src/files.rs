//! Small things about files that more than one buildpack needs.

use std::fs;
use std::path::Path;

use crate::command::Run;
use crate::error::PackError;

/// The text of a file of the app; none if there is no such file.
pub(crate) fn read(app: &Path, name: &str) -> Result<Option<String>, PackError> {
    match fs::read(app.join(name)) {
        Ok(bytes) => String::from_utf8(bytes).map(Some).map_err(|_| PackError::NotText { file: name.to_owned() }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PackError::File { action: "read", path: name.to_owned(), source }),
    }
}

/// Names of what is in a folder, sorted; none if there is no such folder.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Whether a file of this name is of the kind that ends so.
pub(crate) fn is_a(name: &str, ending: &str) -> bool {
    Path::new(name).extension().is_some_and(|end| end == ending)
}

/// Bytes of all files of a folder; none if there is no such folder.
pub(crate) fn size(folder: &Path) -> u64 {
    let files = walkdir::WalkDir::new(folder).into_iter().flatten().filter(|entry| entry.file_type().is_file());
    files.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

/// So many random bytes, as text.
pub(crate) fn random_hex(bytes: usize) -> Result<String, PackError> {
    use std::io::Read;
    let source = Path::new("/dev/urandom");
    let mut random = vec![0; bytes];
    fs::File::open(source).and_then(|mut file| file.read_exact(&mut random)).map_err(failed("read", source))?;
    Ok(hex::encode(random))
}

/// Copies a folder, if there is one, over what is at `to`, which may be missing.
pub(crate) fn copy_folder(from: &Path, to: &Path) -> Result<(), PackError> {
    if !from.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(to).map_err(failed("make", to))?;
    let arguments = [Path::new("--archive"), Path::new("--reflink=auto"), &from.join("."), to];
    Run::new(Path::new("/"), "cp", arguments).quiet_or_fail(|_, _| None)
}

/// Turns a failure to do `action` to `path` into the user's words.
pub(crate) fn failed(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> PackError {
    let path = path.display().to_string();
    move |source| PackError::File { action, path, source }
}

/// Removes a file, link or folder, if there is one.
pub(crate) fn remove(path: &Path) -> Result<(), PackError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    removed.map_err(failed("remove", path))
}

/// Makes `link` a link to `target`, whatever it was. A link that is right already is not touched: its layer stays unchanged.
pub(crate) fn link(target: &Path, link: &Path) -> Result<(), PackError> {
    if fs::read_link(link).is_ok_and(|old| old == target) {
        return Ok(());
    }
    remove(link)?;
    std::os::unix::fs::symlink(target, link).map_err(failed("link", link))
}

/// Lets the programs of the folder `bin` be called by paths in `folder` of the app too, where Procfiles written for Heroku look for what was
/// compiled. What the app itself has there stays.
pub(crate) fn offer_programs(bin: &Path, app: &Path, folder: &str) -> Result<(), PackError> {
    let folder = app.join(folder);
    fs::create_dir_all(&folder).map_err(failed("make", &folder))?;
    for name in names(bin) {
        let offered = folder.join(&name);
        if fs::symlink_metadata(&offered).is_err() {
            link(&bin.join(name), &offered)?;
        }
    }
    Ok(())
}

/// Writes a program, and the folders that it is in.
pub(crate) fn write_program(path: &Path, text: &str) -> Result<(), PackError> {
    use std::os::unix::fs::PermissionsExt;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed("make", folder))?;
    }
    fs::write(path, text).map_err(failed("write", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(failed("change", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_offered_where_the_app_has_none_of_its_own() {
        let root = tempfile::tempdir().unwrap();
        let (bin, app) = (root.path().join("layer/bin"), root.path().join("app"));
        for (folder, program) in [(&bin, "server"), (&bin, "setup"), (&app.join("bin"), "setup")] {
            fs::create_dir_all(folder).unwrap();
            fs::write(folder.join(program), folder.display().to_string()).unwrap();
        }
        offer_programs(&bin, &app, "bin").unwrap();
        assert_eq!(read(&app, "bin/server").unwrap(), Some(bin.display().to_string()));
        assert_eq!(read(&app, "bin/setup").unwrap(), Some(app.join("bin").display().to_string()));
    }
}
