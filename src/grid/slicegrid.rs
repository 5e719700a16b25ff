//! Slicegrid: a grid that changes, and tells what that means in events.
//!
//! It answers at once and waits for nothing: whoever holds it performs the events. Placing a block looks at a few of
//! the slices only, so that a grid of thousands of servers takes some hundred thousand blocks a second.

use std::collections::HashMap;

use super::index::Index;
use super::refusal::{Refusal, why};
use super::search::Limit;
use super::shelf::SliceId;
use super::{Block, Event, Grid, NoRoom, Origin, Rules, Slice, Stay};
use crate::names::{ContainerName, ServerName};

/// A grid, and what finds places in it fast.
#[derive(Debug, Clone)]
pub struct Slicegrid {
    pub(super) grid: Grid,
    pub(super) rules: Rules,
    pub(super) index: Index,
    /// Where each block is. A hash map: it is never gone through.
    pub(super) homes: HashMap<ContainerName, SliceId>,
}

impl Slicegrid {
    /// A grid from its picture.
    pub fn new(grid: Grid, rules: Rules) -> Self {
        let mut slicegrid = Self { index: Index::new(&grid, rules.strategy), homes: HashMap::new(), grid, rules };
        slicegrid.find_homes();
        slicegrid
    }

    /// Its picture.
    pub fn grid(&self) -> &Grid {
        &self.grid
    }

    /// The picture alone.
    pub fn into_grid(self) -> Grid {
        self.grid
    }

    /// Adds a block to the slice where it fits best. Without room, a grid that sizes itself asks for a slice, and the
    /// block waits for it. A block that is there already is left alone; one that differs from it takes its place.
    ///
    /// # Errors
    /// When nothing has room and no slice can be asked for; then nothing has changed.
    pub fn add(&mut self, container: ContainerName, block: Block) -> Result<Vec<Event>, NoRoom> {
        let before = self.homes.get(&container).copied();
        let mut events = Vec::new();
        if let Some(slice) = before {
            if self.block(slice, &container) == Some(&block) {
                return Ok(events);
            }
            let old = self.take(slice, &container);
            let Err(why) = self.admit(&container, block, &mut events) else { return Ok(events) };
            old.into_iter().for_each(|old| self.index.occupy(slice, &old));
            return Err(why);
        }
        self.admit(&container, block, &mut events)?;
        Ok(events)
    }

    /// Removes a block; those that wait may find room then. Nothing when it is not there.
    pub fn remove(&mut self, container: &ContainerName) -> Vec<Event> {
        let mut events = Vec::new();
        self.grid.waiting.remove(container);
        if let Some(slice) = self.homes.get(container).copied() {
            self.discard(slice, container, &mut events);
            self.seat_waiting(&mut events);
        }
        events
    }

    /// A server joins with what already runs there, or has changed. When it was asked for, it is not any longer.
    pub fn join(&mut self, server: ServerName, slice: Slice) -> Vec<Event> {
        self.grid.join(server, slice);
        self.rebuild();
        let mut events = Vec::new();
        self.seat_waiting(&mut events);
        events
    }

    /// A server leaves for good. Its movable blocks go elsewhere or wait; the others are gone with it.
    pub fn leave(&mut self, server: &ServerName) -> Vec<Event> {
        let Some(slice) = self.grid.slices.remove(server) else { return Vec::new() };
        self.rebuild();
        let mut events: Vec<Event> = Vec::with_capacity(2 * slice.blocks.len());
        for (container, block) in slice.blocks {
            events.push(Event::Removed { server: server.clone(), container: container.clone() });
            if block.stay == Stay::Movable {
                self.grid.waiting.insert(container, block);
            }
        }
        self.seat_waiting(&mut events);
        events
    }

    /// The cloud has no slice for what was asked first: it may be asked again by [`Slicegrid::autosize`].
    pub fn give_up(&mut self) {
        if !self.grid.asked.is_empty() {
            self.grid.asked.remove(0);
        }
    }
}

impl Grid {
    /// A server joins, or has changed. One that the grid may give back is the one it asked for first with these tags.
    pub fn join(&mut self, server: ServerName, slice: Slice) {
        let is_new = !self.slices.contains_key(&server);
        if is_new && slice.origin == Origin::Created {
            let found = self.asked.iter().position(|asked| asked.tags.is_subset(&slice.tags));
            found.map(|found| self.asked.remove(found));
        }
        self.slices.insert(server, slice);
    }
}

impl Slicegrid {
    fn find_homes(&mut self) {
        let slices = self.grid.slices.values().zip(0..);
        self.homes =
            slices.flat_map(|(slice, id)| slice.blocks.keys().map(move |container| (container.clone(), id))).collect();
    }

