//! containerd through its gRPC API: containers and their tasks, nothing else of it.

mod processes;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use containerd_client::services::v1::container::Runtime;
use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::version_client::VersionClient;
use containerd_client::services::v1::{
    Container, CreateContainerRequest, CreateTaskRequest, DeleteContainerRequest, DeleteTaskRequest,
    ListContainersRequest,
};
use prost_types::Any;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

pub(crate) use self::processes::Process;
use crate::error::{Fault, HostError};
use crate::files::names;
use crate::settings::HostSettings;

/// Specs travel with the list of containers, environment and all.
const LONGEST_ANSWER: usize = 256 << 20;
/// A removal that takes longer hangs in a shim; it is begun anew. Far longer than any should take: containerd loses track of
/// what it was doing when its caller goes.
const REMOVAL_LIMIT: Duration = Duration::from_secs(60);
const SHIM: &str = "io.containerd.runc.v2";

/// What containerd says when a new shim is gone before it was asked anything. A shim that ends may take the socket with it of one that
/// begins under the same name: a build's containers have one.
const SHIM_GONE: &str = "failed to start shim: start failed";
/// How often such a container is begun anew.
const SHIM_RETRIES: u32 = 5;
/// The pause before that, in which the old shim ends.
const SHIM_PAUSE: Duration = Duration::from_millis(100);

/// Options of the shim `io.containerd.runc.v2` (containerd, `runc/options/oci.proto`): those that we set.
#[derive(Clone, PartialEq, prost::Message)]
struct ShimOptions {
    #[prost(uint32, tag = "4")]
    io_uid: u32,
    #[prost(uint32, tag = "5")]
    io_gid: u32,
    #[prost(string, tag = "6")]
    binary_name: String,
    #[prost(string, tag = "7")]
    root: String,
}

/// A connection that comes back by itself when containerd does.
pub(crate) struct Containerd {
    socket: PathBuf,
    namespace: AsciiMetadataValue,
    runtime: String,
    /// Where the runtime keeps its own state.
    runtime_root: PathBuf,
    channel: OnceCell<Channel>,
}

/// A container to create, not started yet.
pub(crate) struct NewTask<'a> {
    pub(crate) id: &'a str,
    pub(crate) spec: &'a oci_spec::runtime::Spec,
    /// Mount options of the overlay that is the root file system.
    pub(crate) rootfs: Vec<String>,
    /// Owner of the pipes, so that the process may open `/dev/stdout` again.
    pub(crate) uid: u32,
    pub(crate) stdio: Stdio,
}

/// Where a container's input comes from and its output goes to.
pub(crate) enum Stdio {
    /// No input; standard output and error are appended to a file, which the shim writes, so that nobody else must live.
    File { output: PathBuf },
    /// FIFOs for input and for both outputs: the process waits for whoever reads.
    Pipes { stdin: PathBuf, output: PathBuf, terminal: bool },
}

impl Containerd {
    pub(crate) fn new(settings: &HostSettings) -> Result<Self, HostError> {
        let name = &settings.namespace;
        let refused = |_| HostError::Network(format!("{name:?} is no name for a namespace"));
        Ok(Self {
            socket: settings.containerd_socket.clone(),
            namespace: name.parse().map_err(refused)?,
            runtime: settings.runtime.clone(),
            runtime_root: settings.run_dir.join("runc"),
            channel: OnceCell::new(),
        })
    }

    /// Creates a container and its task, and returns the pid that waits to become the process.
    pub(crate) async fn create(&self, new: NewTask<'_>) -> Result<u32, Fault> {
        let spec = serde_json::to_vec(new.spec)
            .map_err(|error| Fault::Refused(format!("the container cannot be described: {error}")))?;
        let options = ShimOptions {
            io_uid: new.uid,
            io_gid: new.uid,
            binary_name: self.runtime.clone(),
            root: self.runtime_root.display().to_string(),
        };
        let options =
            Any { type_url: "containerd.runc.v1.Options".to_owned(), value: prost::Message::encode_to_vec(&options) };
        let container = Container {
            id: new.id.to_owned(),
            runtime: Some(Runtime { name: SHIM.to_owned(), options: Some(options.clone()) }),
            spec: Some(Any {
                type_url: "types.containerd.io/opencontainers/runtime-spec/1/Spec".to_owned(),
                value: spec,
            }),
            ..Container::default()
        };
        let request = CreateContainerRequest { container: Some(container) };
        self.containers()
            .await?
            .create(self.request(request))
            .await
            .map_err(|status| fault("create a container", &status))?;

        let rootfs = containerd_client::types::Mount {
            r#type: "overlay".to_owned(),
            source: "overlay".to_owned(),
            options: new.rootfs,
            ..containerd_client::types::Mount::default()
        };
        let mut request = CreateTaskRequest {
            container_id: new.id.to_owned(),
            rootfs: vec![rootfs],
            options: Some(options),
            ..CreateTaskRequest::default()
        };
        match new.stdio {
            Stdio::File { output } => {
                // Plain paths of a file that exists, and two names for it: of a `file://` URI, or of one name for both, the
                // shim of containerd 1.6 makes one handle and closes it with the first stream that ends, and what is
                // still written to the other is lost.
                request.stdout = output.display().to_string();
                request.stderr = same_file(&output).display().to_string();
            }
            Stdio::Pipes { stdin, output, terminal } => {
                request.terminal = terminal;
                request.stdin = stdin.display().to_string();
                request.stdout = output.display().to_string();
                if !terminal {
                    request.stderr = output.display().to_string();
                }
            }
        }
        let mut again = SHIM_RETRIES;
        loop {
            match self.tasks().await?.create(self.request(request.clone())).await {
                Err(status) if again > 0 && status.message().contains(SHIM_GONE) => {
                    again -= 1;
                    tokio::time::sleep(SHIM_PAUSE).await;
                }
                created => return Ok(created.map_err(|status| fault("create a task", &status))?.into_inner().pid),
            }
        }
    }

