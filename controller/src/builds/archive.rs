//! What is built that is no push: an archive at a URL, or an image of a registry.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flate2::read::MultiGzDecoder;
use model::BuildId;
use sha2::{Digest, Sha256};
use tokio::time::timeout;
use url::Url;

use super::{Code, Refused, busy};
use crate::actors::By;
use crate::errors::chain;
use crate::git::{own, plain};
use crate::registry::ImageName;
use crate::store::{App, Build, NewBuild};
use crate::{Actor, Controller, Error};

/// The longest that a download may take.
const FETCH_LIMIT: Duration = Duration::from_secs(10 * 60);
/// An archive may become so many times as large as the largest push when it is unpacked, and have so many files.
const MAX_GROWTH: u64 = 4;
const MAX_ENTRIES: usize = 500_000;
/// Bytes of headers that a file may have on average.
const MAX_HEADERS: u64 = 2048;
/// Longest version.
const MAX_VERSION: usize = 200;

/// What a user says of an archive to build.
#[derive(Debug, Default)]
pub struct ArchiveRequest {
    /// Where it is: a source's `get_url`, or any of `http` or `https`; or `docker://` and the name of an image.
    pub url: String,
    /// `SHA256:` and 64 hex digits.
    pub checksum: Option<String>,
    /// What to call it.
    pub version: Option<String>,
    /// Buildpacks of this build only; none means the app's.
    pub buildpacks: Option<Vec<String>>,
}

/// An archive to build.
#[derive(Debug)]
pub(crate) struct Archive {
    /// Who asks for it.
    pub(super) by: By,
    /// They want it even if the app is locked.
    pub(super) insists: bool,
    pub(super) version: String,
    pub(super) buildpacks: Option<Vec<String>>,
    url: Url,
    /// SHA-256 that it must have, in lower-case hex.
    checksum: Option<String>,
}

/// An image of a registry to deploy.
#[derive(Debug)]
pub(crate) struct NamedImage {
    /// Who asks for it.
    pub(super) by: By,
    /// They want it even if the app is locked.
    pub(super) insists: bool,
    /// What to call it: its name, if nothing else was said.
    pub(super) version: String,
    /// As `docker pull` reads it.
    pub(super) name: String,
}

/// Begins the URL of an image.
const IMAGE: &str = "docker://";

