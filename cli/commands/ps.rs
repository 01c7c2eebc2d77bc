//! `ps` and its kin: dynos, how many, how large.

use std::thread;
use std::time::Duration;

use clap::Args;
use model::Timestamp;
use serde_json::{Value, json};

use crate::client::{self, Client, Dyno, Formation, Release};
use crate::context::{self, AppArg, Context};
use crate::error::{CliError, Result};
use crate::output::{self, Field, Mood};

/// List the dynos of an app: what each really runs, and whether it gets requests
///
/// A dyno that is up gets requests once every router says that it sends it some. During a deploy, dynos of two releases are up.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform ps
  $ platform ps -a my-app --json")]
pub(crate) struct List {
    #[command(flatten)]
    app: AppArg,
}

impl List {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let dynos = client.list(&["apps", &name, "dynos"])?;
        cx.show_list(&dynos, |out, mut dynos: Vec<Dyno>| {
            dynos.sort_by_key(|dyno| natural(&dyno.name));
            let row = |dyno: Dyno| {
                let since = output::ago(&dyno.updated_at, context::now());
                let release = format!("v{}", dyno.release.version);
                let state = state(&dyno, context::now());
                let (routed, size) = (routed(dyno.routed), dyno.size.into());
                vec![dyno.name.into(), state, release.into(), routed, since.into(), size, dyno.command.into()]
            };
            out.table(
                &["Dyno", "State", "Release", "Requests", "Since", "Size", "Command"],
                dynos.into_iter().map(row).collect(),
                &format!("{name} has no dynos. Push it with `git push platform main`, or see with `platform ps:scale` which process types it has."),
            )
        })
    }
}

/// Show or change how many dynos an app has, and of which size
///
/// Without arguments, shows the formation. With `+` or `-`, adds to or takes from what there is.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform ps:scale
  $ platform ps:scale web=2 worker=+1
  $ platform ps:scale web=1:standard-2x -a my-app")]
pub(crate) struct Scale {
    /// Process type, how many, and optionally the size of each
    #[arg(value_name = "TYPE=QUANTITY[:SIZE]")]
    changes: Vec<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Scale {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let updates = self.changes.iter().map(|change| update(change)).collect::<Result<Vec<_>>>()?;
        let (client, name) = cx.app(&self.app)?;
        let path = ["apps", &name, "formation"];
        let formation = if updates.is_empty() {
            client.list(&path)?
        } else {
            let what = format!("Scaling {} on {name}", self.changes.join(" "));
            cx.out.step(&what, || client.patch(&path, &json!({ "updates": updates })))?
        };
        show_formation(cx, &name, &formation)
    }
}

/// Restart dynos of an app: all, those of one process type, or one
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform ps:restart
  $ platform ps:restart worker -a my-app
  $ platform ps:restart web.1")]
pub(crate) struct Restart {
    #[command(flatten)]
    which: Dynos,
    #[command(flatten)]
    app: AppArg,
}

impl Restart {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let (what, path) = match self.which.one()? {
            None => ("all dynos".to_owned(), vec!["apps", &name, "dynos"]),
            Some(Which::Dyno(dyno)) => (dyno.to_owned(), vec!["apps", &name, "dynos", dyno]),
            Some(Which::Type(process)) => (process.to_owned(), vec!["apps", &name, "formations", process]),
        };
        cx.done(&cx.out.step(&format!("Restarting {what} of {name}"), || client.delete(&path))?)
    }
}

/// Stop dynos of an app: those of one process type, or one
///
/// A dyno of the formation is started again at once: `platform ps:scale` says how many there should be. A one-off dyno ends.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform ps:stop run.4242
  $ platform ps:stop --process-type worker -a my-app")]
pub(crate) struct Stop {
    #[command(flatten)]
    which: Dynos,
    #[command(flatten)]
    app: AppArg,
}

