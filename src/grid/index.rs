//! A grid in numbers: what is used on each slice, and which slices each node stands on. Everything that chooses works
//! on this; names are looked up once.

use std::collections::{BTreeMap, BTreeSet};

use super::shelf::{Entry, SliceId};
use super::view::{Log, View};
use super::{Architecture, Block, Bond, Filter, Grid, Slice, Standing, Stay, Strategy};
use crate::names::{NodeName, ServerName, StackName};

/// A node's number within an index.
pub(super) type NodeId = u32;

/// Views that are kept; with more filters than this in turn, they are made anew.
const MOST_VIEWS: usize = 64;

/// A grid in numbers.
#[derive(Debug, Clone)]
pub(super) struct Index {
    /// By name, so that numbers are in the order of names.
    pub cells: Vec<Cell>,
    ids: BTreeMap<StackName, BTreeMap<NodeName, NodeId>>,
    /// By node: the slices it stands on.
    stands: Vec<Vec<Stand>>,
    views: Vec<View>,
    log: Log,
}

/// A slice in numbers.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    pub name: ServerName,
    pub tags: BTreeSet<String>,
    pub architecture: Option<Architecture>,
    /// `None`: it is no longer part of the grid.
    pub standing: Option<Standing>,
    pub size: u64,
    /// Megabytes of all its blocks.
    pub used: u64,
    /// Megabytes of those on their way out.
    pub leaving: u64,
    pub blocks: u32,
    strategy: Strategy,
}

/// How many containers of a node stand on a slice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Stand {
    pub slice: SliceId,
    pub staying: u32,
    pub leaving: u32,
}

/// Less is better: twins that stay come before everything, then the parent, then twins on their way out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tier {
    pub staying: u32,
    pub away: bool,
    pub leaving: u32,
}

impl Cell {
    fn new(name: &ServerName, slice: &Slice, strategy: Strategy) -> Self {
        Self {
            name: name.clone(),
            tags: slice.tags.clone(),
            architecture: slice.architecture.clone(),
            standing: Some(slice.standing),
            size: slice.size.0,
            used: 0,
            leaving: 0,
            blocks: 0,
            strategy,
        }
    }

    /// Whether it takes new blocks.
    pub(super) fn is_open(&self) -> bool {
        self.standing == Some(Standing::Up)
    }

    pub(super) fn free(&self) -> u64 {
        self.size.saturating_sub(self.used)
    }

    /// What will be free once those on their way out are gone.
    pub(super) fn free_soon(&self) -> u64 {
        self.size.saturating_sub(self.used - self.leaving)
    }

    /// The used share of its memory, in parts of 2^24.
    pub(super) fn busy(&self) -> u32 {
        let share = match self.size {
            0 => u64::MAX,
            size => self.used.saturating_mul(1 << 24) / size,
        };
        u32::try_from(share).unwrap_or(u32::MAX)
    }

    pub(super) fn serves(&self, filter: &Filter, architecture: Option<&Architecture>) -> bool {
        self.runs(architecture) && filter.accepts(&self.name, &self.tags)
    }

    /// Whether its processors run an image; what is not known is believed.
    pub(super) fn runs(&self, architecture: Option<&Architecture>) -> bool {
        match (architecture, &self.architecture) {
            (Some(wanted), Some(own)) => wanted == own,
            (None, _) | (_, None) => true,
        }
    }

    /// What the strategy thinks of it, less is better: first what it looks for, then how busy it is.
    pub(super) fn key(&self) -> u64 {
        let first = match self.strategy {
            Strategy::LeastBusy => 0,
            Strategy::BestFit => u32::try_from(self.free()).unwrap_or(u32::MAX),
            Strategy::Spread => self.blocks,
        };
        u64::from(first) << 32 | u64::from(self.busy())
    }

    pub(super) fn entry(&self, slice: SliceId) -> Entry {
        Entry { free: self.free(), rank: (self.key(), slice) }
    }
}

impl Index {
    /// The grid's slices and what stands on them.
    pub(super) fn new(grid: &Grid, strategy: Strategy) -> Self {
        let cells = grid.slices.iter().map(|(name, slice)| Cell::new(name, slice, strategy)).collect();
        let mut index =
            Self { cells, ids: BTreeMap::new(), stands: Vec::new(), views: Vec::new(), log: Log::default() };
        for (slice, block) in
            grid.slices.values().zip(0..).flat_map(|(slice, id)| slice.blocks.values().map(move |block| (id, block)))
        {
            index.occupy(slice, block);
        }
        index
    }

    /// The number of a slice.
    pub(super) fn slice(&self, name: &ServerName) -> Option<SliceId> {
        let found = self.cells.binary_search_by(|cell| cell.name.cmp(name)).ok()?;
        Some(found as SliceId)
    }

