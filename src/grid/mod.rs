//! The grid: servers as slices of memory, containers as blocks in them.
//!
//! These are plain values: `grid/grid.json` and the [`picture`] of it are for people and tools. What chooses is built
//! from them: [`dowding`] places containers, [`slicegrid`] keeps a grid that changes, [`autosize`] asks for servers
//! and gives them back.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::names::{ContainerName, NodeName, ServerName, StackName};
use crate::units::Megabytes;

pub mod architecture;
pub mod autosize;
pub mod dowding;
pub mod event;
pub mod filter;
mod index;
pub mod picture;
pub mod refusal;
#[cfg(test)]
mod sample;
mod search;
pub mod seating;
mod shelf;
pub mod slicegrid;
mod view;

pub use architecture::Architecture;
pub use autosize::Autosize;
pub use dowding::{Overbook, Replan, Rules, Strategy, Want, place, replan};
pub use event::Event;
pub use filter::Filter;
pub use picture::{Paint, draw};
pub use refusal::NoRoom;
pub use seating::Seating;
pub use slicegrid::Slicegrid;

/// All servers and what runs on them. Rebuilt from these whenever needed; `grid/grid.json` is its picture for tools.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grid {
    /// Whether it asks for servers and gives them back by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autosize: Option<Autosize>,
    /// A slice for each server.
    pub slices: BTreeMap<ServerName, Slice>,
    /// Blocks that wait for a slice that was asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub waiting: BTreeMap<ContainerName, Block>,
    /// Slices that were asked for and are not there yet, in the order they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asked: Vec<Asked>,
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
    /// Whether anything new may go there.
    #[serde(default, skip_serializing_if = "is_default")]
    pub standing: Standing,
    /// What its processors understand, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<Architecture>,
    /// Where it came from.
    #[serde(default, skip_serializing_if = "is_default")]
    pub origin: Origin,
}

/// How a server stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It takes new blocks.
    #[default]
    Up,
    /// What can be moved leaves it, nothing new comes.
    Draining,
    /// It has not been heard from for a moment.
    Suspect,
    /// It is lost until it comes back.
    Gone,
}

impl Standing {
    /// The word for people: those of `servers`.
    pub fn word(self) -> &'static str {
        match self {
            Standing::Up => "up",
            Standing::Draining => "draining",
            Standing::Suspect => "down",
            Standing::Gone => "lost",
        }
    }
}

/// Where a slice came from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// A person added it: the grid never gives it back.
    #[default]
    Added,
    /// The grid asked for it, and gives it back when it is not needed.
    Created,
}

/// One container's share of a slice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Block {
    /// Its memory limit.
    pub size: Megabytes,
    /// Whose it is.
    pub stack: StackName,
    /// Which node of it.
    pub node: NodeName,
    /// The servers that will do.
    #[serde(default, skip_serializing_if = "Filter::is_empty")]
    pub tags: Filter,
    /// Whether it may move.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stay: Stay,
    /// Beside which other node it belongs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Box<Parent>>,
    /// What its image was built for; an image without one runs anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<Architecture>,
}

/// Whether a block may move to another slice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stay {
    /// It may.
    #[default]
    Movable,
    /// It has something there that cannot be moved, such as a volume.
    Fixed,
    /// It is on its way out: its memory is taken until it is gone, but nobody is refused for that.
    Leaving,
}

/// A node beside whose containers a block belongs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Parent {
    /// Whose node.
    pub stack: StackName,
    /// Which.
    pub node: NodeName,
    /// How strongly.
    pub bond: Bond,
}

/// How strongly a block belongs beside its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bond {
    /// Nowhere else.
    Required,
    /// Elsewhere when it does not fit there, or when its twins would share a server.
    Preferred,
}

