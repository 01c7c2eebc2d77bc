//! Processes that run once, with somebody at the other end.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use model::Exit;

use super::{PATIENCE, Subject, bind, text};
use crate::{Input, OneOff, RunningOneOff, TtySize};

pub(super) async fn a_one_off_gives_its_output_and_exit_code(subject: Subject) {
    let (output, exit) = subject.output(subject.shell("echo err >&2; echo out; printf end; exit 7")).await;
    // The two streams may overtake each other, but neither overtakes itself.
    assert!(output == "err\nout\nend" || output == "out\nenderr\n", "{output:?}");
    assert_eq!(exit, Exit::Code(7));
    let (_, exit) = subject.output(subject.shell("sh -c 'kill -TERM $$'; exit $?")).await;
    assert_eq!(exit, Exit::Signal(15));
    let (output, _) = subject.output(subject.shell("seq 1 200000")).await;
    let expected = (1..=200_000).map(|number| number.to_string()).collect::<Vec<_>>().join("\n") + "\n";
    assert!(output == expected, "long output arrives whole and in order");

    let oneoff = Subject::oneoff(subject.shell("true"));
    let running = subject.run(&oneoff).await;
    assert_eq!(running.exit.await, Ok(Exit::Code(0)));
    subject.until_gone(&oneoff.id).await;
}

pub(super) async fn a_one_off_reads_its_input(subject: Subject) {
    let RunningOneOff { input, output, exit } = subject.run(&Subject::oneoff(subject.shell("cat; echo done"))).await;
    for piece in ["first ", "second\n"] {
        input.send(Input::Data(Bytes::from(piece))).await.expect("it takes input");
    }
    input.send(Input::Eof).await.expect("it takes the end");
    assert_eq!(text(output).await, "first second\ndone\n");
    assert_eq!(exit.await, Ok(Exit::Code(0)));

    let RunningOneOff { input, output, .. } = subject.run(&Subject::oneoff(subject.shell("wc -c"))).await;
    for _ in 0..64 {
        input.send(Input::Data(Bytes::from(vec![b'x'; 16 << 10]))).await.expect("it takes input");
    }
    drop(input);
    assert_eq!(text(output).await.trim(), (1 << 20).to_string(), "dropping the input ends it");
}

/// Like `pg_dump | pg_restore`: raw bytes both ways at once, more than the container has memory.
pub(super) async fn a_one_off_passes_bytes_on_as_they_are(subject: Subject) {
    const PIECES: u32 = 1024;
    const LENGTH: usize = 64 << 10;
    // Each piece knows its place, and holds every byte, also those that mean something to a terminal.
    let piece = |number: u32| -> Bytes {
        let bytes = (number..).flat_map(|word| word.wrapping_mul(0x9e37_79b1).to_ne_bytes());
        bytes.take(LENGTH).collect()
    };
    let mut container = subject.shell("cat");
    container.limits.memory_bytes = 32 << 20;
    let oneoff = OneOff { time_limit: 10 * PATIENCE, ..Subject::oneoff(container) };
    let RunningOneOff { input, mut output, exit } = subject.run(&oneoff).await;
    let sender = tokio::spawn(async move {
        for number in 0..PIECES {
            input.send(Input::Data(piece(number))).await.expect("it takes input");
        }
    });
    let (mut received, mut rest) = (0, BytesMut::new());
    while let Some(bytes) = output.recv().await {
        rest.extend_from_slice(&bytes);
        while rest.len() >= LENGTH {
            assert!(rest.split_to(LENGTH) == piece(received), "piece {received} arrives as it was sent");
            received += 1;
        }
    }
    sender.await.expect("all was sent");
    assert_eq!((received, rest.len()), (PIECES, 0));
    assert_eq!(exit.await, Ok(Exit::Code(0)));
}

pub(super) async fn a_one_off_has_a_terminal_that_can_be_resized(subject: Subject) {
    let tty = Some(TtySize { rows: 40, columns: 100 });
    let script = "stty size; tty; read line; echo \"got $line\"; stty size; cat; echo bye";
    let oneoff = OneOff { tty, ..Subject::oneoff(subject.shell(script)) };
    let RunningOneOff { input, mut output, exit } = subject.run(&oneoff).await;
    let mut seen = String::new();
    while !seen.contains("/dev/pts/") {
        let piece = output.recv().await.expect("more output");
        seen.push_str(&String::from_utf8_lossy(&piece));
    }
    assert!(seen.contains("40 100"), "{seen:?}");
    input.send(Input::Resize(TtySize { rows: 50, columns: 120 })).await.expect("it can be resized");
    input.send(Input::Data(Bytes::from("hello\n"))).await.expect("it takes input");
    input.send(Input::Eof).await.expect("it takes the end");
    seen.push_str(&text(output).await);
    assert!(seen.contains("got hello") && seen.contains("50 120") && seen.contains("bye"), "{seen:?}");
    assert_eq!(exit.await, Ok(Exit::Code(0)));
}

