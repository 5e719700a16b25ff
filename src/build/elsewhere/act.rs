//! Finds or fetches the images that a repository names.

use std::io;

use super::{Around, images, put_off, tcp};
use crate::build::act::BuildJob;
use crate::build::dockerfile::Dockerfile;
use crate::build::failure::BuildError;
use crate::build::output::clean;
use crate::build::plan::Recipe;
use crate::docker::{Engine, EngineError, Image, Say};
use crate::names::NodeName;
use crate::names::reference::{Reference, is_id};

/// The image of this name, which is fetched if it is not here. An id is no name: whose image it is nobody could tell.
///
/// # Errors
/// It is nowhere, or where HQ does not go for others.
pub async fn named(
    engine: &dyn Engine,
    job: &BuildJob<'_>,
    node: &NodeName,
    reference: &str,
    say: Say<'_>,
) -> Result<Image, BuildError> {
    if is_id(reference) {
        return Err(BuildError::Id { node: node.clone(), id: reference.to_owned() });
    }
    let name = Reference::new(reference);
    let here = async || {
        let image = engine.image(reference).await;
        let image = image.map_err(|source| BuildError::Engine { node: node.clone(), source })?;
        Ok::<_, BuildError>(image.filter(|image| name.is_one_of(&image.tags)))
    };
    if let Some(image) = here().await? {
        return Ok(image);
    }
    if let (Some(reach), Some(host)) = (&job.settings.reach, name.registry()) {
        let (node, reference) = (node.clone(), reference.to_owned());
        tcp::check(reach, host).await.map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => BuildError::Registry { node, reference, source },
            _ => BuildError::NoRegistry { node, reference, source },
        })?;
    }
    say(&format!("-----> Fetching {reference}"));
    let missing = |source| BuildError::NoImage { node: node.clone(), reference: reference.to_owned(), source };
    engine.pull(reference, &|line| say(&format!("       {}", clean(line)))).await.map_err(missing)?;
    here().await?.ok_or_else(|| missing(EngineError::NotFound { what: format!("image `{reference}`") }))
}

/// Brings here what a build starts from, before the builder would find or fetch it in a way of its own.
///
/// # Errors
/// What the Dockerfile, or the `ONBUILD` lines of an image it names, may not ask for; an image that is nowhere.
pub async fn bring(
    engine: &dyn Engine,
    job: &BuildJob<'_>,
    (node, recipe): (&NodeName, &Recipe),
    dockerfile: &Dockerfile,
    say: Say<'_>,
) -> Result<(), BuildError> {
    let architecture = engine.architecture().await;
    let architecture = architecture.map_err(|source| BuildError::Engine { node: node.clone(), source })?;
    let around = Around { arguments: &job.settings.env, architecture: &architecture };
    let not_done = |recipe: String| |source| BuildError::NotDone { node: node.clone(), recipe, source };
    for base in images(dockerfile, around).map_err(not_done(recipe.to_string()))? {
        let image = named(engine, job, node, &base, say).await?;
        for later in put_off(&image.triggers, around).map_err(not_done(format!("ONBUILD of {base}")))? {
            named(engine, job, node, &later, say).await?;
        }
    }
    Ok(())
}
