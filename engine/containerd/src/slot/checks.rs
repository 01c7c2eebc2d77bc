//! Looking at one life: until it is up, then for as long as it lasts.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use engine::{Check, Health, Look, ProbeReport, Purpose};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep};

use super::{Life, Slot};
use crate::health::{Patient, Vitals, command};

/// The first pause between two looks at something that somebody waits for; each later one is longer by half. A command costs far more
/// than a connection.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const FIRST_PAUSE_OF_COMMANDS: Duration = Duration::from_millis(250);
/// No regular check is made more often, whatever is asked for.
const SHORTEST_WAIT: Duration = Duration::from_millis(50);
/// How often what is asked for is looked at: it may change while an instance runs.
const ASKED_AGAIN: Duration = Duration::from_secs(2);
/// How often people are told what fails in a start that takes long.
const TOLD_AGAIN: Duration = Duration::from_secs(5);

/// Why an instance that is wanted must end.
pub(super) struct Unfit {
    pub(super) purpose: Purpose,
    /// For the app's log.
    pub(super) words: String,
}

impl Life {
    /// What its checks saw last that failed.
    pub(super) fn report(&self) -> Option<ProbeReport> {
        self.failure.report(self.running.pid, self.age())
    }

    fn patient(&self, health: &Health) -> Patient {
        Patient::new((self.running.pid, self.running.address), health)
    }
}

impl Slot {
    /// Brings a life up and watches over it. The answer is why it must end.
    pub(super) async fn examine(&self, life: &Life) -> Unfit {
        let vitals = Vitals { pid: life.running.pid, cgroup: self.host.cgroup(&life.id), cgroups: self.host.cgroups };
        let checks = async {
            if let Err(unfit) = self.start_up(life).await {
                return unfit;
            }
            self.up(life);
            self.keep_watch(life).await
        };
        tokio::select! {
            unfit = checks => unfit,
            what = vitals.lost(|| self.look_at_memory(life)) => {
                life.failure.set("host", Purpose::Liveness, what.to_owned());
                Unfit { purpose: Purpose::Liveness, words: format!("Cannot go on: {what}") }
            }
        }
    }

    /// Until all startup checks passed, unless an earlier life of this role saw that.
    async fn start_up(&self, life: &Life) -> Result<(), Unfit> {
        if self.host.folder(&life.id).is_healthy() {
            return Ok(());
        }
        let wish = self.wished();
        let health = &wish.workload.health;
        let uptime = |check: &Check| if let Look::Uptime(settle) = check.look { settle } else { Duration::ZERO };
        let settle: Duration = health.startup.iter().map(uptime).max().unwrap_or_default();
        let boot = health.boot.saturating_add(settle);
        let deadline = Instant::now() + boot.saturating_sub(life.age());
        let patient = life.patient(health);
        for check in &health.startup {
            sleep(check.delay.max(uptime(check)).saturating_sub(life.age())).await;
            if self.passes_in_time(life, &patient, check, deadline).await {
                life.failure.passed(&check.name);
                continue;
            }
            let (limit, kind) = (boot.as_secs(), &wish.workload.process_type);
            let words = if check.look == Look::Listening {
                format!(
                    "Error R10 (Boot timeout) -> {kind} process failed to bind to $PORT within {limit} seconds of launch"
                )
            } else {
                format!("Error R10 (Boot timeout) -> startup check {:?} failed: {}", check.name, life.failure.words())
            };
            return Err(Unfit { purpose: Purpose::Startup, words });
        }
        Ok(())
    }

    /// Looks until a startup check passes (true), or failed for as long as its attempts take, or the deadline is there.
    async fn passes_in_time(&self, life: &Life, patient: &Patient, check: &Check, deadline: Instant) -> bool {
        let attempts = check.wait.checked_mul(check.attempts.saturating_sub(1));
        let begun = Instant::now();
        let given_up = attempts.and_then(|attempts| begun.checked_add(attempts)).unwrap_or(deadline).min(deadline);
        let (mut pause, mut told) = (first_pause(&check.look), begun);
        loop {
            let limit = check.timeout.min(deadline.saturating_duration_since(Instant::now()));
            let seen = match &check.look {
                Look::Command(args) => command::attempt(&self.host, &life.id, args, limit).await,
                look => patient.attempt(look, limit).await,
            };
            let Err(result) = seen else { return true };
            life.failure.set(&check.name, Purpose::Startup, result);
            let now = Instant::now();
            if now >= given_up {
                return false;
            }
            if now.duration_since(told) >= TOLD_AGAIN {
                told = now;
                self.tell(life);
            }
            sleep(pause.min(given_up.duration_since(now))).await;
            // What could be seen in no time would say nothing.
            if Instant::now() >= deadline {
                return false;
            }
            pause = (pause * 3 / 2).min(check.wait).max(FIRST_PAUSE);
        }
    }

    /// Checks readiness and liveness for as long as the instance is fit to live, by what is asked for at the time.
    async fn keep_watch(&self, life: &Life) -> Unfit {
        loop {
            let wish = self.wished();
            let health = &wish.workload.health;
            let patient = life.patient(health);
            let was_ready = self.host.folder(&life.id).is_ready();
            let unready: BTreeSet<usize> =
                if was_ready { BTreeSet::new() } else { (0..health.readiness.len()).collect() };
            if unready.is_empty() {
                self.set_ready(life, true);
            }
            let unready = Mutex::new(unready);
            let mut checks: FuturesUnordered<BoxFuture<'_, Option<Unfit>>> = FuturesUnordered::new();
            checks.push(Box::pin(self.asked_otherwise(health)));
            for (index, check) in health.readiness.iter().enumerate() {
                checks.push(Box::pin(self.keep_ready(life, &patient, (index, check), &unready)));
            }
            for check in &health.liveness {
                checks.push(Box::pin(self.keep_alive_by(life, &patient, check)));
            }
            if let Some(Some(unfit)) = checks.next().await {
                return unfit;
            }
        }
    }

