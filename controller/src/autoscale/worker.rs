//! Measures the process types that scale by themselves, and carries out what is decided of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use engine::{InstanceState, Stat, WorkloadId, WorkloadStatus};
use model::traffic::Counts;
use model::{AppId, LogSource, Metric, ProcessType, ScalingPolicy, Timestamp};
use tokio::time::{Instant, sleep};

use super::plan::{Decision, Sample, Window, decide};
use crate::errors::chain;
use crate::formation::MAX_QUANTITY;
use crate::scaling::policy_of;
use crate::setup::Kept;
use crate::store::{App, FormationRow, NewScaling, Quantity, Scale, ScalingTexts, Standing};
use crate::{Controller, Error};

/// Between two looks.
const TICK: Duration = Duration::from_secs(10);
/// Whose app.json asks for it is looked for so often: where there are many apps that takes a while.
const LOOK_AT_ALL: Duration = Duration::from_secs(60);
/// Apps that are read together.
const AT_ONCE: usize = 200;

/// What scales by itself, as far as it was seen.
pub(crate) struct Autoscaler {
    controller: Arc<Controller>,
    /// Apps whose app.json asks for it.
    asked: Vec<AppId>,
    looked_at_all: Option<Instant>,
    known: HashMap<(AppId, ProcessType), Known>,
}

#[derive(Default)]
struct Known {
    window: Window,
    last: Option<Look>,
    /// How many there was no room for, and when that was said.
    held: Option<(u32, Timestamp)>,
}

/// What became of a decision.
enum Outcome {
    Done,
    /// Somebody else scaled meanwhile.
    Overtaken,
    /// There is no room for it.
    Held(String),
}

/// What counters said.
struct Look {
    at: Instant,
    requests: BTreeMap<WorkloadId, Counts>,
    /// By instance.
    cpu: BTreeMap<String, Duration>,
}

/// One process type and what runs of it.
struct Scene<'a> {
    app: &'a App,
    /// All process types of the app.
    formation: &'a [FormationRow],
    row: &'a FormationRow,
    policy: ScalingPolicy,
    running: Vec<&'a WorkloadStatus>,
    stats: Vec<&'a Stat>,
}

/// Works for as long as the process lives.
pub(crate) async fn work(controller: Arc<Controller>) {
    let mut autoscaler = Autoscaler::new(controller);
    let mut trouble = String::new();
    loop {
        sleep(TICK).await;
        let now = autoscaler.tick(Instant::now()).await.err().map(|error| chain(&error)).unwrap_or_default();
        if now != trouble && !now.is_empty() {
            tracing::warn!(error = now, "Apps cannot be scaled by what they need; trying again");
        }
        trouble = now;
    }
}

impl Autoscaler {
    pub(crate) fn new(controller: Arc<Controller>) -> Self {
        Self { controller, asked: Vec::new(), looked_at_all: None, known: HashMap::new() }
    }

