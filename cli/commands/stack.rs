//! `stack`, `stack:set`, `stack:rebase`, and `stack:update` for the operator on the platform's own machine.

use builder::stack::{self, Make};
use clap::Args;
use serde_json::{Value, json};

use crate::client::{self, App, Client, Named};
use crate::commands::platform::need_root;
use crate::context::{AppArg, Context, ReleaseArg};
use crate::error::{CliError, Result};
use crate::output::Task;
use crate::server::Places;

/// Show which stack an app is built and run on
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform stack
  $ platform stack -a my-app --json")]
pub(crate) struct List {
    #[command(flatten)]
    app: AppArg,
}

impl List {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let app: App = client::typed(&client.get(&["apps", &name])?)?;
        let stacks = client.list(&["stacks"])?;
        cx.show_list(&stacks, |out, stacks: Vec<Named>| {
            let mark = |stack: &Named| if stack.name == app.stack.name { "*" } else { " " };
            stacks.iter().try_for_each(|stack| out.line(format!("{} {}", mark(stack), stack.name)))
        })
    }
}

/// Choose the stack of an app's next build
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform stack:set debian-13 -a my-app")]
pub(crate) struct Set {
    /// Name of the stack
    stack: String,
    #[command(flatten)]
    app: AppArg,
}

impl Set {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let set = || client.patch(&["apps", &name], &json!({ "build_stack": self.stack }));
        let app = cx.out.step(&format!("Setting the stack of {name} to {}", self.stack), set)?;
        cx.done(&app)
    }
}

/// Make the stack anew with the newest packages, as root
///
/// The stack is the pair of base images, for builds and for apps. Apps get the new one with their next build, or by
/// `platform stack:rebase`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ sudo platform stack:update
  $ sudo platform stack:update --if-missing")]
pub(crate) struct Update {
    /// Do nothing if there is a stack that this version of the platform can use
    #[arg(long)]
    if_missing: bool,
}

impl Update {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        need_root("stack:update")?;
        let settings = Places::load()?.stack()?;
        let failed = |error: stack::StackError| CliError::failed("The stack was not made").because(&error);
        let present = stack::open(&settings).map_err(failed)?.filter(|_| self.if_missing);
        let when = if self.if_missing { Make::IfMissing } else { Make::Newest };
        let make = || {
            let mut task: Option<Task> = None;
            let made = stack::make(&settings, when, &mut |line| match (line.strip_suffix('…'), &task) {
                // `Making the run image…`; everything else is what a program says that is at work on it.
                (Some(what), _) => {
                    if let Some(done) = task.replace(cx.out.task(what)) {
                        done.end(true);
                    }
                }
                (None, Some(task)) => task.show(line),
                (None, None) => {}
            });
            if let Some(last) = task {
                last.end(made.is_ok());
            }
            made.map_err(failed)
        };
        let stack = present.map_or_else(make, Ok)?;
        cx.show(&json!(stack), |out| out.line(format!("Stack {}, version {}", stack.name, stack.version)))
    }
}

/// Put apps on the newest run image of their stack, without a build
///
/// Each gets a new release in which only the operating system is another one: what buildpacks made stays as it is. After
/// `stack:update`, this is how a patch reaches apps that nobody pushes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform stack:rebase -a my-app
  $ platform stack:rebase --all")]
pub(crate) struct Rebase {
    /// Every app that you may deploy to
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    app: ReleaseArg,
}

impl Rebase {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        if !self.all {
            let (client, name) = cx.app_to_release(&self.app)?;
            let release = rebase(cx, &client, &name)?;
            return cx.done(&release);
        }
        let client = cx.client()?;
        let apps: Vec<App> = client::typed(&client.list(&["apps"])?)?;
        let (mut releases, mut failed) = (Vec::new(), Vec::new());
        for app in apps {
            match rebase(cx, &client, &app.name) {
                Ok(release) => releases.push(release),
                Err(error) => {
                    cx.out.note(&format!("{}:\n{}", app.name, error.report(cx.out.paint)));
                    failed.push(app.name);
                }
            }
        }
        cx.done(&json!(releases))?;
        match failed.as_slice() {
            [] => Ok(()),
            some => Err(CliError::failed(format!("Not rebased: {}", some.join(", "))).hint("Each says above why not.")),
        }
    }
}

fn rebase(cx: &Context, client: &Client, app: &str) -> Result<Value> {
    let rebase = || client.post(&["apps", app, "actions", "rebase"], &json!({}));
    cx.out.step(&format!("Rebasing {app}"), rebase)
}
