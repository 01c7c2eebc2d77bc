//! `ps`, `ps:scale`, `ps:restart`.

use clap::Args;
use serde_json::{Value, json};

use crate::client::{Dyno, Formation};
use crate::context::{self, AppArg, Context};
use crate::error::{CliError, Result};
use crate::output::{self, Field, Mood};

/// List the dynos of an app
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
                vec![dyno.name.into(), state(&dyno.state), since.into(), dyno.size.into(), dyno.command.into()]
            };
            out.table(
                &["Dyno", "State", "Since", "Size", "Command"],
                dynos.into_iter().map(row).collect(),
                &format!("{name} has no dynos. Push it with `git push platform main`, or scale it: `platform ps:scale web=1`."),
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
        cx.show_list(&formation, |out, formation: Vec<Formation>| {
            let row = |part: Formation| {
                vec![part.process_type.into(), part.quantity.to_string().into(), part.size.into(), part.command.into()]
            };
            out.table(
                &["Type", "Quantity", "Size", "Command"],
                formation.into_iter().map(row).collect(),
                &format!("{name} has no process types yet. They come with the first `git push platform main`."),
            )
        })
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
    /// A process type such as `web`, or a dyno such as `web.1`
    #[arg(value_name = "TYPE|DYNO")]
    which: Option<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Restart {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let (what, path) = match self.which.as_deref() {
            None => ("all dynos", vec!["apps", &name, "dynos"]),
            Some(dyno) if dyno.contains('.') => (dyno, vec!["apps", &name, "dynos", dyno]),
            Some(process_type) => (process_type, vec!["apps", &name, "formations", process_type]),
        };
        cx.done(&cx.out.step(&format!("Restarting {what} of {name}"), || client.delete(&path))?)
    }
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

fn state(state: &str) -> Field {
    Field::from(state).mood(match state {
        "up" => Mood::Good,
        "crashed" => Mood::Bad,
        _ => Mood::Busy,
    })
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
    fn dynos_sort_by_number() {
        let mut names = vec!["web.10", "web.2", "clock.1"];
        names.sort_by_key(|name| natural(name));
        assert_eq!(names, ["clock.1", "web.2", "web.10"]);
    }
}