    /// Looks once at all that scales by itself. What cannot be done for one app holds up no other.
    pub(crate) async fn tick(&mut self, now: Instant) -> Result<(), Error> {
        let controller = Arc::clone(&self.controller);
        if self.looked_at_all.is_none_or(|moment| now.duration_since(moment) >= LOOK_AT_ALL) {
            self.asked = controller.store.apps_that_ask_to_scale().await?;
            self.looked_at_all = Some(now);
        }
        let mut apps: BTreeSet<AppId> = controller.store.apps_set_to_scale().await?.into_iter().collect();
        apps.extend(&self.asked);
        // Two releases of an app at once say nothing of either.
        let asked: Vec<AppId> = apps.iter().copied().collect();
        for release in controller.store.pending_releases(Some(&asked)).await? {
            apps.remove(&release.app);
        }
        let apps: Vec<AppId> = apps.into_iter().collect();
        let mut seen = BTreeSet::new();
        let mut trouble = None;
        for apps in apps.chunks(AT_ONCE) {
            let standing = controller.store.standing(apps).await?;
            let running = controller.engine.list_of(apps).await?;
            let all: Vec<(Standing, Vec<(FormationRow, ScalingPolicy)>)> = standing.into_iter().map(scaled).collect();
            let needs_stats = |(_, policy): &(FormationRow, ScalingPolicy)| {
                matches!(policy.autoscale, Some(Metric::Cpu | Metric::Memory))
            };
            let with_stats = all.iter().filter(|(_, rows)| rows.iter().any(needs_stats)).map(|(it, _)| it.app.id);
            let with_stats: Vec<AppId> = with_stats.collect();
            let stats = if with_stats.is_empty() { Vec::new() } else { controller.engine.stats(&with_stats).await? };
            for (standing, rows) in &all {
                let version = standing.current.as_ref().map(|release| release.version);
                // One with a volume runs one dyno, whatever its app.json says.
                let has_volume = |row: &FormationRow| {
                    standing.current.as_ref().is_some_and(|release| release.mounts(&row.process_type).next().is_some())
                };
                for (row, policy) in rows.iter().filter(|(row, _)| !has_volume(row)) {
                    let of_it = |status: &&WorkloadStatus| {
                        status.app == standing.app.id
                            && status.process_type == row.process_type
                            && Some(status.release) == version
                            && !status.deleting
                    };
                    let running: Vec<_> = running.iter().filter(of_it).collect();
                    let is_own = |stat: &&Stat| running.iter().any(|status| status.id == stat.workload);
                    let stats = stats.iter().filter(is_own).collect();
                    let (app, formation) = (&standing.app, &standing.formation);
                    let scene = Scene { app, formation, row, policy: policy.clone(), running, stats };
                    seen.insert((standing.app.id, row.process_type.clone()));
                    trouble = self.look(&scene, now).await.err().or(trouble);
                }
            }
        }
        self.known.retain(|key, _| seen.contains(key));
        trouble.map_or(Ok(()), Err)
    }

    async fn look(&mut self, scene: &Scene<'_>, now: Instant) -> Result<(), Error> {
        let controller = Arc::clone(&self.controller);
        let known = self.known.entry((scene.app.id, scene.row.process_type.clone())).or_default();
        let time = controller.clock.now();
        let quantity = scene.row.quantity;
        if let Some(sample) = measure(&controller, scene, (known, now)) {
            known.window.add(Sample { at: time, quantity, ..sample }, &scene.policy);
        }
        let Some(decision) = decide(&scene.policy, &known.window, quantity, time) else { return Ok(()) };
        match controller.carry_out(scene, &decision).await? {
            Outcome::Done => {
                known.held = None;
                known.window.carried_out(&scene.policy, &decision, time);
            }
            Outcome::Overtaken => {}
            Outcome::Held(refusal) => {
                let is_said =
                    |(to, said): (u32, Timestamp)| to == decision.to && time.since(said) < scene.policy.cool_down;
                if !known.held.is_some_and(is_said) {
                    known.held = Some((decision.to, time));
                    controller.hold_back(scene, &decision, &refusal).await?;
                }
            }
        }
        Ok(())
    }
}

impl Controller {
    /// Scales as was decided, if there is room for it.
    async fn carry_out(&self, scene: &Scene<'_>, decision: &Decision) -> Result<Outcome, Error> {
        let (app, row) = (scene.app, scene.row);
        let Decision { from, to, reason, .. } = decision;
        let (process_type, quantity) = (row.process_type.clone(), Some(Quantity::Exactly(*to)));
        let change = Scale { process_type, quantity, size: None };
        let admitted = self.admit_scale(app.id, scene.formation, &[change], &self.sizes().await?).await;
        let _admitted = match admitted {
            Err(Error::Conflict(refusal)) => return Ok(Outcome::Held(refusal)),
            admitted => admitted?,
        };
        if !self.store.scale_by_itself(app.id, row, &noted(scene, decision), &self.own_stamp()).await? {
            return Ok(Outcome::Overtaken);
        }
        let line = format!("Scaled {} from {from} to {to}: {reason}", row.process_type);
        self.logs.write(app.id, self.clock.now(), &LogSource::platform("autoscaler"), &line);
        self.changed.app(app.id);
        Ok(Outcome::Done)
    }

    /// Remembers, and says, that there is no room for what was decided.
    async fn hold_back(&self, scene: &Scene<'_>, decision: &Decision, refusal: &str) -> Result<(), Error> {
        let (app, row) = (scene.app, scene.row);
        let reason = format!("{}; held: no room: {refusal}", decision.reason);
        let held = NewScaling { to: decision.from, reason, ..noted(scene, decision) };
        self.store.note_scaling(app.id, row, &held, &self.own_stamp()).await?;
        let line = format!("Held {} at {}: {}", row.process_type, decision.from, held.reason);
        self.logs.write(app.id, self.clock.now(), &LogSource::platform("autoscaler"), &line);
        Ok(())
    }
}

