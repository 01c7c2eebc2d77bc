//! `builds:sbom`: what a build's image is made of.

use clap::{Args, ValueEnum};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client;
use crate::context::{AppArg, Context};
use crate::error::{CliError, Result};

/// How many builds are looked through for one that succeeded.
const SEARCH: u32 = 50;

/// A bill of materials, as far as it is printed.
#[derive(Debug, Deserialize)]
struct Sbom {
    buildpack: String,
    document: Value,
    launch: bool,
    layer: Option<String>,
    media_type: String,
}

/// A format of bills of materials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    #[value(help = "CycloneDX in JSON")]
    Cyclonedx,
    /// SPDX in JSON
    Spdx,
    /// Syft's own JSON
    Syft,
}

impl Format {
    fn media_type(self) -> &'static str {
        match self {
            Self::Cyclonedx => "application/vnd.cyclonedx+json",
            Self::Spdx => "application/spdx+json",
            Self::Syft => "application/vnd.syft+json",
        }
    }

    fn name(media_type: &str) -> String {
        let known = Self::value_variants().iter().find(|format| format.media_type() == media_type);
        known.map_or_else(|| media_type.to_owned(), |format| format!("{format:?}").to_lowercase())
    }
}

/// Show what the image of a build is made of
///
/// Lists the bills of materials that the buildpacks wrote, and that of the stack. With --format, prints the documents themselves,
/// one a line.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform builds:sbom
  $ platform builds:sbom --format cyclonedx -a my-app | jq '.components[].purl'")]
pub(crate) struct Show {
    /// Id of a build, as `platform builds` lists it; the newest that succeeded if none
    build: Option<String>,
    /// Print the documents of this format
    #[arg(long, value_enum)]
    format: Option<Format>,
    #[command(flatten)]
    app: AppArg,
}

impl Show {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let build = match self.build {
            Some(build) => build,
            None => newest(&client.newest(&["apps", &name, "builds"], SEARCH)?)?,
        };
        let value = client.get(&["apps", &name, "builds", &build, "sbom"])?;
        if let Some(format) = self.format {
            let sboms: Vec<Sbom> = client::typed(&value)?;
            for sbom in sboms.iter().filter(|sbom| sbom.media_type == format.media_type()) {
                cx.show_line(&json!(sbom.document), sbom.document.to_string())?;
            }
            return Ok(());
        }
        cx.show_list(&value, |out, sboms: Vec<Sbom>| {
            let row = |sbom: Sbom| {
                let part = if sbom.launch { "image" } else { "build" };
                let format = Format::name(&sbom.media_type);
                vec![
                    sbom.buildpack.into(),
                    sbom.layer.unwrap_or_default().into(),
                    part.into(),
                    format.into(),
                    parts(&sbom.document).into(),
                ]
            };
            let columns = ["Buildpack", "Layer", "Of the", "Format", "Parts"];
            out.table(
                &columns,
                sboms.into_iter().map(row).collect(),
                "No buildpack of this build wrote a bill of materials.",
            )
        })
    }
}

fn newest(builds: &Value) -> Result<String> {
    let builds = builds.as_array().into_iter().flatten();
    let mut done = builds.filter(|build| build["status"] == "succeeded");
    let id = done.next().and_then(|build| build["id"].as_str()).map(str::to_owned);
    id.ok_or_else(|| CliError::failed("No build succeeded yet").hint("The first comes with `git push platform main`."))
}

/// How many things a document lists: each format has its own name for them.
fn parts(document: &Value) -> String {
    let lists = ["components", "packages", "artifacts"].iter().filter_map(|key| document[key].as_array());
    lists.map(Vec::len).sum::<usize>().to_string()
}
