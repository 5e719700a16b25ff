//! Images on their way to other servers: HQ's own OCI registry, which each server reaches on its own loopback through
//! its SSH connection. Only layers that are missing there travel.
//!
//! The registry is a store of copies: all it holds is on HQ's docker, too, and it may be emptied at any time. It listens
//! on HQ's loopback only. A server gets to it through a gate (`tcp.rs`) that is open while one image travels, lets nobody
//! write, and shows nothing but that image's repository.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::docker::EngineError;
use crate::names::{ImageId, ServerName};
use crate::servers::ssh::LinkError;

pub mod act;
mod config;
mod http;
mod lock;
mod parcel;
mod process;
mod request;
mod tcp;
mod ways;

pub use act::{Destination, Registry, Supplied, end, remove_stale};

/// Why an image is not on a server, or the registry not in order.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Debian's package is not there.
    #[error(
        "images reach other servers through docker-registry, which is not installed; `apt install docker-registry`"
    )]
    Missing,
    /// It ends at once, or never answers.
    #[error("HQ's registry does not start: {words}")]
    Start {
        /// Its own last words.
        words: String,
    },
    /// A file of its folder.
    #[error("cannot write {}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// It runs and does not answer.
    #[error("HQ's registry does not answer")]
    Silent {
        /// The connection's error.
        source: io::Error,
    },
    /// It answers with something unexpected.
    #[error("HQ's registry could not {doing}: it answered {status}")]
    Answer {
        /// What was asked.
        doing: String,
        /// The status of HTTP.
        status: u16,
    },
    /// What nobody uses could not be removed.
    #[error("HQ's registry could not be cleared of what nobody uses: {words}")]
    Collect {
        /// Its own last words.
        words: String,
    },
    /// HQ's own docker does not have the image.
    #[error("HQ's docker no longer has the image {image}; push the stack again")]
    NoImage {
        /// Which one.
        image: ImageId,
    },
    /// Built for another processor.
    #[error(
        "{name} is built for {built} and `{server}` is {own}: it cannot run there; \
         build it for {own}, or keep it away from `{server}` with a `filter`"
    )]
    Architecture {
        /// The image.
        name: String,
        /// Its processor.
        built: String,
        /// The server.
        server: ServerName,
        /// The server's.
        own: String,
    },
    /// HQ's docker could not hand it over.
    #[error("HQ's docker could not bring {name} to HQ's registry")]
    Push {
        /// The image.
        name: String,
        /// Why.
        source: EngineError,
    },
    /// The server cannot be reached, or its sshd forwards nothing.
    #[error(
        "`{server}` has no way to HQ's registry; its sshd must be up and allow TCP forwarding (AllowTcpForwarding)"
    )]
    Way {
        /// The server.
        server: ServerName,
        /// Why.
        source: Box<LinkError>,
    },
    /// HQ's end of the way.
    #[error("cannot let `{server}` in to HQ's registry")]
    Gate {
        /// The server.
        server: ServerName,
        /// The system's words.
        source: io::Error,
    },
    /// The server's docker failed.
    #[error("{name} did not reach `{server}`; once `{server}` is well, deploy again")]
    Pull {
        /// The image.
        name: String,
        /// The server.
        server: ServerName,
        /// Why.
        source: EngineError,
    },
    /// Nothing moves any more.
    #[error(
        "{name} is stuck on its way to `{server}`: nothing moved for {} seconds; \
         is its disk full or its network down?",
        limit.as_secs()
    )]
    Stuck {
        /// The image.
        name: String,
        /// The server.
        server: ServerName,
        /// How long it was waited for.
        limit: Duration,
    },
    /// It has another id there.
    #[error(
        "{name} has the id {expected} on HQ and {found} on `{server}`: the two dockers store images in different ways; \
         set the same storage (`containerd-snapshotter`) on both"
    )]
    Differs {
        /// The image.
        name: String,
        /// The server.
        server: ServerName,
        /// HQ's.
        expected: ImageId,
        /// The server's.
        found: String,
    },
    /// HQ's own docker failed.
    #[error("HQ's docker could not be asked for the image {image}")]
    Local {
        /// Which one.
        image: ImageId,
        /// Why.
        source: EngineError,
    },
}
