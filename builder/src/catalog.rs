//! The buildpacks that the platform itself has, for people who look for one.

use crate::Builder;
use crate::buildpack::{Buildpacks, Kind};
use crate::errors::BuildError;
use crate::reference;

/// A buildpack of the platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// `platform/nodejs`
    pub id: String,
    /// Its newest version.
    pub version: String,
    /// What people call it.
    pub name: Option<String>,
    /// What it builds.
    pub description: Option<String>,
    /// Where to read more.
    pub homepage: Option<String>,
    /// Heroku's name for one that does the same.
    pub heroku: Option<&'static str>,
}

impl Builder {
    /// All buildpacks of the platform, by id.
    pub fn offered(&self) -> Result<Vec<Offered>, BuildError> {
        let installed = Buildpacks::load(Kind::Buildpack, &self.buildpacks)?;
        let offered = |id: String| {
            let info = &installed.find(&id, None)?.toml.buildpack;
            Some(Offered {
                version: info.version.clone(),
                name: info.name.clone(),
                description: info.description.clone(),
                homepage: info.homepage.clone(),
                heroku: reference::herokus(&id),
                id,
            })
        };
        Ok(installed.ids().into_iter().filter_map(offered).collect())
    }
}
