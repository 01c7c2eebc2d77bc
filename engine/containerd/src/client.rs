use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use engine::{
    Archive, Capacity, Change, Ended, Engine, EngineError, Exec, Link, OneOff, OneOffId, RunningOneOff, Stat,
    VolumeStatus, Workload, WorkloadId, WorkloadStatus, check_volume_name,
};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use model::{AppId, Egress};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio_util::codec::{FramedRead, LinesCodec};
use tokio_util::io::StreamReader;

use crate::remote::{self, Hangup};
use crate::wire::{UPGRADE, WireError};

/// Apps that are asked for together; their ids are part of a URL.
const AT_ONCE: usize = 500;
/// Far more bytes than a line about a change has.
const LONGEST_CHANGE: usize = 4096;

/// The engine as the controller sees it: everything is asked of the host role over its socket.
#[derive(Debug, Clone)]
pub struct HostClient {
    socket: PathBuf,
}

impl HostClient {
    /// A client of the role that listens, or will listen, on `socket`.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Stops every instance and one-off of this machine, gracefully, and returns once nothing of them is left: no process, mount,
    /// namespace or firewall rule. What is desired stays so, and starts again with the next life of the host role; until then
    /// nothing does. Takes as long as the slowest instance's grace period, and for ever while containerd is away.
    pub async fn stop_all(&self) -> Result<(), EngineError> {
        self.send(request(Method::POST, "/stop", Vec::new())?).await.map(drop)
    }

    async fn send<B>(&self, request: Request<B>) -> Result<Response<Incoming>, EngineError>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static,
    {
        let stream = UnixStream::connect(&self.socket).await.map_err(unreachable)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(unreachable)?;
        // It ends with the answer, or with the streams that the answer turns into.
        tokio::spawn(connection.with_upgrades());
        let response = sender.send_request(request).await.map_err(unreachable)?;
        if response.status().is_success() || response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        let body = response.into_body().collect().await.map_err(unreachable)?.to_bytes();
        let error = serde_json::from_slice::<WireError>(&body).map(EngineError::from);
        Err(error.unwrap_or_else(|_| EngineError::Failed(String::from_utf8_lossy(&body).into_owned())))
    }

    /// Asks for something that turns the connection into the streams of a process.
    async fn upgrade(&self, path: &str, body: Vec<u8>) -> Result<TokioIo<Upgraded>, EngineError> {
        let mut request = request(Method::POST, path, body)?;
        request.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("upgrade"));
        request.headers_mut().insert(header::UPGRADE, header::HeaderValue::from_static(UPGRADE));
        let response = self.send(request).await?;
        hyper::upgrade::on(response).await.map(TokioIo::new).map_err(unreachable)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, EngineError> {
        let body = self.send(request(Method::GET, path, Vec::new())?).await?.into_body();
        let body = body.collect().await.map_err(unreachable)?.to_bytes();
        serde_json::from_slice(&body).map_err(failed)
    }
}

fn request(method: Method, path: &str, body: Vec<u8>) -> Result<Request<Full<Bytes>>, EngineError> {
    let request = Request::builder().method(method).uri(path).header(header::HOST, "host");
    let request = request.header(header::CONTENT_TYPE, "application/json");
    request.body(Full::new(Bytes::from(body))).map_err(failed)
}

/// Where the files of an instance are.
fn files_path(instance: &str, path: &str) -> Result<String, EngineError> {
    let path = utf8_percent_encode(path, NON_ALPHANUMERIC);
    Ok(format!("/instances/{}/files?path={path}", segment(instance)?))
}

/// The id of an instance as part of a path. What cannot be one runs nowhere.
fn segment(instance: &str) -> Result<&str, EngineError> {
    let is_id = !instance.is_empty() && instance.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_id { Ok(instance) } else { Err(EngineError::NotRunning(instance.to_owned())) }
}

fn unreachable(source: impl std::error::Error + Send + Sync + 'static) -> EngineError {
    EngineError::Unreachable { engine: "the host role", source: Box::new(source) }
}

