//! How the instances of a process type are looked at: as its `app.json` says, and as is usual where it says nothing.

use std::time::Duration;

use engine::{Check, Health, Look, Restart};
use manifest::{CheckKind, CheckProbe, HealthCheck, Restarts};
use model::{Hostname, ProcessType};

use super::workload::PORT;
use crate::tcp_routes::Listens;

/// A process without a port is healthy once it stayed up for this long.
const SETTLE: Duration = Duration::from_secs(1);
/// No check is made more often than this once it passed.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
/// How often a web process is looked at that says nothing about its liveness, and how often in a row it must be missing.
const WEB_LIVENESS: (Duration, u32) = (Duration::from_secs(10), 3);
/// How long one such look may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What is usual for all apps of a platform, or for all instances of one app.
pub(super) struct Usual {
    /// Time in which a port must open.
    pub(super) boot: Duration,
    /// By which name an app is asked.
    pub(super) host: Hostname,
    /// Where it takes connections that are no requests.
    pub(super) listens: Option<Listens>,
}

/// What is looked at for one process type with these checks.
pub(super) fn health(process_type: &ProcessType, checks: &[HealthCheck], usual: &Usual) -> Health {
    let is_web = process_type.as_str() == "web";
    let asks_port = |check: &HealthCheck| matches!(check.probe, CheckProbe::Path(_) | CheckProbe::Listening);
    let of = |kind: CheckKind| checks.iter().filter(move |check| check.kind == kind);
    let all = |kind: CheckKind| of(kind).map(engine_check).collect::<Vec<Check>>();
    let port = match usual.listens {
        Some(Listens::At(port)) if !is_web => Some(port),
        listens => (is_web || listens.is_some() || checks.iter().any(asks_port)).then_some(PORT),
    };
    let mut health = port.map_or_else(|| Health::uptime(SETTLE), |port| Health::listening(port, usual.boot));
    let startup = all(CheckKind::Startup);
    let listens = |check: &Check| check.look == Look::Listening;
    if health.port.is_none() && !startup.is_empty() || startup.iter().any(listens) {
        // The app has its own words for it.
        health.startup.clear();
    }
    health.boot = startup.iter().map(longest).fold(usual.boot, Duration::saturating_add);
    health.startup.extend(startup);
    health.readiness = all(CheckKind::Readiness);
    health.liveness = all(CheckKind::Liveness);
    if is_web && health.liveness.is_empty() {
        let (wait, attempts) = WEB_LIVENESS;
        let (name, delay) = ("listening".to_owned(), Duration::ZERO);
        health.liveness.push(Check { name, look: Look::Listening, attempts, timeout: TIMEOUT, wait, delay });
    }
    health.host = Some(usual.host.to_string());
    health
}

/// When instances of an app are started again, over what is usual on its platform.
pub(super) fn restart(wanted: &Restarts, usual: &Restart) -> Restart {
    let seconds = |wanted: Option<u32>, usual| wanted.map_or(usual, |wanted| Duration::from_secs(wanted.into()));
    Restart {
        at_once: wanted.at_once.unwrap_or(usual.at_once),
        first: seconds(wanted.pause, usual.first),
        longest: seconds(wanted.longest_pause, usual.longest),
        give_up: wanted.limit.map_or(usual.give_up, |limit| Some(limit).filter(|limit| *limit > 0)),
        stable: usual.stable,
    }
}

fn engine_check(check: &HealthCheck) -> Check {
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    let look = match &check.probe {
        CheckProbe::Path(path) => Look::Http(path.clone()),
        CheckProbe::Command(command) => Look::Command(command.clone()),
        CheckProbe::Uptime(uptime) => Look::Uptime(seconds(*uptime)),
        CheckProbe::Listening => Look::Listening,
    };
    let usual = || match &look {
        Look::Http(path) => format!("GET {path}"),
        Look::Command(command) => command.join(" "),
        Look::Uptime(_) => "uptime".to_owned(),
        Look::Listening => "listening".to_owned(),
    };
    Check {
        name: check.name.clone().unwrap_or_else(usual),
        attempts: check.attempts,
        timeout: seconds(check.timeout),
        wait: seconds(check.wait).max(SHORTEST_WAIT),
        delay: seconds(check.initial_delay),
        look,
    }
}

