//! Rebase: a new run image under layers that stay as they are (Platform spec, "rebaser"). No build, and no file is touched.

use model::{Image, Layer};

use crate::image;
use crate::metadata::{
    BUILD_LABEL, BuildMetadata, LIFECYCLE_LABEL, LegacyStack, LifecycleMetadata, REBASABLE_LABEL, RunImage,
};
use crate::stack::Stack;

/// Why an image cannot be put on another run image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RebaseError {
    /// A buildpack, or what it installed, depends on the run image as it was.
    #[error("its image says that it cannot be rebased; push it again to build it on the new stack")]
    NotRebasable,
    /// Image extensions changed the run image, and did not say that another one may take its place.
    #[error(
        "image extensions changed the operating system under it, and their Dockerfiles do not say that another one may take its place (LABEL io.buildpacks.rebasable=true); push it again to build it on the new stack"
    )]
    Extended,
    /// It was built on another stack, or by somebody else.
    #[error("its image was not built on this stack; push it again to build it on the new one")]
    OtherStack,
    /// It lies on no stack of ours.
    #[error("its image came from elsewhere and lies on no stack; update it where it is made, and deploy it again")]
    Foreign,
}

/// `image` on the run image of `stack`; none if that is what it lies on already.
pub fn rebase(image: &Image, stack: &Stack) -> Result<Option<Image>, RebaseError> {
    if image.foreign.is_some() {
        return Err(RebaseError::Foreign);
    }
    let labels = &image.config.labels;
    if labels.get(REBASABLE_LABEL).is_some_and(|value| value == "false") {
        let build = labels.get(BUILD_LABEL).and_then(|label| serde_json::from_str::<BuildMetadata>(label).ok());
        let is_extended = build.is_some_and(|build| !build.extensions.is_empty());
        return Err(if is_extended { RebaseError::Extended } else { RebaseError::NotRebasable });
    }
    let label = labels.get(LIFECYCLE_LABEL).and_then(|label| serde_json::from_str::<LifecycleMetadata>(label).ok());
    let mut metadata =
        label.filter(|metadata| metadata.run_image.reference == stack.name).ok_or(RebaseError::OtherStack)?;
    let top = metadata.run_image.top_layer.take();
    let place = image.layers.iter().position(|layer| Some(&layer.diff_id) == top.as_ref());
    let above = &image.layers[place.ok_or(RebaseError::OtherStack)? + 1..];
    if top.as_ref() == Some(&stack.run) {
        return Ok(None);
    }
    let run_image = RunImage { top_layer: Some(stack.run.clone()), reference: stack.name.clone() };
    metadata.stack = LegacyStack { run_image: run_image.clone() };
    metadata.run_image = run_image;
    let mut config = image.config.clone();
    let text = serde_json::to_string(&metadata).map_err(|_| RebaseError::OtherStack)?;
    config.labels.insert(LIFECYCLE_LABEL.to_owned(), text);
    let run = Layer { diff_id: stack.run.clone(), created_by: format!("Run image {}", stack.name) };
    let layers: Vec<Layer> = std::iter::once(run).chain(above.iter().cloned()).collect();
    let digest = image::digest(&layers, &config, &stack.arch);
    Ok(Some(Image { digest, layers, config, processes: image.processes.clone(), foreign: None }))
}