fn failed(error: impl std::fmt::Display) -> EngineError {
    EngineError::Failed(error.to_string())
}

#[async_trait]
impl Engine for HostClient {
    async fn apply(&self, workload: Workload) -> Result<(), EngineError> {
        let body = serde_json::to_vec(&workload).map_err(failed)?;
        self.send(request(Method::PUT, "/workloads", body)?).await.map(drop)
    }

    async fn scale(&self, workload: &WorkloadId, quantity: u32) -> Result<(), EngineError> {
        let body = serde_json::to_vec(&quantity).map_err(failed)?;
        self.send(request(Method::PUT, &format!("/workloads/{workload}/quantity"), body)?).await.map(drop)
    }

    async fn set_idle(&self, workload: &WorkloadId, idle: Option<Duration>) -> Result<(), EngineError> {
        let body = serde_json::to_vec(&idle).map_err(failed)?;
        self.send(request(Method::PUT, &format!("/workloads/{workload}/idle"), body)?).await.map(drop)
    }

    async fn delete(&self, workload: &WorkloadId) -> Result<(), EngineError> {
        self.send(request(Method::DELETE, &format!("/workloads/{workload}"), Vec::new())?).await.map(drop)
    }

    async fn list(&self) -> Result<Vec<WorkloadStatus>, EngineError> {
        self.get("/workloads").await
    }

    async fn list_of(&self, apps: &[AppId]) -> Result<Vec<WorkloadStatus>, EngineError> {
        let mut all = Vec::new();
        let apps: Vec<String> = apps.iter().collect::<BTreeSet<_>>().into_iter().map(AppId::to_string).collect();
        for apps in apps.chunks(AT_ONCE) {
            all.extend(self.get::<Vec<WorkloadStatus>>(&format!("/workloads?apps={}", apps.join(","))).await?);
        }
        Ok(all)
    }

    async fn stats(&self, apps: &[AppId]) -> Result<Vec<Stat>, EngineError> {
        let mut all = Vec::new();
        for apps in apps.chunks(AT_ONCE) {
            let apps: Vec<String> = apps.iter().map(AppId::to_string).collect();
            all.extend(self.get::<Vec<Stat>>(&format!("/stats?apps={}", apps.join(","))).await?);
        }
        Ok(all)
    }

