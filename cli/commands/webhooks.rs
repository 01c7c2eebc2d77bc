//! `webhooks` and its kin: who is told of what happens to an app.

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client;
use crate::context::{self, AppArg, Context};
use crate::error::Result;
use crate::output::{self, Field, Mood};

/// The header in which the platform tells a new webhook's secret, this once.
const SECRET: &str = "heroku-webhook-secret";

/// A webhook, as far as it is printed.
#[derive(Debug, Deserialize)]
struct Webhook {
    id: String,
    url: String,
    include: Vec<String>,
    level: String,
}

/// Something that a webhook is told.
#[derive(Debug, Deserialize)]
struct Delivery {
    id: String,
    event: DeliveredEvent,
    status: String,
    num_attempts: u32,
    last_attempt: Option<Attempt>,
    created_at: String,
}

#[derive(Debug, Deserialize)]
struct DeliveredEvent {
    include: String,
}

#[derive(Debug, Deserialize)]
struct Attempt {
    code: Option<u16>,
    error_class: Option<String>,
}

/// List the webhooks of an app
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform webhooks
  $ platform webhooks -a my-app --json")]
pub(crate) struct List {
    #[command(flatten)]
    app: AppArg,
}

impl List {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let webhooks = client.list(&["apps", &name, "webhooks"])?;
        cx.show_list(&webhooks, |out, webhooks: Vec<Webhook>| {
            let row = |hook: Webhook| {
                vec![hook.id.into(), hook.url.into(), hook.include.join(", ").into(), hook.level.into()]
            };
            let empty = format!("Nobody is told of what happens to {name}. `platform webhooks:add` changes that.");
            out.table(&["Webhook", "Address", "Told of", "Level"], webhooks.into_iter().map(row).collect(), &empty)
        })
    }
}

/// What is said of a webhook.
#[derive(Debug, Args)]
pub(crate) struct Wish {
    /// What it is told of, with commas between: api:release,api:build
    #[arg(short, long, value_delimiter = ',')]
    include: Vec<String>,
    /// `notify` tries once, `sync` until it is delivered
    #[arg(short, long)]
    level: Option<String>,
    /// Signs every delivery; without it, the platform makes one up
    #[arg(short, long)]
    secret: Option<String>,
    /// The Authorization header of every delivery
    #[arg(short = 't', long)]
    authorization: Option<String>,
    /// Address that is told
    #[arg(short, long)]
    url: Option<String>,
}

impl Wish {
    /// As the API takes it: what was not said is left out.
    fn content(&self) -> Value {
        let mut content = json!({});
        if !self.include.is_empty() {
            content["include"] = json!(self.include);
        }
        let texts = [
            ("level", &self.level),
            ("secret", &self.secret),
            ("authorization", &self.authorization),
            ("url", &self.url),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                content[name] = text.as_str().into();
            }
        }
        content
    }
}

/// Tell an address of what happens to an app
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform webhooks:add --include api:release --level notify --url https://example.com/hook -a my-app
  $ platform webhooks:add -i api:release,api:build -l sync -u https://example.com/hook")]
pub(crate) struct Add {
    #[command(flatten)]
    wish: Wish,
    #[command(flatten)]
    app: AppArg,
}

impl Add {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let path = ["apps", &name, "webhooks"];
        let content = self.wish.content();
        let (made, secret) = cx
            .out
            .step(&format!("Adding a webhook to {name}"), || client.send_for(("POST", SECRET), &path, &content))?;
        let hook: Webhook = client::typed(&made)?;
        cx.show(&json!({ "webhook": made, "secret": secret }), |out| {
            out.pairs([("Webhook", Field::from(&hook.id))])?;
            match &secret {
                Some(secret) => out.pairs([("Secret", Field::from(secret))]),
                None => Ok(()),
            }
        })?;
        if secret.is_some() && self.wish.secret.is_none() {
            cx.out.note("The secret is shown this once. Deliveries are signed with it: HMAC-SHA256 in Heroku-Webhook-Hmac-SHA256.");
        }
        Ok(())
    }
}

/// Show one webhook of an app
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform webhooks:info 01234567-89ab-cdef-0123-456789abcdef -a my-app")]
pub(crate) struct Info {
    /// Its id, as `platform webhooks` lists it
    webhook: String,
    #[command(flatten)]
    app: AppArg,
}