/// Why an archive cannot be unpacked, for the person who sent it.
#[derive(Debug, thiserror::Error)]
enum UnpackError {
    /// It is damaged, or no archive, or the disk is full.
    #[error("The archive cannot be unpacked; it must be a tar file, which may be compressed by gzip")]
    Read(#[from] io::Error),
    #[error("The archive was refused: {0:?} is outside of it")]
    Outside(PathBuf),
    #[error("The archive was refused: {0:?} is neither a file, a folder nor a link")]
    Kind(PathBuf),
    #[error("The archive was refused: unpacked it has more than {0} bytes")]
    TooLarge(u64),
    #[error("The archive was refused: it has more than {MAX_ENTRIES} files")]
    TooMany,
    #[error("The archive is empty")]
    Empty,
}

impl Archive {
    fn check(request: ArchiveRequest, actor: &Actor) -> Result<Self, Error> {
        let invalid = |what: &str| Error::Invalid(what.to_owned());
        let url = Url::parse(&request.url).ok().filter(|url| ["http", "https"].contains(&url.scheme()));
        let url = url.ok_or_else(|| {
            invalid("source_blob.url must be a URL of http or https, or docker:// and the name of an image")
        })?;
        let checksum = request.checksum.map(|text| text.to_ascii_lowercase());
        let digits = |text: &String| text.strip_prefix("sha256:").map(str::to_owned);
        let is_hash = |text: &String| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let hash = checksum.as_ref().and_then(digits).filter(is_hash);
        if checksum.is_some() && hash.is_none() {
            return Err(invalid("source_blob.checksum must be SHA256: and 64 hex digits"));
        }
        let version = checked(request.version.unwrap_or_default())?;
        Ok(Self {
            by: actor.by(),
            insists: actor.insists,
            version,
            buildpacks: request.buildpacks,
            url,
            checksum: hash,
        })
    }
}

impl NamedImage {
    fn check(name: &str, request: ArchiveRequest, actor: &Actor) -> Result<Self, Error> {
        ImageName::parse(name).map_err(Error::Invalid)?;
        if request.checksum.is_some() || request.buildpacks.is_some() {
            let text = "An image takes no buildpacks, and has its checksum in its name: name@sha256:…";
            return Err(Error::Invalid(text.to_owned()));
        }
        let version = checked(request.version.unwrap_or_else(|| name.to_owned()))?;
        Ok(Self { by: actor.by(), insists: actor.insists, version, name: name.to_owned() })
    }
}

fn checked(version: String) -> Result<String, Error> {
    if version.len() > MAX_VERSION || version.contains(char::is_control) {
        return Err(Error::Invalid(format!("source_blob.version can have at most {MAX_VERSION} characters")));
    }
    Ok(version)
}

impl Controller {
    /// Begins to build and release an archive or an image, and returns at once.
    pub async fn start_build(
        self: &Arc<Self>,
        app: &App,
        actor: &Actor,
        request: ArchiveRequest,
    ) -> Result<Build, Error> {
        self.check_held(app, actor).await?;
        if let Some(name) = request.url.strip_prefix(IMAGE).map(str::to_owned) {
            let (image, url) = (NamedImage::check(&name, request, actor)?, format!("{IMAGE}{name}"));
            return self.begin(app, actor, Code::Image(image), (&url, None)).await;
        }
        let archive = Archive::check(request, actor)?;
        let own = self.own_source(&archive.url).await?;
        let url = match &own {
            Some((id, _)) => format!("{}/sources/{id}", self.settings.api_url()),
            None => plain(&archive.url).to_string(),
        };
        let checksum = archive.checksum.as_ref().map(|hash| format!("SHA256:{hash}"));
        self.begin(app, actor, Code::Archive(archive), (&url, checksum.as_deref())).await
    }

    /// Begins to build what is no commit. `source` is where it is, and its checksum.
    async fn begin(
        self: &Arc<Self>,
        app: &App,
        actor: &Actor,
        code: Code,
        source: (&str, Option<&str>),
    ) -> Result<Build, Error> {
        self.live.ready().await?;
        let id = BuildId::random(&*self.random);
        let turn = self.take_turn(app.id, (id, code.version())).map_err(|_| busy(app))?;
        let (user, source) = (actor.user.id, Some(source));
        let new = NewBuild { id, app: app.id, user, commit: code.version(), subject: None, source };
        let build = self.store.insert_build(new, &self.stamp(actor)).await?;
        let output = self.output(app.id, id, None);
        let (controller, app) = (Arc::clone(self), app.clone());
        tokio::spawn(async move { controller.deploy_alone(&app, &code, (&turn, output)).await });
        Ok(build)
    }

    /// Fetches an archive and unpacks it for a build.
    pub(super) async fn unpack_archive(&self, app: &App, archive: &Archive, id: BuildId) -> Result<PathBuf, Refused> {
        let target = self.checkouts().join(id.to_string());
        let own = self.own_source(&archive.url).await?;
        let file = match &own {
            Some((_, file)) => file.clone(),
            None => self.checkouts().join(format!("{id}.archive")),
        };
        if own.is_none() {
            let fetched = timeout(FETCH_LIMIT, self.download(app, archive.url.clone(), &file)).await;
            let late = || Refused::Said("The archive cannot be fetched: it took longer than ten minutes.".to_owned());
            fetched.map_err(|_| late()).flatten().inspect_err(|_| drop(std::fs::remove_file(&file)))?;
        }
        let (folder, uid, checksum) = (target.clone(), app.uid, archive.checksum.clone());
        let limit = self.settings.push_limit.saturating_mul(MAX_GROWTH);
        let is_ours = own.is_none();
        let unpacked = tokio::task::spawn_blocking(move || {
            let result = check_sum(&file, checksum.as_deref()).and_then(|()| {
                unpack(&file, &folder, limit).map_err(|error| Refused::Said(format!("{}.", chain(&error))))?;
                own_all(&folder, uid)
            });
            if is_ours {
                // Nothing in the folder of checkouts outlives the process.
                let _ = std::fs::remove_file(&file);
            }
            result.inspect_err(|_| drop(std::fs::remove_dir_all(&folder)))
        });
        match unpacked.await {
            Ok(result) => result.map(|()| target),
            Err(panic) => Err(Refused::Said(chain(&panic))),
        }
    }