/// How long a startup check may take until it is known to fail.
fn longest(check: &Check) -> Duration {
    let attempts = check.wait.saturating_mul(check.attempts.saturating_sub(1));
    let uptime = if let Look::Uptime(uptime) = check.look { uptime } else { Duration::ZERO };
    check.delay.saturating_add(attempts).saturating_add(check.timeout).saturating_add(uptime)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(process_type: &str, checks: &str) -> Health {
        let text = format!("{{\"healthchecks\": {{\"{process_type}\": {checks}}}}}");
        let (manifest, problems) =
            manifest::read(manifest::Files { app_json: Some(text.as_bytes()), heroku_yml: None });
        assert_eq!(problems, []);
        let process_type: ProcessType = process_type.parse().expect("a process type");
        let host = "shop.localhost".parse().expect("a host");
        health(
            &process_type,
            &manifest.healthchecks[&process_type],
            &Usual { boot: Duration::from_secs(60), host, listens: None },
        )
    }

    fn looks(checks: &[Check]) -> Vec<&Look> {
        checks.iter().map(|check| &check.look).collect()
    }

    #[test]
    fn what_says_nothing_is_looked_at_as_usual() {
        let web = of("web", "[]");
        assert_eq!((web.port, web.boot), (Some(PORT), Duration::from_secs(60)));
        assert_eq!((looks(&web.startup), looks(&web.liveness)), (vec![&Look::Listening], vec![&Look::Listening]));
        assert!(web.readiness.is_empty());
        let worker = of("worker", "[]");
        assert_eq!((worker.port, looks(&worker.startup)), (None, vec![&Look::Uptime(SETTLE)]));
        assert!(worker.readiness.is_empty() && worker.liveness.is_empty());
    }

    #[test]
    fn checks_of_an_app_come_in_their_place() {
        let http = |path: &str| Look::Http(path.to_owned());
        let web = of(
            "web",
            r#"[{"path": "/up", "attempts": 4, "timeout": 3, "wait": 10, "initialDelay": 7},
                {"type": "readiness", "path": "/ready", "wait": 0}, {"type": "liveness", "path": "/live", "name": "heart"}]"#,
        );
        assert_eq!(looks(&web.startup), [&Look::Listening, &http("/up")], "the port opens first");
        assert_eq!(web.boot, Duration::from_secs(60 + 7 + 3 * 10 + 3), "its own time comes on top");
        assert_eq!((web.startup[1].name.as_str(), web.startup[1].delay), ("GET /up", Duration::from_secs(7)));
        assert_eq!((looks(&web.readiness), web.readiness[0].wait), (vec![&http("/ready")], SHORTEST_WAIT));
        assert_eq!((looks(&web.liveness), web.liveness[0].name.as_str()), (vec![&http("/live")], "heart"));
        assert_eq!(web.host.as_deref(), Some("shop.localhost"));

        let own = of("web", r#"[{"listening": true, "attempts": 9}]"#);
        assert_eq!((looks(&own.startup), own.startup[0].attempts), (vec![&Look::Listening], 9));

        let usual = Restart::default();
        let own = Restarts { pause: Some(5), limit: Some(0), ..Restarts::default() };
        let expected = Restart { first: Duration::from_secs(5), give_up: None, ..usual.clone() };
        assert_eq!(restart(&own, &usual), expected);
        assert_eq!(restart(&Restarts::default(), &usual), usual);

        let worker = of("worker", r#"[{"uptime": 20}, {"type": "liveness", "path": "/live"}]"#);
        assert_eq!(worker.port, Some(PORT), "who is asked by HTTP has a port");
        let plain = of("worker", r#"[{"uptime": 20}]"#);
        assert_eq!((plain.port, looks(&plain.startup)), (None, vec![&Look::Uptime(Duration::from_secs(20))]));
    }
}