    fn rebuild(&mut self) {
        self.index = Index::new(&self.grid, self.rules.strategy);
        self.find_homes();
    }

    pub(super) fn limit(&self) -> Limit {
        // A grid that asks for more has no reason to overbook.
        if self.grid.autosize.is_some() { Limit::Size } else { self.rules.overbook.limit(&self.index) }
    }

    fn block(&self, slice: SliceId, container: &ContainerName) -> Option<&Block> {
        self.grid.slices.get(&self.index.cell(slice).name)?.blocks.get(container)
    }

    /// Takes a block's memory back; the picture still shows it.
    fn take(&mut self, slice: SliceId, container: &ContainerName) -> Option<Block> {
        let block = self.block(slice, container)?.clone();
        self.index.vacate(slice, &block);
        Some(block)
    }

    fn discard(&mut self, slice: SliceId, container: &ContainerName, events: &mut Vec<Event>) {
        if let Some(block) = self.lift(slice, container, events) {
            self.index.vacate(slice, &block);
        }
    }

    /// Takes a block out of the picture.
    pub(super) fn lift(&mut self, slice: SliceId, container: &ContainerName, events: &mut Vec<Event>) -> Option<Block> {
        let server = &self.index.cell(slice).name;
        self.homes.remove(container);
        let block = self.grid.slices.get_mut(server)?.blocks.remove(container)?;
        events.push(Event::Removed { server: server.clone(), container: container.clone() });
        Some(block)
    }

    /// Puts a block that has its memory into the picture.
    pub(super) fn lay(&mut self, slice: SliceId, container: ContainerName, block: Block, events: &mut Vec<Event>) {
        let server = &self.index.cell(slice).name;
        events.push(Event::Added { server: server.clone(), container: container.clone(), block: block.clone() });
        if let Some(slice) = self.grid.slices.get_mut(server) {
            slice.blocks.insert(container.clone(), block);
        }
        self.homes.insert(container, slice);
    }

    /// A block finds a slice, or one is asked for it. What was there under its name goes only then.
    fn admit(&mut self, container: &ContainerName, block: Block, events: &mut Vec<Event>) -> Result<(), NoRoom> {
        let limit = self.limit();
        let seat = self.index.seat(&block, 1, limit).first().copied();
        if seat.is_none() {
            let why = why(&self.index, &block);
            self.ask_for(container, &block, why, events)?;
        }
        if let Some(old) = self.homes.get(container).copied() {
            let mut gone = Vec::new();
            self.lift(old, container, &mut gone);
            events.splice(0..0, gone);
        }
        match seat {
            Some(slice) => {
                self.grid.waiting.remove(container);
                self.lay(slice, container.clone(), block, events);
            }
            None => drop(self.grid.waiting.insert(container.clone(), block)),
        }
        Ok(())
    }

    /// Asks for a slice for a block without room, unless one that was asked for will have room for it.
    fn ask_for(
        &mut self,
        container: &ContainerName,
        block: &Block,
        why: NoRoom,
        events: &mut Vec<Event>,
    ) -> Result<(), NoRoom> {
        let Some(autosize) = &self.grid.autosize else { return Err(why) };
        let max = autosize.max;
        if !matches!(
            why.refusal(),
            Refusal::NoServer { .. } | Refusal::NoneUp { .. } | Refusal::Tags { .. } | Refusal::Full { .. }
        ) || block.parent.as_ref().is_some_and(|parent| parent.bond == super::Bond::Required)
        {
            return Err(why);
        }
        let waiting = self.grid.waiting.insert(container.clone(), block.clone());
        self.grow(events);
        let uncovered = self.uncovered();
        match waiting {
            Some(waiting) => drop(self.grid.waiting.insert(container.clone(), waiting)),
            None => drop(self.grid.waiting.remove(container)),
        }
        if uncovered.contains(container) { Err(Refusal::Largest { why, max }.into()) } else { Ok(()) }
    }

    /// Blocks that wait find what room there is by now, the choosy and the large first.
    pub(super) fn seat_waiting(&mut self, events: &mut Vec<Event>) {
        if self.grid.waiting.is_empty() {
            return;
        }
        let waiting = std::mem::take(&mut self.grid.waiting);
        let (containers, blocks): (Vec<ContainerName>, Vec<Block>) = waiting.into_iter().unzip();
        let limit = self.limit();
        for which in super::dowding::order(&blocks.iter().collect::<Vec<_>>()) {
            let (container, block) = (containers[which].clone(), blocks[which].clone());
            match self.index.seat(&block, 1, limit).first() {
                Some(slice) => self.lay(*slice, container, block, events),
                None => drop(self.grid.waiting.insert(container, block)),
            }
        }
    }
}
