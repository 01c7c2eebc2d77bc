//! A day of a platform with a million short runs, against the real store. Takes minutes, so `make simulate-jobs` runs it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use engine::fake::FakeRun;
use futures::FutureExt;
use model::{Exit, JobId, Timestamp};

use super::blank;
use crate::store::JobRunState;
use crate::testing::TestController;

/// Each is due every minute: 695 × 1440 are a bit more than a million.
const JOBS: usize = 695;
const APPS: usize = 50;
const DAY_MINUTES: u32 = 1440;

#[tokio::test]
#[ignore = "takes minutes: make simulate-jobs"]
#[expect(clippy::print_stderr, reason = "what it measures is what it is run for")]
async fn a_million_runs_a_day() {
    let minutes = std::env::var("SIMULATED_MINUTES").ok().and_then(|text| text.parse().ok()).unwrap_or(DAY_MINUTES);
    let test = TestController::with_jobs_at_once(64).await;
    let controller = &test.controller;
    controller.live.set_ready();
    let user = test.user("ada@example.com").await;
    let begun_at = controller.clock.now();
    for number in 0..APPS {
        let app = test.app(&user, &format!("simulated-{number}")).await;
        let jobs = (number..JOBS).step_by(APPS).map(|number| {
            let mut job = blank(JobId::random(&*controller.random), &app, &format!("job-{number}"), begun_at);
            let settings = [("command", "true"), ("schedule", "* * * * *"), ("overlap", "forbid")];
            job.set = settings.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
            let spec = job.spec();
            job.next_due = spec.schedule.next(&spec.timezone, begun_at);
            job
        });
        let jobs = jobs.collect();
        let change = |_| Ok::<_, crate::Error>((jobs, Vec::new(), ()));
        controller.store.change_jobs(app.id, &controller.own_stamp(), change).await.expect("made");
    }
    let until = begun_at.after(Duration::from_secs(60) * minutes);
    let (cpu_before, began, mut looks, mut started) = (used_cpu(), Instant::now(), 0_u64, 0_u64);
    let mut lags: BTreeMap<u64, u64> = BTreeMap::new();
    let mut running: BTreeMap<(Timestamp, u64), FakeRun> = BTreeMap::new();
    while controller.clock.now() < until || !running.is_empty() {
        let wake = controller.look_after_jobs().await.expect("looked");
        looks += 1;
        while controller.live.jobs.is_making() {
            tokio::task::yield_now().await;
        }
        let now = controller.clock.now();
        while let Some(run) = test.engine.next_run().now_or_never() {
            started += 1;
            let due = &run.oneoff.container.env["JOB_DUE_AT"];
            let lag = now.since(Timestamp::parse(due).expect("a time"));
            *lags.entry(u64::try_from(lag.as_millis()).expect("short")).or_default() += 1;
            // Half a second to two and a half.
            let takes = Duration::from_millis(500 + started * 7919 % 2000);
            running.insert((now.after(takes), started), run);
        }
        // News are looked at together, as they are in earnest.
        let next = running.keys().next().map(|(end, _)| *end);
        let next = next.into_iter().chain(wake.filter(|wake| *wake > now && *wake < until)).min().unwrap_or(until);
        test.clock.advance(next.since(now).max(Duration::from_millis(50)));
        let now = controller.clock.now();
        while let Some(entry) = running.first_entry().filter(|entry| entry.key().0 <= now) {
            entry.remove().exit(Exit::Code(0));
        }
    }
    controller.look_after_jobs().await.expect("looked");
    let (took, cpu) = (began.elapsed(), used_cpu().saturating_sub(cpu_before));
    let mut rows = BTreeMap::new();
    for app in controller.store.apps().await.expect("readable") {
        for job in controller.store.jobs(app.id).await.expect("readable") {
            for run in controller.store.job_runs(job.id).await.expect("readable") {
                *rows.entry(run.state.as_str()).or_insert(0_u64) += 1;
            }
        }
    }
    let at = |percent: u64| {
        let wanted = (started * percent).div_ceil(100);
        let mut seen = 0;
        lags.iter()
            .find_map(|(lag, count)| {
                seen += count;
                (seen >= wanted).then_some(*lag)
            })
            .unwrap_or_default()
    };
    let each = cpu.as_secs_f64() * 1000.0 / f64::from(u32::try_from(started).expect("few"));
    eprintln!("{started} runs in {minutes} simulated minutes took {:.0} s of {looks} looks", took.as_secs_f64());
    eprintln!("{:.0} s of a core's time, {each:.2} ms a run", cpu.as_secs_f64());
    eprintln!("began after they were due: p50 {} ms, p99 {} ms, at most {} ms", at(50), at(99), at(100));
    eprintln!("rows that are left: {rows:?}; memory at most {}", peak_memory());
    assert!(started >= u64::from(minutes) * JOBS as u64 - JOBS as u64);
    assert!(rows.keys().all(|state| *state == JobRunState::Succeeded.as_str()), "{rows:?}");
}

fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.unwrap_or("unknown").trim().to_owned()
}

/// Time on cores that this process used (proc(5)).
fn used_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields.split_whitespace().skip(11).take(2));
    let hundredths = fields.into_iter().flatten().filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
    Duration::from_millis(hundredths * 10)
}
