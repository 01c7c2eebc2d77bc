//! Files and ports of an instance that runs.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use model::Exit;

use super::{Subject, text};
use crate::{Archive, EngineError, Input, RunningOneOff};

fn archive(bytes: Bytes) -> Archive {
    stream::iter([Ok(bytes)]).boxed()
}

impl Subject {
    async fn copied(&self, instance: &str, path: &str) -> Result<Bytes, EngineError> {
        let archive = self.engine.files(instance, path).await?;
        let pieces: Vec<Bytes> = archive.try_collect().await.expect("the whole archive");
        Ok(pieces.concat().into())
    }
}

pub(super) async fn files_are_copied_out_of_and_into_an_instance(subject: Subject) {
    let (workload, id) = subject.server().await;
    let make = "mkdir -p /tmp/tree/deep && cd /tmp/tree && echo one > one && echo two > deep/two && chmod 750 deep one && \
        ln -s one link && ln -s /etc/passwd out && ln -s /proc/1/root magic && mkfifo fifo deep/fifo && \
        head -c 1048576 /dev/urandom > deep/big && echo made";
    assert_eq!(subject.inside(&id, make).await.0, "made\n");
    let tree = subject.copied(&id, "/tmp/tree").await.expect("it can be read");
    subject.engine.put_files(&id, "/tmp/copied", archive(tree.clone())).await.expect("under a new name");
    subject.engine.put_files(&id, "/tmp/copied", archive(tree)).await.expect("into what is there");
    let look = "cd /tmp/copied && cmp deep/big ../tree/deep/big && find . -path ./tree -prune -o -print | sort && \
        cat one deep/two link && readlink out && readlink magic && stat -c %a one deep && cat tree/deep/two";
    let expected = ".\n./deep\n./deep/big\n./deep/two\n./link\n./magic\n./one\n./out\none\ntwo\none\n/etc/passwd\n/proc/1/root\n\
        750\n750\ntwo\n";
    assert_eq!(subject.inside(&id, look).await, (expected.to_owned(), Exit::Code(0)), "files, folders and links");

    // A link leads where it leads inside, a path that climbs stays there, and one file is a file.
    let users = subject.copied(&id, "/tmp/../../../tmp/tree/out").await.expect("it can be read");
    subject.engine.put_files(&id, "/tmp/users", archive(users)).await.expect("written");
    assert_eq!(subject.inside(&id, "cmp /tmp/users /etc/passwd && id -u").await.1, Exit::Code(0));
    for (path, why) in [
        ("/tmp/tree/fifo", "neither a file nor a folder"),
        ("/dev/zero", "neither a file nor a folder"),
        ("/proc/1/status", "no file"),
        ("/tmp/tree/magic/etc/passwd", "cannot read"),
        ("/proc/1/cwd/etc/passwd", "cannot read"),
        ("/nowhere", "No such file"),
    ] {
        let refused = subject.copied(&id, path).await.expect_err("refused").to_string();
        assert!(refused.contains(why) && refused.contains(path), "{path}: {refused}");
    }
    let one = subject.copied(&id, "/tmp/tree/one").await.expect("it can be read");
    for path in ["/bin", "/etc/passwd", "/tmp/tree/magic/tmp", "/nowhere/at/all"] {
        let refused = subject.engine.put_files(&id, path, archive(one.clone())).await.expect_err("refused");
        assert!(refused.to_string().contains(path), "{refused}");
    }
    assert_eq!(subject.inside(&id, "find / -xdev -name .unfinished-copy").await.0, "", "nothing half done is left");
    subject.delete(&workload.id).await;
    assert!(matches!(subject.copied(&id, "/tmp").await, Err(EngineError::NotRunning(_))));
}

pub(super) async fn a_port_of_an_instance_is_reached_though_only_it_listens(subject: Subject) {
    let (workload, id) = subject.server().await;
    subject.inside(&id, "httpd -p 127.0.0.1:7000 -h /tmp/www").await;
    for port in [7000, 5000] {
        let RunningOneOff { input, output, exit } = subject.engine.connect(&id, port).await.expect("a connection");
        input.send(Input::Data(Bytes::from("GET / HTTP/1.0\r\n\r\n"))).await.expect("sent");
        assert!(text(output).await.ends_with("hello\n"), "{port}");
        assert_eq!(exit.await, Ok(Exit::Code(0)));
    }
    let refused = subject.engine.connect(&id, 7001).await.expect_err("nobody listens").to_string();
    assert!(refused.contains("7001") && refused.contains("refused"), "{refused}");
    subject.delete(&workload.id).await;
    assert!(matches!(subject.engine.connect(&id, 5000).await, Err(EngineError::NotRunning(_))));
}
