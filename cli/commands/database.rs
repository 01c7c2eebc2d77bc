//! `migrate`, `secrets:rotate`: for the operator, on the platform's own machine.

use clap::Args;
use controller::store::Mode;
use serde_json::json;

use crate::client::Client;
use crate::commands::platform::need_root;
use crate::context::Context;
use crate::error::Result;
use crate::server::Places;

/// Bring the platform's database up to date, as root
///
/// `platform up` does it too. A copy of the database is made before anything is changed, in backups/database of the
/// platform's home, and the last five copies are kept.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ sudo platform migrate --dry-run
  $ sudo platform migrate")]
pub(crate) struct Migrate {
    /// Try everything and undo it; say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Make no copy of the database before
    #[arg(long, conflicts_with = "dry_run")]
    no_backup: bool,
}

impl Migrate {
    pub(crate) fn run(&self, cx: &Context) -> Result<()> {
        need_root("migrate")?;
        let places = Places::load_running()?;
        let mode = match self {
            Self { dry_run: true, .. } => Mode::Try,
            Self { no_backup: true, .. } => Mode::ApplyWithoutBackup,
            _ => Mode::Apply,
        };
        let what =
            if self.dry_run { "Trying to bring the database up to date" } else { "Bringing the database up to date" };
        let done = cx.out.step(what, || places.migrate(mode))?;
        let report = json!({ "dry_run": self.dry_run, "migrations": done.applied, "backup": done.backup });
        cx.show(&report, |out| {
            if done.applied.is_empty() {
                return out.line("The database is up to date.");
            }
            out.line(if self.dry_run {
                "These migrations would be applied:"
            } else {
                "These migrations were applied:"
            })?;
            done.applied.iter().try_for_each(|name| out.line(format!("  {name}")))?;
            let copy = done.backup.as_ref().map(|path| format!("A copy of the database as it was: {}", path.display()));
            copy.map_or(Ok(()), |line| out.line(line))
        })
    }
}

/// Give every secret of the platform a new key, as root
///
/// Config vars, credentials and whatever else is encrypted in the database move to the new key while the platform runs, and the
/// old key is forgotten at the end. If it is interrupted, the platform goes on by itself when it starts. Copies of the database from
/// before need the old key: keep it with them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ sudo cp /var/lib/platform/secrets.key /root/old-secrets.key
  $ sudo platform secrets:rotate")]
pub(crate) struct RotateSecrets {}

impl RotateSecrets {
    #[expect(clippy::unused_self, reason = "reads like its siblings where it is used")]
    pub(crate) fn run(&self, cx: &Context) -> Result<()> {
        need_root("secrets:rotate")?;
        let client = Client::local(&Places::load_running()?.control())?;
        let done =
            cx.out.step("Sealing every secret under a new key", || client.post(&["secrets", "rotate"], &json!({})))?;
        cx.show(&done, |out| out.line(format!("{} secrets have a new key. The old one is gone.", done["resealed"])))
    }
}