/// A slice that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Its memory, at least.
    pub size: Megabytes,
    /// Exactly the tags it is to have.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<String>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Slice {
    /// An empty slice that is up.
    pub fn new(size: Megabytes) -> Self {
        Self {
            size,
            blocks: BTreeMap::new(),
            tags: BTreeSet::new(),
            standing: Standing::Up,
            architecture: None,
            origin: Origin::Added,
        }
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

impl Block {
    /// A block that may go anywhere and move.
    pub fn new(size: Megabytes, stack: StackName, node: NodeName) -> Self {
        Self { size, stack, node, tags: Filter::default(), stay: Stay::Movable, parent: None, architecture: None }
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

    /// What is left on the servers that take new blocks; an overbooked one takes nothing from the others.
    pub fn free(&self) -> Megabytes {
        let up = self.slices.values().filter(|slice| slice.standing == Standing::Up);
        Megabytes(up.map(|slice| slice.free().0).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(size: u64) -> Block {
        Block::new(Megabytes(size), "blog".parse().unwrap(), "web".parse().unwrap())
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
        let slices = [("a".parse().unwrap(), full), ("b".parse().unwrap(), roomy)].into();
        let grid = Grid { slices, ..Grid::default() };
        assert_eq!((grid.size(), grid.used(), grid.free()), (Megabytes(2000), Megabytes(1300), Megabytes(900)));
    }

    #[test]
    fn what_is_left_on_a_lost_server_is_not_free() {
        let lost = Slice { standing: Standing::Gone, ..slice(1000, &[]) };
        let slices = [("a".parse().unwrap(), lost), ("b".parse().unwrap(), slice(500, &[]))].into();
        assert_eq!(Grid { slices, ..Grid::default() }.free(), Megabytes(500));
    }

    #[test]
    fn a_grid_is_kept_as_json() {
        let slices = [("hq".parse().unwrap(), slice(1000, &[("blog.web.1.1", 600)]))].into();
        let grid = Grid { slices, ..Grid::default() };
        let text = serde_json::to_string(&grid).unwrap();
        let expected =
            r#"{"slices":{"hq":{"size":1000,"blocks":{"blog.web.1.1":{"size":600,"stack":"blog","node":"web"}}}}}"#;
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<Grid>(&text).unwrap(), grid);
    }

    #[test]
    fn everything_that_is_not_usual_is_in_the_json_too() {
        let parent = Parent { stack: "blog".parse().unwrap(), node: "db".parse().unwrap(), bond: Bond::Preferred };
        let block = Block {
            tags: Filter::new(["ssd", "!eu"]).unwrap(),
            stay: Stay::Fixed,
            parent: Some(Box::new(parent)),
            architecture: Some("aarch64".into()),
            ..block(600)
        };
        let lost = Slice {
            standing: Standing::Gone,
            architecture: Some("arm64".into()),
            origin: Origin::Created,
            tags: ["ssd".to_owned()].into(),
            blocks: [("b1".parse().unwrap(), block)].into(),
            ..slice(1000, &[])
        };
        let grid = Grid {
            autosize: Some(Autosize::new(1, 3, Megabytes(1000))),
            slices: [("s1".parse().unwrap(), lost)].into(),
            waiting: [("b2".parse().unwrap(), super::tests::block(5))].into(),
            asked: vec![Asked { size: Megabytes(1000), tags: BTreeSet::new() }],
        };
        let text = serde_json::to_string(&grid).unwrap();
        let expected = concat!(
            r#"{"autosize":{"min":1,"max":3,"size":1000,"spare":25},"slices":{"s1":{"size":1000,"blocks":{"b1":"#,
            r#"{"size":600,"stack":"blog","node":"web","tags":["ssd","!eu"],"stay":"fixed","#,
            r#""parent":{"stack":"blog","node":"db","bond":"preferred"},"architecture":"arm64"}},"#,
            r#""tags":["ssd"],"standing":"gone","architecture":"arm64","origin":"created"}},"#,
            r#""waiting":{"b2":{"size":5,"stack":"blog","node":"web"}},"asked":[{"size":1000}]}"#,
        );
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<Grid>(&text).unwrap(), grid);
    }
}
