//! The certificates of apps on disk: what a router shows before its controller is there. One file an app, so that a change writes one and
//! a damaged one concerns nobody else; with their keys, so root's alone, as those of the platform's authority are.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use model::AppId;
use model::certificate::AppCertificates;

/// A folder of them.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    folder: PathBuf,
}

impl Kept {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// All that can be read.
    pub(crate) fn load(&self) -> BTreeMap<AppId, AppCertificates> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return BTreeMap::new(),
            entries => entries,
        };
        let files = entries.and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>());
        let files = files.inspect_err(|error| {
            tracing::warn!(error = %error, folder = %self.folder.display(), "cannot read the last certificates");
        });
        files.unwrap_or_default().iter().filter_map(|path| load(path)).collect()
    }

    /// Keeps the certificates of an app, or forgets them. Whoever reads finds what was there before or what is now.
    pub(crate) fn save(&self, app: AppId, row: Option<&AppCertificates>) -> io::Result<()> {
        let path = self.folder.join(format!("{app}.json"));
        let Some(row) = row.filter(|row| !row.certificates.is_empty()) else {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        };
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        // What an authority asks for is asked for now or never.
        let json = serde_json::to_vec(&AppCertificates { challenges: Vec::new(), ..row.clone() })?;
        let draft = path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(&json)?;
        file.sync_all()?;
        fs::rename(&draft, &path)
    }
}

fn load(path: &Path) -> Option<(AppId, AppCertificates)> {
    if path.extension()? != "json" {
        return None;
    }
    let app = path.file_stem()?.to_str()?.parse().ok()?;
    let row = fs::read(path).and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::other));
    let row = row.inspect_err(|error| {
        tracing::warn!(error = %error, path = %path.display(), "the certificates of an app cannot be read");
    });
    Some((app, row.ok()?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use model::Timestamp;
    use model::certificate::{HostCertificate, PrivateKey, Staple};

    use super::*;

    #[test]
    fn certificates_come_back_from_disk_for_root_alone_and_a_damaged_file_harms_one_app() {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = Kept::new(&folder.path().join("certificates"));
        assert!(kept.load().is_empty());
        let id = |number: u32| -> AppId { format!("00000000-0000-4000-8000-{number:012}").parse().expect("an id") };
        let row = |host: &str| AppCertificates {
            certificates: vec![HostCertificate {
                hosts: vec![host.parse().expect("a host name")],
                chain: "chain".to_owned(),
                key: PrivateKey("key".to_owned()),
                staple: Some(Staple { answer: "MAMKAQE=".to_owned(), expires_at: Timestamp::from_millis(1) }),
            }],
            challenges: vec![],
        };
        for number in 1..=3 {
            kept.save(id(number), Some(&row("www.example.com"))).expect("saved");
        }
        let file = kept.folder.join(format!("{}.json", id(1)));
        let rights = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
        assert_eq!((rights(&kept.folder), rights(&file)), (0o700, 0o600));
        fs::write(&file, "{").expect("written");
        kept.save(id(3), None).expect("removed");
        kept.save(id(3), None).expect("removed already");
        assert_eq!(kept.load().into_iter().collect::<Vec<_>>(), [(id(2), row("www.example.com"))]);
    }
}
