//! The slices that one filter leaves, in order. Views are brought up to date when they are used, not when something
//! changes, so that a hundred filters cost no more than those in use.

use super::index::Cell;
use super::shelf::{Entry, Shelf, SliceId};
use super::{Architecture, Filter};

/// The slices that will do for a filter and an architecture; those that take new blocks stand on the shelf.
#[derive(Debug, Clone, Default)]
pub(super) struct View {
    pub filter: Filter,
    pub architecture: Option<Architecture>,
    members: Vec<bool>,
    pub shelf: Shelf,
    /// What of the log it has seen.
    seen: Moment,
}

/// A place in the log of changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Moment {
    era: u64,
    line: usize,
}

/// Which slices have changed, in order. It begins anew from time to time, which is an era.
#[derive(Debug, Clone, Default)]
pub(super) struct Log {
    era: u64,
    lines: Vec<SliceId>,
}

impl Log {
    pub(super) fn note(&mut self, slice: SliceId, slices: usize) {
        // A view that missed so much is faster made anew.
        if self.lines.len() > 4 * slices {
            self.lines.clear();
            self.era += 1;
        }
        self.lines.push(slice);
    }

    fn now(&self) -> Moment {
        Moment { era: self.era, line: self.lines.len() }
    }

    /// What has changed since; `None` when it is not known any more, or too much.
    fn since(&self, moment: Moment, slices: usize) -> Option<&[SliceId]> {
        let lines = self.lines.get(moment.line..).filter(|_| moment.era == self.era)?;
        (lines.len() <= slices / 4).then_some(lines)
    }
}

impl View {
    pub(super) fn new(filter: &Filter, architecture: Option<&Architecture>, cells: &[Cell], log: &Log) -> Self {
        let members = cells.iter().map(|cell| cell.serves(filter, architecture)).collect();
        let mut view = Self {
            filter: filter.clone(),
            architecture: architecture.cloned(),
            members,
            shelf: Shelf::default(),
            seen: Moment::default(),
        };
        view.fill(cells);
        view.seen = log.now();
        view
    }

    pub(super) fn is_for(&self, filter: &Filter, architecture: Option<&Architecture>) -> bool {
        self.filter == *filter && self.architecture.as_ref() == architecture
    }

    /// Whether a slice will do and takes new blocks.
    pub(super) fn takes(&self, slice: SliceId, cells: &[Cell]) -> bool {
        self.members[slice as usize] && cells[slice as usize].is_open()
    }

    /// All slices that will do and take new blocks, by name.
    pub(super) fn open<'a>(&'a self, cells: &'a [Cell]) -> impl Iterator<Item = SliceId> + 'a {
        (0..cells.len() as SliceId).filter(|slice| self.takes(*slice, cells))
    }

    /// Catches up with what has changed.
    pub(super) fn refresh(&mut self, cells: &[Cell], log: &Log) {
        match log.since(self.seen, cells.len()) {
            Some(changed) => changed.iter().for_each(|slice| self.put(*slice, cells)),
            None => self.fill(cells),
        }
        self.seen = log.now();
    }

    /// Says that everything that has changed is on the shelf by now.
    pub(super) fn is_fresh(&mut self, log: &Log) {
        self.seen = log.now();
    }

    /// Puts one slice where it belongs now.
    pub(super) fn put(&mut self, slice: SliceId, cells: &[Cell]) {
        if self.takes(slice, cells) {
            self.shelf.put(cells[slice as usize].entry(slice));
        } else {
            self.shelf.remove(slice);
        }
    }

    fn fill(&mut self, cells: &[Cell]) {
        let entries: Vec<Entry> = self.open(cells).map(|slice| cells[slice as usize].entry(slice)).collect();
        self.shelf = Shelf::new(cells.len(), entries);
    }
}
