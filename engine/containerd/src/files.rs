//! What the role writes down: the workloads that are desired, and a folder for each container that exists.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::{Ended, Link, OneOff, OneOffId, Workload, WorkloadId};
use model::{AppId, Egress, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::disk;
use crate::error::Fault;
use crate::moment::Moment;
use crate::overlays;

/// A workload that is desired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wish {
    #[serde(flatten)]
    pub(crate) workload: Workload,
    /// The address of its service. Its own for as long as it, or a later one of the same app and process type, is desired.
    #[serde(default)]
    pub(crate) address: Option<Ipv4Addr>,
}

/// Whose container a folder is. Written before anything else of the container exists.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Record {
    /// An instance of a workload, with the whole wish, because it may be gone while the instance still stops.
    Instance {
        #[serde(rename = "workload")]
        wish: Box<Wish>,
        number: u32,
    },
    /// A one-off, which ends at `deadline` at the latest.
    OneOff { oneoff: Box<OneOff>, deadline: Timestamp },
}

impl Record {
    /// The address that the container must have.
    pub(crate) fn service_address(&self) -> Option<Ipv4Addr> {
        match self {
            Self::Instance { wish, .. } => wish.address,
            Self::OneOff { .. } => None,
        }
    }
}

/// A container whose process exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Running {
    pub(crate) pid: u32,
    pub(crate) address: Ipv4Addr,
    pub(crate) started: Timestamp,
    /// The same by a clock that nobody sets. None: an older platform started it.
    #[serde(default)]
    pub(crate) begun: Option<Moment>,
}

/// An instance that became healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Healthy {
    pub(crate) since: Timestamp,
    /// How long that took.
    pub(crate) booted_in: Option<Duration>,
}

