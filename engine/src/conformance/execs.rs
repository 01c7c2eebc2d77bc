//! Processes that are started in an instance that runs.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use model::Exit;

use super::{PATIENCE, SERVER, Subject, bind, text};
use crate::{EngineError, Exec, Input, RunningOneOff, TtySize, Workload};

impl Subject {
    /// An instance that serves a page, by its workload and its id.
    pub(super) async fn server(&self) -> (Workload, String) {
        let mut workload = Self::workload(self.shell(SERVER));
        workload.container.mounts = vec![bind(self)];
        self.apply(&workload).await;
        let id = self.until_up(&workload.id, 1).await[0].id.clone();
        (workload, id)
    }

    async fn exec(&self, instance: &str, exec: Exec) -> RunningOneOff {
        self.engine.exec(instance, exec).await.expect("the process starts")
    }

    /// Runs a script in an instance to its end, without input.
    pub(super) async fn inside(&self, instance: &str, script: &str) -> (String, Exit) {
        let RunningOneOff { input, output, exit } = self.exec(instance, shell(script)).await;
        drop(input);
        let output = text(output).await;
        (output, exit.await.expect("an exit"))
    }
}

fn shell(script: &str) -> Exec {
    Exec {
        args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        env: BTreeMap::from([("EXTRA".to_owned(), "more".to_owned())]),
        tty: None,
        time_limit: PATIENCE,
    }
}

pub(super) async fn a_process_in_an_instance_is_where_the_instance_is(subject: Subject) {
    let (workload, id) = subject.server().await;
    let script = "echo $DYNO $PORT $EXTRA; id -u; wget -q -O - 127.0.0.1:5000; exit 7";
    let (output, exit) = subject.inside(&id, script).await;
    let uid = subject.container.uid;
    assert_eq!((output, exit), (format!("web.1 5000 more\n{uid}\nhello\n"), Exit::Code(7)));
    let status = "grep -E '^(NoNewPrivs|CapEff|CapBnd|CapPrm|Seccomp):' /proc/$$/status | tr -d ' \\t'; \
        unshare -n true 2>/dev/null || echo no-namespaces";
    let (output, _) = subject.inside(&id, status).await;
    let zero = "0000000000000000";
    let expected = format!("CapPrm:{zero}\nCapEff:{zero}\nCapBnd:{zero}\nNoNewPrivs:1\nSeccomp:2\nno-namespaces\n");
    assert_eq!(output, expected);
    let missing = Exec { args: vec!["/bin/there-is-no-such-program".to_owned()], ..shell("") };
    let refused = subject.engine.exec(&id, missing).await.expect_err("it cannot start");
    assert!(refused.to_string().contains("there-is-no-such-program"), "{refused}");
    let (output, exit) = subject.inside(&id, "sleep 1000 & echo left behind").await;
    assert_eq!((output.as_str(), exit), ("left behind\n", Exit::Code(0)), "what it leaves behind keeps nobody waiting");
    subject.delete(&workload.id).await;
    for unknown in [id.as_str(), "nosuchinstance", "../oneoffs"] {
        let refused = subject.engine.exec(unknown, shell("true")).await.expect_err("nothing runs there");
        assert!(matches!(&refused, EngineError::NotRunning(id) if id == unknown), "{refused}");
    }
}

pub(super) async fn a_process_in_an_instance_takes_and_gives_bytes(subject: Subject) {
    const LENGTH: usize = 1 << 20;
    let (workload, id) = subject.server().await;
    let sent: Bytes =
        (0..u32::MAX).flat_map(|word| word.wrapping_mul(0x9e37_79b1).to_ne_bytes()).take(LENGTH).collect();
    let RunningOneOff { input, mut output, exit } = subject.exec(&id, shell("cat")).await;
    let sending = tokio::spawn({
        let sent = sent.clone();
        async move { input.send(Input::Data(sent)).await }
    });
    let mut received = Vec::new();
    while let Some(bytes) = output.recv().await {
        received.extend_from_slice(&bytes);
    }
    sending.await.expect("no panic").expect("it takes input");
    assert!(received == sent, "{} bytes came back", received.len());
    assert_eq!(exit.await, Ok(Exit::Code(0)));

    let tty = Some(TtySize { rows: 40, columns: 100 });
    let exec = Exec { tty, ..shell("stty size; tty; read line; echo \"got $line\"; stty size; cat; echo bye") };
    let RunningOneOff { input, mut output, exit } = subject.exec(&id, exec).await;
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
    subject.delete(&workload.id).await;
}

pub(super) async fn a_process_in_an_instance_ends_at_the_latest_with_it(subject: Subject) {
    let (workload, id) = subject.server().await;
    let limited = Exec { time_limit: Duration::from_secs(1), ..shell("echo started; exec sleep 1001") };
    let running = subject.exec(&id, limited).await;
    assert_eq!(text(running.output).await, "started\n");
    assert_eq!(running.exit.await, Ok(Exit::Signal(1)), "its time limit");

    let RunningOneOff { input: _input, mut output, .. } =
        subject.exec(&id, shell("echo started; exec sleep 1002")).await;
    assert_eq!(output.recv().await.as_deref(), Some(b"started\n".as_slice()));
    drop(output);
    let gone = "while grep -q 100[12] /proc/[0-9]*/cmdline 2>/dev/null; do sleep 0.05; done; echo gone";
    assert_eq!(subject.inside(&id, gone).await.0, "gone\n", "nobody listens any more");

    let stubborn = "trap '' HUP TERM; echo started; while :; do sleep 0.1; done";
    let RunningOneOff { input: _input, mut output, exit } = subject.exec(&id, shell(stubborn)).await;
    assert_eq!(output.recv().await.as_deref(), Some(b"started\n".as_slice()));
    subject.delete(&workload.id).await;
    assert_eq!(output.recv().await, None);
    let exit = exit.await.expect("an exit");
    assert!(matches!(exit, Exit::Signal(9) | Exit::Lost), "{exit:?}");
}