impl Stop {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let (what, path) = match self.which.one()? {
            None => return Err(CliError::usage("Which dyno?").hint("`platform ps` lists them.")),
            Some(Which::Dyno(dyno)) => (dyno, ["apps", &name, "dynos", dyno, "actions", "stop"]),
            Some(Which::Type(process)) => (process, ["apps", &name, "formations", process, "actions", "stop"]),
        };
        let stop = || client.post(&path, &json!({}));
        cx.done(&cx.out.step(&format!("Stopping {what} of {name}"), stop)?)
    }
}

/// Dynos that a command is about.
#[derive(Debug, Args)]
pub(crate) struct Dynos {
    /// A process type such as `web`, or a dyno such as `web.1`
    #[arg(value_name = "TYPE|DYNO")]
    which: Option<String>,
    /// A dyno
    #[arg(short, long, value_name = "DYNO", conflicts_with = "which")]
    dyno_name: Option<String>,
    /// All dynos of a process type
    #[arg(short, long, value_name = "TYPE", conflicts_with_all = ["which", "dyno_name"])]
    process_type: Option<String>,
}

/// One dyno, or all of a process type.
enum Which<'a> {
    Dyno(&'a str),
    Type(&'a str),
}

impl Dynos {
    fn one(&self) -> Result<Option<Which<'_>>> {
        let named = match (&self.which, &self.dyno_name, &self.process_type) {
            (Some(which), ..) if which.contains('.') => Some(Which::Dyno(which)),
            (_, Some(dyno), _) => Some(Which::Dyno(dyno)),
            (which, _, process_type) => which.as_deref().or(process_type.as_deref()).map(Which::Type),
        };
        match named {
            Some(Which::Dyno("") | Which::Type("")) => Err(CliError::usage("A dyno or process type has a name")),
            named => Ok(named),
        }
    }
}

/// Show or change the size of an app's dynos
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform ps:type
  $ platform ps:type standard-2x
  $ platform ps:type web=standard-2x worker=basic -a my-app")]
pub(crate) struct Type {
    /// A size for all process types, or one for each
    #[arg(value_name = "SIZE|TYPE=SIZE")]
    changes: Vec<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Type {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let path = ["apps", &name, "formation"];
        let there: Vec<Formation> = client::typed(&client.list(&path)?)?;
        let updates = sizes(&self.changes, &there)?;
        let formation = if updates.is_empty() {
            client.list(&path)?
        } else {
            let what = format!("Resizing {} on {name}", self.changes.join(" "));
            cx.out.step(&what, || client.patch(&path, &json!({ "updates": updates })))?
        };
        show_formation(cx, &name, &formation)
    }
}

/// `web=standard-2x`, or one size for all there are, as the API takes it.
fn sizes(changes: &[String], there: &[Formation]) -> Result<Vec<Value>> {
    let update = |(process_type, size): (&str, &str)| json!({ "type": process_type, "size": size });
    if let [size] = changes
        && !size.contains('=')
    {
        return Ok(there.iter().map(|part| update((&part.process_type, size))).collect());
    }
    let pair = |change: &String| {
        let pair = change.split_once('=').filter(|(process_type, size)| !process_type.is_empty() && !size.is_empty());
        pair.map(update).ok_or_else(|| {
            CliError::usage(format!("`{change}` is not of the form TYPE=SIZE"))
                .hint("Like this: platform ps:type web=standard-2x worker=basic")
        })
    };
    changes.iter().map(pair).collect()
}

/// Wait until all dynos of an app run its newest release
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform ps:wait
  $ platform ps:wait --type web -a my-app")]
pub(crate) struct Wait {
    /// Only dynos of this process type
    #[arg(short = 't', long = "type", value_name = "TYPE")]
    process_type: Option<String>,
    /// Seconds between two looks
    #[arg(short = 'w', long = "wait-interval", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    interval: u64,
    /// One-off dynos, too
    #[arg(short = 'R', long)]
    with_run: bool,
    #[command(flatten)]
    app: AppArg,
}

