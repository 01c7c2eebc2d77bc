//! What a container of a release is made of: its image, its environment, its limits.

use builder::stack::StackError;
use engine::{Container, EngineError, RootFs};
use model::{Image, ImageConfig, Layer};

use crate::sizes::limits;
use crate::store::{App, Release, Scope};
use crate::{Controller, Error};

/// What a container of a release runs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Task<'a> {
    /// A process type of its image.
    Process(&'a str),
    /// A command line.
    Line(&'a str),
}

impl Controller {
    /// The container of one task in a release: its image, its config vars, its limits. `PORT` is for web processes.
    pub(crate) async fn container(
        &self,
        app: &App,
        release: &Release,
        task: Task<'_>,
        size: &str,
    ) -> Result<Container, Error> {
        let image = if release.image.is_some() { self.image_of(release).await? } else { self.bare_image()? };
        let sizes = self.sizes().await?;
        let size = sizes.find_or_default(size);
        let size = size.ok_or_else(|| EngineError::Failed("there is no dyno size".to_owned()))?;
        let args = match task {
            Task::Process(name) => image.process_args(name),
            // Nothing was deployed yet: there is no launcher.
            Task::Line(line) if release.image.is_none() => {
                ["/usr/bin/tini", "-g", "--", "bash", "-c", line].map(str::to_owned).to_vec()
            }
            Task::Line(line) => image.line_args(line),
        };
        let mut env = image.config.env.clone();
        env.extend(self.metadata(release).await?);
        env.extend(self.store.contents(release).await?.environment(Scope::Run));
        let home = match &image.foreign {
            None => "/app".to_owned(),
            Some(_) => env.get("HOME").unwrap_or(&image.config.working_dir).clone(),
        };
        env.extend([
            ("HOME".to_owned(), home),
            ("USER".to_owned(), format!("u{}", app.uid)),
            ("LANG".to_owned(), env.get("LANG").cloned().unwrap_or_else(|| "C.UTF-8".to_owned())),
        ]);
        Ok(Container {
            rootfs: RootFs::Layers(image.layers.iter().map(|layer| layer.diff_id.clone()).collect()),
            args,
            env,
            working_dir: image.config.working_dir,
            uid: app.uid,
            nested: false,
            limits: limits(size),
            mounts: Vec::new(),
        })
    }

    /// The run image of the stack by itself: what there is to run before the first deploy.
    fn bare_image(&self) -> Result<Image, Error> {
        let failed = |source: StackError| Error::System { action: "find the stack", source: source.into() };
        let stack = (self.builder.stack)().map_err(failed)?;
        let stack =
            stack.ok_or_else(|| Error::Conflict("The platform has no stack yet. Try again later.".to_owned()))?;
        let layer = Layer { diff_id: stack.run.clone(), created_by: stack.name };
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let env = [("PATH".to_owned(), path.to_owned())].into();
        let config = ImageConfig { env, working_dir: "/app".to_owned(), ..ImageConfig::default() };
        Ok(Image { digest: stack.run, layers: vec![layer], config, processes: Vec::new(), foreign: None })
    }

    /// What a release runs.
    pub(crate) async fn image_of(&self, release: &Release) -> Result<Image, Error> {
        let digest = release.image.as_ref().ok_or(Error::NotFound("image"))?;
        self.store.image(digest).await?.ok_or(Error::NotFound("image"))
    }
}
