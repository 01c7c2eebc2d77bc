//! How many instances of each process type should run, and of which size. Scaling makes no release.

use std::sync::LazyLock;

use engine::Limits;
use model::{DynoSize, ProcessType};

use crate::store::{App, FormationRow, Quantity, Scale, StoreError};
use crate::{Actor, Controller, Error};

/// Size of a process type that nobody gave another.
pub const DEFAULT_SIZE: &str = "Standard-1X";
/// Most instances of one process type.
pub const MAX_QUANTITY: u32 = 100;

/// Takes requests; every app can have it.
pub(crate) const WEB: &str = "web";
/// Runs once for each release, before it serves; never as part of the formation.
pub(crate) const RELEASE_PHASE: &str = "release";

/// One process type as the user sees it.
#[derive(Debug, Clone)]
pub struct ProcessFormation {
    /// How many, of which size.
    pub row: FormationRow,
    /// The command, as people read it.
    pub command: String,
}

/// A wish to change one process type, as a user words it; `None` leaves it.
#[derive(Debug, Clone)]
pub struct ScaleRequest {
    /// `web`, `worker`, …
    pub process_type: String,
    /// `2`, `+1` or `-1`.
    pub quantity: Option<String>,
    /// Name of a dyno size, in any case.
    pub size: Option<String>,
}

impl Controller {
    /// The process types of the newest release that did not fail, by name. Before there is one, those that were scaled.
    pub async fn formation(&self, app: &App) -> Result<Vec<ProcessFormation>, Error> {
        let image = self.store.newest_image(app.id).await?;
        let rows = self.store.formation(app.id).await?.into_iter();
        let known = |row: FormationRow| {
            let Some(image) = &image else { return Some(ProcessFormation { row, command: String::new() }) };
            let process = image.processes.iter().find(|process| process.process_type == row.process_type)?;
            Some(ProcessFormation { row, command: process.display() })
        };
        Ok(rows.filter_map(known).collect())
    }

    /// Applies all wishes or none, and returns the process types that were named. `web` can be scaled before the first deploy,
    /// which then starts as many.
    pub async fn scale(
        &self,
        app: &App,
        actor: &Actor,
        requests: &[ScaleRequest],
    ) -> Result<Vec<ProcessFormation>, Error> {
        if requests.iter().any(|request| request.process_type == WEB) && !self.store.was_deployed(app.id).await? {
            self.store.add_process_type(app.id, &process_type(WEB)?, self.clock.now()).await?;
        }
        let known = self.formation(app).await?;
        let changes = requests.iter().map(|request| check(request, &known)).collect::<Result<Vec<Scale>, Error>>()?;
        self.store.scale(app.id, &changes, MAX_QUANTITY, &self.stamp(actor)).await.map_err(|error| match error {
            StoreError::Quantity { process_type, quantity } => Error::Invalid(format!(
                "quantity of {process_type} would be {quantity}; possible are 0 to {MAX_QUANTITY}"
            )),
            other => other.into(),
        })?;
        let is_named = |formation: &ProcessFormation| {
            changes.iter().any(|change| change.process_type == formation.row.process_type)
        };
        let named: Vec<_> = self.formation(app).await?.into_iter().filter(is_named).collect();
        let words: Vec<_> =
            named.iter().map(|f| format!("{}@{}:{}", f.row.process_type, f.row.quantity, f.row.size)).collect();
        self.note(app, actor, &format!("Scaled to {}", words.join(" ")));
        self.changed.app(app.id);
        Ok(named)
    }
}

pub(crate) fn process_type(name: &str) -> Result<ProcessType, Error> {
    name.parse().map_err(|rule: model::NameError| Error::Invalid(rule.to_string()))
}

fn check(request: &ScaleRequest, known: &[ProcessFormation]) -> Result<Scale, Error> {
    let name = &request.process_type;
    let is_known = |process_type: &ProcessType| known.iter().any(|f| f.row.process_type == *process_type);
    let process_type = name.parse().ok().filter(is_known);
    let process_type = process_type.ok_or(Error::NotFound("process type"))?;
    let quantity = request.quantity.as_deref().map(parse_quantity).transpose()?;
    if name == RELEASE_PHASE && quantity.is_some_and(|quantity| quantity != Quantity::Exactly(0)) {
        return Err(Error::Invalid("The release process runs once for each release and cannot be scaled".to_owned()));
    }
    let size = match request.size.as_deref() {
        Some(size) => Some(dyno_size(size).ok_or_else(|| unknown_size(size))?.name.clone()),
        None => None,
    };
    Ok(Scale { process_type, quantity, size })
}

fn parse_quantity(text: &str) -> Result<Quantity, Error> {
    let parsed = match text.trim() {
        relative if relative.starts_with(['+', '-']) => relative.parse().ok().map(Quantity::By),
        absolute => absolute.parse().ok().map(Quantity::Exactly),
    };
    parsed.ok_or_else(|| Error::Invalid(format!("quantity {text:?} is not a number like 2, +1 or -1")))
}

pub(crate) fn unknown_size(size: &str) -> Error {
    let names: Vec<_> = dyno_sizes().iter().map(|size| size.name.as_str()).collect();
    Error::Invalid(format!("size {size:?} does not exist; available are {}", names.join(", ")))
}

/// The sizes that there are, from small to large. They share the cores; when those are short, each gets its part by weight.
pub fn dyno_sizes() -> &'static [DynoSize] {
    static SIZES: LazyLock<Vec<DynoSize>> = LazyLock::new(|| {
        let size = |name: &str, memory_mib: u64, (cpu_millis, cpu_weight), pids, disk_gib: u64, open_files| DynoSize {
            name: name.to_owned(),
            memory_bytes: memory_mib << 20,
            cpu_millis,
            cpu_weight,
            pids,
            disk_bytes: disk_gib << 30,
            // One for each 16 KiB.
            files: disk_gib << 16,
            open_files,
        };
        vec![
            size("Eco", 512, (1000, 50), 256, 2, 16_384),
            size("Basic", 512, (1000, 100), 256, 4, 16_384),
            size("Standard-1X", 512, (1000, 100), 256, 4, 16_384),
            size("Standard-2X", 1024, (2000, 200), 512, 8, 32_768),
            size("Performance-M", 2560, (2000, 400), 16384, 16, 65_536),
            size("Performance-L", 14336, (8000, 800), 32768, 32, 65_536),
            size("Performance-L-RAM", 30720, (4000, 800), 32768, 32, 65_536),
            size("Performance-XL", 63488, (8000, 1600), 32768, 64, 65_536),
            size("Performance-2XL", 129_024, (16000, 3200), 32768, 128, 65_536),
        ]
    });
    &SIZES
}

/// What a dyno of this size may have.
pub(crate) fn limits(size: &DynoSize) -> Limits {
    Limits {
        cpu_weight: size.cpu_weight,
        disk_bytes: Some(size.disk_bytes),
        files: Some(size.files),
        open_files: Some(size.open_files),
        ..Limits::new(size.memory_bytes, size.cpu_millis, size.pids)
    }
}

/// The smallest size with more memory.
pub(crate) fn larger(size: &DynoSize) -> Option<&'static DynoSize> {
    let larger = dyno_sizes().iter().filter(|other| other.memory_bytes > size.memory_bytes);
    larger.min_by_key(|other| other.memory_bytes)
}

/// The size of this name, in any case.
pub fn dyno_size(name: &str) -> Option<&'static DynoSize> {
    dyno_sizes().iter().find(|size| size.name.eq_ignore_ascii_case(name))
}