impl Info {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let value = client.get(&["apps", &name, "webhooks", &self.webhook])?;
        cx.show(&value, |out| {
            let hook: Webhook = client::typed(&value)?;
            out.heading(&hook.id)?;
            out.pairs([
                ("Address", hook.url.into()),
                ("Told of", hook.include.join(", ").into()),
                ("Level", hook.level.into()),
            ])
        })
    }
}

/// Change a webhook of an app
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform webhooks:update 01234567-89ab-cdef-0123-456789abcdef --level sync -a my-app")]
pub(crate) struct Update {
    /// Its id, as `platform webhooks` lists it
    webhook: String,
    #[command(flatten)]
    wish: Wish,
    #[command(flatten)]
    app: AppArg,
}

impl Update {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let update = || client.patch(&["apps", &name, "webhooks", &self.webhook], &self.wish.content());
        cx.done(&cx.out.step(&format!("Changing a webhook of {name}"), update)?)
    }
}

/// Tell an address no more of what happens to an app
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform webhooks:remove 01234567-89ab-cdef-0123-456789abcdef -a my-app")]
pub(crate) struct Remove {
    /// Its id, as `platform webhooks` lists it
    webhook: String,
    #[command(flatten)]
    app: AppArg,
}

impl Remove {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let remove = || client.delete(&["apps", &name, "webhooks", &self.webhook]);
        cx.done(&cx.out.step(&format!("Removing a webhook from {name}"), remove)?)
    }
}

/// List what webhooks were told, and how that went
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform webhooks:deliveries -a my-app
  $ platform webhooks:deliveries --status failed")]
pub(crate) struct Deliveries {
    /// Only those that are `pending`, `retrying`, `succeeded` or `failed`
    #[arg(short, long)]
    status: Option<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Deliveries {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let mut deliveries = client.get(&["apps", &name, "webhook-deliveries"])?;
        if let (Some(status), Some(all)) = (&self.status, deliveries.as_array_mut()) {
            all.retain(|delivery| delivery["status"] == status.as_str());
        }
        cx.show_list(&deliveries, |out, deliveries: Vec<Delivery>| {
            let row = |delivery: Delivery| {
                let last = last(delivery.last_attempt.as_ref());
                let when = output::ago(&delivery.created_at, context::now());
                let attempts = delivery.num_attempts.to_string();
                let status = status(&delivery.status);
                vec![
                    delivery.id.into(),
                    delivery.event.include.into(),
                    status,
                    attempts.into(),
                    last.into(),
                    when.into(),
                ]
            };
            out.table(
                &["Delivery", "Event", "Status", "Attempts", "Last answer", "When"],
                deliveries.into_iter().map(row).collect(),
                "Nothing was delivered.",
            )
        })
    }
}

/// Show one delivery as the platform keeps it
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform webhooks:deliveries:info 01234567-89ab-cdef-0123-456789abcdef -a my-app")]
pub(crate) struct DeliveryInfo {
    /// Its id, as `platform webhooks:deliveries` lists it
    delivery: String,
    #[command(flatten)]
    app: AppArg,
}

impl DeliveryInfo {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let value = client.get(&["apps", &name, "webhook-deliveries", &self.delivery])?;
        cx.show(&value, |out| {
            let delivery: Delivery = client::typed(&value)?;
            out.heading(&delivery.id)?;
            out.pairs([
                ("Event", delivery.event.include.into()),
                ("Status", status(&delivery.status)),
                ("Attempts", delivery.num_attempts.to_string().into()),
                ("Last answer", last(delivery.last_attempt.as_ref()).into()),
                ("When", output::when(&delivery.created_at, context::now()).into()),
            ])
        })
    }
}

/// Deliver something once more
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform webhooks:deliveries:redeliver 01234567-89ab-cdef-0123-456789abcdef -a my-app")]
pub(crate) struct Redeliver {
    /// Its id, as `platform webhooks:deliveries` lists it
    delivery: String,
    #[command(flatten)]
    app: AppArg,
}

impl Redeliver {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let path = ["apps", &name, "webhook-deliveries", &self.delivery, "actions", "redeliver"];
        cx.done(&cx.out.step("Delivering it once more", || client.post(&path, &json!({})))?)
    }
}

fn last(attempt: Option<&Attempt>) -> String {
    let Some(attempt) = attempt else { return String::new() };
    attempt.code.map(|code| code.to_string()).or_else(|| attempt.error_class.clone()).unwrap_or_default()
}

fn status(status: &str) -> Field {
    Field::from(status).mood(match status {
        "succeeded" => Mood::Good,
        "failed" => Mood::Bad,
        _ => Mood::Busy,
    })
}
