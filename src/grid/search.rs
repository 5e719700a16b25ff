//! Looks for slices for blocks that are alike, one after the other.
//!
//! A slice on which neither a twin nor the parent stands is one of many: the best of those comes from the view's
//! shelf. The others are few; they are looked at by themselves, and leave the shelf when they turn up there. When
//! nothing has room, what is only taken by blocks on their way out counts as room, and then, where overbooking is
//! allowed, everything does.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use super::index::{Index, NodeId, Tier};
use super::shelf::SliceId;
use super::view::View;
use super::{Block, Bond};

/// Whether blocks may be promised more memory than there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    Size,
    None,
}

impl Index {
    /// Finds slices for up to `count` blocks like this one and has them occupied. Fewer than `count`: nothing is left
    /// for the others.
    pub(super) fn seat(&mut self, block: &Block, count: usize, limit: Limit) -> Vec<SliceId> {
        let node = self.node(&block.stack, &block.node);
        let parent = block.parent.as_ref().map(|parent| (self.node(&parent.stack, &parent.node), parent.bond));
        let view = self.take_view(block);
        let mut search =
            Search { index: self, view, block, node, parent, limit, off: Vec::new(), known: None, pressed: None };
        let mut seats = Vec::with_capacity(count);
        seats.extend((0..count).map_while(|_| search.next()));
        search.finish();
        seats
    }
}

struct Search<'a> {
    index: &'a mut Index,
    view: View,
    block: &'a Block,
    node: NodeId,
    parent: Option<(NodeId, Bond)>,
    limit: Limit,
    /// Slices that were taken off the shelf.
    off: Vec<SliceId>,
    /// Slices with a twin or the parent, best first, once they were asked for.
    known: Option<BTreeSet<(Tier, u64, SliceId)>>,
    /// Once nothing has room: how much is wrong with each slice, best first.
    pressed: Option<BinaryHeap<Squeezed>>,
}

/// A slice without room: what must be put up with, how good it is, how busy. A heap has the greatest first.
type Squeezed = Reverse<(Squeeze, Tier, u32, SliceId)>;

/// What must be put up with for a block to go to a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Squeeze {
    /// Both are there until the old ones are gone.
    Leaving,
    /// More is promised than there is.
    Overbooked,
}

impl Search<'_> {
    fn next(&mut self) -> Option<SliceId> {
        if self.pressed.is_none() {
            if let Some(slice) = self.roomy() {
                self.take(slice);
                return Some(slice);
            }
            self.pressed = Some(self.squeezes());
        }
        let Reverse((_, _, _, slice)) = self.pressed.as_mut().and_then(BinaryHeap::pop)?;
        self.take(slice);
        Some(slice)
    }

    /// The best slice with room.
    fn roomy(&mut self) -> Option<SliceId> {
        match self.parent {
            None => self.common().or_else(|| self.special(None)),
            Some((_, Bond::Required)) => self.special(None),
            Some((_, Bond::Preferred)) => {
                let beside = self.special(Some(self.usual()));
                beside.or_else(|| self.common()).or_else(|| self.special(None))
            }
        }
    }

    /// The tier of a slice that neither a twin nor the parent stands on.
    fn usual(&self) -> Tier {
        Tier { away: self.parent.is_some(), ..Tier::default() }
    }

    fn tier(&self, slice: SliceId) -> Tier {
        self.index.tier(slice, self.node, self.parent)
    }

    /// The best of the many.
    fn common(&mut self) -> Option<SliceId> {
        loop {
            let (_, slice) = self.view.shelf.best(self.block.size.0)?;
            if self.tier(slice) == self.usual() {
                return Some(slice);
            }
            self.take_off(slice);
        }
    }

    /// The best of the few; of a better tier than `than` when there is one.
    fn special(&mut self, than: Option<Tier>) -> Option<SliceId> {
        let mut known = self.known.take().unwrap_or_else(|| self.find_known());
        let found = loop {
            let Some((tier, _, slice)) = known.first().copied() else { break None };
            if than.is_some_and(|than| tier >= than) {
                break None;
            }
            if self.index.cell(slice).free() >= self.block.size.0 {
                break Some(slice);
            }
            // Room only becomes less while one kind of block is placed.
            known.pop_first();
        };
        self.known = Some(known);
        found
    }

    fn find_known(&self) -> BTreeSet<(Tier, u64, SliceId)> {
        let twins = self.index.stands_of(self.node).iter().map(|stand| stand.slice);
        let parents = self.parent.map_or(&[][..], |(parent, _)| self.index.stands_of(parent));
        let parents = parents.iter().map(|stand| stand.slice);
        let slices = twins.chain(parents).filter(|slice| self.will_do(*slice));
        slices.map(|slice| self.judged(slice)).collect()
    }

    fn judged(&self, slice: SliceId) -> (Tier, u64, SliceId) {
        (self.tier(slice), self.index.cell(slice).key(), slice)
    }

    /// Whether everything but memory speaks for a slice.
    fn will_do(&self, slice: SliceId) -> bool {
        let must_be_beside = matches!(self.parent, Some((_, Bond::Required)));
        self.view.takes(slice, &self.index.cells) && !(must_be_beside && self.tier(slice).away)
    }

    fn squeezes(&self) -> BinaryHeap<Squeezed> {
        let open = self.view.open(&self.index.cells).filter(|slice| self.will_do(*slice));
        open.filter_map(|slice| self.squeezed(slice)).collect()
    }

    fn squeezed(&self, slice: SliceId) -> Option<Squeezed> {
        let cell = self.index.cell(slice);
        let squeeze = match self.limit {
            _ if cell.free_soon() >= self.block.size.0 => Squeeze::Leaving,
            Limit::None => Squeeze::Overbooked,
            Limit::Size => return None,
        };
        Some(Reverse((squeeze, self.tier(slice), cell.busy(), slice)))
    }

    fn take(&mut self, slice: SliceId) {
        let before = self.known.is_some().then(|| self.judged(slice));
        self.take_off(slice);
        self.index.occupy_as(slice, self.node, self.block);
        let after = before.map(|_| self.judged(slice));
        if let (Some(known), Some(before), Some(after)) = (&mut self.known, before, after) {
            known.remove(&before);
            known.insert(after);
        }
        if self.pressed.is_some() {
            let again = self.squeezed(slice);
            self.pressed.iter_mut().for_each(|pressed| pressed.extend(again));
        }
    }

    fn take_off(&mut self, slice: SliceId) {
        if self.view.shelf.has(slice) {
            self.view.shelf.remove(slice);
            self.off.push(slice);
        }
    }

    /// Everything back on the shelf.
    fn finish(mut self) {
        for slice in self.off {
            self.view.put(slice, &self.index.cells);
        }
        self.index.put_view(self.view);
    }
}
