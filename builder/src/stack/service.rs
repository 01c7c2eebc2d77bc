//! Images of backing services.

use std::path::{Path, PathBuf};
use std::process::Command;

use model::Digest;
use serde::{Deserialize, Serialize};

use super::{
    BUSY, CLEAN, Recipe, SUITE, StackError, StackSettings, failed, finish_making, import, lock, make_folder, quoted,
    read_record, remove_rubbish, short_hash, start_making, write_record,
};
use crate::patience::Patience;

/// The run image and some packages more: one layer, a whole root file system.
#[derive(Debug, Clone, Copy)]
pub struct ServiceImage {
    /// Of the service: `postgres`.
    pub name: &'static str,
    /// Debian packages.
    pub packages: &'static [&'static str],
    /// Files of these packages that nothing needs: paths from the root without the first slash, `*` as in a shell.
    pub left_out: &'static [&'static str],
}

/// What is kept of a made image.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    recipe: String,
    layer: Digest,
}

impl ServiceImage {
    /// The image's layer, if it was made, by this recipe and on the stack of today.
    pub fn open(&self, settings: &StackSettings) -> Result<Option<Digest>, StackError> {
        let Some(stack) = super::open(settings)? else { return Ok(None) };
        let record: Option<Record> = read_record(&self.record(settings))?;
        let recipe = self.recipe(&stack.run);
        let made = record.filter(|record| record.recipe == recipe && settings.layers.contains(&record.layer));
        Ok(made.map(|record| record.layer))
    }

    /// Makes the image, or takes it from the cache, unless it is there. It takes seconds to a minute, and needs root; what goes on
    /// is told to `output` line by line. Two at a time wait for each other.
    pub fn make(&self, settings: &StackSettings, output: &mut dyn FnMut(&str)) -> Result<Digest, StackError> {
        if let Some(layer) = self.open(settings)? {
            return Ok(layer);
        }
        let run = super::open(settings)?.ok_or(StackError::NoStack)?.run;
        make_folder(&settings.cache)?;
        let _lock = lock(&settings.cache, BUSY, output)?;
        remove_rubbish(&settings.cache)?;
        let recipe = self.recipe(&run);
        let place = settings.cache.join(format!("{}-{recipe}", self.name));
        let record = match read_record(&place.join("service.json"))? {
            Some(record) => record,
            None => self.make_image(settings, (&run, recipe), &place, output)?,
        };
        import(&settings.layers, &place.join(self.name), &record.layer)?;
        write_record(&self.record(settings), &record)?;
        Ok(record.layer)
    }

    fn make_image(
        &self,
        settings: &StackSettings,
        (run, recipe): (&Digest, String),
        place: &Path,
        output: &mut dyn FnMut(&str),
    ) -> Result<Record, StackError> {
        let making = start_making(settings)?;
        let maker = Recipe { folder: &making, packages: &settings.packages, patience: &Patience::default() };
        maker.write()?;
        output(&format!("Making the image of {}…", self.name));
        let mut command = Command::new("mmdebstrap");
        command.arg("--variant=custom").arg(format!("--include={}", self.packages.join(",")));
        command.arg(format!("--setup-hook=cp -a {}/. \"$1\"", quoted(&settings.layers.path(run))));
        command.arg(format!("--customize-hook=cd \"$1\" && rm -rf {}", self.left_out.join(" ")));
        maker.run(command, self.name, output)?;
        let layer = (settings.digest)(&making.join(self.name)).map_err(failed("read", &making))?;
        let record = Record { recipe, layer };
        write_record(&making.join("service.json"), &record)?;
        finish_making(settings, &making, place)?;
        Ok(record)
    }

    fn record(&self, settings: &StackSettings) -> PathBuf {
        settings.home.join("stacks").join(format!("{}.json", self.name))
    }

    fn recipe(&self, run: &Digest) -> String {
        short_hash(&[run.as_str(), &self.packages.join(" "), &self.left_out.join(" "), CLEAN, SUITE])
    }
}