/// Folder of one container.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(crate) fn new(instances: &Path, id: &str) -> Self {
        Self { path: instances.join(id) }
    }

    /// Makes the folder, its record first.
    pub(crate) fn make(&self, record: &Record) -> Result<(), Fault> {
        make_private(&self.path)?;
        write_json(&self.path.join("record.json"), record)?;
        let disk = self.disk();
        fs::create_dir(&disk).map_err(Fault::on("make", &disk))
    }

    /// Makes what a container mounts, once what it may write is limited.
    pub(crate) fn make_layer(&self) -> Result<(), Fault> {
        for dir in [self.upper(), self.work()] {
            fs::create_dir(&dir).map_err(Fault::on("make", &dir))?;
        }
        // The upper directory's mode is that of the container's `/`.
        set_mode(&self.upper(), 0o755)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Notes which range of users the container has, before anything belongs to one of them.
    pub(crate) fn set_range(&self, range: u32) -> Result<(), Fault> {
        write_json(&self.path.join("range"), &range)
    }

    /// The range of users that the container has.
    pub(crate) fn range(&self) -> Option<u32> {
        read_json(&self.path.join("range"))
    }

    pub(crate) fn record(&self) -> Option<Record> {
        read_json(&self.path.join("record.json"))
    }

    pub(crate) fn set_running(&self, running: &Running) -> Result<(), Fault> {
        write_json(&self.path.join("running.json"), running)
    }

    pub(crate) fn running(&self) -> Option<Running> {
        read_json(&self.path.join("running.json"))
    }

    /// Notes that the instance is healthy, so that another life of this role need not prove it again.
    pub(crate) fn set_healthy(&self, healthy: Healthy) -> Result<(), Fault> {
        write_json(&self.path.join("healthy"), &healthy)
    }

    pub(crate) fn is_healthy(&self) -> bool {
        self.path.join("healthy").exists()
    }

    /// What was noted when it became healthy.
    pub(crate) fn healthy(&self) -> Option<Healthy> {
        let path = self.path.join("healthy");
        // An older platform noted the moment alone.
        read_json(&path).or_else(|| Some(Healthy { since: read_json(&path)?, booted_in: None }))
    }

    /// Notes whether the instance passes its readiness checks, for another life of this role.
    pub(crate) fn set_ready(&self, ready: bool) -> Result<(), Fault> {
        let path = self.path.join("unready");
        if ready { forget_json(&path) } else { make_private_file(&path) }
    }

    pub(crate) fn is_ready(&self) -> bool {
        !self.path.join("unready").exists()
    }

    /// Holds all that the container writes, but into volumes. If that is limited, this is a disk of its own, else a mere folder.
    pub(crate) fn disk(&self) -> PathBuf {
        self.path.join("disk")
    }

    /// That disk's file.
    pub(crate) fn image(&self) -> PathBuf {
        self.path.join("image")
    }

    /// Bytes that what is on it takes, if it is a disk of its own.
    pub(crate) fn disk_taken(&self) -> Option<u64> {
        disk::taken(&self.image())
    }

    /// The writable layer of the root file system.
    pub(crate) fn upper(&self) -> PathBuf {
        self.disk().join("upper")
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.disk().join("work")
    }

    /// The file to which the shim appends an instance's output.
    pub(crate) fn output(&self) -> PathBuf {
        self.path.join("output")
    }

    /// How much of the output was taken, as 8 bytes.
    pub(crate) fn offset(&self) -> PathBuf {
        self.path.join("offset")
    }

    /// A FIFO for a one-off's input.
    pub(crate) fn stdin(&self) -> PathBuf {
        self.path.join("stdin")
    }

    /// A FIFO for a one-off's output.
    pub(crate) fn stdout(&self) -> PathBuf {
        self.path.join("stdout")
    }

    /// What belongs to the processes that were started in it later, by their ids.
    pub(crate) fn execs(&self) -> PathBuf {
        self.path.join("exec")
    }

    /// The folder of one such process.
    pub(crate) fn exec(&self, id: &str) -> PathBuf {
        self.execs().join(id)
    }

    /// Removes the folder with all that the container wrote. A folder that is gone is no error.
    pub(crate) async fn remove(&self) -> Result<(), Fault> {
        let (path, disk) = (self.path.clone(), self.disk());
        let removed = tokio::task::spawn_blocking(move || {
            disk::unmount(&disk)?;
            // What lies in them is not ours to remove.
            overlays::take_away(&path)?;
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Fault::on("remove", &path)(error)),
                _ => Ok(()),
            }
        });
        removed.await.unwrap_or_else(|panic| Err(Fault::Refused(panic.to_string())))
    }
}

/// Names of all entries of a folder; none if there is no such folder. Containers' ids are names of folders in many places.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// The wishes as the last life left them. A file that cannot be read is reported and left alone.
pub(crate) fn load_wishes(dir: &Path) -> Vec<Wish> {
    let files = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_workload = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json");
    files
        .filter(is_workload)
        .filter_map(|path| {
            let wish = read_json(&path);
            if wish.is_none() {
                tracing::error!(workload.path = %path.display(), "a desired workload is not readable and will not run");
            }
            wish
        })
        .collect()
}

/// Makes a wish durable.
pub(crate) fn save_wish(dir: &Path, wish: &Wish) -> Result<(), Fault> {
    save(dir, &wish_path(dir, &wish.workload.id), wish)
}

/// Forgets a wish for good. One that does not exist is no error.
pub(crate) fn forget_wish(dir: &Path, id: &WorkloadId) -> Result<(), Fault> {
    forget(dir, &wish_path(dir, id))
}

/// How one-offs ended of which nobody was told.
pub(crate) fn load_ended(dir: &Path) -> Vec<Ended> {
    let paths = names(dir).into_iter().map(|name| dir.join(name));
    let is_whole = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json");
    paths.filter(is_whole).filter_map(|path| read_json(&path)).collect()
}

/// Whether it is known how a one-off ended.
pub(crate) fn has_ended(dir: &Path, id: &OneOffId) -> bool {
    ended_path(dir, id).exists()
}

