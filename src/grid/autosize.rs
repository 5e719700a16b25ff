//! A grid that sizes itself: asks for slices when blocks wait, and moves movable blocks to give one back.
//!
//! Hysteresis keeps it from giving back today what it asks for tomorrow: a slice goes only when the others keep
//! [`Autosize::spare`] of their memory free and could still take one more of the largest blocks, and never while
//! anything waits or is asked for.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::refusal::why;
use super::shelf::SliceId;
use super::slicegrid::is_helped;
use super::{Asked, Block, Event, Grid, Origin, Slice, Slicegrid, Standing, Stay};
use crate::names::{ContainerName, ServerName};
use crate::units::Megabytes;

/// Within what bounds a grid sizes itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Autosize {
    /// It has at least so many slices that are up.
    pub min: usize,
    /// It has at most so many, lost ones included; `min` does not go beyond it.
    pub max: usize,
    /// The memory of a slice it asks for; more when a block needs more.
    pub size: Megabytes,
    /// How much of the memory stays free when a slice is given back, in percent.
    #[serde(default = "usual_spare")]
    pub spare: u8,
}

fn usual_spare() -> u8 {
    25
}

impl Autosize {
    /// The usual hysteresis.
    pub fn new(min: usize, max: usize, size: Megabytes) -> Self {
        Self { min, max, size, spare: usual_spare() }
    }
}

impl Grid {
    /// Slices it has and has asked for.
    fn count(&self) -> usize {
        self.slices.len() + self.asked.len()
    }

    /// Slices that are up.
    fn up(&self) -> usize {
        self.slices.values().filter(|slice| slice.standing == Standing::Up).count()
    }
}

impl Slicegrid {
    /// Asks for what is missing, or gives back what is not needed. A second call without a change in between has
    /// nothing to say.
    pub fn autosize(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        self.seat_waiting(&mut events);
        self.grow(&mut events);
        self.fill_up(&mut events);
        if self.grid.waiting.is_empty() && self.grid.asked.is_empty() {
            self.shrink(&mut events);
        }
        events
    }

    /// Asks for a slice for each block that waits, as far as `max` allows, unless one that was asked for will do, or
    /// none would.
    pub(super) fn grow(&mut self, events: &mut Vec<Event>) {
        let Some(autosize) = self.grid.autosize.clone() else { return };
        while self.grid.count() < autosize.max {
            let uncovered = self.uncovered();
            let uncovered = uncovered.iter().filter_map(|container| self.grid.waiting.get(container));
            let helped = uncovered.filter(|block| is_helped(block, &why(&self.index, block)));
            let largest = helped.max_by_key(|block| (block.tags.len(), block.size));
            let Some(block) = largest else { break };
            let tags = block.tags.required().map(str::to_owned).collect();
            self.ask(autosize.size.max(block.size), tags, events);
        }
    }

    /// Asks for slices until there are `min`. After those that blocks wait for, which count as well.
    fn fill_up(&mut self, events: &mut Vec<Event>) {
        let Some(autosize) = self.grid.autosize.clone() else { return };
        while self.grid.up() + self.grid.asked.len() < autosize.min && self.grid.count() < autosize.max {
            self.ask(autosize.size, BTreeSet::new(), events);
        }
    }

    fn ask(&mut self, size: Megabytes, tags: BTreeSet<String>, events: &mut Vec<Event>) {
        events.push(Event::Create { size, tags: tags.clone() });
        self.grid.asked.push(Asked { size, tags });
    }

    /// Blocks that wait and will not find room on the slices that were asked for.
    pub(super) fn uncovered(&self) -> BTreeSet<ContainerName> {
        let mut slices: Vec<(u64, &BTreeSet<String>)> =
            self.grid.asked.iter().map(|asked| (asked.size.0, &asked.tags)).collect();
        let mut waiting: Vec<(&ContainerName, &Block)> = self.grid.waiting.iter().collect();
        waiting.sort_by_key(|(_, block)| std::cmp::Reverse((block.tags.len(), block.size)));
        let mut uncovered = BTreeSet::new();
        for (container, block) in waiting {
            let fits = |(free, tags): &&mut (u64, &BTreeSet<String>)| {
                *free >= block.size.0 && block.tags.accepts_unnamed(tags)
            };
            match slices.iter_mut().find(fits) {
                Some((free, _)) => *free -= block.size.0,
                None => drop(uncovered.insert(container.clone())),
            }
        }
        uncovered
    }

