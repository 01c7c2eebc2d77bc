//! Input and output of a process through FIFOs, so that it waits for whoever reads, and whoever writes waits for it. When nobody
//! reads any more, the output is thrown away: nobody can block a build by leaving.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use engine::Input;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::containerd::{Process, Stdio};
use crate::error::Fault;
use crate::host::Host;

/// What a terminal sends for Ctrl-D.
const END_OF_TRANSMISSION: &[u8] = &[4];
/// Messages that wait for a process, or for its caller.
pub(crate) const CHANNEL: usize = 64;
/// How long an ended process's output is waited for that does not end: something that it left behind holds it open.
const SILENCE: Duration = Duration::from_secs(1);

/// Both FIFOs of a process that is being made.
pub(crate) struct Pipes {
    output: PathBuf,
    to_process: pipe::Sender,
    held_open: pipe::Receiver,
}

impl Pipes {
    /// Makes them, and opens them before the shim does. Opened for both ways, a FIFO neither waits for the shim nor ends with it;
    /// the shim does wait for us.
    pub(crate) fn open(stdio: &Stdio) -> Result<Self, Fault> {
        let Stdio::Pipes { stdin, output, .. } = stdio else {
            return Err(Fault::Refused("a process that somebody talks to has pipes".to_owned()));
        };
        let both_ways = || {
            let mut options = pipe::OpenOptions::new();
            options.read_write(true);
            options
        };
        let to_process = both_ways().open_sender(stdin).map_err(Fault::on("open", stdin))?;
        let held_open = both_ways().open_receiver(output).map_err(Fault::on("open", output))?;
        Ok(Self { output: output.clone(), to_process, held_open })
    }

    /// Our ends of them, once the shim has its own. It closes that of the output once it passed everything on: so ours ends with
    /// the output.
    pub(crate) fn joined(self) -> Result<(pipe::Sender, pipe::Receiver), Fault> {
        let from_process = pipe::OpenOptions::new().open_receiver(&self.output);
        let from_process = from_process.map_err(Fault::on("open", &self.output))?;
        drop(self.held_open);
        Ok((self.to_process, from_process))
    }
}

/// Hands on what a process writes. When nobody listens any more it still reads, so that the process need not wait. Once the process
/// `ended` it hands on what is left.
pub(crate) async fn pump(mut output: pipe::Receiver, sender: mpsc::Sender<Bytes>, ended: CancellationToken) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = if ended.is_cancelled() {
            timeout(SILENCE, output.read(&mut buffer)).await.unwrap_or(Ok(0))
        } else {
            tokio::select! {
                read = output.read(&mut buffer) => read,
                () = ended.cancelled() => continue,
            }
        };
        let Ok(length @ 1..) = read else { return };
        let _ = sender.send(Bytes::copy_from_slice(&buffer[..length])).await;
    }
}

/// Whom input is for.
pub(crate) struct Reader {
    pub(crate) host: Arc<Host>,
    pub(crate) container: String,
    /// Empty for the container's first process.
    pub(crate) exec: String,
    pub(crate) has_tty: bool,
}

/// Passes a caller's input on to the process until either ends.
pub(crate) async fn feed(
    reader: Reader,
    mut stdin: pipe::Sender,
    mut input: mpsc::Receiver<Input>,
    ended: CancellationToken,
) {
    let Reader { host, container, exec, has_tty } = &reader;
    let process = Process { container, exec };
    let fed = async {
        while let Some(input) = input.recv().await {
            match input {
                Input::Data(bytes) => stdin.write_all(&bytes).await?,
                Input::Resize(size) => {
                    if let Err(fault) = host.containerd.resize(process, size).await {
                        tracing::debug!(container.id = %container, error = %fault, "a terminal kept its size");
                    }
                }
                Input::Eof => break,
            }
        }
        if *has_tty {
            stdin.write_all(END_OF_TRANSMISSION).await?;
            // The terminal stays open for as long as its process lives.
            std::future::pending::<()>().await;
        }
        drop(stdin);
        host.insist(container, || host.containerd.close_stdin(process)).await;
        Ok::<(), io::Error>(())
    };
    tokio::select! {
        result = fed => if let Err(error) = result {
            tracing::debug!(container.id = %container, error = %error, "a process takes no more input");
        },
        () = ended.cancelled() => {}
    }
}
