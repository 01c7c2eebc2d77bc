//! Heroku's protocol, behind the greeting that routers say: bytes, both ways, and the end of the connection is the end of the
//! process. Nothing tells the exit status or a new size of the terminal: the client makes its command print the one, and the
//! environment holds the other.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use engine::{Input, RunningOneOff};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use model::Exit;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Attachment, Gone, LOST};
use crate::Controller;

/// What the upgrade is called between router and controller.
pub(super) const UPGRADE: &str = "rendezvous";
/// What a client without a terminal says at the end of its input.
const END_OF_TRANSMISSION: u8 = 4;
/// So long after it nothing comes: it was no byte of the input, of which the next would follow at once.
const SILENCE: Duration = Duration::from_millis(200);
const CHUNK: usize = 16 * 1024;

type Client = TokioIo<Upgraded>;

/// Starts the one-off and joins it to the client.
pub(super) async fn serve(controller: Arc<Controller>, attachment: Attachment, upgrade: OnUpgrade) {
    let Ok(client) = upgrade.await.map(TokioIo::new) else { return };
    let has_tty = attachment.has_tty();
    let join = |running: Result<RunningOneOff, String>| async move {
        match running {
            Ok(running) => relay(client, running, has_tty).await,
            Err(refusal) => give_up(client, &refusal).await,
        }
    };
    controller.attend(attachment, join).await;
}

async fn relay(client: Client, running: RunningOneOff, has_tty: bool) -> Result<(), Gone> {
    let (from_client, mut to_client) = tokio::io::split(client);
    let RunningOneOff { input, mut output, exit } = running;
    let show = async {
        while let Some(bytes) = output.recv().await {
            to_client.write_all(&bytes).await.map_err(|_| Gone)?;
        }
        if exit.await.unwrap_or(Exit::Lost) == Exit::Lost {
            to_client.write_all(format!("{LOST}\r\n").as_bytes()).await.map_err(|_| Gone)?;
        }
        to_client.shutdown().await.map_err(|_| Gone)
    };
    // Each way by itself: a process that does not read yet must still be heard.
    tokio::select! {
        shown = show => shown,
        gone = listen(from_client, input, has_tty) => Err(gone),
    }
}

/// Passes on what the client sends, until it is gone.
async fn listen(mut client: ReadHalf<Client>, input: mpsc::Sender<Input>, has_tty: bool) -> Gone {
    let mut input = Some(input);
    let mut buffer = BytesMut::new();
    loop {
        let may_be_end = !has_tty && buffer.last() == Some(&END_OF_TRANSMISSION);
        buffer.reserve(CHUNK);
        let read = client.read_buf(&mut buffer);
        let read = if may_be_end { timeout(SILENCE, read).await } else { Ok(read.await) };
        match read {
            Err(_) => {
                let rest = buffer.split_to(buffer.len() - 1).freeze();
                buffer.clear();
                send(input.take().as_ref(), rest).await;
            }
            Ok(Ok(1..)) if !has_tty && buffer.last() == Some(&END_OF_TRANSMISSION) => {}
            Ok(Ok(1..)) => send(input.as_ref(), buffer.split().freeze()).await,
            Ok(_) => return Gone,
        }
    }
}

/// A process that has ended takes no more input; its end is on the way.
async fn send(input: Option<&mpsc::Sender<Input>>, bytes: Bytes) {
    if let Some(input) = input
        && !bytes.is_empty()
    {
        let _ = input.send(Input::Data(bytes)).await;
    }
}

async fn give_up(mut client: Client, refusal: &str) -> Result<(), Gone> {
    let said = async {
        client.write_all(format!("{refusal}\r\n").as_bytes()).await?;
        client.shutdown().await
    };
    said.await.map_err(|_| Gone)
}
