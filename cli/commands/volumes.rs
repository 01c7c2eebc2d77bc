//! `volumes` and its kin: what an app keeps on disk.

use std::fs::File;
use std::io;

use clap::Args;
use model::VolumeSize;
use serde::Deserialize;
use serde_json::json;

use crate::client::{self, Client};
use crate::context::{self, AppArg, Context};
use crate::error::{CliError, Result};
use crate::output;

/// A volume, as far as it is printed.
#[derive(Debug, Deserialize)]
struct Volume {
    id: String,
    kept_from: Option<String>,
    name: String,
    path: String,
    size_bytes: u64,
    snapshots: u64,
    r#type: String,
    used_bytes: Option<u64>,
}

impl Volume {
    fn size(&self) -> String {
        VolumeSize::of(self.size_bytes).map(|size| size.to_string()).unwrap_or_default()
    }

    fn used(&self) -> String {
        self.used_bytes.map_or_else(|| "–".to_owned(), output::size)
    }
}

/// A snapshot, as far as it is printed.
#[derive(Debug, Deserialize)]
struct Snapshot {
    created_at: String,
    name: String,
    reason: Option<String>,
    used_bytes: u64,
    user: String,
}

/// List the volumes of an app, or those that are kept for apps to come
///
/// A volume is a disk for the one dyno of a process type, which outlives dynos and releases. One is kept when its app is destroyed or
/// it is detached, and another app can adopt it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform volumes
  $ platform volumes --kept")]
pub(crate) struct List {
    /// Those that no app has: yours, and those of teams of which you are an admin
    #[arg(long, conflicts_with = "app")]
    kept: bool,
    #[command(flatten)]
    app: AppArg,
}

impl List {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        if self.kept {
            let volumes = cx.client()?.list(&["volumes"])?;
            return cx.show_list(&volumes, |out, volumes: Vec<Volume>| {
                let row = |volume: Volume| {
                    let (size, used) = (volume.size(), volume.used());
                    let from = volume.kept_from.unwrap_or_default();
                    let snapshots = volume.snapshots.to_string();
                    vec![volume.name.into(), from.into(), size.into(), used.into(), snapshots.into(), volume.id.into()]
                };
                let rows = volumes.into_iter().map(row).collect();
                out.table(&["Volume", "Was of", "Holds", "Takes", "Snapshots", "Id"], rows, "No volume is kept.")
            });
        }
        let (client, name) = cx.app(&self.app)?;
        let volumes = client.list(&["apps", &name, "volumes"])?;
        cx.show_list(&volumes, |out, volumes: Vec<Volume>| {
            let row = |volume: Volume| {
                let (size, used) = (volume.size(), volume.used());
                let snapshots = volume.snapshots.to_string();
                vec![
                    volume.name.into(),
                    volume.r#type.into(),
                    volume.path.into(),
                    size.into(),
                    used.into(),
                    snapshots.into(),
                ]
            };
            let empty = format!("{name} has no volumes. `platform volumes:create NAME PATH` makes one.");
            out.table(
                &["Volume", "Process", "Path", "Holds", "Takes", "Snapshots"],
                volumes.into_iter().map(row).collect(),
                &empty,
            )
        })
    }
}

/// Make a volume for an app, or let it adopt one that was kept
///
/// It is mounted by a new release. A process type with a volume runs one dyno, which stops before the next one starts.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform volumes:create data /data --size 5GiB -a my-app
  $ platform volumes:create queue /var/lib/queue --process worker
  $ platform volumes:create data /data --from 01234567-89ab-4cde-8f01-23456789abcd")]
pub(crate) struct Create {
    /// Its name: lowercase letters, digits and dashes
    name: String,
    /// Where dynos see it, as /data; one that is adopted stays where it was
    #[arg(required_unless_present = "from")]
    path: Option<String>,
    /// The process type whose dyno has it
    #[arg(long, value_name = "TYPE")]
    process: Option<String>,
    /// How much it holds: 512MiB, 5GiB; 1GiB if nothing is said
    #[arg(long, conflicts_with = "from")]
    size: Option<VolumeSize>,
    /// One that is kept, by name or id, instead of a new one
    #[arg(long, value_name = "VOLUME")]
    from: Option<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Create {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let content = json!({
            "name": self.name,
            "path": self.path,
            "type": self.process,
            "size_bytes": self.size.map(VolumeSize::bytes),
            "from": self.from,
        });
        let what = format!("Adding volume {} to {name}", self.name);
        cx.done(&cx.out.step(&what, || client.post(&["apps", &name, "volumes"], &content))?)
    }
}

