//! What happens after a crash.

use std::time::Duration;

use model::Exit;

use super::{PATIENCE, SOON, Subject};
use crate::{Health, Instance, InstanceState, Restart, Workload};

pub(super) async fn a_crash_is_restarted_after_growing_pauses(subject: Subject) {
    let workload = Subject::workload(subject.shell("exit 3"));
    subject.apply(&workload).await;
    let mut pauses = Vec::new();
    let mut lives = Vec::new();
    let mut count = 0;
    // The first pause is short: a slow machine may see the second crash before the first.
    while pauses.len() < 3 {
        let crashed =
            |instance: &Instance| instance.crashes > count && matches!(instance.state, InstanceState::Crashed { .. });
        let seen = subject.until(&workload.id, "another crash", |all| all.iter().any(crashed)).await;
        let InstanceState::Crashed { retry_at } = seen[0].state else { unreachable!("it was just seen crashed") };
        assert_eq!(seen[0].last_exit, Some(Exit::Code(3)));
        count = seen[0].crashes;
        pauses.push(retry_at.since(seen[0].since));
        lives.push(seen[0].id.clone());
    }
    assert!(pauses[0] < pauses[1] && pauses[1] < pauses[2], "{pauses:?} grow");
    lives.dedup();
    assert_eq!(lives.len(), 3, "every life has its own id");
    subject.delete(&workload.id).await;
}

pub(super) async fn what_outgrows_its_memory_is_told_from_what_ends_otherwise(subject: Subject) {
    let hog = "x=0123456789abcdef; while :; do x=$x$x; done";
    let with = |name: &str, script: String| {
        let mut workload =
            Workload { process_type: name.parse().expect("a name"), ..Subject::workload(subject.shell(&script)) };
        workload.container.limits.memory_bytes = 32 << 20;
        workload.health = Health::uptime(Duration::from_millis(100));
        workload.restart = Restart { at_once: 0, first: PATIENCE, ..SOON };
        workload
    };
    let whole = with("whole", hog.to_owned());
    // Long after its child was killed, it ends for another reason.
    let child = with("child", format!("({hog}); sleep 12; exit 5"));
    let crashed = |all: &[Instance]| all.iter().any(|one| matches!(one.state, InstanceState::Crashed { .. }));
    for workload in [&whole, &child] {
        subject.apply(workload).await;
    }
    let seen = subject.until(&whole.id, "a crash", crashed).await;
    assert_eq!((seen[0].last_exit, seen[0].oom_limit), (Some(Exit::OutOfMemory), Some(32 << 20)), "{seen:?}");
    let seen = subject.until(&child.id, "a crash", crashed).await;
    assert_eq!((seen[0].last_exit, seen[0].oom_limit), (Some(Exit::Code(5)), None), "{seen:?}");
    for workload in [&whole, &child] {
        subject.delete(&workload.id).await;
    }
}

pub(super) async fn who_forks_and_exits_is_over(subject: Subject) {
    let workload = Workload {
        health: Health::uptime(Duration::from_millis(100)),
        restart: Restart { at_once: 0, first: PATIENCE, ..SOON },
        ..Subject::workload(subject.shell("sleep 1000 & exit 0"))
    };
    subject.apply(&workload).await;
    let crashed = |all: &[Instance]| all.iter().any(|one| matches!(one.state, InstanceState::Crashed { .. }));
    let seen = subject.until(&workload.id, "a crash", crashed).await;
    assert_eq!(seen[0].last_exit, Some(Exit::Code(0)), "what it left behind does not count");
    subject.delete(&workload.id).await;
}

pub(super) async fn one_crash_too_many_is_the_last(subject: Subject) {
    let restart = Restart { at_once: 2, first: Duration::from_millis(100), give_up: Some(3), ..SOON };
    let workload = Workload { restart, ..Subject::workload(subject.shell("exit 3")) };
    subject.apply(&workload).await;
    let gave_up = |instance: &Instance| instance.state == InstanceState::GaveUp;
    let seen = subject.until(&workload.id, "the end of its restarts", |all| all.iter().any(gave_up)).await;
    assert_eq!((seen.len(), seen[0].crashes, seen[0].restarts), (1, 4, 3), "{seen:?}");
    assert_eq!(seen[0].last_exit, Some(Exit::Code(3)));
    // Whoever mended what it needs starts it again.
    subject.engine.restart(&seen[0].id).await.expect("the restart is accepted");
    let again = |instance: &Instance| gave_up(instance) && instance.id != seen[0].id;
    let seen = subject.until(&workload.id, "the end of its new restarts", |all| all.iter().any(again)).await;
    assert_eq!((seen.len(), seen[0].crashes), (1, 4), "it was given as many again: {seen:?}");
    subject.delete(&workload.id).await;
}
