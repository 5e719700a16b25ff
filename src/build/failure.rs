//! Why a stack has no images.

use super::dockerignore::BadPattern;
use super::elsewhere::NotDone;
use super::heredoc::TooNew;
use crate::docker::EngineError;
use crate::names::NodeName;
use crate::units::{Megabytes, Millis};

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A ready image that is nowhere.
    #[error(
        "node `{node}`: the image `{reference}` is not on this server, and fetching it failed; check its name, or `docker load` it there"
    )]
    NoImage {
        /// Whose image.
        node: NodeName,
        /// Its name.
        reference: String,
        /// What the engine says.
        source: EngineError,
    },
    /// A ready image of a registry that nobody knows.
    #[error(
        "node `{node}`: the image `{reference}` is not on this server, and its registry is not known; check its name, or `docker load` it there"
    )]
    NoRegistry {
        /// Whose image.
        node: NodeName,
        /// Its name.
        reference: String,
        /// What the system says of the registry's name.
        source: std::io::Error,
    },
    /// An id where a name is meant.
    #[error("node `{node}`: `{id}` is the id of an image, and images are found by name here, such as `debian:12`")]
    Id {
        /// Whose image.
        node: NodeName,
        /// The id.
        id: String,
    },
    /// A registry that is not asked.
    #[error(
        "node `{node}`: the registry of `{reference}` is not asked; images come from public ones, and from hosts inside \
         that whoever runs this HQ names in /etc/quarry/build/registries"
    )]
    Registry {
        /// Whose image.
        node: NodeName,
        /// Its name.
        reference: String,
        /// Where it leads.
        source: std::io::Error,
    },
    /// The Dockerfile asks for what is not done here.
    #[error("node `{node}`: {recipe} cannot be built")]
    NotDone {
        /// Whose image.
        node: NodeName,
        /// By what it is built.
        recipe: String,
        /// What it asks for.
        source: NotDone,
    },
    /// The rules of `.dockerignore` cannot be read.
    #[error("node `{node}`: cannot tell which files to build from")]
    Ignore {
        /// Whose image.
        node: NodeName,
        /// Which line.
        source: BadPattern,
    },
    /// A file that describes the build cannot be read.
    #[error("node `{node}`: cannot read `{path}`")]
    File {
        /// Whose image.
        node: NodeName,
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The Dockerfile wants what this engine cannot do.
    #[error("node `{node}`: this docker cannot build {recipe}")]
    TooNew {
        /// Whose image.
        node: NodeName,
        /// By what it is built.
        recipe: String,
        /// What it wants.
        source: TooNew,
    },
    /// A step of the build failed. Its output has been shown.
    #[error("node `{node}`: the build by {recipe} failed{}: {message}{}", step.as_ref().map(|step| format!(" at `{step}`")).unwrap_or_default(), hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default())]
    Failed {
        /// Whose image.
        node: NodeName,
        /// By what it is built.
        recipe: String,
        /// The instruction that was being done.
        step: Option<String>,
        /// The builder's last words.
        message: String,
        /// What may have ended it.
        hint: Option<String>,
    },
    /// It filled the disk.
    #[error("node `{node}`: the build by {recipe} was ended{}: only {free} are left on the disk, and {spare} must stay free (`build/spare`)", step.as_ref().map(|step| format!(" at `{step}`")).unwrap_or_default())]
    Full {
        /// Whose image.
        node: NodeName,
        /// By what it is built.
        recipe: String,
        /// The instruction that was being done.
        step: Option<String>,
        /// What there is.
        free: Megabytes,
        /// What must stay free.
        spare: Megabytes,
    },
    /// It took too long.
    #[error("node `{node}`: the build by {recipe} was ended after {limit}{}", step.as_ref().map(|step| format!(" at `{step}`")).unwrap_or_default())]
    TooSlow {
        /// Whose image.
        node: NodeName,
        /// By what it is built.
        recipe: String,
        /// The instruction that was being done.
        step: Option<String>,
        /// How long it may take.
        limit: Millis,
    },
    /// The engine fails.
    #[error("node `{node}`: cannot make its image")]
    Engine {
        /// Whose image.
        node: NodeName,
        /// How.
        source: EngineError,
    },
    /// The plan names a node it does not plan; a bug of the caller.
    #[error("node `{0}`: its image is that of a node without one")]
    NoPlan(NodeName),
}
