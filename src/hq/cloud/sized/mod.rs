//! The real grid as slicegrid sees it: what may move, what is rented, what is on its way; [`act`] reads it.

use crate::grid::{Block, Slice, Stay};
use crate::launch::Proc;
use crate::names::{ContainerName, NodeName, StackName};
use crate::units::Megabytes;

pub mod act;

/// Whether anybody waits for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaited {
    /// Nobody does.
    No,
    /// A server that is on its way out will be kept.
    Yes,
}

/// A block with what is known of its node. What is none of a node's, and what may exist only once, is not moved by
/// itself: a one-off command would be lost, and a moment without a worker is a person's to choose.
pub fn known(block: Block, proc: Option<&Proc>) -> Block {
    match proc {
        Some(proc) if !proc.is_fixed() && !proc.settings.is_alone() => {
            Block { tags: proc.settings.filter.clone(), ..block }
        }
        Some(_) | None => Block { stay: Stay::Fixed, ..block },
    }
}

/// A slice that cannot be given back because of what a node keeps there, whether that runs or not.
pub fn pin(slice: &mut Slice, container: ContainerName, stack: StackName, node: NodeName) {
    let block = Block { stay: Stay::Fixed, ..Block::new(Megabytes(0), stack, node) };
    slice.blocks.entry(container).or_insert(block);
}
