//! What templates show in more than one place.

use std::time::Duration;

use controller::overview::{AppOverview, AppState};
use controller::store::{App, ConfigChange, Release, Status};
use controller::{Controller, Settings};
use model::{Role, Timestamp};
use serde::Serialize;

use crate::assets::{self, Addresses};
use crate::error::PageError;
use crate::notice::Notice;
use crate::session::{AppVisit, Guarded, Visit};

/// A page for whoever is not signed in.
#[derive(Debug, Serialize)]
pub(crate) struct Outside {
    title: String,
    assets: Addresses,
    email: Option<String>,
}

impl Outside {
    /// With this title.
    pub(crate) fn new(title: &str) -> Self {
        Self { title: title.to_owned(), assets: assets::addresses(), email: None }
    }
}

/// A page for whoever is signed in.
#[derive(Debug, Serialize)]
pub(crate) struct Inside {
    title: String,
    assets: Addresses,
    email: Option<String>,
    csrf: String,
    notice: Option<Notice>,
}

impl Inside {
    /// With this title.
    pub(crate) fn new(title: &str, visit: &Visit) -> Self {
        Self {
            title: title.to_owned(),
            assets: assets::addresses(),
            email: Some(visit.actor.user.email.to_string()),
            csrf: visit.csrf(),
            notice: visit.notice.clone(),
        }
    }

    /// Says something about the form that this page repeats.
    pub(crate) fn refuse(&mut self, text: String) {
        self.notice = Some(Notice::refused(text));
    }
}

/// A moment as people read it, past or to come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Moment {
    iso: String,
    ago: String,
    full: String,
}

impl Moment {
    /// As seen at `now`.
    pub(crate) fn new(time: Timestamp, now: Timestamp) -> Self {
        let iso = time.to_rfc3339();
        let full = iso.replace('T', " ").replace('Z', " UTC");
        let is_past = time <= now;
        let apart = if is_past { now.since(time) } else { time.since(now) };
        let length = match apart.as_secs() {
            0..60 if is_past => None,
            0..60 => Some("a moment".to_owned()),
            seconds @ 60..3600 => Some(format!("{} min", seconds / 60)),
            seconds @ 3600..86_400 => Some(format!("{} h", seconds / 3600)),
            seconds @ 86_400..2_592_000 => Some(plural(seconds / 86_400, "day")),
            _ => return Self { ago: day(time), iso, full },
        };
        let ago = match length {
            None => "just now".to_owned(),
            Some(length) if is_past => length + " ago",
            Some(length) => format!("in {length}"),
        };
        Self { iso, ago, full }
    }
}

/// `2026-11-21`
pub(crate) fn day(time: Timestamp) -> String {
    time.to_rfc3339().split('T').next().unwrap_or_default().to_owned()
}

/// Something to choose, and what it means.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Choice {
    value: String,
    text: &'static str,
}

impl Choice {
    /// What a form sends, and what people read.
    pub(crate) fn new(value: impl Into<String>, text: &'static str) -> Self {
        Self { value: value.into(), text }
    }
}

/// The roles up to one, and what each may do.
pub(crate) fn roles(most: Role) -> Vec<Choice> {
    let text = |role| match role {
        Role::View => "look at it, but for config vars",
        Role::Deploy => "push, roll back, see config vars",
        Role::Operate => "change config vars, dynos, domains, add-ons",
        Role::Manage => "decide who works on it",
        Role::Admin => "rename it, give it away, delete it",
    };
    Role::ALL.into_iter().filter(|role| *role <= most).map(|role| Choice::new(role.to_string(), text(role))).collect()
}

/// What became of a config var.
pub(crate) fn became(change: ConfigChange) -> &'static str {
    match change {
        ConfigChange::Added => "added",
        ConfigChange::Changed => "changed",
        ConfigChange::Removed => "removed",
    }
}

/// Without the escape sequences by which programs colour what they print (ECMA-48, "control sequences").
pub(crate) fn uncoloured(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| matches!(c, '@'..='~')).map_or(part.len(), |end| end + 1);
        plain.push_str(&part[end..]);
    }
    plain
}

/// `1 day`, `2 days`
pub(crate) fn plural(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// `12 s`, `3 min 5 s`
pub(crate) fn duration(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// `953 B`, `12 kB`, `1.2 MB`
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..1000 => format!("{bytes} B"),
        1000..1_000_000 => format!("{} kB", bytes / 1000),
        _ => format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000),
    }
}

/// A word in a colour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Pill {
    tone: &'static str,
    text: String,
}

impl Pill {
    /// Tones are `good`, `bad`, `busy`, `warn` and `calm`.
    pub(crate) fn new(tone: &'static str, text: impl Into<String>) -> Self {
        Self { tone, text: text.into() }
    }

    /// Of an app.
    pub(crate) fn of_app(state: AppState) -> Self {
        match state {
            AppState::Empty => Self::new("calm", "No code yet"),
            AppState::Maintenance => Self::new("warn", "Maintenance"),
            AppState::Live => Self::new("good", "Live"),
            AppState::Asleep => Self::new("calm", "Asleep"),
            AppState::Starting => Self::new("busy", "Starting"),
            AppState::Crashed => Self::new("bad", "Crashed"),
            AppState::Off => Self::new("calm", "Scaled to zero"),
            AppState::Unknown => Self::new("calm", "Unknown"),
        }
    }

    /// Of a release.
    pub(crate) fn of_release(release: &Release) -> Self {
        match release.status {
            _ if release.current && release.image.is_some() => Self::new("good", "Current"),
            _ if release.current => Self::new("calm", "Current"),
            Status::Pending => Self::new("busy", "Releasing"),
            Status::Failed => Self::new("bad", "Failed"),
            Status::Succeeded => Self::new("calm", "Released"),
        }
    }

