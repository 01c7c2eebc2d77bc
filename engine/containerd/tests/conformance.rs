use std::sync::Arc;

use engine::conformance::CHECKS;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::machine::Machine;

/// How many checks run at once: enough to fill the waiting times.
const AT_ONCE: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn containerd_is_an_engine() {
    let machine = Machine::boot().await;
    let only = std::env::var("CHECK").ok();
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut checks = JoinSet::new();
    for (name, check) in CHECKS.iter().filter(|(name, _)| only.as_deref().is_none_or(|only| name.contains(only))) {
        let subject = machine.subject(name);
        let turns = Arc::clone(&turns);
        checks.spawn(async move {
            let _turn = turns.acquire_owned().await;
            tokio::spawn(check(subject)).await.map_err(|panic| format!("{name}: {panic}"))
        });
    }
    let mut failed = Vec::new();
    while let Some(done) = checks.join_next().await {
        failed.extend(done.expect("a check's result").err());
    }
    assert!(failed.is_empty(), "{failed:#?}");
    machine.until("nothing is left", async || machine.leftovers().is_empty()).await;
}
