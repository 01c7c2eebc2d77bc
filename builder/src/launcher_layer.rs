//! The layer with the launcher: this very program, the same in all images until the platform is updated.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use model::Digest;
use model::image::{FIRST as OWN_FIRST, FOREIGN_FIRST};
use serde::{Deserialize, Serialize};

use crate::errors::BuildError;
use crate::stack::Stack;
use crate::{Builder, tree};

/// Path of the launcher in every image.
pub(crate) const LAUNCHER: &str = "/cnb/lifecycle/launcher";
/// Needs nothing else of an image: no library, no loader.
const STATIC_TINI: &str = "usr/bin/tini-static";

/// Which program the layer was made of. Reading a hundred megabytes for their digest in every build would be the longest part of it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Made {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    layer: Digest,
}

/// The launcher's layer, made if this program has none yet; its tree begins as `dir`, which is the caller's alone.
pub(crate) fn ensure(builder: &Builder, dir: &Path) -> Result<Digest, BuildError> {
    let note = builder.cache.join("launcher.json");
    let trouble = |source| BuildError::Io { action: "make a layer of", path: builder.program.clone(), source };
    let program = fs::metadata(&builder.program).map_err(trouble)?;
    let made: Option<Made> = fs::read(&note).ok().and_then(|text| serde_json::from_slice(&text).ok());
    if let Some(made) = made.filter(|made| *made == Made::of(&program, made.layer.clone()))
        && builder.layers.contains(&made.layer)
    {
        return Ok(made.layer);
    }
    let layer = make(&builder.program, LAUNCHER, dir).map_err(trouble)?;
    builder.layers.insert(&layer, dir)?;
    let text = serde_json::to_vec(&Made::of(&program, layer.clone())).map_err(|error| trouble(error.into()))?;
    fs::create_dir_all(&builder.cache).and_then(|()| fs::write(&note, text)).map_err(trouble)?;
    Ok(layer)
}

impl Made {
    fn of(program: &fs::Metadata, layer: Digest) -> Self {
        Self { inode: program.ino(), bytes: program.len(), modified: (program.mtime(), program.mtime_nsec()), layer }
    }
}

/// The layer with the first process of containers whose image is not ours; its tree begins as `dir`, which is the caller's alone.
pub(crate) fn ensure_first(builder: &Builder, stack: &Stack, dir: &Path) -> Result<Digest, BuildError> {
    ensure_tini(builder, stack, (FOREIGN_FIRST, dir))
}

/// The same where it is in our images.
pub(crate) fn ensure_own_first(builder: &Builder, stack: &Stack, dir: &Path) -> Result<Digest, BuildError> {
    ensure_tini(builder, stack, (OWN_FIRST, dir))
}

fn ensure_tini(builder: &Builder, stack: &Stack, (place, dir): (&str, &Path)) -> Result<Digest, BuildError> {
    let program = builder.layers.path(&stack.run).join(STATIC_TINI);
    let layer = make(&program, place, dir).map_err(|source| BuildError::Io {
        action: "make a layer of",
        path: program,
        source,
    })?;
    builder.layers.insert(&layer, dir)?;
    Ok(layer)
}

/// Puts a program to its path in a tree, and says which layer that is.
fn make(program: &Path, path: &str, dir: &Path) -> io::Result<Digest> {
    let target = dir.join(path.trim_start_matches('/'));
    tree::make_parents(dir, &target)?;
    fs::copy(program, &target)?;
    fs::set_permissions(&target, fs::Permissions::from_mode(0o755))?;
    chown(&target, Some(0), Some(0))?;
    fs::File::open(&target)?.sync_all()?;
    tree::diff_id(dir)
}
