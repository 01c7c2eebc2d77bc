//! What happens after a crash.

use std::time::Duration;

use model::Exit;

use super::{SOON, Subject};
use crate::{Instance, InstanceState, Restart, Workload};

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
