//! Worlds of jobs, moved by hand: what is decided is taken for done.

use std::time::Duration;

use model::clock::SystemRandom;
use proptest::prelude::*;

use super::*;
use crate::jobs::world;
use crate::store::{JobCause, JobWorld, Shard};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

type Rows = (Vec<Job>, Vec<JobRun>);

/// A platform with jobs on it.
struct World {
    now: Timestamp,
    jobs: Vec<Job>,
    runs: Vec<JobRun>,
    seen: Seen,
    /// Whether the engine is out of reach.
    away: bool,
    at_once: usize,
    started: Vec<OneOffId>,
    stopped: Vec<OneOffId>,
    alerts: Vec<String>,
    /// What there was after the last look, and what is remembered of that.
    remembered: Option<(Rows, world::World)>,
}

impl World {
    /// It is 12:00:30 on a day in November.
    fn new(settings: &[(&str, &str)]) -> Self {
        let now = Timestamp::parse("2026-11-24T12:00:30Z").expect("a time");
        let mut world = Self {
            now,
            jobs: Vec::new(),
            runs: Vec::new(),
            seen: Seen::default(),
            away: false,
            at_once: 10,
            started: Vec::new(),
            stopped: Vec::new(),
            alerts: Vec::new(),
            remembered: None,
        };
        world.add("job", AppId::random(&SystemRandom), settings);
        world
    }

    fn add(&mut self, name: &str, app: AppId, settings: &[(&str, &str)]) -> JobId {
        let mut set: BTreeMap<String, String> = [("command", "work"), ("schedule", "* * * * *")]
            .map(|(name, text)| (name.to_owned(), text.to_owned()))
            .into();
        for (name, text) in settings {
            JobSpec::default().set(name, text).unwrap_or_else(|rule| panic!("{name}: {rule}"));
            set.insert((*name).to_owned(), (*text).to_owned());
        }
        let mut job = Job {
            id: JobId::random(&SystemRandom),
            app,
            name: name.to_owned(),
            declared: None,
            set,
            made: true,
            removed: false,
            next_due: None,
            last_number: 0,
            alert: None,
            current: 7,
            created_at: self.now,
            updated_at: self.now,
        };
        let spec = job.spec();
        job.next_due = spec.schedule.next(&spec.timezone, self.now);
        self.jobs.push(job);
        self.jobs[self.jobs.len() - 1].id
    }

    /// Decides once, and does what was decided.
    fn tick(&mut self) -> Acts {
        let open: Vec<JobRun> = self.runs.iter().filter(|run| run.ended_at.is_none()).cloned().collect();
        let is_due =
            |job: &&Job| job.next_due.is_some_and(|due| due <= self.now) || open.iter().any(|run| run.job == job.id);
        let jobs: Vec<Job> = self.jobs.iter().filter(is_due).cloned().collect();
        let seen = (!self.away).then_some(&self.seen);
        let limits = (self.at_once, self.now);
        // What is remembered and what is read anew come to the same.
        let read = JobWorld { jobs: jobs.clone(), runs: open, ..JobWorld::default() };
        let (mut read, mut ids) = (world::World::new(read, None), Vec::new());
        let (changes, acts) = plan(&mut read, seen, limits, &mut || {
            ids.push(JobRunId::random(&SystemRandom));
            ids[ids.len() - 1]
        });
        let is_so = |((jobs, runs), _): &(Rows, _)| (jobs, runs) == (&self.jobs, &self.runs);
        if let Some((_, mut remembered)) = self.remembered.take().filter(is_so) {
            let mut ids = ids.into_iter();
            remembered.learn(jobs);
            let (same, same_acts) = plan(&mut remembered, seen, limits, &mut || ids.next().expect("as many runs"));
            assert_eq!(format!("{same:?}"), format!("{changes:?}"));
            assert_eq!(format!("{same_acts:?}"), format!("{acts:?}"));
            read = remembered;
        }
        let remembered = read.written(&changes.gone);
        for job in changes.jobs {
            let place = self.jobs.iter_mut().find(|known| known.id == job.id).expect("known");
            *place = job;
        }
        for run in changes.runs {
            match self.runs.iter_mut().find(|known| known.id == run.id) {
                Some(known) => *known = run,
                None => self.runs.push(run),
            }
        }
        let there = (self.jobs.clone(), self.runs.clone());
        self.remembered = remembered.map(|remembered| (there, remembered));
        self.alerts
            .extend(changes.events.iter().map(|event| format!("{}: {}", event.data["alert"], event.data["message"])));
        self.seen.refused.clear();
        self.seen.ended.retain(|id, _| !acts.forget.contains(id));
        for start in &acts.starts {
            self.started.push(start.id.clone());
            self.seen.running.insert(start.id.clone());
        }
        self.stopped.extend(acts.stops.iter().cloned());
        acts
    }