    pub(super) fn cell(&self, slice: SliceId) -> &Cell {
        &self.cells[slice as usize]
    }

    /// The number of a node, a new one when it has none.
    pub(super) fn node(&mut self, stack: &StackName, node: &NodeName) -> NodeId {
        if let Some(id) = self.known(stack, node) {
            return id;
        }
        let id = self.stands.len() as NodeId;
        self.stands.push(Vec::new());
        self.ids.entry(stack.clone()).or_default().insert(node.clone(), id);
        id
    }

    fn known(&self, stack: &StackName, node: &NodeName) -> Option<NodeId> {
        self.ids.get(stack)?.get(node).copied()
    }

    /// The slices a node stands on, by name of the server.
    pub(super) fn stands(&self, stack: &StackName, node: &NodeName) -> &[Stand] {
        self.known(stack, node).map_or(&[], |id| &self.stands[id as usize])
    }

    pub(super) fn stands_of(&self, node: NodeId) -> &[Stand] {
        &self.stands[node as usize]
    }

    /// What stands of a node on a slice.
    pub(super) fn stand(&self, node: NodeId, slice: SliceId) -> Stand {
        let stands = self.stands_of(node);
        match stands.binary_search_by_key(&slice, |stand| stand.slice) {
            Ok(found) => stands[found],
            Err(_) => Stand { slice, ..Stand::default() },
        }
    }

    /// A block comes to a slice.
    pub(super) fn occupy(&mut self, slice: SliceId, block: &Block) {
        let node = self.node(&block.stack, &block.node);
        self.occupy_as(slice, node, block);
    }

    /// The same, with the node's number at hand.
    pub(super) fn occupy_as(&mut self, slice: SliceId, node: NodeId, block: &Block) {
        let cell = &mut self.cells[slice as usize];
        cell.used += block.size.0;
        cell.blocks += 1;
        let stands = &mut self.stands[node as usize];
        let found = stands.binary_search_by_key(&slice, |stand| stand.slice).unwrap_or_else(|place| {
            stands.insert(place, Stand { slice, ..Stand::default() });
            place
        });
        match block.stay {
            Stay::Movable | Stay::Fixed => stands[found].staying += 1,
            Stay::Leaving => {
                stands[found].leaving += 1;
                cell.leaving += block.size.0;
            }
        }
        self.log.note(slice, self.cells.len());
    }

    /// A block that came to a slice goes.
    pub(super) fn vacate(&mut self, slice: SliceId, block: &Block) {
        let node = self.node(&block.stack, &block.node);
        let cell = &mut self.cells[slice as usize];
        cell.used -= block.size.0;
        cell.blocks -= 1;
        let stands = &mut self.stands[node as usize];
        let found = stands.binary_search_by_key(&slice, |stand| stand.slice).expect("what goes has come");
        match block.stay {
            Stay::Movable | Stay::Fixed => stands[found].staying -= 1,
            Stay::Leaving => {
                stands[found].leaving -= 1;
                cell.leaving -= block.size.0;
            }
        }
        if stands[found].staying + stands[found].leaving == 0 {
            stands.remove(found);
        }
        self.log.note(slice, self.cells.len());
    }

    /// A slice stands otherwise from now on; `None`: it is no longer part of the grid.
    pub(super) fn stand_as(&mut self, slice: SliceId, standing: Option<Standing>) {
        self.cells[slice as usize].standing = standing;
        self.log.note(slice, self.cells.len());
    }

    /// Takes out the view of a block's filter, up to date; it comes back by [`Index::put_view`].
    pub(super) fn take_view(&mut self, block: &Block) -> View {
        let architecture = block.architecture.as_ref();
        let Some(found) = self.views.iter().position(|view| view.is_for(&block.tags, architecture)) else {
            if self.views.len() >= MOST_VIEWS {
                self.views.clear();
            }
            return View::new(&block.tags, architecture, &self.cells, &self.log);
        };
        let mut view = self.views.swap_remove(found);
        view.refresh(&self.cells, &self.log);
        view
    }

    /// Keeps a view in which every change is on the shelf.
    pub(super) fn put_view(&mut self, mut view: View) {
        view.is_fresh(&self.log);
        self.views.push(view);
    }

    /// How good a slice is for a node, apart from its memory.
    pub(super) fn tier(&self, slice: SliceId, node: NodeId, parent: Option<(NodeId, Bond)>) -> Tier {
        let twins = self.stand(node, slice);
        let away = parent.is_some_and(|(parent, _)| self.stand(parent, slice).staying == 0);
        Tier { staying: twins.staying, away, leaving: twins.leaving }
    }
}