    /// Of a dyno.
    pub(crate) fn of_dyno(state: &'static str) -> Self {
        let tone = match state {
            "up" => "good",
            "crashed" => "bad",
            "starting" => "busy",
            _ => "calm",
        };
        Self::new(tone, state)
    }
}

/// What is above every page of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Head {
    name: String,
    path: String,
    url: String,
    host: String,
    pill: Pill,
    /// What else is going on: a build, a release, a failure.
    also: Option<Pill>,
    version: u64,
    is_empty: bool,
    tab: &'static str,
    git_url: String,
    /// Why nothing is deployed now.
    held: Option<String>,
    may: May,
}

/// What whoever looks at an app may do with it: what they may not do is not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "one for each role, by its name, as templates ask")]
struct May {
    deploy: bool,
    operate: bool,
    manage: bool,
    admin: bool,
}

impl From<Role> for May {
    fn from(role: Role) -> Self {
        Self {
            deploy: role >= Role::Deploy,
            operate: role >= Role::Operate,
            manage: role >= Role::Manage,
            admin: role >= Role::Admin,
        }
    }
}

impl Head {
    /// Of the app that is visited, under the tab of this name.
    pub(crate) async fn load(controller: &Controller, by: &AppVisit, tab: &'static str) -> Result<Self, PageError> {
        let seen = controller.app_overview(&by.app).await?;
        let held = controller.held(&by.app).await?;
        Ok(Self { held, ..Self::of(&controller.settings, &seen, (by.role, tab)) })
    }

    fn of(settings: &Settings, seen: &AppOverview, (role, tab): (Role, &'static str)) -> Self {
        let name = &seen.summary.app.name;
        // Names of apps are labels of host names: this is always one.
        let host = settings.default_host(name).map(|host| (settings.public_url(&host), host.to_string()));
        let (url, host) = host.unwrap_or_default();
        Self {
            name: name.to_string(),
            path: path(&seen.summary.app),
            url,
            host,
            pill: Pill::of_app(seen.state),
            also: also(seen),
            version: seen.summary.version,
            is_empty: seen.state == AppState::Empty,
            tab,
            git_url: settings.git_url(name),
            held: None,
            may: role.into(),
        }
    }
}

/// What else is going on with an app besides what serves.
pub(crate) fn also(seen: &AppOverview) -> Option<Pill> {
    let newest = &seen.summary.newest;
    match newest.status {
        _ if seen.is_building => Some(Pill::new("busy", "Building")),
        Status::Pending => Some(Pill::new("busy", format!("Releasing v{}", newest.version))),
        Status::Failed => Some(Pill::new("bad", format!("v{} failed", newest.version))),
        Status::Succeeded => None,
    }
}

/// Path of an app's pages.
pub(crate) fn path(app: &App) -> String {
    format!("/console/apps/{}", app.name)
}

#[cfg(test)]
pub(crate) mod samples {
    use super::*;

    /// Text that must never become HTML.
    pub(crate) const HOSTILE: &str = "<script>alert('x')</script>\"&";

    pub(crate) fn outside() -> Outside {
        Outside::new(HOSTILE)
    }

    pub(crate) fn inside() -> Inside {
        Inside {
            title: HOSTILE.to_owned(),
            assets: assets::addresses(),
            email: Some(HOSTILE.to_owned()),
            csrf: "c5f".to_owned(),
            notice: Some(Notice::refused(HOSTILE)),
        }
    }

    pub(crate) fn moment() -> Moment {
        Moment::new(Timestamp::from_millis(0), Timestamp::from_millis(90_000))
    }

    pub(crate) fn head(tab: &'static str) -> Head {
        head_for(Role::Admin, tab)
    }

    pub(crate) fn head_for(role: Role, tab: &'static str) -> Head {
        Head {
            name: HOSTILE.to_owned(),
            path: "/console/apps/sample".to_owned(),
            url: HOSTILE.to_owned(),
            host: HOSTILE.to_owned(),
            pill: Pill::of_app(AppState::Live),
            also: Some(Pill::new("bad", HOSTILE)),
            version: 3,
            is_empty: false,
            tab,
            git_url: HOSTILE.to_owned(),
            held: Some(HOSTILE.to_owned()),
            may: role.into(),
        }
    }

    #[test]
    fn moments_are_told_as_people_do() {
        let ago = |seconds: i64| Moment::new(Timestamp::from_millis(0), Timestamp::from_millis(seconds * 1000)).ago;
        let told = [0, 61, 7200, 86_400, 200_000, 90 * 86_400].map(ago);
        assert_eq!(told, ["just now", "1 min ago", "2 h ago", "1 day ago", "2 days ago", "1970-01-01"]);
        let told = [-1, -61, -7200, -86_400, -90 * 86_400].map(|seconds| {
            Moment::new(Timestamp::from_millis(90 * 86_400_000), Timestamp::from_millis((90 * 86_400 + seconds) * 1000))
                .ago
        });
        assert_eq!(told, ["in a moment", "in 1 min", "in 2 h", "in 1 day", "1970-04-01"]);
        assert_eq!(moment().full, "1970-01-01 00:00:00 UTC");
        assert_eq!(uncoloured("\u{1b}[1;31mred\u{1b}[0m [x] é\u{1b}[K"), "red [x] é");
        assert_eq!([953, 12_345, 1_250_000].map(size), ["953 B", "12 kB", "1.2 MB"]);
        assert_eq!([5, 65, 3700].map(|s| duration(Duration::from_secs(s))), ["5 s", "1 min 5 s", "1 h 1 min"]);
    }
}
