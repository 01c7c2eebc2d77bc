//! `stack`, `stack:set`, and `stack:update` for the operator on the platform's own machine.

use builder::stack::{self, Make};
use clap::Args;
use serde_json::json;

use crate::client::{self, App, Named};
use crate::commands::platform::need_root;
use crate::context::{AppArg, Context};
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
/// The stack is the pair of base images, for builds and for apps. Apps get the new one with their next build.
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
