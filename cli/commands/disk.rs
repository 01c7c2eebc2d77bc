//! What takes the disk.

use clap::Args;
use serde::Deserialize;
use serde_json::json;

use crate::client;
use crate::context::{AppArg, Context};
use crate::error::Result;
use crate::output::{self, Field, Mood};

/// Something that takes room.
#[derive(Debug, Deserialize)]
struct Room {
    name: String,
    bytes: u64,
}

/// `GET /apps/:app/disk`
#[derive(Debug, Deserialize)]
pub(super) struct AppDisk {
    bytes: u64,
    rooms: Vec<Room>,
    releases: Vec<ReleaseRoom>,
}

/// What the image of a release takes.
#[derive(Debug, Deserialize)]
struct ReleaseRoom {
    version: u32,
    bytes: u64,
    own_bytes: u64,
}

impl AppDisk {
    /// What the image of a release takes, in words.
    pub(super) fn of_release(&self, version: u32) -> Option<String> {
        let release = self.releases.iter().find(|release| release.version == version)?;
        let (all, own) = (output::size(release.bytes), output::size(release.own_bytes));
        Some(format!("{all}, {own} of it its own"))
    }
}

/// `GET /disk`
#[derive(Debug, Deserialize)]
struct PlatformDisk {
    bytes: u64,
    free_bytes: u64,
    files: u64,
    free_files: u64,
    percent: u8,
    high_percent: u8,
    full_percent: u8,
    rooms: Vec<Room>,
}

/// `GET /disk/waste`
#[derive(Debug, Deserialize)]
struct Waste {
    bytes: u64,
    items: Vec<WasteItem>,
}

/// Something that the next rounds of the collection remove.
#[derive(Debug, Deserialize)]
struct WasteItem {
    kind: String,
    name: String,
    age_seconds: u64,
    bytes: u64,
}

/// Show what an app takes of the disk, and what each of its releases does
///
/// Layers that several apps have are there once, and each app is charged with its part. Own bytes of a release are those that no other image has.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform apps:disk
  $ platform apps:disk -a my-app --json")]
pub(crate) struct OfApp {
    #[command(flatten)]
    app: AppArg,
}

impl OfApp {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let value = client.get(&["apps", &name, "disk"])?;
        cx.show(&value, |out| {
            let disk: AppDisk = client::typed(&value)?;
            out.heading(&format!("{name}: {}", output::size(disk.bytes)))?;
            out.pairs(rooms(disk.rooms))?;
            out.line("")?;
            let row = |release: ReleaseRoom| -> Vec<Field> {
                let version = format!("v{}", release.version);
                vec![version.into(), output::size(release.bytes).into(), output::size(release.own_bytes).into()]
            };
            let rows = disk.releases.into_iter().map(row).collect();
            out.table(&["Release", "Image", "Its own"], rows, "No release has an image.")
        })
    }
}

/// Show what the platform takes of its disk, and how full that is
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform disk
  $ platform disk --json")]
pub(crate) struct OfPlatform {}

impl OfPlatform {
    #[expect(clippy::unused_self, reason = "reads like its siblings where it is used")]
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let value = cx.client()?.get(&["disk"])?;
        cx.show(&value, |out| {
            let disk: PlatformDisk = client::typed(&value)?;
            let mood = match disk.percent {
                percent if percent >= disk.full_percent => Mood::Bad,
                percent if percent >= disk.high_percent => Mood::Busy,
                _ => Mood::Good,
            };
            let (all, free) = (output::size(disk.bytes), output::size(disk.free_bytes));
            let (high, full) = (disk.high_percent, disk.full_percent);
            let limits = format!("build caches give way from {high} %, nothing is built from {full} %");
            let files = match disk.files {
                0 => "no limit".to_owned(),
                files => format!("{} of {files} left", disk.free_files),
            };
            out.pairs([
                ("Used", Field::from(format!("{} %", disk.percent)).mood(mood)),
                ("Space", format!("{free} of {all} left").into()),
                ("Files", files.into()),
                ("Limits", limits.into()),
            ])?;
            out.line("")?;
            out.pairs(rooms(disk.rooms))
        })
    }
}

/// Remove what nothing needs: layers of no image, and build caches while the disk is nearly full
///
/// The platform does this by itself, every ten minutes and after each deploy.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform gc --dry-run
  $ platform gc")]
pub(crate) struct Collect {
    /// Only show what would go
    #[arg(long)]
    dry_run: bool,
}

impl Collect {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let client = cx.client()?;
        if !self.dry_run {
            let collect = || client.post(&["disk", "actions", "collect"], &json!({}));
            return cx.done(&cx.out.step("Beginning a round of the collection", collect)?);
        }
        let value = client.get(&["disk", "waste"])?;
        cx.show(&value, |out| {
            let waste: Waste = client::typed(&value)?;
            let total = output::size(waste.bytes);
            let row = |item: WasteItem| -> Vec<Field> {
                let hours = format!("{} h", item.age_seconds / 3600);
                vec![item.kind.into(), item.name.into(), hours.into(), output::size(item.bytes).into()]
            };
            let rows: Vec<_> = waste.items.into_iter().map(row).collect();
            let is_empty = rows.is_empty();
            out.table(&["What", "Name", "Unused for", "Size"], rows, "Nothing would go.")?;
            if is_empty { Ok(()) } else { out.line(format!("{total} in all")) }
        })
    }
}

fn rooms(rooms: Vec<Room>) -> impl Iterator<Item = (String, Field)> {
    rooms.into_iter().map(|room| (room.name, output::size(room.bytes).into()))
}
