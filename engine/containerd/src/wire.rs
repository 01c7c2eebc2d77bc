//! What the role and its client say to each other over the role's socket: HTTP with JSON, and frames while a process runs.

use bytes::{BufMut, Bytes, BytesMut};
use engine::{EngineError, Input, TtySize, WorkloadId};
use model::Exit;
use serde::{Deserialize, Serialize};

/// The protocol that a connection is upgraded to while a process runs: frames with a length of 4 bytes before them, a tag as their first byte.
pub(crate) const UPGRADE: &str = "platform-oneoff";

const DATA: u8 = 0;
const EOF: u8 = 1;
const RESIZE: u8 = 2;
const EXIT: u8 = 3;

/// From the role to its client.
pub(crate) enum FromHost {
    Output(Bytes),
    Exit(Exit),
}

pub(crate) fn encode_input(input: &Input) -> Bytes {
    match input {
        Input::Data(bytes) => frame(DATA, bytes),
        Input::Eof => frame(EOF, &[]),
        Input::Resize(size) => frame(RESIZE, &json(size)),
    }
}

pub(crate) fn decode_input(frame: &mut BytesMut) -> Option<Input> {
    let (tag, body) = split(frame)?;
    match tag {
        DATA => Some(Input::Data(body)),
        EOF => Some(Input::Eof),
        RESIZE => serde_json::from_slice::<TtySize>(&body).ok().map(Input::Resize),
        _ => None,
    }
}

pub(crate) fn encode_output(bytes: &Bytes) -> Bytes {
    frame(DATA, bytes)
}

pub(crate) fn encode_exit(exit: Exit) -> Bytes {
    frame(EXIT, &json(&exit))
}

pub(crate) fn decode_output(frame: &mut BytesMut) -> Option<FromHost> {
    let (tag, body) = split(frame)?;
    match tag {
        DATA => Some(FromHost::Output(body)),
        EXIT => serde_json::from_slice(&body).ok().map(FromHost::Exit),
        _ => None,
    }
}

fn frame(tag: u8, body: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(1 + body.len());
    frame.put_u8(tag);
    frame.put_slice(body);
    frame.freeze()
}

fn split(frame: &mut BytesMut) -> Option<(u8, Bytes)> {
    let tag = *frame.first()?;
    Some((tag, frame.split_off(1).freeze()))
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // Two numbers or an enum: there is nothing in them that JSON cannot hold.
    serde_json::to_vec(value).unwrap_or_default()
}

/// An [`EngineError`] on its way.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WireError {
    Unreachable(String),
    Immutable(WorkloadId),
    Start { what: String, reason: String },
    NotRunning(String),
    Exhausted(String),
    Unsupported { what: String, needs: String },
    InUse { volume: String, user: String },
    Failed(String),
}

impl From<EngineError> for WireError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Unreachable { source, .. } => Self::Unreachable(source.to_string()),
            EngineError::Immutable(id) => Self::Immutable(id),
            EngineError::Start { what, reason } => Self::Start { what, reason },
            EngineError::NotRunning(id) => Self::NotRunning(id),
            EngineError::Exhausted(reason) => Self::Exhausted(reason),
            EngineError::Unsupported { what, needs } => Self::Unsupported { what, needs },
            EngineError::InUse { volume, user } => Self::InUse { volume, user },
            EngineError::Failed(reason) => Self::Failed(reason),
        }
    }
}

impl From<WireError> for EngineError {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Unreachable(reason) => Self::Unreachable { engine: "containerd", source: reason.into() },
            WireError::Immutable(id) => Self::Immutable(id),
            WireError::Start { what, reason } => Self::Start { what, reason },
            WireError::NotRunning(id) => Self::NotRunning(id),
            WireError::Exhausted(reason) => Self::Exhausted(reason),
            WireError::Unsupported { what, needs } => Self::Unsupported { what, needs },
            WireError::InUse { volume, user } => Self::InUse { volume, user },
            WireError::Failed(reason) => Self::Failed(reason),
        }
    }
}