    /// Decides after a time.
    fn after(&mut self, time: Duration) -> Acts {
        self.now = self.now.after(time);
        self.tick()
    }

    /// Ends a process.
    fn end(&mut self, id: &OneOffId, exit: Exit) {
        if self.seen.running.remove(id) {
            self.seen.ended.insert(id.clone(), (exit, self.now));
        }
    }

    /// Ends all processes that run, and looks.
    fn end_all(&mut self, exit: Exit) -> Acts {
        for id in self.seen.running.clone() {
            self.end(&id, exit);
        }
        self.tick()
    }

    /// Whether a process was seen to run.
    fn is_up(&self, id: &OneOffId) -> bool {
        let is_it = |run: &JobRun, at: usize| run.shards[at].state == ShardState::Up && process_id(run, at) == *id;
        self.runs.iter().any(|run| (0..run.shards.len()).any(|at| is_it(run, at)))
    }

    /// `1 succeeded, 2 running`
    fn story(&self) -> String {
        let words = self.runs.iter().map(|run| format!("{} {}", run.number, run.state));
        words.collect::<Vec<_>>().join(", ")
    }
}

#[test]
fn a_run_begins_when_it_is_due_and_ends_with_its_process() {
    let mut world = World::new(&[]);
    assert_eq!(world.tick().starts, []);
    let acts = world.after(Duration::from_secs(30));
    assert_eq!((acts.starts.len(), world.story().as_str()), (1, "1 running"));
    let run = &world.runs[0];
    assert_eq!((run.due_at, run.release, run.cause), (world.now, Some(7), JobCause::Schedule));
    assert_eq!(world.jobs[0].next_due, Some(world.now.after(MINUTE)));
    assert_eq!(world.end_all(Exit::Code(0)).forget.len(), 1);
    assert_eq!(world.story(), "1 succeeded");
    assert_eq!(world.alerts, [] as [&str; 0]);
}

