//! The protocol of the `platform` program: binary frames are bytes, text frames are JSON.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use engine::{EngineError, Input, RunningOneOff, TtySize};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use model::Exit;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::{Attachment, Gone};
use crate::Controller;
use crate::errors::chain;

/// How often a silent client is told that its process still runs; one that is gone is noticed by that.
const PING: Duration = Duration::from_secs(30);

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
enum ToClient {
    Exit(i32),
}

impl From<axum::Error> for Gone {
    fn from(_: axum::Error) -> Self {
        Self
    }
}

/// Starts the one-off and joins it to the client.
pub(super) async fn serve(controller: Arc<Controller>, attachment: Attachment, socket: WebSocket) {
    let join = |running: Result<RunningOneOff, EngineError>| async move {
        match running {
            Ok(running) => relay(socket, running).await,
            Err(error) => give_up(socket, &chain(&error)).await,
        }
    };
    controller.attend(attachment, join).await;
}

async fn relay(socket: WebSocket, running: RunningOneOff) -> Result<(), Gone> {
    let (to_client, from_client) = socket.split();
    let RunningOneOff { input, output, exit } = running;
    // Each way by itself: a process that does not read yet must still be heard.
    tokio::select! {
        result = show(output, exit, to_client) => result,
        gone = listen(from_client, input) => Err(gone),
    }
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
    let status = exit.await.unwrap_or(Exit::Lost).shell_status();
    let text = serde_json::to_string(&ToClient::Exit(status)).map_err(|_| Gone)?;
    client.send(Message::text(text)).await?;
    client.send(Message::Close(None)).await?;
    Ok(())
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

async fn give_up(mut socket: WebSocket, reason: &str) -> Result<(), Gone> {
    // A close frame holds at most 123 bytes of text (RFC 6455, section 5.5).
    let cut = (0..=reason.len().min(123)).rev().find(|end| reason.is_char_boundary(*end)).unwrap_or(0);
    let frame = CloseFrame { code: 1011, reason: reason[..cut].into() };
    socket.send(Message::Close(Some(frame))).await?;
    Ok(())
}
