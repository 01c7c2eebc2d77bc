//! From what was sent to an image that runs.

use std::path::PathBuf;
use std::sync::Arc;

use builder::{
    BuildError, BuildRequest, Buildpacks, Built, Dockerfile, Failure, ForeignImage, ImageSource, Reference, Source,
};
use manifest::{Docker, Manifest};
use model::BuildId;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Code, Commit, Output, Refused, gone};
use crate::fetch::Fetcher;
use crate::git::{Checkout, checkout, repository};
use crate::live::Stages;
use crate::store::{App, Scope};
use crate::{Actor, Controller};

/// The file that makes a folder an OCI layout (OCI image spec, "oci-layout file").
const LAYOUT: &str = "oci-layout";
/// Asks for nothing, but is better than no way to build.
const DOCKERFILE: &str = "Dockerfile";

/// What was brought to this machine.
enum Brought {
    /// An app's files.
    Files(PathBuf),
    Image(ImageSource),
}

impl Controller {
    /// Everything up to the image.
    pub(super) async fn make(
        self: &Arc<Self>,
        app: &App,
        code: &Code,
        id: BuildId,
        output: &mut Output,
    ) -> Result<(Built, Manifest, Stages), Refused> {
        let began = Instant::now();
        let version = if code.version().is_empty() { "an archive" } else { code.title() };
        output.line(&format!("-----> Building {} from {version}", app.name)).await;
        let source = self.bring(app, code, id).await?;
        let mut stages: Stages = vec![("receive", code.received() + began.elapsed())];
        let asked = Instant::now();
        let manifest = match &source {
            Brought::Files(folder) => self.read_manifest(app, folder, output).await?,
            Brought::Image(_) => Manifest::default(),
        };
        let actor = Actor { insists: code.insists(), ..self.pusher(code.by()).await? };
        let app = &self.set_up((app, &actor), &manifest, output).await?;
        stages.push(("set up", asked.elapsed()));
        let built = match source {
            Brought::Files(folder) if folder.join(LAYOUT).is_file() => {
                let name = if code.version().is_empty() { "in the archive" } else { code.title() };
                self.import(app, id, (name, ImageSource::Layout(folder), &manifest), output).await?
            }
            Brought::Image(image) => self.import(app, id, (code.title(), image, &manifest), output).await?,
            Brought::Files(folder) => self.build(app, code, (id, folder, &manifest), output).await?,
        };
        stages.extend(&built.phases);
        Ok((built, manifest, stages))
    }

    /// Brings what is built to this machine.
    async fn bring(&self, app: &App, code: &Code, id: BuildId) -> Result<Brought, Refused> {
        Ok(match code {
            Code::Commit(commit) => Brought::Files(self.check_out(app, commit, id).await?),
            Code::Archive(archive) => Brought::Files(self.unpack_archive(app, archive, id).await?),
            Code::Image(image) => Brought::Image(ImageSource::Registry(image.name.clone())),
        })
    }

    async fn check_out(&self, app: &App, commit: &Commit, id: BuildId) -> Result<PathBuf, Refused> {
        let target = self.checkouts().join(id.to_string());
        let (repository, env) = (repository(&self.settings, app.id), commit.env.clone());
        let (commit, uid, folder) = (commit.id.clone(), app.uid, target.clone());
        let written = tokio::task::spawn_blocking(move || {
            checkout(&Checkout { repository: &repository, commit: &commit, env: &env, target: &folder, uid })
        });
        let failed = |error: &dyn std::error::Error| Refused::Said(format!("{}.", crate::errors::chain(error)));
        match written.await {
            Ok(Ok(())) => Ok(target),
            Ok(Err(error)) => Err(failed(&error)),
            Err(panic) => Err(failed(&panic)),
        }
    }

    /// Builds files as they ask for: by a Dockerfile, or by buildpacks, or, where none fits, by the Dockerfile that is there.
    async fn build(
        self: &Arc<Self>,
        app: &App,
        code: &Code,
        (id, folder, manifest): (BuildId, PathBuf, &Manifest),
        output: &mut Output,
    ) -> Result<Built, Refused> {
        if let Some(docker) = &manifest.docker {
            return self.build_dockerfile(app, (id, folder, manifest), docker, output).await;
        }
        let chosen = code.buildpacks().unwrap_or(&app.buildpacks);
        let may_fall_back = chosen.is_empty() && folder.join(DOCKERFILE).is_file();
        let env = self.store.present(app.id).await?.environment(Scope::Build);
        let files = Buildpacks { files: folder, env, chosen: references(chosen)? };
        match self.build_from(app, id, Source::Buildpacks(files), output).await? {
            Err(BuildError::Failed(Failure::NothingDetected { errored: false, .. })) if may_fall_back => {
                output.line("-----> No buildpack fits, and there is a Dockerfile").await;
                // The build took the files over, and may have changed them.
                let Brought::Files(folder) = self.bring(app, code, id).await? else { return Err(gone()) };
                let docker = Docker { dockerfile: DOCKERFILE.to_owned(), ..Docker::default() };
                self.build_dockerfile(app, (id, folder, manifest), &docker, output).await
            }
            built => built.map_err(|error| said(&error)),
        }
    }

    async fn build_dockerfile(
        self: &Arc<Self>,
        app: &App,
        (id, files, manifest): (BuildId, PathBuf, &Manifest),
        docker: &Docker,
        output: &mut Output,
    ) -> Result<Built, Refused> {
        let Docker { dockerfile: path, target, args } = docker.clone();
        let dockerfile = Dockerfile { files, path, target, args, processes: manifest.processes.clone() };
        self.build_from(app, id, Source::Dockerfile(dockerfile), output).await?.map_err(|error| said(&error))
    }

    /// Takes an image over that was made elsewhere.
    async fn import(
        self: &Arc<Self>,
        app: &App,
        id: BuildId,
        (name, place, manifest): (&str, ImageSource, &Manifest),
        output: &mut Output,
    ) -> Result<Built, Refused> {
        let image = ForeignImage { name: name.to_owned(), place, processes: manifest.processes.clone() };
        self.build_from(app, id, Source::Image(image), output).await?.map_err(|error| said(&error))
    }

    /// Lets the builder work, and shows what it says.
    async fn build_from(
        self: &Arc<Self>,
        app: &App,
        id: BuildId,
        source: Source,
        output: &mut Output,
    ) -> Result<Result<Built, BuildError>, Refused> {
        let previous = self.store.newest_image(app.id).await?;
        let fetch = Arc::new(Fetcher::new(self, app.id));
        let request = BuildRequest { build: id, app: app.id, uid: app.uid, previous, fetch, source };
        let (sender, mut lines) = mpsc::channel::<String>(256);
        let forward = async {
            while let Some(line) = lines.recv().await {
                output.line(&line).await;
            }
        };
        Ok(tokio::join!(self.builder.build(request, sender), forward).0)
    }
}

fn said(error: &BuildError) -> Refused {
    Refused::Said(error.to_string())
}

fn references(names: &[String]) -> Result<Vec<Reference>, Refused> {
    let parse = |name: &String| name.parse().map_err(|error| Refused::Said(format!("{error}.")));
    names.iter().map(parse).collect()
}
