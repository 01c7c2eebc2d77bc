//! Connections to a port inside an instance, also to one that only the instance itself reaches.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use engine::{EngineError, Input, RunningOneOff};
use model::Exit;
use nix::sched::{CloneFlags, setns};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

use crate::host::Host;
use crate::pipes::CHANNEL;

/// How long a process that is slow to accept is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connects to a port of an instance from within its network.
pub(crate) async fn connect(host: &Host, instance: &str, port: u16) -> Result<RunningOneOff, EngineError> {
    let within = host.within(instance)?;
    let namespace = host.network.namespace(instance);
    let mut places = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))];
    places.push(SocketAddr::from((within.address, port)));
    let (sender, receiver) = tokio::sync::oneshot::channel();
    // A thread that changed its namespace must never serve anything else: it ends with its one task. The connection stays where it
    // was made.
    let thread = std::thread::Builder::new().name("forward".to_owned());
    let spawned = thread.spawn(move || sender.send(connect_there(&namespace, &places)));
    let failed = |error: io::Error| EngineError::Failed(format!("nothing answers on port {port} inside: {error}"));
    spawned.map_err(failed)?;
    let stream = receiver.await.unwrap_or_else(|_| Err(io::Error::other("the thread died"))).map_err(failed)?;
    tokio::net::TcpStream::from_std(stream).map(join).map_err(failed)
}

/// Makes channels of a connection.
fn join(stream: tokio::net::TcpStream) -> RunningOneOff {
    let (mut from_inside, mut to_inside) = stream.into_split();
    let (input, mut input_receiver) = mpsc::channel(CHANNEL);
    let (output_sender, output) = mpsc::channel(CHANNEL);
    let (exit_sender, exit) = oneshot::channel();
    tokio::spawn(async move {
        while let Some(Input::Data(bytes)) = input_receiver.recv().await {
            if to_inside.write_all(&bytes).await.is_err() {
                return;
            }
        }
        // It may be closed already.
        let _ = to_inside.shutdown().await;
    });
    tokio::spawn(async move {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = tokio::select! {
                read = from_inside.read(&mut buffer) => read,
                () = output_sender.closed() => break,
            };
            let Ok(length @ 1..) = read else { break };
            let _ = output_sender.send(Bytes::copy_from_slice(&buffer[..length])).await;
        }
        drop(output_sender);
        let _ = exit_sender.send(Exit::Code(0));
    });
    RunningOneOff { input, output, exit }
}

fn connect_there(namespace: &Path, places: &[SocketAddr]) -> io::Result<TcpStream> {
    setns(File::open(namespace)?, CloneFlags::CLONE_NEWNET)?;
    let mut last = io::Error::from(io::ErrorKind::ConnectionRefused);
    for place in places {
        match TcpStream::connect_timeout(place, PATIENCE) {
            Ok(stream) => {
                stream.set_nonblocking(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