/// Let a volume hold more
///
/// Where it cannot grow while its dyno runs, a new release stops that first. A volume never gets smaller.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform volumes:resize data 10GiB -a my-app")]
pub(crate) struct Resize {
    /// The volume
    volume: String,
    /// How much it is to hold: 512MiB, 10GiB
    size: VolumeSize,
    #[command(flatten)]
    app: AppArg,
}

impl Resize {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let content = json!({ "size_bytes": self.size.bytes() });
        let what = format!("Resizing volume {} to {}", self.volume, self.size);
        cx.done(&cx.out.step(&what, || client.patch(&["apps", &name, "volumes", &self.volume], &content))?)
    }
}

/// Take a volume away from an app, and keep what is in it with its snapshots
///
/// `volumes --kept` lists it then, and `volumes:create --from` gives it to an app of the same owner.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform volumes:detach data -a my-app")]
pub(crate) struct Detach {
    /// The volume
    volume: String,
    #[command(flatten)]
    app: AppArg,
}

impl Detach {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let what = format!("Detaching volume {} from {name}", self.volume);
        let path = ["apps", &name, "volumes", &self.volume];
        cx.done(&cx.out.step(&what, || client.delete_by((&path, &[("data", "keep")])))?)
    }
}

/// Destroy a volume with all that is in it
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform volumes:destroy data -a my-app
  $ platform volumes:destroy data -a my-app --confirm data --delete-snapshots
  $ platform volumes:destroy data --kept")]
pub(crate) struct Destroy {
    /// The volume; one that is kept by its name or id
    volume: String,
    /// One that no app has
    #[arg(long, conflicts_with = "app")]
    kept: bool,
    /// Destroy its snapshots, too
    #[arg(long)]
    delete_snapshots: bool,
    /// The volume's name again, instead of being asked for it
    #[arg(long, short, value_name = "VOLUME")]
    confirm: Option<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Destroy {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, app) =
            if self.kept { (cx.client()?, None) } else { cx.app(&self.app).map(|(c, a)| (c, Some(a)))? };
        let volume = self.volume.as_str();
        let place = app.as_ref().map_or_else(|| "--kept".to_owned(), |app| format!("-a {app}"));
        let what = format!("This destroys the volume {volume} with all that is in it and cannot be undone.");
        let command = format!("platform volumes:destroy {volume} {place} --confirm {volume}");
        context::confirm_named((volume, "the name of the volume"), self.confirm, (&what, &command))?;
        let mut query = vec![("data", "delete")];
        query.extend(self.delete_snapshots.then_some(("snapshots", "delete")));
        let destroy = || match &app {
            Some(app) => client.delete_by((&["apps", app, "volumes", volume], &query)),
            None => client.delete_by((&["volumes", volume], &query)),
        };
        cx.done(&cx.out.step(&format!("Destroying volume {volume}"), destroy)?)
    }
}

/// Keep what is in a volume now, while its dyno runs
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform volumes:snapshot data -a my-app")]
pub(crate) struct Take {
    /// The volume
    volume: String,
    #[command(flatten)]
    app: AppArg,
}

impl Take {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let path = ["apps", &name, "volumes", &self.volume, "snapshots"];
        let what = format!("Taking a snapshot of volume {}", self.volume);
        let made = cx.out.step(&what, || client.post(&path, &json!({})))?;
        let snapshot: Snapshot = client::typed(&made)?;
        cx.show_line(&made, snapshot.name)
    }
}

/// List the snapshots of a volume
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform volumes:snapshots data -a my-app")]
pub(crate) struct Snapshots {
    /// The volume
    volume: String,
    #[command(flatten)]
    app: AppArg,
}

impl Snapshots {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let snapshots = client.list(&["apps", &name, "volumes", &self.volume, "snapshots"])?;
        cx.show_list(&snapshots, |out, snapshots: Vec<Snapshot>| {
            let row = |snapshot: Snapshot| {
                let made = output::when(&snapshot.created_at, context::now());
                let why = snapshot.reason.unwrap_or_default();
                vec![
                    snapshot.name.into(),
                    made.into(),
                    output::size(snapshot.used_bytes).into(),
                    snapshot.user.into(),
                    why.into(),
                ]
            };
            let empty =
                format!("{} has no snapshots. `platform volumes:snapshot {}` makes one.", self.volume, self.volume);
            let rows = snapshots.into_iter().map(row).collect();
            out.table(&["Snapshot", "Made", "Takes", "By", "Why"], rows, &empty)
        })
    }
}

