//! The protocol of the `platform` program: binary frames are bytes, text frames are JSON.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use engine::{Input, RunningOneOff, TtySize};
use futures::stream::{SplitSink, SplitStream};
use futures::{Sink, SinkExt, StreamExt};
use model::Exit;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::{Attachment, Gone, LOST};
use crate::Controller;

/// How often a silent client is told that its process still runs; one that is gone is noticed by that.
const PING: Duration = Duration::from_secs(30);
/// How long a client may take to hang up once it was told everything.
const FAREWELL: Duration = Duration::from_secs(10);

/// From an attached client.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FromClient {
    Resize(TtySize),
    Eof(#[expect(dead_code, reason = "always true")] bool),
}

/// To an attached client.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum ToClient<'a> {
    /// With the status that a shell would give.
    Exit(i32),
    /// There is no status: it did not start, or nobody saw how it ended.
    Error(&'a str),
}

impl From<axum::Error> for Gone {
    fn from(_: axum::Error) -> Self {
        Self
    }
}

/// Starts the one-off and joins it to the client.
pub(super) async fn serve(controller: Arc<Controller>, attachment: Attachment, socket: WebSocket) {
    let join = |running: Result<RunningOneOff, String>| async move {
        match running {
            Ok(running) => relay(socket, running).await,
            Err(refusal) => give_up(socket, &refusal).await,
        }
    };
    controller.attend(attachment, join).await;
}

async fn relay(socket: WebSocket, running: RunningOneOff) -> Result<(), Gone> {
    let (to_client, from_client) = socket.split();
    let RunningOneOff { input, output, exit } = running;
    // Each way by itself: a process that does not read yet must still be heard.
    let mut listening = pin!(listen(from_client, input));
    tokio::select! {
        result = show(output, exit, to_client) => result?,
        gone = &mut listening => return Err(gone),
    }
    // Whoever hangs up first loses what the other one is still sending, and what it answers is that the connection is broken: a
    // client that is about to send the end of its input might then not read the end of the output.
    let _ = timeout(FAREWELL, listening).await;
    Ok(())
}

async fn show(
    mut output: mpsc::Receiver<Bytes>,
    exit: oneshot::Receiver<Exit>,
    mut client: SplitSink<WebSocket, Message>,
) -> Result<(), Gone> {
    let mut alive = tokio::time::interval(PING);
    loop {
        let message = tokio::select! {
            bytes = output.recv() => match bytes {
                Some(bytes) => Message::Binary(bytes),
                None => break,
            },
            _ = alive.tick() => Message::Ping(Bytes::new()),
        };
        client.send(message).await?;
    }
    let end = match exit.await.unwrap_or(Exit::Lost) {
        Exit::Lost => ToClient::Error(LOST),
        exit => ToClient::Exit(exit.shell_status()),
    };
    say(&mut client, &end).await?;
    client.send(Message::Close(None)).await?;
    Ok(())
}

async fn say(client: &mut (impl Sink<Message, Error = axum::Error> + Unpin), what: &ToClient<'_>) -> Result<(), Gone> {
    let text = serde_json::to_string(what).map_err(|_| Gone)?;
    Ok(client.send(Message::text(text)).await?)
}

/// Passes on what the client sends, until it is gone.
async fn listen(mut client: SplitStream<WebSocket>, input: mpsc::Sender<Input>) -> Gone {
    let mut input = Some(input);
    while let Some(Ok(message)) = client.next().await {
        let what = match message {
            Message::Binary(bytes) => Input::Data(bytes),
            Message::Text(text) => match serde_json::from_str(&text) {
                Ok(FromClient::Resize(size)) => Input::Resize(size),
                Ok(FromClient::Eof(_)) => Input::Eof,
                Err(_) => continue,
            },
            Message::Close(_) => break,
            Message::Ping(_) | Message::Pong(_) => continue,
        };
        let is_end = what == Input::Eof;
        if let Some(sender) = &input {
            // A process that has ended takes no more input; its end is on the way.
            let _ = sender.send(what).await;
        }
        if is_end {
            input = None;
        }
    }
    Gone
}

async fn give_up(mut socket: WebSocket, refusal: &str) -> Result<(), Gone> {
    say(&mut socket, &ToClient::Error(refusal)).await?;
    socket.send(Message::Close(Some(CloseFrame { code: close_code::ERROR, reason: "not started".into() }))).await?;
    Ok(())
}
