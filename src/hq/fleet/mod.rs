//! The servers HQ drives, and what their engines say; see [`act`].

use std::collections::{BTreeMap, BTreeSet};

use crate::docker::{Container, Network};
use crate::grid::{Architecture, Slice, Standing};
use crate::launch::Ground;
use crate::names::ServerName;
use crate::servers::record::Record;
use crate::units::Megabytes;

pub mod act;
pub mod presence;

use presence::Presence;

/// The name of the server HQ itself is on.
pub const HERE: &str = "hq";

/// What HQ knows of a server it drives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Where its containers are reached.
    pub ground: Ground,
    /// Its memory.
    pub size: Megabytes,
    /// What it is good for.
    pub tags: BTreeSet<String>,
    /// Whether anything new may go there.
    pub standing: Standing,
    /// What its processors understand, once known.
    pub architecture: Option<Architecture>,
}

impl Member {
    /// A server of this record, whose containers are reached there.
    pub fn of(record: &Record, ground: Ground) -> Self {
        let architecture = Some(record.architecture.clone());
        Self { ground, size: record.size, tags: record.tags.clone(), standing: record.standing, architecture }
    }

    /// The server as an empty slice of the grid.
    pub fn slice(&self) -> Slice {
        Slice {
            tags: self.tags.clone(),
            standing: self.standing,
            architecture: self.architecture.clone(),
            ..Slice::new(self.size)
        }
    }
}

/// A container and the server it is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The server.
    pub server: ServerName,
    /// The container.
    pub container: Container,
}

/// What all engines were asked for at once.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// Every container, those of a silent server as they were seen last.
    pub containers: Vec<Seen>,
    /// The networks of each server that answered.
    pub networks: BTreeMap<ServerName, Vec<Network>>,
    /// Those that did not answer, and why.
    pub silent: BTreeMap<ServerName, String>,
    /// Those that are lost; they are among the silent.
    pub gone: BTreeSet<ServerName>,
}

/// What HQ remembers of its servers between two looks.
#[derive(Debug, Default)]
pub struct Memory {
    /// The containers of each as its engine last told them.
    pub containers: BTreeMap<ServerName, Vec<Container>>,
    /// Its networks, likewise.
    pub networks: BTreeMap<ServerName, Vec<Network>>,
    /// Those that did not answer the last time they were asked, and why.
    pub silent: BTreeMap<ServerName, String>,
    /// How each stands; up where nothing is noted.
    pub presence: BTreeMap<ServerName, Presence>,
}