    async fn download(&self, app: &App, url: Url, file: &Path) -> Result<(), Refused> {
        let failed = |error: &io::Error| Refused::Said(format!("The archive cannot be fetched: {}.", chain(error)));
        tokio::fs::create_dir_all(self.checkouts()).await.map_err(|error| failed(&error))?;
        let limit = self.settings.push_limit;
        let headers = self.headers_for(app.id, &url).await?;
        self.outbound.download(url, &headers, file, limit).await.map_err(|error| failed(&error))
    }
}

fn own_all(folder: &Path, uid: u32) -> Result<(), Refused> {
    own(folder, uid).map_err(|error| Refused::Said(format!("The platform cannot write the files: {error}.")))
}

fn check_sum(path: &Path, expected: Option<&str>) -> Result<(), Refused> {
    let Some(expected) = expected else { return Ok(()) };
    let mut hash = Sha256::new();
    let read = File::open(path).and_then(|mut file| io::copy(&mut file, &mut hash));
    read.map_err(|_| Refused::Said("Nothing was sent to this source's put_url yet.".to_owned()))?;
    let found = hex::encode(hash.finalize());
    if found != expected {
        return Err(Refused::Said(format!(
            "The archive was refused: its checksum is SHA256:{found}, and SHA256:{expected} was expected."
        )));
    }
    Ok(())
}

/// Unpacks into a new folder. A folder that is the only thing in the archive, as in those that code hosts make, is left out.
fn unpack(file: &Path, target: &Path, limit: u64) -> Result<(), UnpackError> {
    std::fs::create_dir_all(target)?;
    let mut file = File::open(file)?;
    let mut magic = [0; 2];
    let is_gzip = file.read(&mut magic)? == 2 && magic == [0x1f, 0x8b];
    file.rewind()?;
    let reader: Box<dyn Read> =
        if is_gzip { Box::new(MultiGzDecoder::new(BufReader::new(file))) } else { Box::new(BufReader::new(file)) };
    // Headers, and long names, count for nothing below.
    let mut archive = tar::Archive::new(reader.take(limit.saturating_add(MAX_ENTRIES as u64 * MAX_HEADERS)));
    archive.set_preserve_mtime(false);
    let (mut bytes, mut count) = (0u64, 0);
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.header().entry_type().is_pax_global_extensions() {
            continue;
        }
        check_entry(&entry)?;
        bytes = bytes.saturating_add(entry.size());
        count += 1;
        if bytes > limit {
            return Err(UnpackError::TooLarge(limit));
        }
        if count > MAX_ENTRIES {
            return Err(UnpackError::TooMany);
        }
        if !entry.unpack_in(target)? {
            return Err(UnpackError::Outside(entry.path()?.into_owned()));
        }
    }
    let mut found = std::fs::read_dir(target)?;
    let first = found.next().ok_or(UnpackError::Empty)??;
    if found.next().is_none() && first.file_type()?.is_dir() {
        let outer = target.with_extension("outer");
        std::fs::rename(target, &outer)?;
        std::fs::rename(outer.join(first.file_name()), target)?;
        std::fs::remove_dir(outer)?;
    }
    Ok(())
}

