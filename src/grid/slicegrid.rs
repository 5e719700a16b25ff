//! Slicegrid: a grid that changes, and tells what that means in events.
//!
//! It answers at once and waits for nothing: whoever holds it performs the events. Placing a block looks at a few of
//! the slices only, so that a grid of thousands of servers takes some hundred thousand blocks a second.

use std::collections::HashMap;

use super::index::Index;
use super::refusal::{Refusal, why};
use super::search::Limit;
use super::shelf::SliceId;
use super::{Block, Bond, Event, Grid, NoRoom, Origin, Rules, Slice, Stay};
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
        if !is_helped(block, &why) {
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

/// Whether a new slice with the tags that a block asks for would have room for it.
pub(super) fn is_helped(block: &Block, why: &NoRoom) -> bool {
    let tags = block.tags.required().map(str::to_owned).collect();
    let may_stand_alone = block.parent.as_ref().is_none_or(|parent| parent.bond != Bond::Required);
    let is_about_slices = match why.refusal() {
        Refusal::NoServer { .. } | Refusal::NoneUp { .. } | Refusal::Tags { .. } | Refusal::Full { .. } => true,
        Refusal::Architecture { .. }
        | Refusal::Parent { .. }
        | Refusal::Waits { .. }
        | Refusal::Unfit { .. }
        | Refusal::FullHome { .. }
        | Refusal::Largest { .. } => false,
    };
    is_about_slices && may_stand_alone && block.tags.accepts_unnamed(&tags)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, ProptestConfig, Strategy as Any, prop_assert, prop_assert_eq, prop_oneof, proptest};

    use super::super::sample::{
        any_block, any_grid, any_rules, any_slice, beside, block, container, grid, put, server, slice, staying,
    };
    use super::super::{Asked, Autosize, Filter, Standing};
    use super::*;
    use crate::units::Megabytes;

    fn sized(slices: impl IntoIterator<Item = Slice>, min: usize, max: usize) -> Slicegrid {
        let grid = Grid { autosize: Some(Autosize::new(min, max, Megabytes(1000))), ..grid(slices) };
        Slicegrid::new(grid, Rules::default())
    }

    fn created(size: u64, tags: &[&str]) -> Slice {
        Slice { origin: Origin::Created, ..slice(size, tags) }
    }

    /// Events as short lines.
    fn lines(events: &[Event]) -> Vec<String> {
        let line = |event: &Event| match event {
            Event::Added { server, container, .. } => format!("+ {container} {server}"),
            Event::Removed { server, container } => format!("- {container} {server}"),
            Event::Create { size, tags } => format!("create {size} {tags:?}"),
            Event::Destroy { server } => format!("destroy {server}"),
        };
        events.iter().map(line).collect()
    }

    #[track_caller]
    fn check(events: &[Event], expected: &[&str]) {
        assert_eq!(lines(events), expected);
    }

    #[test]
    fn blocks_come_and_go() {
        let mut slicegrid = Slicegrid::new(grid([slice(1000, &[]), slice(1000, &[])]), Rules::default());
        check(&slicegrid.add(container("w1"), block("web", 600, &[])).unwrap(), &["+ w1 s1"]);
        check(&slicegrid.add(container("w2"), block("web", 600, &[])).unwrap(), &["+ w2 s2"]);
        check(&slicegrid.add(container("w2"), block("web", 600, &[])).unwrap(), &[]);
        let before = slicegrid.grid().clone();
        let why = slicegrid.add(container("w3"), block("web", 600, &[])).unwrap_err();
        assert!(why.to_string().starts_with("no server has 600mb free for `blog.web`: the roomiest, `s1`, has 400mb"));
        assert_eq!(*slicegrid.grid(), before);
        check(&slicegrid.remove(&container("w1")), &["- w1 s1"]);
        check(&slicegrid.remove(&container("w1")), &[]);
        check(&slicegrid.add(container("w3"), block("web", 600, &[])).unwrap(), &["+ w3 s1"]);
    }

    #[test]
    fn a_block_that_changes_is_placed_anew_or_stays_as_it_was() {
        let mut slicegrid = Slicegrid::new(grid([slice(1000, &[]), slice(1000, &["ssd"])]), Rules::default());
        slicegrid.add(container("w1"), block("web", 600, &[])).unwrap();
        let events = slicegrid.add(container("w1"), block("web", 800, &["ssd"])).unwrap();
        check(&events, &["- w1 s1", "+ w1 s2"]);
        slicegrid.add(container("w1"), block("web", 1200, &["ssd"])).unwrap_err();
        check(&slicegrid.add(container("w1"), block("web", 900, &["ssd"])).unwrap(), &["- w1 s2", "+ w1 s2"]);
        assert_eq!(slicegrid.grid().used(), Megabytes(900));
    }

    #[test]
    fn without_room_a_slice_is_asked_for_and_the_block_waits_for_it() {
        let mut slicegrid = sized([slice(1000, &[])], 1, 3);
        check(&slicegrid.add(container("d1"), block("db", 400, &["ssd"])).unwrap(), &["create 1000mb {\"ssd\"}"]);
        check(&slicegrid.add(container("d2"), block("db", 400, &["ssd"])).unwrap(), &[]);
        check(&slicegrid.add(container("big"), block("big", 3000, &[])).unwrap(), &["create 3000mb {}"]);
        let why = slicegrid.add(container("d3"), block("db", 400, &["ssd"])).unwrap_err().to_string();
        assert!(why.ends_with("the grid is as large as it may be (3 servers), so raise `max`"), "{why}");
        check(&slicegrid.autosize(), &[]);
        check(&slicegrid.join(server("t1"), created(1000, &["ssd"])), &["+ d1 t1", "+ d2 t1"]);
        assert_eq!(slicegrid.grid().asked, [Asked { size: Megabytes(3000), tags: [].into() }]);
        check(&slicegrid.join(server("t2"), created(3000, &[])), &["+ big t2"]);
        check(&slicegrid.autosize(), &[]);
    }

    #[test]
    fn what_no_new_slice_would_help_is_refused() {
        let mut slicegrid = sized([slice(1000, &[])], 1, 3);
        let child = beside("db", Bond::Required, block("cache", 100, &[]));
        slicegrid.add(container("c1"), child).unwrap_err();
        let arm = Block { architecture: Some("arm64".into()), ..block("web", 100, &[]) };
        slicegrid.add(container("w1"), arm.clone()).unwrap();
        let mut slicegrid = sized([Slice { architecture: Some("amd64".into()), ..slice(1000, &[]) }], 1, 3);
        slicegrid.add(container("w1"), arm).unwrap_err();
        assert!(slicegrid.grid().asked.is_empty() && slicegrid.grid().waiting.is_empty());
    }

    #[test]
    fn a_slice_that_is_not_needed_is_emptied_and_given_back() {
        let mut slicegrid = sized([slice(1000, &[]), created(1000, &[]), created(1000, &[])], 1, 3);
        slicegrid.add(container("a1"), block("a", 100, &[])).unwrap();
        slicegrid.add(container("b1"), block("b", 100, &[])).unwrap();
        slicegrid.add(container("c1"), block("c", 100, &[])).unwrap();
        let events = slicegrid.autosize();
        check(&events, &["- b1 s2", "+ b1 s1", "destroy s2", "- c1 s3", "+ c1 s1", "destroy s3"]);
        check(&slicegrid.autosize(), &[]);
        check(&slicegrid.add(container("d1"), block("d", 900, &[])).unwrap(), &["create 1000mb {}"]);
    }

    #[test]
    fn a_slice_stays_when_something_on_it_is_fixed_or_a_twin_would_have_to_share() {
        let fixed = Block { stay: Stay::Fixed, ..block("db", 10, &[]) };
        let mut grid = grid([slice(1000, &[]), created(1000, &[]), created(1000, &[])]);
        put(&mut grid, "s1", "w1", block("web", 10, &[]));
        put(&mut grid, "s2", "w2", block("web", 10, &[]));
        put(&mut grid, "s3", "d1", fixed);
        put(&mut grid, "s3", "w3", block("web", 10, &[]));
        grid.autosize = Some(Autosize::new(1, 3, Megabytes(1000)));
        check(&Slicegrid::new(grid, Rules::default()).autosize(), &[]);
    }

    #[test]
    fn a_slice_stays_when_little_would_be_free_without_it() {
        let used = |used| {
            let mut slicegrid = sized([slice(1000, &[]), created(1000, &[])], 1, 3);
            slicegrid.add(container("a1"), block("a", used, &[])).unwrap();
            !slicegrid.autosize().is_empty()
        };
        assert!(used(500));
        // Less than a quarter would be free; there would be no room for another of its kind.
        assert!(!used(800));
        assert!(!used(501));
    }

    #[test]
    fn the_least_number_of_slices_is_kept() {
        let mut slicegrid = sized([], 2, 3);
        check(&slicegrid.autosize(), &["create 1000mb {}", "create 1000mb {}"]);
        check(&slicegrid.autosize(), &[]);
        slicegrid.join(server("t1"), created(1000, &[]));
        slicegrid.give_up();
        check(&slicegrid.autosize(), &["create 1000mb {}"]);
        slicegrid.join(server("t2"), created(1000, &[]));
        check(&slicegrid.autosize(), &[]);
    }

    #[derive(Debug, Clone)]
    enum Change {
        Add(u8, Block),
        Remove(u8),
        Join(u8, Slice),
        Leave(u8),
        Autosize,
    }

    fn any_change() -> impl Any<Value = Change> {
        prop_oneof![
            8 => (0..30_u8, any_block()).prop_map(|(id, block)| Change::Add(id, block)),
            3 => (0..30_u8).prop_map(Change::Remove),
            2 => (1..9_u8, any_slice()).prop_map(|(id, slice)| Change::Join(id, slice)),
            1 => (1..9_u8).prop_map(Change::Leave),
            3 => Just(Change::Autosize),
        ]
    }

    fn perform(slicegrid: &mut Slicegrid, picture: &mut Grid, change: Change) -> Vec<Event> {
        let id = |number: u8| container(&format!("c{number}"));
        let name = |number: u8| server(&format!("s{number}"));
        match change {
            Change::Add(number, block) => slicegrid.add(id(number), block).unwrap_or_default(),
            Change::Remove(number) => slicegrid.remove(&id(number)),
            Change::Autosize => slicegrid.autosize(),
            Change::Join(number, slice) => {
                if slicegrid.grid().slices.contains_key(&name(number)) {
                    return Vec::new();
                }
                picture.join(name(number), slice.clone());
                slicegrid.join(name(number), slice)
            }
            Change::Leave(number) => {
                let events = slicegrid.leave(&name(number));
                picture.slices.remove(&name(number));
                events
            }
        }
    }

    /// What is known in numbers is what the picture shows.
    fn assert_index_is_true(slicegrid: &Slicegrid) {
        let fresh = Slicegrid::new(slicegrid.grid.clone(), slicegrid.rules);
        let kept: Vec<_> = slicegrid.index.cells.iter().filter(|cell| cell.standing.is_some()).collect();
        assert_eq!(kept.len(), fresh.index.cells.len());
        for (kept, fresh) in kept.iter().zip(&fresh.index.cells) {
            let all = |cell: &super::super::index::Cell| (cell.name.clone(), cell.used, cell.leaving, cell.blocks);
            assert_eq!(all(kept), all(fresh));
        }
        for (container, slice) in &slicegrid.homes {
            let fresh = fresh.index.cell(fresh.homes[container]);
            assert_eq!(slicegrid.index.cell(*slice).name, fresh.name);
        }
        assert_eq!(slicegrid.homes.len(), fresh.homes.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]
        #[test]
        fn a_grid_keeps_its_promises_whatever_happens(
            start in any_grid(), rules in any_rules(), sizes in (0..4_usize, 0..8_usize, 1..1500_u64),
            autosizes in proptest::bool::ANY, changes in proptest::collection::vec(any_change(), 0..40),
        ) {
            let autosize = autosizes.then(|| Autosize::new(sizes.0, sizes.1, Megabytes(sizes.2)));
            let start = Grid { autosize, ..start };
            let (mut slicegrid, mut again) = (Slicegrid::new(start.clone(), rules), Slicegrid::new(start.clone(), rules));
            let (mut picture, mut other) = (start.clone(), start);
            for change in changes {
                let before = slicegrid.grid().clone();
                let removes = matches!(change, Change::Remove(_) | Change::Add(..) | Change::Leave(_));
                let is_autosize = matches!(change, Change::Autosize);
                let events = perform(&mut slicegrid, &mut picture, change.clone());
                prop_assert_eq!(&events, &perform(&mut again, &mut other, change));
                for event in &events {
                    picture.apply(event);
                    if let Event::Destroy { server } = event {
                        prop_assert_eq!(before.slices[server].origin, Origin::Created);
                    }
                }
                let grid = slicegrid.grid();
                prop_assert_eq!(&picture.slices, &grid.slices, "the events do not tell all: {:?}", events);
                assert_index_is_true(&slicegrid);

                for (server, slice) in &grid.slices {
                    let before = before.slices.get(server).map_or(0, staying);
                    let may = slicegrid.limit() == Limit::None || before >= staying(slice);
                    prop_assert!(may || staying(slice) <= slice.size.0, "{} is overbooked", server);
                }
                if is_autosize || !removes {
                    let fixed = |grid: &Grid| -> Vec<_> {
                        let all = grid.slices.iter().flat_map(|(s, slice)| slice.blocks.iter().map(move |(c, b)| (s, c, b)));
                        all.filter(|(_, _, b)| b.stay != Stay::Movable).map(|(s, c, _)| (s.clone(), c.clone())).collect()
                    };
                    let now = fixed(grid);
                    prop_assert!(fixed(&before).iter().all(|home| now.contains(home)), "something fixed has moved");
                }
                if is_autosize && grid.autosize.is_some() {
                    let up = |grid: &Grid| grid.slices.values().filter(|slice| slice.standing == Standing::Up).count();
                    let all = |grid: &Grid| grid.slices.len() + grid.asked.len();
                    let (min, max) = (sizes.0, sizes.1);
                    prop_assert!(up(grid) >= min.min(up(&before)), "below min");
                    prop_assert!(all(grid) <= max.max(all(&before)), "above max");
                    prop_assert!(up(grid) + grid.asked.len() >= min || all(grid) >= max, "min is not asked for");
                    prop_assert_eq!(slicegrid.clone().autosize(), vec![], "it does not settle");
                    let creates = events.iter().any(|event| matches!(event, Event::Create { .. }));
                    let destroys = events.iter().any(|event| matches!(event, Event::Destroy { .. }));
                    prop_assert!(!(creates && destroys), "it asks for what it gives back");
                }
            }
        }

        #[test]
        fn what_is_asked_for_is_not_given_back_at_once(
            start in any_grid(), adds in proptest::collection::vec(any_block(), 0..20), min in 0..5_usize,
        ) {
            let start = Grid { autosize: Some(Autosize::new(min, 9, Megabytes(500))), ..start };
            let mut slicegrid = Slicegrid::new(start, Rules::default());
            for (number, block) in adds.into_iter().enumerate() {
                // With tags, a slice asked for later may have room for what an earlier one was asked for.
                let block = Block { tags: Filter::default(), stay: Stay::Movable, ..block };
                drop(slicegrid.add(container(&format!("c{number}")), block));
            }
            let mut new = Vec::new();
            // What waits may not fit as tightly as it was thought to: then more is asked for.
            slicegrid.autosize();
            while !slicegrid.grid().asked.is_empty() {
                while let Some(asked) = slicegrid.grid().asked.first().cloned() {
                    let name = server(&format!("new{}", new.len()));
                    let tags: Vec<&str> = asked.tags.iter().map(String::as_str).collect();
                    slicegrid.join(name.clone(), created(asked.size.0, &tags));
                    new.push(name);
                }
                prop_assert!(new.len() <= 9, "it asks without end");
                slicegrid.autosize();
            }
            let full = slicegrid.grid().slices.len() >= 9;
            prop_assert!(full || slicegrid.grid().waiting.is_empty(), "what was asked for has no room");
            let all = |grid: &Grid| -> Vec<ServerName> { grid.slices.keys().cloned().collect() };
            prop_assert!(new.iter().all(|name| all(slicegrid.grid()).contains(name)), "it gave back what it asked for");
            prop_assert_eq!(slicegrid.autosize(), vec![]);
        }
    }
}
