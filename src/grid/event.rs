//! What happens to a grid.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Asked, Block, Grid};
use crate::names::{ContainerName, ServerName};
use crate::units::Megabytes;

/// Something that happened to a grid, or that it asks for. In order, they are all that a change consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// A block has a place on a slice.
    Added {
        /// The slice.
        server: ServerName,
        /// The block's id.
        container: ContainerName,
        /// The block.
        block: Block,
    },
    /// A block has left a slice.
    Removed {
        /// The slice.
        server: ServerName,
        /// The block's id.
        container: ContainerName,
    },
    /// A new slice is asked for. It joins the grid once it is there.
    Create {
        /// Its memory, at least.
        size: Megabytes,
        /// Exactly the tags it is to have.
        tags: BTreeSet<String>,
    },
    /// An empty slice is given back. Whoever performs this does so when the containers that the events before it
    /// moved are really gone from there.
    Destroy {
        /// The slice.
        server: ServerName,
    },
}

impl Grid {
    /// Follows an event; one about a slice that is not there changes nothing.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Added { server, container, block } => {
                self.waiting.remove(container);
                if let Some(slice) = self.slices.get_mut(server) {
                    slice.blocks.insert(container.clone(), block.clone());
                }
            }
            Event::Removed { server, container } => {
                self.slices.get_mut(server).map(|slice| slice.blocks.remove(container));
            }
            Event::Create { size, tags } => self.asked.push(Asked { size: *size, tags: tags.clone() }),
            Event::Destroy { server } => drop(self.slices.remove(server)),
        }
    }
}