/// Refuses what would be written elsewhere, and what is no file.
fn check_entry(entry: &tar::Entry<'_, impl Read>) -> Result<(), UnpackError> {
    let path = entry.path()?.into_owned();
    let is_inside =
        |path: &Path| path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    let kind = entry.header().entry_type();
    if !is_inside(&path) {
        return Err(UnpackError::Outside(path));
    }
    // A symbolic link may lead anywhere, as in a commit: it is followed only within the app's own containers.
    if kind.is_hard_link() && !entry.link_name()?.is_some_and(|to| is_inside(&to)) {
        return Err(UnpackError::Outside(path));
    }
    let is_file = kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse();
    if !(is_file || kind.is_dir() || kind.is_symlink() || kind.is_hard_link()) {
        return Err(UnpackError::Kind(path));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use flate2::write::GzEncoder;

    use super::*;

    /// An archive of entries: path, kind, content or target.
    fn archive(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o4755);
            // Past the library's own check of what is written.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            let data = if kind.is_file() { content.as_bytes() } else { &[] };
            header.set_size(data.len() as u64);
            if !kind.is_file() && !content.is_empty() {
                header.set_link_name_literal(content).expect("a target");
            }
            header.set_cksum();
            builder.append(&header, data).expect("written");
        }
        builder.into_inner().expect("whole")
    }

    fn unpacked(bytes: &[u8]) -> (tempfile::TempDir, Result<(), UnpackError>) {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("archive");
        std::fs::write(&file, bytes).expect("written");
        let result = unpack(&file, &folder.path().join("in"), 1000);
        (folder, result)
    }

    #[test]
    fn files_folders_and_links_are_unpacked_and_the_outer_folder_left_out() {
        use tar::EntryType::{Directory, Link, Regular, Symlink, XGlobalHeader};
        let entries = [
            ("pax_global_header", XGlobalHeader, ""),
            ("app-1a2b/", Directory, ""),
            ("app-1a2b/run", Regular, "echo"),
            ("app-1a2b/hard", Link, "app-1a2b/run"),
            ("app-1a2b/soft", Symlink, "/etc/hostname"),
        ];
        let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::copy(&mut archive(&entries).as_slice(), &mut gzip).expect("packed");
        for bytes in [archive(&entries), gzip.finish().expect("packed")] {
            let (folder, result) = unpacked(&bytes);
            result.expect("unpacked");
            let path = |name: &str| folder.path().join("in").join(name);
            assert_eq!(std::fs::read_to_string(path("run")).expect("there"), "echo");
            assert_eq!(std::fs::read_to_string(path("hard")).expect("there"), "echo");
            assert_eq!(path("soft").read_link().expect("a link"), Path::new("/etc/hostname"));
            let mode = std::os::unix::fs::PermissionsExt::mode(&path("run").metadata().expect("there").permissions());
            assert_eq!(mode & 0o7777, 0o755, "nothing is set-user-id");
        }
    }

    #[test]
    fn what_would_leave_the_folder_or_fill_the_disk_is_refused() {
        use tar::EntryType::{Char, Link, Regular, Symlink};
        let refused = |entries: &[(&str, tar::EntryType, &str)]| {
            let (folder, result) = unpacked(&archive(entries));
            assert!(!folder.path().join("out").exists());
            chain(&result.expect_err("refused"))
        };
        assert!(refused(&[("../out", Regular, "x")]).ends_with("\"../out\" is outside of it"));
        assert!(refused(&[("/tmp/out", Regular, "x")]).ends_with("is outside of it"));
        assert!(refused(&[("a", Link, "../out")]).ends_with("is outside of it"));
        assert!(refused(&[("a", Link, "/etc/passwd")]).ends_with("is outside of it"));
        assert!(refused(&[("a", Symlink, ".."), ("a/out", Regular, "x")]).contains("cannot be unpacked"));
        assert!(refused(&[("zero", Char, "")]).ends_with("is neither a file, a folder nor a link"));
        assert!(refused(&[("big", Regular, &"x".repeat(1001))]).ends_with("more than 1000 bytes"));
        assert_eq!(refused(&[]), "The archive is empty");
        assert!(chain(&unpacked(b"<html>").1.expect_err("refused")).contains("must be a tar file"));
    }
}
