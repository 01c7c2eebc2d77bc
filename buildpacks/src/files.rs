//! Small things about files that more than one buildpack needs.

use std::fs;
use std::path::Path;

use crate::error::PackError;

/// The text of a file of the app; none if there is no such file.
pub(crate) fn read(app: &Path, name: &str) -> Result<Option<String>, PackError> {
    match fs::read(app.join(name)) {
        Ok(bytes) => String::from_utf8(bytes).map(Some).map_err(|_| PackError::NotText { file: name.to_owned() }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PackError::File { action: "read", path: name.to_owned(), source }),
    }
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

/// Writes a program, and the folders that it is in.
pub(crate) fn write_program(path: &Path, text: &str) -> Result<(), PackError> {
    use std::os::unix::fs::PermissionsExt;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed("make", folder))?;
    }
    fs::write(path, text).map_err(failed("write", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(failed("change", path))
}