/// Makes it durable how a one-off ended.
pub(crate) fn save_ended(dir: &Path, ended: &Ended) -> Result<(), Fault> {
    save(dir, &ended_path(dir, &ended.id), ended)
}

/// Forgets how a one-off ended. One that is not known is no error.
pub(crate) fn forget_ended(dir: &Path, id: &OneOffId) -> Result<(), Fault> {
    forget(dir, &ended_path(dir, id))
}

/// What apps may reach outside that have a policy. One that cannot be read keeps the role from its start: nothing may get out unseen.
pub(crate) fn load_egress(dir: &Path) -> Result<BTreeMap<AppId, Egress>, Fault> {
    let paths = names(dir).into_iter().map(|name| dir.join(name));
    let is_whole = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json");
    let read = |path: PathBuf| {
        let app = path.file_stem().and_then(|name| name.to_str()?.parse().ok());
        let text = fs::read(&path).map_err(Fault::on("read", &path))?;
        let policy = serde_json::from_slice(&text).ok();
        app.zip(policy).ok_or_else(|| Fault::Refused(format!("{} is no policy", path.display())))
    };
    paths.filter(is_whole).map(read).collect()
}

/// Which apps reach which others. What cannot be read lets nobody through.
pub(crate) fn load_links(path: &Path) -> BTreeSet<Link> {
    read_json(path).unwrap_or_default()
}

/// Makes it durable which apps reach which others.
pub(crate) fn save_links(path: &Path, links: &BTreeSet<Link>) -> Result<(), Fault> {
    save(path.parent().unwrap_or(path), path, links)
}

/// Makes it durable what an app may reach outside; none: everything that any may.
pub(crate) fn save_egress(dir: &Path, app: AppId, policy: Option<&Egress>) -> Result<(), Fault> {
    let path = dir.join(format!("{app}.json"));
    match policy {
        Some(policy) => save(dir, &path, policy),
        None => forget(dir, &path),
    }
}

fn ended_path(dir: &Path, id: &OneOffId) -> PathBuf {
    dir.join(format!("{id}.json"))
}

/// Writes a file that a power cut leaves whole.
fn save(dir: &Path, path: &Path, value: &impl Serialize) -> Result<(), Fault> {
    let fresh = path.with_extension("new");
    let text = serde_json::to_vec(value).map_err(|error| Fault::Refused(error.to_string()))?;
    let mut file = create_private(&fresh)?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(Fault::on("write", &fresh))?;
    fs::rename(&fresh, path).map_err(Fault::on("rename", &fresh))?;
    sync_dir(dir)
}

fn forget(dir: &Path, path: &Path) -> Result<(), Fault> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => result.map_err(Fault::on("remove", path))?,
    }
    sync_dir(dir)
}

fn wish_path(dir: &Path, id: &WorkloadId) -> PathBuf {
    dir.join(format!("{id}.json"))
}

/// Makes a folder that only root may enter, and its parents.
pub(crate) fn make_private(path: &Path) -> Result<(), Fault> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(Fault::on("make", path))
}

/// Makes an empty file that only root may open.
pub(crate) fn make_private_file(path: &Path) -> Result<(), Fault> {
    create_private(path).map(drop)
}

fn create_private(path: &Path) -> Result<fs::File, Fault> {
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.map_err(Fault::on("make", path))
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Fault> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(Fault::on("set the mode of", path))
}

/// Not synced: what it describes does not survive a reboot either, or need not.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Fault> {
    let fresh = path.with_extension("new");
    let text = serde_json::to_vec(value).map_err(|error| Fault::Refused(error.to_string()))?;
    create_private(&fresh)?.write_all(&text).map_err(Fault::on("write", &fresh))?;
    fs::rename(&fresh, path).map_err(Fault::on("rename", &fresh))
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Removes a file. One that does not exist is no error.
pub(crate) fn forget_json(path: &Path) -> Result<(), Fault> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Fault::on("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), Fault> {
    fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(Fault::on("sync", dir))
}
