//! What is wished, and told of it, whatever runs.

use std::time::Duration;

use futures::StreamExt;
use model::AppId;
use model::clock::SystemRandom;

use super::{PATIENCE, Subject};
use crate::{Change, EngineError, Health, InstanceState, Workload, WorkloadId};

/// Runs all checks that need no process to run for real: those of engines that run nothing, too.
pub async fn on_paper(subject: Subject) {
    scaling_changes_the_quantity_and_nothing_else(subject.clone()).await;
    what_is_done_around_instances_may_change(subject.clone()).await;
    what_cannot_be_done_is_refused_by_name(subject.clone()).await;
    an_app_is_seen_by_itself(subject.clone()).await;
    what_is_asked_for_is_counted(subject.clone()).await;
}

pub(super) async fn what_an_instance_uses_is_known(subject: Subject) {
    let mut busy = Workload {
        health: Health::uptime(Duration::from_millis(100)),
        ..Subject::workload(subject.shell("while :; do :; done"))
    };
    busy.container.limits.disk_bytes = Some(64 << 20);
    subject.apply(&busy).await;
    let up = subject.until_up(&busy.id, 1).await;
    let stat = async || {
        let all = subject.engine.stats(&[busy.app]).await.expect("reachable");
        all.into_iter().find(|stat| stat.instance == up[0].id).expect("it runs")
    };
    let first = stat().await;
    let limits = &busy.container.limits;
    assert_eq!((first.memory_limit, first.cpu_millis), (limits.memory_bytes, limits.cpu_millis));
    assert!((1..limits.memory_bytes).contains(&first.memory_bytes), "{first:?}");
    assert_eq!(first.workload, busy.id);
    assert!(first.disk_bytes < limits.disk_bytes && first.disk_bytes.is_some(), "{first:?}");
    let works = async {
        while stat().await.cpu < first.cpu + Duration::from_millis(200) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, works).await.expect("a busy loop uses its processor");
    assert!(subject.engine.stats(&[AppId::random(&SystemRandom)]).await.expect("reachable").is_empty());
    subject.delete(&busy.id).await;
}

pub(super) async fn scaling_changes_the_quantity_and_nothing_else(subject: Subject) {
    let workload = Subject::workload(subject.shell(super::SERVER));
    subject.apply(&workload).await;
    let first = subject.until_up(&workload.id, 1).await;
    subject.engine.scale(&workload.id, 2).await.expect("scaled");
    let two = subject.until_up(&workload.id, 2).await;
    assert_eq!(two[0].id, first[0].id, "the first instance was never touched");
    // It is still what it was applied as.
    subject.apply(&Workload { quantity: 2, ..workload.clone() }).await;
    subject.engine.scale(&workload.id, 1).await.expect("scaled");
    let left = subject.until_up(&workload.id, 1).await;
    assert_eq!(left[0].id, first[0].id);
    subject.delete(&workload.id).await;
    subject.engine.scale(&workload.id, 3).await.expect("what does not exist is no error");
    assert_eq!(subject.status(&workload.id).await, None, "and is not made by it");
}

pub(super) async fn what_is_done_around_instances_may_change(subject: Subject) {
    // It does not listen to SIGTERM, and with its first grace period this check would fail.
    let mut workload = Subject::workload(subject.shell(&format!("trap '' TERM; {}", super::SERVER)));
    workload.stop_grace = 10 * PATIENCE;
    subject.apply(&workload).await;
    let first = subject.until_up(&workload.id, 1).await;
    let mut changed = Workload { stop_grace: Duration::from_millis(200), drain: Duration::ZERO, ..workload.clone() };
    changed.health.boot = Duration::from_secs(7);
    changed.restart.at_once = 7;
    subject.apply(&changed).await;
    assert_eq!(subject.until_up(&workload.id, 1).await[0].id, first[0].id, "no instance was touched");
    let other = Workload { health: Health { port: Some(1), ..workload.health.clone() }, ..workload.clone() };
    let refused = subject.engine.apply(other).await.expect_err("another port is another workload");
    assert!(matches!(refused, EngineError::Immutable(_)), "{refused}");
    subject.delete(&workload.id).await;
}

