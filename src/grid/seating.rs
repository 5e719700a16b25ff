//! A grid on which one node after the other finds its place: what [`place`](super::place) would answer each time, without
//! looking at all of it each time.

use super::dowding::Rules;
use super::index::Index;
use super::refusal::why;
use super::{Block, Grid, NoRoom, Stay};
use crate::names::{ContainerName, ServerName};

/// A grid that blocks are added to and taken from.
#[derive(Debug, Clone)]
pub struct Seating {
    grid: Grid,
    index: Index,
    rules: Rules,
}

impl Seating {
    /// Begins with a grid.
    pub fn new(grid: Grid, rules: Rules) -> Self {
        let index = Index::new(&grid, rules.strategy);
        Self { grid, index, rules }
    }

    /// As it is now.
    pub fn grid(&self) -> &Grid {
        &self.grid
    }

    /// As it is now, for good.
    pub fn into_grid(self) -> Grid {
        self.grid
    }

    /// Where so many more blocks like this one would go; each a server or a reason. Nothing changes.
    pub fn offer(&mut self, block: &Block, count: usize) -> Vec<Result<ServerName, NoRoom>> {
        let limit = self.rules.overbook.limit(&self.index);
        let seats = self.index.seat(block, count, limit);
        let mut answers: Vec<_> = seats.iter().map(|slice| Ok(self.index.cell(*slice).name.clone())).collect();
        if seats.len() < count {
            // While they stand there: that is what the next one would find.
            answers.resize(count, Err(why(&self.index, block)));
        }
        seats.into_iter().for_each(|slice| self.index.vacate(slice, block));
        answers
    }

    /// A container comes to a server of the grid; to any other it comes unseen.
    pub fn put(&mut self, server: &ServerName, container: ContainerName, block: Block) {
        self.take(server, &container);
        let (Some(slice), Some(id)) = (self.grid.slices.get_mut(server), self.index.slice(server)) else { return };
        self.index.occupy(id, &block);
        slice.blocks.insert(container, block);
    }

    /// A container goes.
    pub fn take(&mut self, server: &ServerName, container: &ContainerName) -> Option<Block> {
        let block = self.grid.slices.get_mut(server)?.blocks.remove(container)?;
        if let Some(id) = self.index.slice(server) {
            self.index.vacate(id, &block);
        }
        Some(block)
    }

    /// A container is on its way out.
    pub fn leave(&mut self, server: &ServerName, container: &ContainerName) {
        if let Some(block) = self.take(server, container) {
            self.put(server, container.clone(), Block { stay: Stay::Leaving, ..block });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::*;
    use crate::grid::sample::{any_block, any_grid, any_rules, container};
    use crate::grid::{Want, place};

    proptest! {
        #[test]
        fn it_answers_as_a_look_at_the_whole_grid_would_after_every_change(
            grid in any_grid(), rules in any_rules(), wants in proptest::collection::vec((any_block(), 0..4_usize), 1..8),
        ) {
            let mut seating = Seating::new(grid, rules);
            for (round, (block, count)) in wants.into_iter().enumerate() {
                let expected = place(seating.grid(), &[Want::new(block.clone(), count)], rules).pop().unwrap();
                prop_assert_eq!(&seating.offer(&block, count), &expected);
                for (number, server) in expected.into_iter().flatten().enumerate() {
                    seating.put(&server, container(&format!("new.{round}.{number}")), block.clone());
                }
                // Somebody leaves, and somebody goes.
                let blocks = seating.grid().slices.iter().flat_map(|(server, slice)| {
                    slice.blocks.keys().map(|container| (server.clone(), container.clone()))
                });
                let some: Vec<_> = blocks.skip(round).take(2).collect();
                if let Some((server, container)) = some.first() {
                    seating.leave(server, container);
                }
                if let Some((server, container)) = some.get(1) {
                    let had = seating.grid().slices[server].blocks.get(container).cloned();
                    prop_assert_eq!(seating.take(server, container), had);
                }
            }
        }
    }
}