    /// Ends whatever the container still does and removes it, its mounts and its cgroup. All its output is written then.
    /// A container that is gone is no error.
    pub(crate) async fn remove(&self, id: &str) -> Result<(), Fault> {
        let removed = timeout(REMOVAL_LIMIT, self.remove_patiently(id)).await;
        removed.unwrap_or_else(|elapsed| Err(Fault::Unreachable(Box::new(elapsed))))
    }

    async fn remove_patiently(&self, id: &str) -> Result<(), Fault> {
        let request = || DeleteTaskRequest { container_id: id.to_owned() };
        let first = self.tasks().await?.delete(self.request(request())).await;
        // What still runs cannot be deleted; containerd has no code for that.
        let is_refused = |status: &Status| status.code() != Code::NotFound && !is_broken(status);
        if first.as_ref().is_err_and(is_refused) {
            let process = Process::first(id);
            self.kill(process, nix::sys::signal::Signal::SIGKILL).await?;
            self.wait(process).await?;
            gone_is_fine(self.tasks().await?.delete(self.request(request())).await, "delete a task")?;
        } else {
            gone_is_fine(first, "delete a task")?;
        }
        let request = DeleteContainerRequest { id: id.to_owned() };
        gone_is_fine(self.containers().await?.delete(self.request(request)).await, "delete a container")
    }

    /// Makes the runtime itself remove a container that containerd has lost: when the connection breaks while containerd
    /// starts or deletes a task, containerd forgets the task and may leave its process.
    pub(crate) async fn remove_lost(&self, id: &str) -> Result<(), Fault> {
        let root = self.runtime_dir();
        if !root.join(id).exists() {
            return Ok(());
        }
        let mut runtime = tokio::process::Command::new(&self.runtime);
        runtime.arg("--root").arg(&root).args(["delete", "--force", id]);
        let output = runtime.stdin(std::process::Stdio::null()).output().await;
        let output = output.map_err(Fault::on("run", Path::new(&self.runtime)))?;
        if output.status.success() {
            return Ok(());
        }
        let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(Fault::Refused(format!("the runtime cannot delete a container: {reason}")))
    }

    /// Ids of all containers that the runtime itself knows.
    pub(crate) fn runtime_ids(&self) -> Vec<String> {
        names(&self.runtime_dir())
    }

    fn runtime_dir(&self) -> PathBuf {
        self.runtime_root.join(self.namespace.to_str().unwrap_or_default())
    }

    /// Whether containerd answers.
    pub(crate) async fn ping(&self) -> Result<(), Fault> {
        let mut version = VersionClient::new(self.channel().await?);
        version.version(()).await.map_err(|status| fault("tell its version", &status))?;
        Ok(())
    }

    /// Ids of all containers of our namespace.
    pub(crate) async fn ids(&self) -> Result<Vec<String>, Fault> {
        let request = self.request(ListContainersRequest::default());
        let answer =
            self.containers().await?.list(request).await.map_err(|status| fault("list containers", &status))?;
        Ok(answer.into_inner().containers.into_iter().map(|container| container.id).collect())
    }

    async fn tasks(&self) -> Result<TasksClient<Channel>, Fault> {
        Ok(TasksClient::new(self.channel().await?))
    }

    async fn containers(&self) -> Result<ContainersClient<Channel>, Fault> {
        Ok(ContainersClient::new(self.channel().await?).max_decoding_message_size(LONGEST_ANSWER))
    }

    async fn channel(&self) -> Result<Channel, Fault> {
        let connect = || containerd_client::connect(&self.socket);
        self.channel.get_or_try_init(connect).await.cloned().map_err(|error| Fault::Unreachable(Box::new(error)))
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("containerd-namespace", self.namespace.clone());
        request
    }
}

/// Another path of the same file.
fn same_file(path: &Path) -> PathBuf {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => PathBuf::from(format!("{}/./{}", parent.display(), name.display())),
        _ => path.to_owned(),
    }
}

fn gone_is_fine<T>(result: Result<T, Status>, action: &'static str) -> Result<(), Fault> {
    match result {
        Err(status) if status.code() != Code::NotFound => Err(fault(action, &status)),
        _ => Ok(()),
    }
}

fn fault(action: &'static str, status: &Status) -> Fault {
    if is_broken(status) {
        Fault::Unreachable(Box::new(status.clone()))
    } else {
        Fault::Containerd { action, reason: status.message().to_owned() }
    }
}

/// Whether the connection broke: a status that was made on this side has a source, one from containerd has none.
fn is_broken(status: &Status) -> bool {
    status.source().is_some() || status.code() == Code::Unavailable
}
