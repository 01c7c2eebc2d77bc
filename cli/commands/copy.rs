//! `ps:copy`: files out of and into dynos that run.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};

use clap::Args;
use model::DynoName;

use crate::context::{AppArg, Context};
use crate::error::{CliError, Result};

/// Copy files out of a dyno that runs, or into it
///
/// What is in the dyno is written DYNO:PATH. A folder is copied with all that is in it: files, folders and symbolic links. In the dyno the
/// files are those of its own user, and they are gone with it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform ps:copy web.1:/app/log ./log
  $ platform ps:copy ./dump.csv web.1:/tmp/
  $ platform ps:copy heap.hprof --dyno worker.2 --output heap.hprof")]
pub(crate) struct Copy {
    /// A path here, or DYNO:PATH; with --dyno, or alone, a path in the dyno
    source: String,
    /// DYNO:PATH, or a path here; a folder that exists takes what comes into itself
    target: Option<String>,
    /// The dyno whose file SOURCE is
    #[arg(short, long, conflicts_with = "target")]
    dyno: Option<String>,
    /// Where to put it here
    #[arg(short, long, value_name = "PATH", conflicts_with = "target")]
    output: Option<String>,
    #[command(flatten)]
    app: AppArg,
}

/// What is copied where.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    Out { dyno: String, path: String, to: PathBuf },
    In { from: PathBuf, dyno: String, path: String },
}

impl Copy {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let way = way(&self)?;
        let (client, name) = cx.app(&self.app)?;
        match way {
            Way::Out { dyno, path, to } => {
                let (url, query) = (["apps", &name, "dynos", &dyno, "files"], [("path", path.as_str())]);
                let what = format!("Copying {path} of {dyno} of {name} to {}", to.display());
                cx.out.step(&what, || unpack(client.download((&url, &query))?, &to))
            }
            Way::In { from, dyno, path } => {
                let what = format!("Copying {} to {path} of {dyno} of {name}", from.display());
                let copied = cx.out.step(&what, || {
                    let archive = pack(&from)?;
                    client.put_file((&["apps", &name, "dynos", &dyno, "files"], &[("path", &path)]), &archive)
                })?;
                cx.done(&copied)
            }
        }
    }
}

fn way(copy: &Copy) -> Result<Way> {
    let out = |(dyno, path): (String, String), to: Option<&String>| {
        let name = Path::new(&path).file_name().map(PathBuf::from);
        let to = to.map(PathBuf::from).or(name).unwrap_or_else(|| PathBuf::from("."));
        Way::Out { dyno, path, to }
    };
    match (remote(&copy.source), &copy.target) {
        (None, None) => {
            let dyno = copy.dyno.clone().unwrap_or_else(|| "web.1".to_owned());
            Ok(out((dyno, absolute(&copy.source)), copy.output.as_ref()))
        }
        (Some(remote), None) => Ok(out(remote, copy.output.as_ref())),
        (Some(_), Some(target)) if self::remote(target).is_some() => {
            Err(CliError::usage("Both are in dynos").hint("Copy it here first, and then into the other one."))
        }
        (Some(remote), target) => Ok(out(remote, target.as_ref())),
        (None, Some(target)) => match self::remote(target) {
            Some((dyno, path)) => Ok(Way::In { from: PathBuf::from(&copy.source), dyno, path }),
            None => {
                Err(CliError::usage("Neither is in a dyno").hint("What is in one is written like web.1:/tmp/file."))
            }
        },
    }
}

/// `web.1:/tmp/file`
fn remote(text: &str) -> Option<(String, String)> {
    let (dyno, path) = text.split_once(':')?;
    dyno.parse::<DynoName>().ok()?;
    Some((dyno.to_owned(), absolute(path)))
}

/// As in the dyno's shell, which begins in the app's folder.
fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/app/{path}") }
}