    /// Gives slices back, one after the other, as long as one can be spared.
    fn shrink(&mut self, events: &mut Vec<Event>) {
        let Some(autosize) = self.grid.autosize.clone() else { return };
        let blocks = self.grid.slices.values().flat_map(|slice| slice.blocks.values());
        let largest = blocks.map(|block| block.size).max().unwrap_or(Megabytes(0));
        while self.grid.up() > autosize.min {
            let candidates = self.candidates();
            if !candidates.iter().any(|server| self.give_back(server, &autosize, largest, events)) {
                break;
            }
        }
    }

    /// Slices that may be given back, the emptiest first.
    fn candidates(&self) -> Vec<ServerName> {
        let may_go = |slice: &Slice| {
            let movable = |block: &Block| block.stay == Stay::Movable;
            slice.origin == Origin::Created && slice.standing == Standing::Up && slice.blocks.values().all(movable)
        };
        let found = self.grid.slices.iter().filter(|(_, slice)| may_go(slice));
        let mut found: Vec<(Megabytes, &ServerName)> = found.map(|(name, slice)| (slice.used(), name)).collect();
        found.sort();
        found.into_iter().map(|(_, name)| name.clone()).collect()
    }

    /// Moves what is on a slice and gives it back; changes nothing when it cannot be spared.
    fn give_back(
        &mut self,
        server: &ServerName,
        autosize: &Autosize,
        largest: Megabytes,
        events: &mut Vec<Event>,
    ) -> bool {
        let Some(slice) = self.index.slice(server) else { return false };
        if !self.spares(slice, autosize.spare) {
            return false;
        }
        let blocks = self.grid.slices.get(server).map(|slice| slice.blocks.clone()).unwrap_or_default();
        self.index.stand_as(slice, Some(Standing::Draining));
        let moves = self.moves(slice, &blocks);
        let room = self.index.cells.iter().filter(|cell| cell.is_open()).map(super::index::Cell::free).max();
        let done = moves.len() == blocks.len() && room.unwrap_or(0) >= largest.0;
        if !done {
            for (container, to) in moves {
                self.index.vacate(to, &blocks[container]);
            }
            self.index.stand_as(slice, Some(Standing::Up));
            return false;
        }
        for (container, to) in moves {
            if let Some(block) = self.lift(slice, container, events) {
                self.index.vacate(slice, &block);
                self.lay(to, container.clone(), block, events);
            }
        }
        events.push(Event::Destroy { server: server.clone() });
        self.grid.slices.remove(server);
        // The number stays: to make the index anew would take longer than all the moves.
        self.index.stand_as(slice, None);
        true
    }

    /// Whether enough stays free without a slice, its blocks moved to the others.
    fn spares(&self, slice: SliceId, spare: u8) -> bool {
        let open = self.index.cells.iter().filter(|cell| cell.is_open());
        let (size, free) = open.fold((0, 0), |(size, free), cell| (size + cell.size, free + cell.free()));
        let own = self.index.cell(slice);
        let (size, free) = (size - own.size, free - own.free());
        free.checked_sub(own.used).is_some_and(|free| free * 100 >= size * u64::from(spare))
    }

    /// Where the blocks of a slice go, which stay occupied there; fewer than all when one of them cannot go, or would
    /// stand beside more twins than now.
    fn moves<'a>(
        &mut self,
        from: SliceId,
        blocks: &'a BTreeMap<ContainerName, Block>,
    ) -> Vec<(&'a ContainerName, SliceId)> {
        let containers: Vec<(&ContainerName, &Block)> = blocks.iter().collect();
        let limit = self.limit();
        let mut moves = Vec::with_capacity(containers.len());
        for which in super::dowding::order(&containers.iter().map(|(_, block)| *block).collect::<Vec<_>>()) {
            let (container, block) = containers[which];
            let Some(to) = self.index.seat(block, 1, limit).first().copied() else { return moves };
            moves.push((container, to));
            let node = self.index.node(&block.stack, &block.node);
            let twins = |slice| self.index.stand(node, slice).staying;
            // Counted with the block itself on either side.
            if twins(to) > twins(from) {
                moves.pop();
                self.index.vacate(to, block);
                return moves;
            }
        }
        moves
    }
}
