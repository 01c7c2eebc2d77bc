//! A process at the far end of a connection, as its caller sees it.

use engine::{Input, RunningOneOff};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio_util::codec::Framed;

use crate::api::codec;
use crate::wire::{FromHost, decode_output, encode_input};

const CHANNEL: usize = 64;

/// What a caller who listens no more means for the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hangup {
    LeavesIt,
    EndsIt,
}

/// Makes channels of a connection to the role that was upgraded for a process.
pub(crate) fn join(connection: impl AsyncRead + AsyncWrite + Send + 'static, hangup: Hangup) -> RunningOneOff {
    let (mut to_host, mut from_host) = Framed::new(connection, codec()).split();
    let (input, mut input_receiver) = mpsc::channel(CHANNEL);
    let (output_sender, output) = mpsc::channel(CHANNEL);
    let (exit_sender, exit) = oneshot::channel();
    let listener = output_sender.clone();
    let nobody = async move {
        match hangup {
            Hangup::EndsIt => listener.closed().await,
            Hangup::LeavesIt => std::future::pending().await,
        }
    };
    let sending = async move {
        while let Some(message) = input_receiver.recv().await {
            // The role hangs up once it has said how the process ended: input that is too late must not cut off what it said.
            if to_host.send(encode_input(&message)).await.is_err() {
                return std::future::pending().await;
            }
        }
        // The caller dropped its end. If this does not arrive, the connection is gone, which says the same.
        let _ = to_host.send(encode_input(&Input::Eof)).await;
        // Kept open: a closed connection would end the output too.
        std::future::pending::<()>().await;
    };
    let receiving = async move {
        while let Some(Ok(mut frame)) = from_host.next().await {
            match decode_output(&mut frame) {
                // A caller may stop listening and still wait for the end.
                Some(FromHost::Output(bytes)) => drop(output_sender.send(bytes).await),
                Some(FromHost::Exit(exit)) => {
                    let _ = exit_sender.send(exit);
                    return;
                }
                None => return,
            }
        }
    };
    tokio::spawn(async move {
        tokio::select! {
            () = receiving => {}
            () = sending => {}
            // The connection goes, and by that the role knows.
            () = nobody => {}
        }
    });
    RunningOneOff { input, output, exit }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use model::Exit;
    use tokio::net::UnixStream;

    use super::*;
    use crate::wire::{encode_exit, encode_output};

    #[tokio::test]
    async fn input_that_comes_too_late_costs_nothing_of_what_was_said() {
        // Which of the two ways is looked at first is left to chance: often enough for both.
        for _ in 0..50 {
            let (ours, theirs) = UnixStream::pair().expect("a connection");
            let mut role = Framed::new(theirs, codec());
            role.send(encode_output(&Bytes::from_static(b"hello"))).await.expect("said");
            role.send(encode_exit(Exit::Code(3))).await.expect("said");
            drop(role);
            let mut running = join(ours, Hangup::LeavesIt);
            for late in [Input::Data(Bytes::from_static(b"late")), Input::Eof] {
                running.input.try_send(late).expect("there is room");
            }
            assert_eq!(running.output.recv().await.as_deref(), Some(b"hello".as_slice()));
            assert_eq!(running.exit.await, Ok(Exit::Code(3)));
        }
    }
}
