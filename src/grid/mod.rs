//! The grid: servers as slices of memory, containers as blocks in them. Plain values; the picture of them is for people.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::names::{ContainerName, NodeName, ServerName, StackName};
use crate::units::Megabytes;

pub mod picture;

pub use picture::{Paint, draw};

/// All servers and what runs on them. Rebuilt from these whenever needed; `grid/grid.json` is its picture for tools.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grid {
    /// A slice for each server.
    pub slices: BTreeMap<ServerName, Slice>,
}

/// A server's capacity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// Its memory.
    pub size: Megabytes,
    /// What runs there.
    #[serde(default)]
    pub blocks: BTreeMap<ContainerName, Block>,
    /// What it is good for, such as `ssd`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<String>,
}

/// One container's share of a slice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Its memory limit.
    pub size: Megabytes,
    /// Whose it is.
    pub stack: StackName,
    /// Which node of it.
    pub node: NodeName,
}

impl Slice {
    /// An empty slice.
    pub fn new(size: Megabytes) -> Self {
        Self { size, blocks: BTreeMap::new(), tags: BTreeSet::new() }
    }

    /// What its blocks take together; may be more than there is, since limits are no reservations.
    pub fn used(&self) -> Megabytes {
        Megabytes(self.blocks.values().map(|block| block.size.0).sum())
    }

    /// What is left; nothing when it is overbooked.
    pub fn free(&self) -> Megabytes {
        Megabytes(self.size.0.saturating_sub(self.used().0))
    }
}

impl Grid {
    /// The memory of all servers.
    pub fn size(&self) -> Megabytes {
        Megabytes(self.slices.values().map(|slice| slice.size.0).sum())
    }

    /// What all blocks take together.
    pub fn used(&self) -> Megabytes {
        Megabytes(self.slices.values().map(|slice| slice.used().0).sum())
    }

    /// What is left on all servers; an overbooked one takes nothing from the others.
    pub fn free(&self) -> Megabytes {
        Megabytes(self.slices.values().map(|slice| slice.free().0).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(size: u64) -> Block {
        Block { size: Megabytes(size), stack: "blog".parse().unwrap(), node: "web".parse().unwrap() }
    }

    fn slice(size: u64, blocks: &[(&str, u64)]) -> Slice {
        let blocks = blocks.iter().map(|(name, size)| (name.parse().unwrap(), block(*size))).collect();
        Slice { blocks, ..Slice::new(Megabytes(size)) }
    }

    #[test]
    fn an_overbooked_slice_is_not_free_and_takes_nothing_from_others() {
        let full = slice(1000, &[("a1", 600), ("a2", 600)]);
        let roomy = slice(1000, &[("b1", 100)]);
        assert_eq!((full.used(), full.free()), (Megabytes(1200), Megabytes(0)));
        let grid = Grid { slices: [("a".parse().unwrap(), full), ("b".parse().unwrap(), roomy)].into() };
        assert_eq!((grid.size(), grid.used(), grid.free()), (Megabytes(2000), Megabytes(1300), Megabytes(900)));
    }

    #[test]
    fn a_grid_is_kept_as_json() {
        let grid = Grid { slices: [("hq".parse().unwrap(), slice(1000, &[("blog.web.1.1", 600)]))].into() };
        let text = serde_json::to_string(&grid).unwrap();
        let expected =
            r#"{"slices":{"hq":{"size":1000,"blocks":{"blog.web.1.1":{"size":600,"stack":"blog","node":"web"}}}}}"#;
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<Grid>(&text).unwrap(), grid);
    }
}
