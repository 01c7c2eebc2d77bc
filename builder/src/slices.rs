//! Slices: parts of the app that become layers of their own, so that what rarely changes is stored once (Buildpack spec,
//! "Slices"; globs are those of Go's `filepath.Match`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use walkdir::WalkDir;

use crate::formats::Slice;
use crate::tree::make_dir_like;

/// Moves what `slice` names out of `app` to the same places below `target`. A folder that matches goes with all that is in it;
/// the folders on the way to it are in both.
pub(crate) fn cut(app: &Path, slice: &Slice, target: &Path) -> io::Result<()> {
    make_dir_like(target, &fs::symlink_metadata(app)?)?;
    let globs = globs(&slice.paths)?;
    for path in matches(app, &globs)? {
        make_way(app, target, &path)?;
        fs::rename(app.join(&path), target.join(&path))?;
    }
    Ok(())
}

/// The paths that match, without those below one that does.
fn matches(app: &Path, globs: &GlobSet) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut walk = WalkDir::new(app).min_depth(1).sort_by_file_name().into_iter();
    while let Some(entry) = walk.next() {
        let entry = entry?;
        let path = entry.path().strip_prefix(app).map_err(io::Error::other)?;
        if globs.is_match(path) {
            if entry.file_type().is_dir() {
                walk.skip_current_dir();
            }
            found.push(path.to_owned());
        }
    }
    Ok(found)
}

/// The folders above `path`, in `target` as they are in `app`.
fn make_way(app: &Path, target: &Path, path: &Path) -> io::Result<()> {
    let mut way = PathBuf::new();
    for part in path.parent().unwrap_or(Path::new("")) {
        way.push(part);
        if !target.join(&way).exists() {
            make_dir_like(&target.join(&way), &fs::symlink_metadata(app.join(&way))?)?;
        }
    }
    Ok(())
}

/// A glob that makes no sense matches nothing, as in the reference.
fn globs(patterns: &[String]) -> io::Result<GlobSet> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        // Go has neither `**` nor `{a,b}`; and a leading `./` or a trailing slash names the same file.
        let mut plain = pattern.trim_start_matches("./").trim_end_matches('/').replace('{', "[{]").replace('}', "[}]");
        while plain.contains("**") {
            plain = plain.replace("**", "*");
        }
        if let Ok(glob) = GlobBuilder::new(&plain).literal_separator(true).backslash_escape(true).build() {
            set.add(glob);
        }
    }
    set.build().map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::listing;

    #[test]
    fn what_a_slice_names_leaves_the_app_and_keeps_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let app = dir.path().join("app");
        for file in ["a.txt", "b/c.txt", "b/d/e.js", "b/f.js", "{x}/y"] {
            fs::create_dir_all(app.join(file).parent().unwrap()).unwrap();
            fs::write(app.join(file), "").unwrap();
        }
        let cases: [(&[&str], &str); 5] = [
            (&["*.txt"], "a.txt \n"),
            (&["b/*.txt", "b/f.js"], "b /\nb/c.txt \nb/f.js \n"),
            (&["b/**/e.js"], "b /\nb/d /\nb/d/e.js \n"),
            (&["b"], "b /\nb/d /\n"),
            (&["{x}", "[", "../app"], "{x} /\n{x}/y \n"),
        ];
        for (number, (paths, expected)) in cases.into_iter().enumerate() {
            let target = dir.path().join(number.to_string());
            cut(&app, &Slice { paths: paths.iter().map(|path| (*path).to_owned()).collect() }, &target).unwrap();
            assert_eq!(listing(&target), expected, "{paths:?}");
        }
        assert_eq!(listing(&app), "");
    }
}