/// Remove a snapshot of a volume
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform volumes:snapshots:remove data s3 -a my-app")]
pub(crate) struct Remove {
    /// The volume
    volume: String,
    /// The snapshot, as s3
    snapshot: String,
    #[command(flatten)]
    app: AppArg,
}

impl Remove {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let path = ["apps", &name, "volumes", &self.volume, "snapshots", &self.snapshot];
        let what = format!("Removing snapshot {} of volume {}", self.snapshot, self.volume);
        cx.done(&cx.out.step(&what, || client.delete(&path))?)
    }
}

/// Put what a snapshot has in the place of what is in its volume
///
/// A new release mounts it. What is there until then becomes a snapshot as well.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform volumes:restore data s3 -a my-app
  $ platform volumes:restore data s3 -a my-app --confirm my-app")]
pub(crate) struct Restore {
    /// The volume
    volume: String,
    /// The snapshot, as s3
    snapshot: String,
    /// The app's name again, instead of being asked for it
    #[arg(long, short, value_name = "APP")]
    confirm: Option<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Restore {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let (volume, snapshot) = (&self.volume, &self.snapshot);
        let what = format!("This puts {snapshot} in the place of what is in the volume {volume} of {name}.");
        let command = format!("platform volumes:restore {volume} {snapshot} -a {name} --confirm {name}");
        context::confirm(&name, self.confirm, (&what, &command))?;
        let path = ["apps", &name, "volumes", volume, "snapshots", snapshot, "actions", "restore"];
        let restore = || client.post(&path, &json!({}));
        cx.done(&cx.out.step(&format!("Restoring volume {volume} from {snapshot}"), restore)?)
    }
}

/// Download what is in a volume, or in a snapshot of one, as a tar archive
///
/// What changes while it is read may be half old and half new; a snapshot never changes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform volumes:download data -a my-app
  $ platform volumes:download data s3 --output shop.tar
  $ platform volumes:download data --output - | tar -t")]
pub(crate) struct Download {
    /// The volume
    volume: String,
    /// A snapshot of it, as s3
    snapshot: Option<String>,
    /// The file to write, - for standard output; the volume's name with .tar if nothing is said
    #[arg(long, short, value_name = "FILE")]
    output: Option<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Download {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let mut path = vec!["apps", &name, "volumes", &self.volume];
        if let Some(snapshot) = &self.snapshot {
            path.extend(["snapshots", snapshot]);
        }
        path.push("content");
        let snapshot = self.snapshot.as_ref().map(|snapshot| format!("-{snapshot}")).unwrap_or_default();
        let file = self.output.unwrap_or_else(|| format!("{}{snapshot}.tar", self.volume));
        if file == "-" {
            io::copy(&mut client.download((&path, &[]))?, &mut io::stdout().lock()).map_err(broken)?;
            return Ok(());
        }
        let bytes = cx.out.step(&format!("Downloading to {file}"), || save(&client, &path, &file))?;
        cx.done(&json!({ "file": file, "bytes": bytes }))
    }
}

/// Writes a file that has its name only once it is whole.
fn save(client: &Client, path: &[&str], file: &str) -> Result<u64> {
    let failed = |error: io::Error| CliError::failed(format!("Cannot write {file}")).because(&error);
    let mut content = client.download((path, &[]))?;
    let draft = format!("{file}.part");
    let copied =
        File::create(&draft).map_err(failed).and_then(|mut to| io::copy(&mut content, &mut to).map_err(broken));
    match copied {
        Ok(bytes) => std::fs::rename(&draft, file).map(|()| bytes).map_err(failed),
        Err(error) => {
            // What is left of it is of no use.
            let _ = std::fs::remove_file(&draft);
            Err(error)
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "what `map_err` gives")]
fn broken(error: io::Error) -> CliError {
    CliError::failed("The download broke off").because(&error).hint("Nothing was kept. Run it again.")
}

/// What becomes of the data of an app that is destroyed.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Choice {
    /// Keep its volumes for another app
    #[arg(long, conflicts_with = "delete_volumes")]
    keep_volumes: bool,
    /// Destroy its volumes and their snapshots, too
    #[arg(long)]
    delete_volumes: bool,
}

impl Choice {
    /// As the API wants to be told; none if nothing was said.
    pub(super) fn query(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self { keep_volumes: true, .. } => &[("data", "keep")],
            Self { delete_volumes: true, .. } => &[("data", "delete")],
            Self { .. } => &[],
        }
    }

    /// As it is typed.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self { keep_volumes: true, .. } => " --keep-volumes",
            Self { delete_volumes: true, .. } => " --delete-volumes",
            Self { .. } => "",
        }
    }
}