pub(super) async fn a_one_off_ends_at_its_time_limit(subject: Subject) {
    let oneoff = OneOff {
        time_limit: Duration::from_secs(3),
        ..Subject::oneoff(subject.shell("echo started; exec sleep 1000"))
    };
    let running = subject.run(&oneoff).await;
    assert_eq!(text(running.output).await, "started\n");
    assert_eq!(running.exit.await, Ok(Exit::Signal(9)));
    subject.until_gone(&oneoff.id).await;
}

pub(super) async fn a_one_off_is_killed_on_request(subject: Subject) {
    let oneoff = Subject::oneoff(subject.shell("trap '' TERM; while :; do sleep 0.1; done"));
    let running = subject.run(&oneoff).await;
    assert!(subject.engine.oneoffs().await.expect("the engine is in reach").contains(&oneoff.id));
    subject.engine.kill(&oneoff.id).await.expect("the kill is accepted");
    assert_eq!(running.exit.await, Ok(Exit::Signal(9)));
    assert!(!subject.engine.oneoffs().await.expect("the engine is in reach").contains(&oneoff.id));
    subject.engine.kill(&oneoff.id).await.expect("unknown one-offs are no error");
}

pub(super) async fn a_one_off_is_told_to_end_before_it_is_killed(subject: Subject) {
    let obliging = "trap 'echo asked; exit 3' TERM; echo started; while :; do sleep 0.1; done";
    let patient = OneOff { stop_grace: PATIENCE, ..Subject::oneoff(subject.shell(obliging)) };
    let mut running = subject.run(&patient).await;
    assert_eq!(running.output.recv().await.as_deref(), Some(b"started\n".as_slice()));
    subject.engine.stop(&patient.id).await.expect("it is told");
    assert_eq!(text(running.output).await, "asked\n");
    assert_eq!(running.exit.await, Ok(Exit::Code(3)));
    subject.until_gone(&patient.id).await;

    let id = Subject::oneoff(subject.shell("true")).id;
    let limited = OneOff { id, time_limit: Duration::from_secs(1), ..patient };
    let running = subject.run(&limited).await;
    assert_eq!(text(running.output).await, "started\nasked\n");
    assert_eq!(running.exit.await, Ok(Exit::Code(3)));

    let stubborn = subject.shell("trap '' TERM; echo started; while :; do sleep 0.1; done");
    let stubborn = OneOff { stop_grace: Duration::from_secs(1), ..Subject::oneoff(stubborn) };
    let mut running = subject.run(&stubborn).await;
    assert_eq!(running.output.recv().await.as_deref(), Some(b"started\n".as_slice()));
    subject.engine.stop(&stubborn.id).await.expect("it is told");
    assert_eq!(running.exit.await, Ok(Exit::Signal(9)));
    subject.until_gone(&stubborn.id).await;
    subject.engine.stop(&stubborn.id).await.expect("unknown one-offs are no error");
}

pub(super) async fn a_one_off_with_a_log_is_remembered_until_it_is_forgotten(subject: Subject) {
    let script = "read line; test -z \"$line\" && seq 1 100000 && echo finished > /scratch/finished; exit 5";
    let mut oneoff = OneOff { log: "run.4321".parse().ok(), ..Subject::oneoff(subject.shell(script)) };
    oneoff.container.mounts = vec![bind(&subject)];
    drop(subject.run(&oneoff).await);
    subject.until_gone(&oneoff.id).await;
    assert!(subject.scratch.join("finished").exists(), "it had no input, and ran to its end");
    let own = async || {
        let ended = subject.engine.ended().await.expect("the engine is in reach");
        ended.into_iter().find(|ended| ended.id == oneoff.id)
    };
    let ended = own().await.expect("it is remembered");
    assert_eq!((ended.app, ended.exit), (oneoff.app, Exit::Code(5)));
    subject.engine.forget(&oneoff.id).await.expect("forgotten");
    assert_eq!(own().await, None);
    subject.engine.forget(&oneoff.id).await.expect("forgetting again is no error");
}

pub(super) async fn a_one_off_whose_caller_hangs_up_runs_on(subject: Subject) {
    let script = "seq 1 200000; echo finished > /scratch/finished";
    let mut oneoff = Subject::oneoff(subject.shell(script));
    oneoff.container.mounts = vec![bind(&subject)];
    drop(subject.run(&oneoff).await);
    subject.until_gone(&oneoff.id).await;
    assert!(subject.scratch.join("finished").exists(), "it ran to its end");
}