pub(super) async fn what_cannot_be_done_is_refused_by_name(subject: Subject) {
    let mut workload = Subject::workload(subject.shell(super::SERVER));
    workload.idle = Some(Duration::from_secs(1));
    workload.container.limits.disk_bytes = Some(1 << 20);
    match subject.engine.apply(workload.clone()).await {
        Ok(()) => subject.delete(&workload.id).await,
        Err(EngineError::Unsupported { what, needs }) => {
            assert_eq!(what, workload.id.0);
            assert!(needs.contains("sleep when idle") || needs.contains("disk space"), "{needs}");
            assert_eq!(subject.status(&workload.id).await, None, "nothing is left of it");
        }
        Err(other) => panic!("{other}"),
    }
    let nameless = Workload { id: WorkloadId("../etc".to_owned()), ..Subject::workload(subject.shell("true")) };
    subject.engine.apply(nameless).await.expect_err("no id");
}

pub(super) async fn what_is_asked_for_is_counted(subject: Subject) {
    // Other checks ask for something at the same time, but for nothing that is dedicated.
    let before = subject.engine.capacity().await.expect("the engine is in reach");
    assert!(before.memory > 0 && before.disk > 0 && before.containers > 0, "{before:?}");
    assert_eq!(before.demand.dedicated_memory, 0);
    let mut workload = Subject::workload(subject.shell(super::SERVER));
    workload.container.limits.dedicated = true;
    workload.container.limits.memory_bytes = 100 << 20;
    workload.quantity = 2;
    let dedicated = async || subject.engine.capacity().await.expect("in reach").demand.dedicated_memory >> 20;
    subject.apply(&workload).await;
    assert_eq!(dedicated().await, 200, "from the moment that it is wished");
    subject.engine.scale(&workload.id, 1).await.expect("scaled");
    assert_eq!(dedicated().await, 100);
    let mut oneoff = Subject::oneoff(subject.shell("sleep 1000"));
    oneoff.container.limits = workload.container.limits.clone();
    drop(subject.run(&oneoff).await);
    assert_eq!(dedicated().await, 200);
    subject.engine.kill(&oneoff.id).await.expect("killed");
    subject.until_gone(&oneoff.id).await;
    assert_eq!(dedicated().await, 100);
    subject.delete(&workload.id).await;
    assert_eq!(dedicated().await, 0);
}

pub(super) async fn an_app_is_seen_by_itself(subject: Subject) {
    let [mine, other] = [(); 2].map(|()| Subject::workload(subject.shell(super::SERVER)));
    let mut changes = subject.engine.changes().await.expect("the engine is in reach");
    subject.apply(&mine).await;
    subject.apply(&other).await;
    for app in [mine.app, other.app] {
        let told = async {
            loop {
                // Others may be told of before.
                let change = changes.next().await.expect("the engine is in reach");
                if change == Change::App(app) || change == Change::All {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, told).await.expect("a word of a new workload");
    }
    subject.until_up(&mine.id, 1).await;
    subject.until_up(&other.id, 1).await;
    let ids = async |apps: &[AppId]| -> Vec<String> {
        let list = subject.engine.list_of(apps).await.expect("the engine is in reach");
        assert!(list.iter().all(|status| status.instances.len() == 1), "{list:?}");
        list.into_iter().map(|status| status.id.0).collect()
    };
    assert_eq!(ids(&[mine.app]).await, [mine.id.to_string()]);
    assert_eq!(ids(&[other.app, other.app]).await, [other.id.to_string()], "once, however often it is asked for");
    assert_eq!(ids(&[mine.app, other.app]).await.len(), 2);
    assert!(ids(&[AppId::random(&SystemRandom)]).await.is_empty() && ids(&[]).await.is_empty());
    let all = subject.engine.list().await.expect("the engine is in reach");
    let part = subject.engine.list_of(&[mine.app]).await.expect("the engine is in reach");
    assert!(part.iter().all(|status| all.contains(status)), "{part:?}");
    subject.delete(&mine.id).await;
    assert!(ids(&[mine.app]).await.is_empty());
    subject.delete(&other.id).await;
}

pub(super) async fn the_longest_process_type_runs(subject: Subject) {
    let mut workload = Subject::workload(subject.shell(super::SERVER));
    let longest = format!("{}--{}", "a".repeat(30), "b".repeat(31));
    workload.process_type = longest.parse().expect("a process type");
    workload.id = WorkloadId(format!("{}.v{}.{longest}.performance-l-ram", workload.app, u64::MAX));
    subject.apply(&workload).await;
    let up = subject.until_up(&workload.id, 1).await;
    assert_eq!((up[0].dyno.to_string(), up[0].state), (format!("{longest}.1"), InstanceState::Up));
    subject.delete(&workload.id).await;
}