impl Wait {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let path = ["apps", &name, "dynos"];
        let what = format!("Waiting until the dynos of {name} run its newest release");
        let dynos = cx.out.step(&what, || {
            loop {
                let value = client.list(&path)?;
                let dynos: Vec<Dyno> = client::typed(&value)?;
                let newest = newest_release(&client, &name)?;
                if dynos.iter().filter(|dyno| self.counts(dyno)).all(|dyno| dyno.release.version == newest) {
                    return Ok(value);
                }
                thread::sleep(Duration::from_secs(self.interval));
            }
        })?;
        cx.done(&dynos)
    }

    fn counts(&self, dyno: &Dyno) -> bool {
        let process_type = dyno.name.split('.').next().unwrap_or_default();
        match &self.process_type {
            Some(wanted) => wanted == process_type,
            None => self.with_run || process_type != "run",
        }
    }
}

fn newest_release(client: &Client, app: &str) -> Result<u32> {
    let releases: Vec<Release> = client::typed(&client.newest(&["apps", app, "releases"], 1)?)?;
    Ok(releases.first().map_or(0, |release| release.version))
}

fn show_formation(cx: &Context, app: &str, formation: &Value) -> Result<()> {
    cx.show_list(formation, |out, formation: Vec<Formation>| {
        let row = |part: Formation| {
            vec![part.process_type.into(), part.quantity.to_string().into(), part.size.into(), part.command.into()]
        };
        out.table(
            &["Type", "Quantity", "Size", "Command"],
            formation.into_iter().map(row).collect(),
            &format!(
                "{app} has no process types. They come with a push: from its Procfile, or by what its language starts."
            ),
        )
    })
}

/// `web=2`, `web=+1`, `web=2:standard-1x` as the API takes it. The quantity stays text: the API knows what `+1` adds to.
fn update(change: &str) -> Result<Value> {
    let wrong = || {
        CliError::usage(format!("`{change}` is not of the form TYPE=QUANTITY[:SIZE]"))
            .hint("Like this: platform ps:scale web=2 worker=+1 clock=1:standard-1x")
    };
    let (process_type, rest) = change.split_once('=').ok_or_else(wrong)?;
    let (quantity, size) = rest.split_once(':').map_or((rest, None), |(quantity, size)| (quantity, Some(size)));
    let digits = quantity.strip_prefix(['+', '-']).unwrap_or(quantity);
    if process_type.is_empty()
        || digits.is_empty()
        || !digits.bytes().all(|b| b.is_ascii_digit())
        || size.is_some_and(str::is_empty)
    {
        return Err(wrong());
    }
    let mut update = json!({ "type": process_type, "quantity": quantity });
    if let Some(size) = size {
        update["size"] = size.into();
    }
    Ok(update)
}

/// Sorts `web.2` before `web.10`.
fn natural(name: &str) -> (String, u32) {
    let (process_type, number) = name.rsplit_once('.').unwrap_or((name, ""));
    (process_type.to_owned(), number.parse().unwrap_or(0))
}

fn routed(routed: Option<bool>) -> Field {
    match routed {
        Some(true) => Field::from("yes").mood(Mood::Good),
        Some(false) => Field::from("no").mood(Mood::Busy),
        None => "".into(),
    }
}

fn state(dyno: &Dyno, now: Timestamp) -> Field {
    let is_ready = dyno.health.as_ref().is_none_or(|health| health.ready);
    Field::from(fares(dyno, now)).mood(match dyno.state.as_str() {
        "up" if is_ready => Mood::Good,
        "crashed" => Mood::Bad,
        _ => Mood::Busy,
    })
}

