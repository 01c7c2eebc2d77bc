//! `ps:sizes` and its kin: what dynos can have of the machine.

use clap::Args;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::context::Context;
use crate::error::Result;
use crate::settings::Bytes;

/// A size, as far as it is printed.
#[derive(Debug, Deserialize)]
struct Size {
    name: String,
    memory_bytes: u64,
    dedicated: bool,
    cpu_millis: u32,
    cpu_weight: u32,
    processes: u32,
    disk_bytes: u64,
    files: u64,
    open_files: u64,
}

/// List the sizes that dynos can have, and what a dyno of each may use
///
/// Memory, CPUs, processes, disk, files on it and open files are limits; when CPUs are short, each dyno gets its part of them by
/// weight. The memory of a dedicated size is kept free for its dynos alone.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform ps:sizes
  $ platform ps:sizes --json")]
pub(crate) struct List {}

impl List {
    #[expect(clippy::unused_self, reason = "reads like its siblings where it is used")]
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let sizes = cx.client()?.list(&["dyno-sizes"])?;
        cx.show_list(&sizes, |out, mut sizes: Vec<Size>| {
            sizes.sort_by_key(|size| size.memory_bytes);
            let row = |size: Size| {
                vec![
                    size.name.into(),
                    words(size.memory_bytes).into(),
                    if size.dedicated { "yes" } else { "" }.into(),
                    cpus(size.cpu_millis).into(),
                    size.cpu_weight.to_string().into(),
                    size.processes.to_string().into(),
                    words(size.disk_bytes).into(),
                    size.files.to_string().into(),
                    size.open_files.to_string().into(),
                ]
            };
            let columns = ["Size", "Memory", "Dedicated", "CPUs", "Weight", "Processes", "Disk", "Files", "Open files"];
            out.table(&columns, sizes.into_iter().map(row).collect(), "No sizes.")
        })
    }
}

/// What a dyno of a size may use.
#[derive(Debug, Args)]
struct Limits {
    /// Thousandths of a CPU that it may use at most
    #[arg(long, value_name = "MILLIS")]
    cpu: Option<u32>,
    /// Its part of the CPUs when they are short: 100 is usual
    #[arg(long)]
    weight: Option<u32>,
    /// Whether its memory is kept free for it alone
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    dedicated: Option<bool>,
    /// Processes and threads
    #[arg(long, value_name = "NUMBER")]
    processes: Option<u32>,
    /// What it may write to its own disk: 512MiB, 4GiB
    #[arg(long, value_name = "SIZE")]
    disk: Option<Bytes>,
    /// Files and folders on that disk
    #[arg(long, value_name = "NUMBER")]
    files: Option<u64>,
    /// Files and connections that one process may have open
    #[arg(long, value_name = "NUMBER")]
    open_files: Option<u64>,
}

impl Limits {
    fn body(self, memory: Option<Bytes>) -> Map<String, Value> {
        let all = [
            ("memory_bytes", memory.map(|Bytes(bytes)| json!(bytes))),
            ("cpu_millis", self.cpu.map(|value| json!(value))),
            ("cpu_weight", self.weight.map(|value| json!(value))),
            ("dedicated", self.dedicated.map(|value| json!(value))),
            ("processes", self.processes.map(|value| json!(value))),
            ("disk_bytes", self.disk.map(|Bytes(bytes)| json!(bytes))),
            ("files", self.files.map(|value| json!(value))),
            ("open_files", self.open_files.map(|value| json!(value))),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}

/// Make a size of one's own, as an operator of the platform
///
/// What is not said is as of Standard-1X: one CPU, 256 processes, 4 GiB of disk, one file for each 16 KiB of it, 16,384 open files; and a
/// weight of 100 for each CPU.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform ps:sizes:add tiny --memory 128MiB --cpu 250 --disk 512MiB
  $ platform ps:sizes:add huge --memory 16GiB --cpu 8000 --dedicated")]
pub(crate) struct Add {
    /// Lowercase letters, digits and hyphens
    name: String,
    /// Memory: 128MiB, 2GiB
    #[arg(long, value_name = "SIZE")]
    memory: Bytes,
    #[command(flatten)]
    limits: Limits,
}

impl Add {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let client = cx.client()?;
        let mut body = self.limits.body(Some(self.memory));
        body.insert("name".to_owned(), json!(self.name));
        let add = || client.post(&["dyno-sizes"], &Value::Object(body));
        cx.done(&cx.out.step(&format!("Making size {}", self.name), add)?)
    }
}

/// Change a size of one's own; dynos that run keep what they have until their next release
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform ps:sizes:update tiny --memory 256MiB
  $ platform ps:sizes:update huge --dedicated false")]
pub(crate) struct Update {
    /// Its name
    name: String,
    /// Memory: 128MiB, 2GiB
    #[arg(long, value_name = "SIZE")]
    memory: Option<Bytes>,
    #[command(flatten)]
    limits: Limits,
}

impl Update {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let client = cx.client()?;
        let body = Value::Object(self.limits.body(self.memory));
        let update = || client.patch(&["dyno-sizes", &self.name], &body);
        cx.done(&cx.out.step(&format!("Changing size {}", self.name), update)?)
    }
}

/// Remove a size of one's own that no process type has
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform ps:sizes:remove tiny")]
pub(crate) struct Remove {
    /// Its name
    name: String,
}

impl Remove {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let client = cx.client()?;
        let remove = || client.delete(&["dyno-sizes", &self.name]);
        cx.done(&cx.out.step(&format!("Removing size {}", self.name), remove)?)
    }
}

/// `512 MiB`, `2.5 GiB`
fn words(bytes: u64) -> String {
    let mebibytes = bytes >> 20;
    match (mebibytes / 1024, mebibytes % 1024 * 10 / 1024) {
        (0, _) => format!("{mebibytes} MiB"),
        (whole, 0) => format!("{whole} GiB"),
        (whole, tenth) => format!("{whole}.{tenth} GiB"),
    }
}

/// `0.25`, `8`
fn cpus(millis: u32) -> String {
    let text = format!("{}.{:03}", millis / 1000, millis % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
