use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::fchown;
use std::path::Path;

use manifest::{APP_JSON, Files, HEROKU_YML, MAX_BYTES};
use model::ProcessType;

use crate::Error;
use crate::builds::Output;

const PROCFILE: &str = "Procfile";

/// The files of a commit that say something about its app.
#[derive(Debug)]
pub(super) struct Sources {
    app_json: Option<Vec<u8>>,
    heroku_yml: Option<Vec<u8>>,
}

impl Sources {
    pub(super) fn as_manifest(&self) -> Files<'_> {
        Files { app_json: self.app_json.as_deref(), heroku_yml: self.heroku_yml.as_deref() }
    }
}

/// Reads them, as far as they are there.
pub(super) async fn read(source: &Path) -> Result<Sources, Error> {
    let folder = source.to_owned();
    on_disk("read app.json and heroku.yml", move || {
        Ok(Sources { app_json: read_file(&folder.join(APP_JSON))?, heroku_yml: read_file(&folder.join(HEROKU_YML))? })
    })
    .await
}

/// Puts a Procfile with the process types of a `heroku.yml` into an app that has none.
pub(super) async fn write_procfile(
    source: &Path,
    uid: u32,
    processes: &BTreeMap<ProcessType, String>,
    output: &mut Output,
) -> Result<(), Error> {
    let path = source.join(PROCFILE);
    if processes.is_empty() || path.symlink_metadata().is_ok() {
        return Ok(());
    }
    let lines = processes.iter().map(|(name, command)| format!("{name}: {command}\n")).collect::<Vec<_>>().concat();
    on_disk("write a Procfile", move || {
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        file.write_all(lines.as_bytes())?;
        fchown(&file, Some(uid), Some(uid))
    })
    .await?;
    let names: Vec<_> = processes.keys().map(ProcessType::as_str).collect();
    output.line(&format!("-----> Process types of {HEROKU_YML}: {}", names.join(", "))).await;
    Ok(())
}

/// One byte more than is allowed, so that too much can be told. What is no file is not there: a link could lead anywhere on the
/// platform's machine.
fn read_file(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_file() => {}
        _ => return Ok(None),
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

async fn on_disk<T: Send + 'static>(
    action: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    let failed = |source: io::Error| Error::System { action, source: source.into() };
    tokio::task::spawn_blocking(work).await.map_err(|panic| failed(io::Error::other(panic)))?.map_err(failed)
}