    /// Until something else is asked for.
    async fn asked_otherwise(&self, health: &Health) -> Option<Unfit> {
        loop {
            sleep(ASKED_AGAIN).await;
            if self.wished().workload.health != *health {
                return None;
            }
        }
    }

    /// Takes an instance out of the table while a check fails. Until it passed once it is looked at often: somebody waits.
    async fn keep_ready(
        &self,
        life: &Life,
        patient: &Patient,
        (index, check): (usize, &Check),
        unready: &Mutex<BTreeSet<usize>>,
    ) -> Option<Unfit> {
        let holds = |change: &dyn Fn(&mut BTreeSet<usize>)| {
            let mut unready = unready.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut unready);
            unready.is_empty()
        };
        sleep(check.delay).await;
        let mut waited_for = !self.host.folder(&life.id).is_ready();
        let (mut pause, mut failed, mut told) = (first_pause(&check.look), 0_u32, Instant::now());
        loop {
            let seen = match &check.look {
                Look::Uptime(settle) if life.age() < *settle => Err(format!("up for less than {} s", settle.as_secs())),
                _ => self.attempt_again(life, patient, check).await,
            };
            match seen {
                Ok(()) => {
                    (waited_for, failed) = (false, 0);
                    life.failure.passed(&check.name);
                    if holds(&|unready| {
                        unready.remove(&index);
                    }) {
                        self.set_ready(life, true);
                    }
                }
                Err(result) => {
                    failed = failed.saturating_add(1);
                    life.failure.set(&check.name, Purpose::Readiness, result);
                    if failed >= check.attempts && !waited_for {
                        holds(&|unready| {
                            unready.insert(index);
                        });
                        self.set_ready(life, false);
                    } else if waited_for && told.elapsed() >= TOLD_AGAIN {
                        told = Instant::now();
                        self.tell(life);
                    }
                }
            }
            let wait = check.wait.max(SHORTEST_WAIT);
            sleep(if waited_for { pause.min(wait) } else { wait }).await;
            pause = pause * 3 / 2;
        }
    }

    /// Until a check failed as often in a row as it may.
    async fn keep_alive_by(&self, life: &Life, patient: &Patient, check: &Check) -> Option<Unfit> {
        let wait = check.wait.max(SHORTEST_WAIT);
        // So that not all instances of a machine are looked at in the same moment.
        sleep(check.delay + wait.mul_f64(self.fraction())).await;
        let mut failed = 0;
        loop {
            match self.attempt_again(life, patient, check).await {
                Ok(()) => {
                    failed = 0;
                    life.failure.passed(&check.name);
                }
                Err(result) => {
                    failed += 1;
                    life.failure.set(&check.name, Purpose::Liveness, result);
                    if failed >= check.attempts {
                        let (name, result) = (&check.name, life.failure.words());
                        let times = if failed == 1 { String::new() } else { format!(" {failed} times in a row") };
                        let words = format!("Liveness check {name:?} failed{times}: {result}");
                        return Some(Unfit { purpose: Purpose::Liveness, words });
                    }
                }
            }
            sleep(wait).await;
        }
    }

    /// Looks at an instance that is up.
    async fn attempt_again(&self, life: &Life, patient: &Patient, check: &Check) -> Result<(), String> {
        match &check.look {
            Look::Command(args) => command::attempt(&self.host, &life.id, args, check.timeout).await,
            look => patient.attempt_again(look, check.timeout).await,
        }
    }

    /// Puts the instance into the table or takes it out, if it is not so yet.
    fn set_ready(&self, life: &Life, ready: bool) {
        let Some(instance) = self.host.instance(self.key) else { return };
        if instance.ready != ready {
            if let Err(fault) = self.host.folder(&life.id).set_ready(ready) {
                tracing::warn!(container.id = %life.id, error = %fault, "readiness cannot be noted");
            }
            let report = if ready { None } else { life.report() };
            self.say(&if ready {
                "Ready for requests".to_owned()
            } else {
                format!("Gets no new requests: {}", life.failure.words())
            });
            self.update(|instance| (instance.ready, instance.probe) = (ready, report));
        }
        if ready {
            self.release_predecessor();
        }
    }

    /// Tells of a process that was killed for memory while the first one lives on: nobody else would.
    fn look_at_memory(&self, life: &Life) {
        if life.memory.look() {
            self.say(&format!("A process was killed: the dyno ran out of its {}", self.memory_words()));
            self.say("Error R14 (Memory quota exceeded)");
        }
    }

    /// Shows what fails.
    fn tell(&self, life: &Life) {
        let report = life.report();
        self.update(|instance| instance.probe = report);
    }

    /// Anything from 0 to 1.
    fn fraction(&self) -> f64 {
        let mut byte = [0];
        self.host.settings.random.fill(&mut byte);
        f64::from(byte[0]) / f64::from(u8::MAX)
    }
}

fn first_pause(look: &Look) -> Duration {
    if matches!(look, Look::Command(_)) { FIRST_PAUSE_OF_COMMANDS } else { FIRST_PAUSE }
}
