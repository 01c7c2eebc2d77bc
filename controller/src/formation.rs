//! How many instances of each process type should run, and of which size. Scaling makes no release.

use model::ProcessType;

use crate::sizes::Sizes;
use crate::store::{App, FormationRow, Quantity, Scale, StoreError};
use crate::{Actor, Controller, Error};

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
        let sizes = self.sizes().await?;
        let check = |request| check(request, &known, &sizes);
        let changes = requests.iter().map(check).collect::<Result<Vec<Scale>, Error>>()?;
        let rows: Vec<FormationRow> = known.iter().map(|process| process.row.clone()).collect();
        let _admitted = self.admit_scale(app.id, &rows, &changes, &sizes).await?;
        self.store.scale(app.id, &changes, MAX_QUANTITY, &self.stamp(actor)).await.map_err(|error| match error {
            StoreError::Quantity { process_type, quantity } => out_of_range(&process_type, quantity),
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

fn check(request: &ScaleRequest, known: &[ProcessFormation], sizes: &Sizes) -> Result<Scale, Error> {
    let name = &request.process_type;
    let is_known = |process_type: &ProcessType| known.iter().any(|f| f.row.process_type == *process_type);
    let process_type = name.parse().ok().filter(is_known);
    let process_type = process_type.ok_or(Error::NotFound("process type"))?;
    let quantity = request.quantity.as_deref().map(parse_quantity).transpose()?;
    if name == RELEASE_PHASE && quantity.is_some_and(|quantity| quantity != Quantity::Exactly(0)) {
        return Err(Error::Invalid("The release process runs once for each release and cannot be scaled".to_owned()));
    }
    // Before it is asked whether there is room for so many.
    if let Some(Quantity::Exactly(quantity)) = quantity
        && quantity > MAX_QUANTITY
    {
        return Err(out_of_range(&process_type, quantity.into()));
    }
    let size = match request.size.as_deref() {
        Some(size) => Some(sizes.find(size).ok_or_else(|| sizes.unknown(size))?.name.clone()),
        None => None,
    };
    Ok(Scale { process_type, quantity, size })
}

fn out_of_range(process_type: &ProcessType, quantity: i64) -> Error {
    Error::Invalid(format!("quantity of {process_type} would be {quantity}; possible are 0 to {MAX_QUANTITY}"))
}

fn parse_quantity(text: &str) -> Result<Quantity, Error> {
    let parsed = match text.trim() {
        relative if relative.starts_with(['+', '-']) => relative.parse().ok().map(Quantity::By),
        absolute => absolute.parse().ok().map(Quantity::Exactly),
    };
    parsed.ok_or_else(|| Error::Invalid(format!("quantity {text:?} is not a number like 2, +1 or -1")))
}