    async fn changes(&self) -> Result<BoxStream<'static, Change>, EngineError> {
        let response = self.send(request(Method::GET, "/changes", Vec::new())?).await?;
        let bytes = response.into_body().into_data_stream().map_err(std::io::Error::other);
        let lines = FramedRead::new(StreamReader::new(bytes), LinesCodec::new_with_max_length(LONGEST_CHANGE));
        let lines = lines.take_while(|line| futures::future::ready(line.is_ok()));
        // What cannot be understood may be anything.
        let change = |line: String| serde_json::from_str(&line).unwrap_or(Change::All);
        Ok(lines.map(move |line| line.map_or(Change::All, change)).boxed())
    }

    async fn restart(&self, instance: &str) -> Result<(), EngineError> {
        self.send(request(Method::POST, &format!("/instances/{instance}/restart"), Vec::new())?).await.map(drop)
    }

    async fn run(&self, oneoff: OneOff) -> Result<RunningOneOff, EngineError> {
        let connection = self.upgrade("/oneoffs", serde_json::to_vec(&oneoff).map_err(failed)?).await?;
        Ok(remote::join(connection, Hangup::LeavesIt))
    }

    async fn exec(&self, instance: &str, exec: Exec) -> Result<RunningOneOff, EngineError> {
        let path = format!("/instances/{}/exec", segment(instance)?);
        let connection = self.upgrade(&path, serde_json::to_vec(&exec).map_err(failed)?).await?;
        Ok(remote::join(connection, Hangup::EndsIt))
    }

    async fn stop(&self, oneoff: &OneOffId) -> Result<(), EngineError> {
        self.send(request(Method::POST, &format!("/oneoffs/{oneoff}/stop"), Vec::new())?).await.map(drop)
    }

    async fn ended(&self) -> Result<Vec<Ended>, EngineError> {
        self.get("/ended").await
    }

    async fn forget(&self, oneoff: &OneOffId) -> Result<(), EngineError> {
        self.send(request(Method::DELETE, &format!("/ended/{oneoff}"), Vec::new())?).await.map(drop)
    }

    async fn connect(&self, instance: &str, port: u16) -> Result<RunningOneOff, EngineError> {
        let path = format!("/instances/{}/ports/{port}", segment(instance)?);
        Ok(remote::join(self.upgrade(&path, Vec::new()).await?, Hangup::EndsIt))
    }

    async fn files(&self, instance: &str, path: &str) -> Result<Archive, EngineError> {
        let response = self.send(request(Method::GET, &files_path(instance, path)?, Vec::new())?).await?;
        Ok(response.into_body().into_data_stream().map_err(std::io::Error::other).boxed())
    }

    async fn put_files(&self, instance: &str, path: &str, archive: Archive) -> Result<(), EngineError> {
        let body = StreamBody::new(archive.map_ok(Frame::data));
        let request = Request::builder().method(Method::PUT).uri(files_path(instance, path)?);
        let request = request.header(header::HOST, "host").body(body).map_err(failed)?;
        self.send(request).await.map(drop)
    }

    async fn kill(&self, oneoff: &OneOffId) -> Result<(), EngineError> {
        self.send(request(Method::DELETE, &format!("/oneoffs/{oneoff}"), Vec::new())?).await.map(drop)
    }

    async fn oneoffs(&self) -> Result<Vec<OneOffId>, EngineError> {
        self.get("/oneoffs").await
    }

    async fn set_egress(&self, app: AppId, policy: Option<Egress>) -> Result<(), EngineError> {
        let body = serde_json::to_vec(&policy).map_err(failed)?;
        self.send(request(Method::PUT, &format!("/egress/{app}"), body)?).await.map(drop)
    }

    async fn egress(&self) -> Result<BTreeMap<AppId, Egress>, EngineError> {
        self.get("/egress").await
    }

    async fn capacity(&self) -> Result<Capacity, EngineError> {
        self.get("/capacity").await
    }

    async fn make_volume(&self, name: &str, bytes: u64) -> Result<(), EngineError> {
        check_volume_name(name)?;
        let body = serde_json::to_vec(&bytes).map_err(failed)?;
        self.send(request(Method::PUT, &format!("/volumes/{name}"), body)?).await.map(drop)
    }

    async fn volumes(&self) -> Result<Vec<VolumeStatus>, EngineError> {
        self.get("/volumes").await
    }

    async fn copy_volume(&self, from: &str, to: &str) -> Result<(), EngineError> {
        check_volume_name(from).and(check_volume_name(to))?;
        let body = serde_json::to_vec(from).map_err(failed)?;
        self.send(request(Method::POST, &format!("/volumes/{to}/copy"), body)?).await.map(drop)
    }

    async fn volume_files(&self, name: &str) -> Result<Archive, EngineError> {
        check_volume_name(name)?;
        let response = self.send(request(Method::GET, &format!("/volumes/{name}/files"), Vec::new())?).await?;
        Ok(response.into_body().into_data_stream().map_err(std::io::Error::other).boxed())
    }

    async fn set_links(&self, links: BTreeSet<Link>) -> Result<(), EngineError> {
        let body = serde_json::to_vec(&links).map_err(failed)?;
        self.send(request(Method::PUT, "/links", body)?).await.map(drop)
    }

    async fn links(&self) -> Result<BTreeSet<Link>, EngineError> {
        self.get("/links").await
    }

    async fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        // Before it becomes a part of a path.
        check_volume_name(name)?;
        self.send(request(Method::DELETE, &format!("/volumes/{name}"), Vec::new())?).await.map(drop)
    }
}
