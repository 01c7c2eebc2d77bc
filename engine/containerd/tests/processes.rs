//! Processes beside those of workloads, and what a killed host role makes of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use engine::{Container, Engine, Exec, Mount, OneOff, OneOffId};
use futures::StreamExt;
use model::clock::SystemRandom;
use model::{AppId, Exit};

use crate::faults::{delete_all, up, web};
use crate::machine::{Machine, container};

fn shell(script: &str) -> Exec {
    let args = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    Exec { args, env: BTreeMap::new(), tty: None, time_limit: Duration::from_secs(1000) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_in_an_instance_goes_with_the_host_role_that_started_it() {
    let mut machine = Machine::boot().await;
    machine.client().apply(web(1)).await.expect("applied");
    machine.until("an instance", async || up(&machine).await.len() == 1).await;
    let (id, _) = up(&machine).await.remove(0);
    let mut running = machine.client().exec(&id, shell("echo started; exec sleep 4242")).await.expect("started");
    assert_eq!(running.output.recv().await.as_deref(), Some(b"started\n".as_slice()));
    machine.kill_host();
    assert_eq!(running.output.recv().await, None);
    assert!(running.exit.await.is_err(), "nobody says how it ended");
    machine.start_host();
    machine.until_answering().await;
    let is_gone = async || {
        let look = shell("grep -q 424[2] /proc/[0-9]*/cmdline 2>/dev/null");
        let looked = machine.client().exec(&id, look).await.expect("started");
        looked.exit.await.expect("an exit") == Exit::Code(1)
    };
    machine.until("the process is gone", is_gone).await;
    assert_eq!(up(&machine).await[0].0, id, "and the instance is the same");
    delete_all(&machine).await;
}

/// A one-off that logs a line for each number up to a thousand, and ends with 5.
fn counting(scratch: &std::path::Path) -> OneOff {
    let script = "i=0; while [ $i -lt 1000 ]; do i=$((i+1)); echo line $i; \
        case $i in *00) touch /scratch/$i; while ! test -e /scratch/go; do sleep 0.02; done;; esac; done; exit 5";
    let args = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    let env = [("PATH".to_owned(), "/bin".to_owned())].into();
    let mount = Mount::Bind { source: scratch.to_owned(), target: "/scratch".into(), read_only: false };
    OneOff {
        id: OneOffId("run-durable".to_owned()),
        app: AppId::random(&SystemRandom),
        container: Container { args, env, mounts: vec![mount], ..container() },
        tty: None,
        time_limit: Duration::from_secs(1000),
        stop_grace: Duration::from_secs(1),
        is_build: false,
        log: "run.4321".parse().ok(),
    }
}

async fn end_of(machine: &Machine, id: &OneOffId) -> Exit {
    machine.until("it has ended", async || machine.client().ended().await.is_ok_and(|all| !all.is_empty())).await;
    let ended = machine.client().ended().await.expect("the list");
    assert_eq!((ended.len(), &ended[0].id), (1, id));
    machine.until("it is gone", async || machine.client().oneoffs().await.is_ok_and(|all| all.is_empty())).await;
    machine.client().forget(id).await.expect("forgotten");
    assert_eq!(machine.client().ended().await.expect("the list"), []);
    ended[0].exit
}

/// The lines that came, in the order in which they came first: the last few before a host role was killed come twice if it had no
/// moment left to note that they were handed on.
fn numbers(machine: &Machine) -> Vec<u32> {
    let log = machine.log();
    let numbers = log.lines().filter_map(|line| line.strip_prefix("app[run.4321]: line ")?.parse().ok());
    let mut seen = BTreeSet::new();
    numbers.filter(|number| seen.insert(*number)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_one_off_with_a_log_outlives_host_and_containerd() {
    let mut machine = Machine::boot().await;
    let scratch = machine.subject("scratch").scratch;
    let oneoff = counting(&scratch);
    drop(machine.client().run(oneoff.clone()).await.expect("started"));
    machine.until("it runs", async || scratch.join("100").exists()).await;
    machine.kill_host();
    machine.kill_containerd();
    machine.start_containerd();
    machine.start_host();
    machine.until_answering().await;
    assert_eq!(machine.client().oneoffs().await.expect("the list"), std::slice::from_ref(&oneoff.id));
    machine.until("its lines are there", async || numbers(&machine).len() == 100).await;
    assert!(machine.client().run(oneoff.clone()).await.is_err(), "it runs once");

    machine.kill_host();
    std::fs::write(scratch.join("go"), "").expect("written");
    machine.until("it said everything", async || scratch.join("1000").exists()).await;
    machine.start_host();
    machine.until_answering().await;
    assert_eq!(end_of(&machine, &oneoff.id).await, Exit::Code(5));
    assert_eq!(numbers(&machine), (1..=1000).collect::<Vec<_>>(), "no line is missing");
    assert!(machine.log().contains("heroku[run.4321]: Process exited with code 5"), "{}", machine.log());
    machine.until("nothing is left", async || machine.leftovers().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_ends_a_one_off_with_a_log_and_that_is_told() {
    let mut machine = Machine::boot().await;
    let scratch = machine.subject("scratch").scratch;
    let oneoff = counting(&scratch);
    drop(machine.client().run(oneoff.clone()).await.expect("started"));
    machine.until("it runs", async || scratch.join("100").exists()).await;
    machine.kill_host();
    machine.power_cut();
    machine.start_containerd();
    machine.start_host();
    machine.until_answering().await;
    assert_eq!(end_of(&machine, &oneoff.id).await, Exit::Lost);
    assert_eq!(numbers(&machine), (1..=100).collect::<Vec<_>>(), "what it said is not lost with it");
    machine.until("nothing is left", async || machine.leftovers().is_empty()).await;
}

/// An archive of entries that no honest program writes: name, kind, and what a link leads to or a file holds.
fn archive(entries: &[(&str, tar::EntryType, &str)]) -> engine::Archive {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, kind, text) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o7777);
        let is_file = *kind == tar::EntryType::Regular;
        if !is_file {
            header.as_old_mut().linkname[..text.len()].copy_from_slice(text.as_bytes());
        }
        let content = if is_file { text.as_bytes() } else { b"" };
        header.set_size(content.len() as u64);
        header.set_cksum();
        archive.append(&header, content).expect("in memory");
    }
    futures::stream::iter([Ok(archive.into_inner().expect("in memory").into())]).boxed()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_cannot_leave_the_folder_that_it_is_for() {
    use tar::EntryType::{Block, Char, Directory, Fifo, Link, Regular, Symlink};
    let machine = Machine::boot().await;
    machine.client().apply(web(1)).await.expect("applied");
    machine.until("an instance", async || up(&machine).await.len() == 1).await;
    let (id, _) = up(&machine).await.remove(0);
    let client = machine.client();
    let inside = async |script: &str| {
        let mut running = client.exec(&id, shell(script)).await.expect("started");
        let mut said = Vec::new();
        while let Some(bytes) = running.output.recv().await {
            said.extend_from_slice(&bytes);
        }
        String::from_utf8(said).expect("text")
    };
    inside("mkdir /tmp/in /tmp/out; mkfifo /tmp/in/pipe").await;
    let marker = machine.path().join("scratch/marker");
    for hostile in [
        &[("../out/evil", Regular, "x")][..],
        &[("/tmp/out/evil", Regular, "x")],
        &[("a/../../out/evil", Regular, "x")],
        &[("link", Symlink, "/tmp/out"), ("link/evil", Regular, "x")],
        &[("deep/link", Symlink, "../../out"), ("deep/link/evil", Directory, "")],
        &[("hard", Link, "/etc/passwd")],
        &[("null", Char, "")],
        &[("disk", Block, "")],
        &[("fifo", Fifo, "")],
    ] {
        let refused = client.put_files(&id, "/tmp/in", archive(hostile)).await.expect_err("refused").to_string();
        assert!(refused.contains("/tmp/in"), "{hostile:?}: {refused}");
    }
    assert_eq!(
        inside("ls -A /tmp/out; find /tmp/in -type b -o -type c; find /tmp/in -name .unfinished-copy").await,
        ""
    );
    assert!(!marker.exists());

    // What lies in the way is replaced and not written through, and no bit makes a program another user's.
    inside("ln -s /tmp/out/evil /tmp/in/way").await;
    let honest = [("way", Regular, "mine"), ("pipe", Regular, "mine")];
    client.put_files(&id, "/tmp/in", archive(&honest)).await.expect("written");
    let look = "ls -A /tmp/out; cat /tmp/in/way /tmp/in/pipe; stat -c ' %a %u' /tmp/in/way";
    assert_eq!(inside(look).await, format!("minemine 777 {}\n", container().uid));
    delete_all(&machine).await;
}