/// What a dyno does, and why it does not serve: `crashed 4 times (exited with code 3), tried again in 28 s`.
fn fares(dyno: &Dyno, now: Timestamp) -> String {
    let Some(health) = &dyno.health else { return dyno.state.clone() };
    let why = match (&health.failing, &health.last_exit) {
        (Some(check), _) if check.fatal || dyno.state != "crashed" => Some(&check.result),
        (_, exit) => exit.as_ref().map(|exit| &exit.text),
    };
    let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
    let times = match health.crashes {
        1 => "once".to_owned(),
        crashes => format!("{crashes} times"),
    };
    let state = &dyno.state;
    match (state.as_str(), &health.retry_at) {
        ("crashed", Some(retry)) => {
            format!("{state} {times}{why}, tried again {}", output::ago(retry, now))
        }
        ("crashed", None) if health.gave_up => format!("{state} {times}{why}, stays down"),
        ("crashed", None) => format!("{state} {times}{why}"),
        ("up", _) if !health.ready => format!("{state}, not ready{why}"),
        ("starting", _) if health.crashes > 0 => format!("{state} after it crashed {times}{why}"),
        _ => state.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scale_arguments_become_updates() {
        assert_eq!(update("web=2").unwrap(), json!({ "type": "web", "quantity": "2" }));
        assert_eq!(update("w=+1:Basic").unwrap(), json!({ "type": "w", "quantity": "+1", "size": "Basic" }));
        for bad in ["web", "web=", "=1", "web=two", "web=1:", "web=++1"] {
            assert!(update(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_for_all_or_for_each() {
        let web =
            serde_json::from_value(json!({ "type": "web", "quantity": 1, "size": "Basic", "command": "" })).unwrap();
        let there = [web];
        let sizes = |changes: &[&str]| {
            let changes: Vec<_> = changes.iter().map(|&change| change.to_owned()).collect();
            sizes(&changes, &there)
        };
        assert_eq!(sizes(&[]).unwrap(), [] as [Value; 0]);
        assert_eq!(sizes(&["eco"]).unwrap(), [json!({ "type": "web", "size": "eco" })]);
        assert_eq!(sizes(&["worker=eco"]).unwrap(), [json!({ "type": "worker", "size": "eco" })]);
        assert!(sizes(&["web=eco", "basic"]).is_err() && sizes(&["web="]).is_err());
    }

    #[test]
    fn a_dyno_says_how_it_fares() {
        let said = |state_name: &str, health: Value| {
            let dyno = json!({ "name": "web.1", "state": state_name, "command": "x", "size": "Basic", "attach_url": null,
                "updated_at": "2026-01-01T00:00:00Z", "release": { "version": 3 }, "health": health });
            let now = Timestamp::parse("2026-01-01T00:00:02Z").unwrap();
            fares(&serde_json::from_value(dyno).unwrap(), now)
        };
        let health = |more: Value| {
            let mut health = json!({ "ready": false, "crashes": 0, "restarts": 0, "retry_at": null, "gave_up": false,
                "last_exit": null, "failing": null });
            for (key, value) in more.as_object().unwrap() {
                health[key] = value.clone();
            }
            health
        };
        assert_eq!(said("up", Value::Null), "up");
        assert_eq!(said("up", health(json!({ "ready": true, "crashes": 2 }))), "up");
        let exit = json!({ "text": "exited with code 3" });
        let waits = json!({ "crashes": 4, "retry_at": "2026-01-01T00:00:30Z", "last_exit": exit });
        assert_eq!(said("crashed", health(waits)), "crashed 4 times (exited with code 3), tried again in 28 s");
        let check = |fatal: bool| json!({ "result": "no answer on port 5000 within 5 s", "fatal": fatal });
        let over = json!({ "crashes": 1, "gave_up": true, "last_exit": exit, "failing": check(true) });
        assert_eq!(said("crashed", health(over)), "crashed once (no answer on port 5000 within 5 s), stays down");
        let unready = json!({ "failing": check(false), "last_exit": exit });
        assert_eq!(said("up", health(unready)), "up, not ready (no answer on port 5000 within 5 s)");
        let again = json!({ "crashes": 2, "last_exit": exit });
        assert_eq!(said("starting", health(again)), "starting after it crashed 2 times (exited with code 3)");
    }

    #[test]
    fn dynos_sort_by_number() {
        let mut names = vec!["web.10", "web.2", "clock.1"];
        names.sort_by_key(|name| natural(name));
        assert_eq!(names, ["clock.1", "web.2", "web.10"]);
    }
}