#[test]
fn runs_that_overlap_are_let_refused_or_replaced() {
    for (overlap, story, stopped, alerts) in [
        ("allow", "1 running, 2 running, 3 running", 0, 0),
        ("forbid", "1 running, 2 skipped, 3 skipped", 0, 1),
        ("replace", "1 running, 2 queued, 3 queued", 1, 0),
    ] {
        let mut world = World::new(&[("overlap", overlap)]);
        for _ in 0..3 {
            world.after(MINUTE);
        }
        assert!(world.runs[0].begun_at.is_some(), "{overlap}");
        let stopped_ids: BTreeSet<_> = world.stopped.iter().collect();
        assert_eq!((stopped_ids.len(), world.alerts.len()), (stopped, alerts), "{overlap}: {:?}", world.alerts);
        if overlap == "replace" {
            assert_eq!(world.story(), "1 running, 2 stopped, 3 queued", "one that waits is replaced at once");
            world.end_all(Exit::Signal(15));
            assert_eq!(world.story(), "1 stopped, 2 stopped, 3 running");
            assert_eq!(world.runs[0].failure.as_deref(), Some("run 2 took its place"));
        } else {
            assert_eq!(world.story(), story, "{overlap}");
        }
    }
    let mut world = World::new(&[("overlap", "forbid")]);
    world.after(MINUTE);
    world.after(MINUTE);
    assert_eq!(world.alerts, [r#""missed": "run 2 did not run: run 1 is not over""#]);
    world.end_all(Exit::Code(0));
    assert_eq!(world.jobs[0].alert, None, "all is well again");
    world.after(MINUTE);
    assert_eq!(world.story(), "1 succeeded, 2 skipped, 3 running");
}

#[test]
fn what_was_due_while_the_platform_was_down_is_made_up_for_as_it_says() {
    for (misfire, overlap, made_up, missed) in [
        ("skip", "allow", 0, 60),
        ("once", "allow", 1, 59),
        ("all", "allow", 4, 56),
        ("all", "forbid", 4, 56),
        ("once", "forbid", 1, 59),
    ] {
        // It is due at :01 … :60, and at 13:01:10 all of these but the last are more than a minute late.
        let mut world =
            World::new(&[("misfire", misfire), ("overlap", overlap), ("misfire_limit", "4"), ("late_after", "1d")]);
        world.after(HOUR + Duration::from_secs(40));
        // Beside the one that is due right now.
        let made = world.runs.iter().filter(|run| run.state != JobRunState::Skipped).count() - 1;
        // One for all is the one that is due right now.
        let expected = if misfire == "once" { 0 } else { made_up };
        assert_eq!(made, expected, "{misfire} {overlap}: {}", world.story());
        let all = format!("{} runs from 2026-11-24T12:01:00Z on did not happen", missed + made_up - expected);
        assert!(world.alerts[0].contains(&all), "{misfire} {overlap}: {:?}", world.alerts);
    }
    // Nothing is due right now: one runs for those that were.
    let mut world = World::new(&[("schedule", "0 * * * *"), ("misfire", "once")]);
    world.after(HOUR * 5 + MINUTE * 10);
    assert_eq!(world.story(), "1 skipped, 2 running");
    assert!(world.alerts[0].contains("4 runs from 2026-11-24T13:00:00Z on did not happen"), "{:?}", world.alerts);
    assert_eq!(
        (world.runs[1].cause, world.runs[1].due_at.to_rfc3339().as_str()),
        (JobCause::Misfire, "2026-11-24T17:00:00Z")
    );
}

#[test]
fn runs_that_are_made_up_for_and_may_not_overlap_run_one_after_the_other() {
    let mut world = World::new(&[("schedule", "0 * * * *"), ("misfire", "all"), ("overlap", "forbid")]);
    // The last one is due just now, and waits for those before it.
    world.after(HOUR * 3);
    assert_eq!(world.story(), "1 running, 2 queued, 3 queued");
    world.end_all(Exit::Code(0));
    world.end_all(Exit::Code(0));
    assert_eq!(world.story(), "1 succeeded, 2 succeeded, 3 running");
}

#[test]
fn a_clock_that_is_set_forward_misses_and_one_that_is_set_back_repeats_nothing() {
    let mut world = World::new(&[("misfire", "skip")]);
    world.after(MINUTE);
    world.end_all(Exit::Code(0));
    world.after(HOUR);
    assert!(world.alerts[0].contains("59 runs"), "{:?}", world.alerts);
    world.end_all(Exit::Code(0));
    let runs = world.runs.len();
    world.now = world.now.before(HOUR);
    for _ in 0..59 {
        world.after(MINUTE);
    }
    assert_eq!(world.runs.len(), runs, "each time of its schedule comes once");
    world.after(MINUTE);
    world.after(MINUTE);
    assert_eq!(world.runs.len(), runs + 1);
}

#[test]
fn what_fails_is_run_again_after_growing_pauses_and_then_told_of() {
    let mut world = World::new(&[("schedule", "0 * * * *"), ("retries", "2"), ("retry_pause", "10s")]);
    world.after(HOUR);
    assert_eq!(world.end_all(Exit::Code(3)).wake, Some(world.now.after(Duration::from_secs(10))));
    assert_eq!(world.after(Duration::from_secs(9)).starts, []);
    assert_eq!(world.after(Duration::from_secs(1)).starts.len(), 1);
    world.end_all(Exit::Code(3));
    assert_eq!(world.after(Duration::from_secs(19)).starts, []);
    assert_eq!(world.after(Duration::from_secs(1)).starts.len(), 1);
    world.end_all(Exit::Code(4));
    assert_eq!(world.story(), "1 failed");
    assert_eq!(world.alerts, [r#""failed": "run 1 failed: it exited with code 4""#]);
    assert_eq!(world.started.iter().collect::<BTreeSet<_>>().len(), 3, "each process has a name of its own");
    world.after(HOUR);
    world.end_all(Exit::Code(0));
    assert_eq!(world.jobs[0].alert, None);
}

#[test]
fn one_that_takes_too_long_failed_for_that() {
    let mut world = World::new(&[("timeout", "10m"), ("schedule", "0 * * * *")]);
    world.after(HOUR);
    world.now = world.now.after(MINUTE * 10);
    world.end_all(Exit::Signal(15));
    assert_eq!(world.runs[0].failure.as_deref(), Some("it took longer than 10m and was ended"));
}

#[test]
fn runs_wait_for_room_those_of_the_least_busy_app_first_and_no_more_than_may() {
    let mut world = World::new(&[("queue", "3"), ("parallel", "100"), ("late_after", "1d")]);
    world.at_once = 2;
    for _ in 0..5 {
        world.after(MINUTE);
    }
    assert_eq!(world.story(), "1 running, 2 running, 3 queued, 4 queued, 5 queued");
    let other = world.add("other", AppId::random(&SystemRandom), &[("schedule", "6 * * * *")]);
    world.after(MINUTE);
    assert!(world.alerts[0].contains("run 6 did not run: 3 runs wait already"), "{:?}", world.alerts);
    let first = world.started[0].clone();
    world.end(&first, Exit::Code(0));
    assert_eq!(world.tick().starts[0].run.job, other, "whose app has none yet");
}

#[test]
fn what_has_not_begun_in_time_is_told_of_once() {
    let mut world = World::new(&[("schedule", "0 * * * *"), ("late_after", "5m")]);
    world.away = true;
    let acts = world.after(MINUTE * 59 + Duration::from_secs(30));
    assert_eq!(acts.wake, Some(world.now.after(MINUTE * 5)));
    world.after(MINUTE * 5);
    world.after(MINUTE);
    let late = r#""late": "run 1 was due at 2026-11-24T13:00:00Z and has not begun: nothing can be started just now""#;
    assert_eq!(world.alerts, [late]);
    world.away = false;
    world.tick();
    world.end_all(Exit::Code(0));
    assert_eq!((world.story().as_str(), world.jobs[0].alert.clone()), ("1 succeeded", None));
}

#[test]
fn a_shard_whose_instance_died_runs_again_in_the_same_run() {
    let mut world = World::new(&[("schedule", "0 * * * *"), ("shards", "3"), ("failover", "1")]);
    world.after(HOUR);
    assert_eq!(world.started.len(), 3);
    let second = world.started[1].clone();
    world.end(&second, Exit::Signal(9));
    let acts = world.tick();
    assert_eq!(acts.starts.len(), 1);
    assert_eq!((acts.starts[0].shard, acts.starts[0].run.number), (1, 1));
    assert_ne!(acts.starts[0].id, second);
    // The machine went down under one of them: it is nowhere.
    world.seen.running.remove(&world.started[0].clone());
    assert_eq!(world.tick().starts[0].shard, 0);
    world.end_all(Exit::Code(0));
    assert_eq!(world.story(), "1 succeeded");
    assert_eq!(world.runs[0].shards.iter().map(|shard| shard.deaths).collect::<Vec<_>>(), [1, 1, 0]);
}

#[test]
fn shards_of_a_resident_job_spread_over_its_dynos_and_move_when_these_come_and_go() {
    let mut world =
        World::new(&[("schedule", "0 * * * *"), ("kind", "resident"), ("process", "worker"), ("shards", "4")]);
    let app = world.jobs[0].app;
    let worker =
        |number: u32| Worker { app, process_type: "worker".parse().expect("one"), instance: format!("w{number}") };
    let place = |world: &World, shard: usize| world.runs[0].shards[shard].instance.clone();
    world.after(HOUR);
    assert_eq!(world.runs[0].failure.as_deref(), Some("no dyno of the process type worker is free"));
    world.seen.workers = vec![worker(1), worker(2)];
    world.tick();
    assert_eq!((place(&world, 0).as_deref(), place(&world, 1).as_deref()), (Some("w1"), Some("w2")));
    assert_eq!(world.started.len(), 2, "two wait for whichever is free first");
    world.seen.workers.push(worker(3));
    assert_eq!(world.tick().starts.len(), 1, "one that comes takes its share");
    // One goes, and what ran in it goes on elsewhere once there is room.
    world.seen.workers.remove(0);
    let first = world.started[0].clone();
    world.end(&first, Exit::Code(1));
    assert_eq!(world.tick().starts, []);
    world.end(&world.started[1].clone(), Exit::Code(0));
    let acts = world.tick();
    assert_eq!((acts.starts.len(), acts.starts[0].shard), (1, 0));
    assert_eq!(world.runs[0].shards[0].deaths, 1);
    for _ in 0..3 {
        world.end_all(Exit::Code(0));
    }
    assert_eq!(world.story(), "1 succeeded");
}

#[test]
fn one_that_was_written_down_and_never_begun_begins_and_no_other_does() {
    let mut world = World::new(&[("schedule", "0 * * * *")]);
    world.after(HOUR);
    let id = world.started[0].clone();
    world.seen.running.clear();
    // The last controller was killed before it told the engine.
    let acts = world.tick();
    assert_eq!(acts.starts.iter().map(|start| &start.id).collect::<Vec<_>>(), [&id]);
    world.seen.starting.insert(id.clone());
    world.seen.running.clear();
    assert_eq!(world.tick().starts, [], "it is being made");
    world.seen.starting.clear();
    world.seen.running.insert(id);
    assert_eq!((world.tick().starts, world.runs[0].shards[0].state), (vec![], ShardState::Up));
}

#[test]
fn what_there_is_no_room_for_is_tried_again_and_what_cannot_be_fails() {
    let mut world = World::new(&[("schedule", "0 * * * *")]);
    world.after(HOUR);
    let refuse = |world: &mut World, refusal| {
        let id = world.seen.running.pop_first().expect("one");
        world.seen.refused.insert(id, refusal);
        world.tick()
    };
    refuse(&mut world, Refusal::Busy("no memory".to_owned()));
    assert_eq!((world.runs[0].failure.as_deref(), world.runs[0].shards[0].tries), (Some("no memory"), 0));
    assert_eq!(world.after(Duration::from_secs(10)).starts.len(), 1);
    refuse(&mut world, Refusal::Failed("no such image".to_owned()));
    assert_eq!(world.runs[0].failure.as_deref(), Some("it could not be started: no such image"));
}

#[test]
fn a_clock_that_is_set_back_puts_no_retry_off() {
    let mut world = World::new(&[("schedule", "0 * * * *"), ("retries", "1"), ("retry_pause", "1m")]);
    world.after(HOUR);
    let first = world.started[0].clone();
    world.end(&first, Exit::Code(1));
    assert_eq!(world.tick().starts, []);
    world.now = Timestamp::from_millis(world.now.as_millis() - 5 * 3_600_000);
    let acts = world.tick();
    assert_eq!((acts.starts, acts.wake), (vec![], Some(world.now.after(MINUTE))));
    assert_eq!(world.after(MINUTE).starts.len(), 1);
}

#[test]
fn a_removed_job_goes_once_nothing_of_it_runs_and_what_is_nobodys_is_ended() {
    let mut world = World::new(&[("schedule", "0 * * * *")]);
    world.after(HOUR);
    world.jobs[0].removed = true;
    world.jobs[0].next_due = None;
    world.runs[0].stop = Some("the job was removed".to_owned());
    assert_eq!(world.tick().stops, world.started);
    world.end_all(Exit::Signal(15));
    assert_eq!(world.story(), "1 stopped");
    let gone = JobRun { id: JobRunId::random(&SystemRandom), ..world.runs[0].clone() };
    let stray = process_id(&gone, 0);
    world.seen.running.extend([stray.clone(), OneOffId("run-1-2".to_owned())]);
    assert_eq!(world.tick().strays, [stray]);
}

/// Something that happens to a platform.
#[derive(Debug, Clone)]
enum Step {
    Wait(u64),
    Jump(i64),
    End(usize, i32),
    Kill(usize),
    Lose(usize),
    Away(bool),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..200_u64).prop_map(Step::Wait),
        1 => prop::sample::select(vec![3600, -3600, 100_000]).prop_map(Step::Jump),
        3 => (0..5_usize, 0..2).prop_map(|(which, code)| Step::End(which, code)),
        1 => (0..5_usize).prop_map(Step::Kill),
        1 => (0..5_usize).prop_map(Step::Lose),
        1 => any::<bool>().prop_map(Step::Away),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    /// Whatever happens: what may not overlap does not, no time of a schedule has two runs, there are never more containers and
    /// never more that wait than may be, and in the end everything is over.
    #[test]
    fn whatever_happens_the_promises_hold(
        steps in prop::collection::vec(step(), 1..60),
        overlap in prop::sample::select(vec!["allow", "forbid", "replace"]),
        misfire in prop::sample::select(vec!["once", "all", "skip"]),
        zone in prop::sample::select(vec!["UTC", "Europe/Berlin"]),
        shards in 1..4_u32,
        start in prop::sample::select(vec![1_795_521_600_i64, 1_774_744_200, 1_792_888_200, 1_792_890_000]),
    ) {
        let shards_text = shards.to_string();
        let settings = [("overlap", overlap), ("misfire", misfire), ("timezone", zone), ("shards", shards_text.as_str()),
            ("schedule", "*/2 * * * *"), ("queue", "4"), ("misfire_limit", "3"), ("retries", "1"), ("parallel", "3")];
        let mut world = World::new(&settings);
        // Among others the hours in which the clocks of Berlin are changed.
        world.now = Timestamp::from_millis(start * 1000);
        let spec = world.jobs[0].spec();
        world.jobs[0].next_due = spec.schedule.next(&spec.timezone, world.now);
        world.at_once = 5;
        for step in steps {
            let pick = |world: &World, which: usize| world.seen.running.iter().nth(which).cloned();
            match step {
                Step::Wait(seconds) => world.now = world.now.after(Duration::from_secs(seconds)),
                Step::Jump(seconds) => world.now = Timestamp::from_millis(world.now.as_millis() + seconds * 1000),
                Step::End(which, code) => pick(&world, which).iter().for_each(|id| world.end(id, Exit::Code(code))),
                Step::Kill(which) => pick(&world, which).iter().for_each(|id| world.end(id, Exit::Signal(9))),
                Step::Lose(which) => {
                    // One that was never seen to run is one that was never begun.
                    let lost = pick(&world, which).filter(|id| world.is_up(id));
                    world.seen.running.retain(|id| Some(id) != lost.as_ref());
                }
                Step::Away(away) => world.away = away,
                Step::Restart => {}
            }
            world.tick();
            for id in std::mem::take(&mut world.stopped) {
                world.end(&id, Exit::Signal(15));
            }
            let open = |run: &&JobRun| run.shards.iter().any(Shard::is_open);
            let at_once = world.runs.iter().filter(open).count();
            prop_assert!(at_once <= if overlap == "allow" { 3 } else { 1 }, "{}", world.story());
            prop_assert!(world.seen.running.len() <= 5);
            let waiting = world.runs.iter().filter(|run| run.state == JobRunState::Queued && run.stop.is_none()).count();
            prop_assert!(waiting <= 4, "{}", world.story());
            let due: Vec<Timestamp> = world.runs.iter().map(|run| run.due_at).collect();
            prop_assert_eq!(due.iter().collect::<BTreeSet<_>>().len(), due.len(), "each time once");
            let started: BTreeSet<_> = world.started.iter().collect();
            prop_assert_eq!(started.len(), world.started.len(), "no process twice");
        }
        world.away = false;
        for job in &mut world.jobs {
            job.next_due = None;
        }
        for _ in 0..200 {
            world.after(MINUTE);
            world.end_all(Exit::Code(0));
        }
        prop_assert!(world.runs.iter().all(|run| run.ended_at.is_some()), "{}", world.story());
    }
}