/// Unpacks an archive of one file or folder: into a folder that exists, or under a name of its own.
fn unpack(archive: impl std::io::Read, to: &Path) -> Result<()> {
    let failed = |error: std::io::Error| CliError::failed(format!("Cannot write {}", to.display())).because(&error);
    let (folder, name) = if to.is_dir() {
        (to.to_owned(), None)
    } else {
        let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        (parent.to_owned(), to.file_name())
    };
    // Whole or not at all, and never outside of this.
    let draft = tempfile::Builder::new().prefix(".copy-").tempdir_in(&folder).map_err(failed)?;
    let mut archive = tar::Archive::new(archive);
    archive.set_preserve_permissions(true);
    archive.unpack(draft.path()).map_err(|error| {
        CliError::failed("The copy broke off").because(&error).hint("Nothing was written. Run it again.")
    })?;
    for entry in fs::read_dir(draft.path()).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let own = entry.file_name();
        fs::rename(entry.path(), folder.join(name.unwrap_or(&own))).map_err(failed)?;
    }
    Ok(())
}

/// A file or folder as an archive, in a file that has no name.
fn pack(from: &Path) -> Result<File> {
    let failed = |error: std::io::Error| CliError::failed(format!("Cannot read {}", from.display())).because(&error);
    let whole = fs::canonicalize(from).map_err(failed)?;
    let name = whole.file_name().map_or_else(|| PathBuf::from("root"), PathBuf::from);
    let mut archive = tar::Builder::new(tempfile::tempfile().map_err(failed)?);
    archive.follow_symlinks(false);
    let added = if whole.is_dir() {
        archive.append_dir_all(&name, &whole)
    } else {
        archive.append_path_with_name(&whole, &name)
    };
    let mut file = added.and_then(|()| archive.into_inner()).map_err(failed)?;
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::Cli;

    fn read(words: &[&str]) -> Result<Way> {
        #[derive(clap::Parser)]
        struct Program {
            #[command(flatten)]
            copy: Copy,
        }
        let words = std::iter::once(&"ps:copy").chain(words);
        way(&<Program as clap::Parser>::try_parse_from(words).expect("a command line").copy)
    }

    #[test]
    fn one_side_is_in_a_dyno() {
        let _ = Cli::described();
        let out = |dyno: &str, path: &str, to: &str| Way::Out { dyno: dyno.into(), path: path.into(), to: to.into() };
        assert_eq!(read(&["web.1:/app/log", "here"]).unwrap(), out("web.1", "/app/log", "here"));
        assert_eq!(read(&["web.2:tmp/x"]).unwrap(), out("web.2", "/app/tmp/x", "x"));
        assert_eq!(read(&["heap", "--output", "h"]).unwrap(), out("web.1", "/app/heap", "h"));
        assert_eq!(read(&["/heap", "-d", "worker.1"]).unwrap(), out("worker.1", "/heap", "heap"));
        let inward = Way::In { from: "C:/x".into(), dyno: "web.1".into(), path: "/tmp/".into() };
        assert_eq!(read(&["C:/x", "web.1:/tmp/"]).unwrap(), inward);
        assert!(read(&["a", "b"]).is_err() && read(&["web.1:/a", "web.2:/b"]).is_err());
    }

    #[test]
    fn what_is_packed_is_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir_all(tree.join("deep")).unwrap();
        fs::write(tree.join("deep/file"), "text").unwrap();
        std::os::unix::fs::symlink("deep/file", tree.join("link")).unwrap();
        let (new, there) = (folder.path().join("new"), folder.path().join("there"));
        fs::create_dir(&there).unwrap();
        unpack(pack(&tree).unwrap(), &new).unwrap();
        unpack(pack(&tree).unwrap(), &there).unwrap();
        for copy in [new, there.join("tree")] {
            assert_eq!(fs::read_to_string(copy.join("link")).unwrap(), "text");
            assert_eq!(fs::read_link(copy.join("link")).unwrap(), Path::new("deep/file"));
        }
    }
}