/// A decision as it is remembered.
fn noted(scene: &Scene<'_>, decision: &Decision) -> NewScaling {
    let Decision { from, to, value, reason } = decision;
    NewScaling {
        from: *from,
        to: *to,
        metric: scene.policy.get("metric"),
        value: value.map(|value| format!("{value:.1}")),
        target: scene.policy.target(),
        reason: reason.clone(),
    }
}

/// The process types of an app that scale by themselves, each with how.
fn scaled(standing: Standing) -> (Standing, Vec<(FormationRow, ScalingPolicy)>) {
    // What cannot be read asks for nothing.
    let kept = Kept::read(standing.manifest.as_deref()).unwrap_or_default();
    let of = |all: &BTreeMap<ProcessType, ScalingTexts>, name: &ProcessType| all.get(name).cloned().unwrap_or_default();
    let policy = |row: &FormationRow| {
        let name = &row.process_type;
        let policy = policy_of(&of(&kept.scaling, name), &of(&standing.scaling, name));
        let (min, max) = (policy.min.min(MAX_QUANTITY), policy.max.min(MAX_QUANTITY));
        ScalingPolicy { min, max, ..policy }
    };
    let scales = |row: &FormationRow| {
        let policy = policy(row);
        policy.autoscale.is_some().then(|| (row.clone(), policy))
    };
    let rows = standing.formation.iter().filter_map(scales).collect();
    (standing, rows)
}

/// What there is to say of the time since the last look; none if too little is known, or not all that should run is there to be measured.
fn measure(controller: &Controller, scene: &Scene<'_>, (known, now): (&mut Known, Instant)) -> Option<Sample> {
    let traffic = controller.live.names.traffic();
    let requests = scene.running.iter().map(|status| (status.id.clone(), traffic.of(&status.id))).collect();
    let cpu = scene.stats.iter().map(|stat| (stat.instance.clone(), stat.cpu)).collect();
    let look = Look { at: now, requests, cpu };
    let last = known.last.replace(look)?;
    let look = known.last.as_ref()?;
    let instances: Vec<_> = scene.running.iter().flat_map(|status| &status.instances).collect();
    let starts = |state: InstanceState| matches!(state, InstanceState::Starting);
    let is_asleep = scene.running.iter().any(|status| status.asleep.is_some());
    if is_asleep || instances.is_empty() || instances.iter().any(|instance| starts(instance.state)) {
        return None;
    }
    let time = now.duration_since(last.at);
    let mut sum = Counts::default();
    for (workload, counts) in &look.requests {
        if let Some(before) = last.requests.get(workload) {
            sum.add(&counts.since(before));
        }
    }
    let requests = controller.live.names.is_followed().then_some(sum);
    Some(Sample {
        at: controller.clock.now(),
        time,
        quantity: scene.row.quantity,
        requests,
        cpu: cpu_of(scene, &last, time),
        memory: memory_of(scene),
    })
}

/// Per cent of their share of the processors that the instances used which were there all the time.
fn cpu_of(scene: &Scene<'_>, last: &Look, time: Duration) -> Option<f64> {
    let mut parts = Vec::new();
    for stat in &scene.stats {
        let Some(before) = last.cpu.get(&stat.instance) else { continue };
        let share = f64::from(stat.cpu_millis) / 1000.0 * time.as_secs_f64();
        if share > 0.0 {
            parts.push(stat.cpu.saturating_sub(*before).as_secs_f64() / share * 100.0);
        }
    }
    mean(&parts)
}

/// Per cent of their memory that the instances have.
fn memory_of(scene: &Scene<'_>) -> Option<f64> {
    let part = |stat: &&Stat| (stat.memory_limit > 0).then(|| per_cent(stat.memory_bytes, stat.memory_limit));
    let parts: Vec<f64> = scene.stats.iter().filter_map(part).collect();
    mean(&parts)
}

#[expect(clippy::cast_precision_loss, reason = "bytes of memory are far below 2^52")]
fn per_cent(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64 * 100.0
}

fn mean(parts: &[f64]) -> Option<f64> {
    let count = u32::try_from(parts.len()).ok().filter(|count| *count > 0)?;
    Some(parts.iter().sum::<f64>() / f64::from(count))
}
