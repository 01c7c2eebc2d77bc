//! Making one container, from its folder to a process that waits to run, and seeing how it ends.

use std::sync::Arc;

use engine::{Container, TtySize};
use model::{AppId, DynoName, Exit, LogSource};
use nix::sys::signal::Signal;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::containerd::{NewTask, Process, Stdio};
use crate::disk::Room;
use crate::error::Fault;
use crate::files::{Record, Running, make_private_file};
use crate::host::Host;
use crate::logs::{self, Stream};
use crate::moment::Moment;
use crate::spec::{Blueprint, spec};
use crate::users::Users;
use crate::{netns, overlays, rootfs};

/// A container to make.
pub(crate) struct NewContainer<'a> {
    pub(crate) id: &'a str,
    pub(crate) record: &'a Record,
    pub(crate) container: &'a Container,
    pub(crate) app: AppId,
    pub(crate) hostname: &'a str,
    pub(crate) tty: Option<TtySize>,
    pub(crate) stdio: Stdio,
}

impl Host {
    /// Makes the files of a container, its volumes and FIFOs among them, once [`crate::tenants::Tenants::move_in`] let it. Whatever fails, here or in [`Host::create`], the caller must
    /// [`Host::destroy`] what is there.
    pub(crate) async fn prepare(&self, new: &NewContainer<'_>) -> Result<(), Fault> {
        if new.container.uid == 0 {
            return Err(Fault::Refused("a container never runs as root".to_owned()));
        }
        let folder = self.folder(new.id);
        folder.make(new.record)?;
        let range = self.ranges.take(new.id)?;
        folder.set_range(range)?;
        if let Some(room) = Room::of(&new.container.limits, &self.settings.home)? {
            let (blanks, image, at) = (self.blanks.clone(), folder.image(), folder.disk());
            let mounted = tokio::task::spawn_blocking(move || blanks.mount_new(&image, &at, room)).await;
            mounted.unwrap_or_else(|panic| Err(Fault::Refused(panic.to_string())))?;
        }
        folder.make_layer()?;
        let names: Vec<String> = new.container.volumes().map(str::to_owned).collect();
        let uid = new.container.uid;
        self.with_volumes(move |volumes| names.iter().try_for_each(|name| volumes.make(name, uid))).await?;
        let inside = rootfs::Inside {
            hostname: new.hostname,
            resolvers: &self.network.resolvers,
            root: Users::of(new.container, range).root,
        };
        rootfs::prepare(new.container, &self.settings.layers, &folder, &inside)?;
        overlays::lay(new.container, &folder)?;
        match &new.stdio {
            Stdio::File { output } => make_private_file(output),
            Stdio::Pipes { stdin, output, .. } => make_fifo(stdin).and_then(|()| make_fifo(output)),
        }
    }

    /// Makes a prepared container, whose process then waits for [`Host::start`].
    pub(crate) async fn create(&self, new: NewContainer<'_>) -> Result<Running, Fault> {
        let (folder, layers) = (self.folder(new.id), &self.settings.layers);
        let range = folder.range().ok_or_else(|| Fault::Refused("it has no range of users".to_owned()))?;
        let spec = spec(&Blueprint {
            container: new.container,
            group: new.app.to_string(),
            hostname: new.hostname,
            users: Users::of(new.container, range),
            folder: folder.path(),
            cgroup: self.cgroup(new.id),
            cgroups: self.cgroups,
            tty: new.tty,
            volumes: &self.volumes,
        })?;
        let task = NewTask {
            id: new.id,
            spec: &spec,
            rootfs: rootfs::mount_options(new.container, layers, &folder)?,
            uid: new.container.uid,
            stdio: new.stdio,
        };
        // The runtime makes the network namespace, which belongs to the container's users then. What is to run in it waits.
        let pid = self.containerd.create(task).await?;
        let netns = self.network.namespace(new.id);
        netns::keep(&netns, pid).await.map_err(Fault::on("keep the network namespace", &netns))?;
        let address = self.network.add(new.id, new.record.service_address()).await?;
        self.locate(new.id, Some(address)).await?;
        Ok(Running { pid, address, started: self.now(), begun: Some(Moment::now()) })
    }

    /// Lets the process of a created container run. Only then is it noted as running: if this role dies in between, its next
    /// life must not wait for a process that nobody ever started.
    pub(crate) async fn start(&self, id: &str, running: &Running) -> Result<(), Fault> {
        self.containerd.start(Process::first(id)).await?;
        self.folder(id).set_running(running)
    }

    /// Sends what a container writes into its file to the log of its app.
    pub(crate) fn follow(&self, id: &str, app: AppId, dyno: &DynoName) -> Result<Followed, Fault> {
        let folder = self.folder(id);
        let (output, offset) = (folder.output(), folder.offset());
        let ended = CancellationToken::new();
        let reader = self.watcher.follow(&output, logs::saved_offset(&offset), ended.clone());
        let reader = reader.map_err(Fault::on("follow", &output))?;
        let (log, clock) = (Arc::clone(&self.settings.log), Arc::clone(&self.settings.clock));
        let stream = Stream { log, clock, app, source: LogSource::app(dyno) };
        let log = tokio::spawn(async move { logs::forward(reader, &offset, stream).await });
        Ok(Followed { ended, log })
    }

    /// Waits until a container ended, through any absence of containerd. `None` status: it is gone and nobody saw how.
    pub(crate) async fn ended(&self, id: &str) -> Option<u32> {
        self.insist(id, || self.containerd.wait(Process::first(id))).await
    }

    /// Sends a signal, through any absence of containerd.
    pub(crate) async fn signal(&self, id: &str, signal: Signal) {
        self.insist(id, || self.containerd.kill(Process::first(id), signal)).await;
    }

    /// What the status of a container means that ran once. Must be asked before the container is removed, with which its counters go.
    pub(crate) fn exit(&self, id: &str, status: Option<u32>) -> Exit {
        exit(status, || self.cgroups.memory_kills(&self.cgroup(id)) > 0)
    }
}

/// Output on its way to the log.
pub(crate) struct Followed {
    ended: CancellationToken,
    log: JoinHandle<()>,
}

impl Followed {
    /// Hands on what is left, once nothing writes any more.
    pub(crate) async fn finish(self) {
        self.ended.cancel();
        // It fails only if it panicked, and then there is nothing more to take.
        let _ = self.log.await;
    }
}

/// What a status means, if the kernel's count of kills says that memory ended it.
pub(crate) fn exit(status: Option<u32>, was_out_of_memory: impl FnOnce() -> bool) -> Exit {
    let exit = plain_exit(status);
    let may_be = !exit.is_success() && exit != Exit::Lost;
    if may_be && was_out_of_memory() { Exit::OutOfMemory } else { exit }
}

/// What a status means that containerd gives, as far as it tells.
pub(crate) fn plain_exit(status: Option<u32>) -> Exit {
    match status.and_then(|status| i32::try_from(status).ok()) {
        None => Exit::Lost,
        // The shim and init processes report a signal as shells do.
        Some(status @ 129..=192) => Exit::Signal(status - 128),
        Some(status) => Exit::Code(status),
    }
}

pub(crate) fn make_fifo(path: &std::path::Path) -> Result<(), Fault> {
    let mode = nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR;
    nix::unistd::mkfifo(path, mode).map_err(|error| Fault::on("make", path)(error.into()))
}
