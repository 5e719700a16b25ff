//! Dowding: which server a container goes to.
//!
//! A server must be up, pass the filter, run the image's architecture, have the memory and, where that is required,
//! have the parent. Among those, in this order: the fewest twins (containers of the same node that stay), the parent,
//! the fewest twins on their way out, then what the [`Strategy`] looks for, then the least busy, then the name. A
//! container with data on a server goes back there or waits. Same inputs, same answer.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::index::Index;
use super::refusal::{Refusal, who, why, with};
use super::search::Limit;
use super::shelf::SliceId;
use super::{Block, Grid, NoRoom, Standing, Stay};
use crate::names::{ContainerName, NodeName, ServerName, StackName};
use crate::units::Megabytes;

/// How servers are chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// What makes a server good.
    pub strategy: Strategy,
    /// Whether more may be promised than there is.
    pub overbook: Overbook,
}

/// What makes a server good, among those with equally few twins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// The smallest used share of its memory.
    #[default]
    LeastBusy,
    /// The least room that suffices: keeps others empty, so that they can be given back.
    BestFit,
    /// The fewest containers.
    Spread,
}

/// Whether servers may be promised more memory than they have: docker's limits are no reservations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overbook {
    /// Only a server that is the only one: there is no better one to ask for.
    #[default]
    Alone,
    /// Once nothing has room, the least busy of those with the fewest twins.
    Allowed,
    /// Never.
    Refused,
}

impl Overbook {
    pub(super) fn limit(self, index: &Index) -> Limit {
        let alone = index.cells.iter().filter(|cell| cell.standing.is_some()).take(2).count() == 1;
        match self {
            Overbook::Allowed => Limit::None,
            Overbook::Alone if alone => Limit::None,
            Overbook::Alone | Overbook::Refused => Limit::Size,
        }
    }
}

/// Containers of one node to place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// What each of them takes.
    pub block: Block,
    /// How many.
    pub count: usize,
    /// Where the data of the first ones is: they go back there or wait.
    pub homes: Vec<ServerName>,
}

impl Want {
    /// Containers without data.
    pub fn new(block: Block, count: usize) -> Self {
        Self { block, count, homes: Vec::new() }
    }
}

/// Places containers on the grid as it is, which stays as it is. A list for each want, in its order: a server or a
/// reason for each of its containers.
///
/// Memory of blocks on their way out is taken; where only that stands in the way, nobody is refused for it. A node
/// whose old container stops before the new one starts is placed without the old one in the grid.
///
/// Homes come first, then parents before those that belong beside them, those with longer filters, the larger, and
/// names: so the order of the wants changes nothing.
pub fn place(grid: &Grid, wants: &[Want], rules: Rules) -> Vec<Vec<Result<ServerName, NoRoom>>> {
    let mut index = Index::new(grid, rules.strategy);
    let limit = rules.overbook.limit(&index);
    let blocks: Vec<&Block> = wants.iter().map(|want| &want.block).collect();
    let order = order(&blocks);
    let mut placed: Vec<Vec<Result<ServerName, NoRoom>>> = vec![Vec::new(); wants.len()];
    for (want, which) in order.iter().map(|which| (&wants[*which], *which)) {
        placed[which].reserve_exact(want.count);
        let homes = want.homes.iter().take(want.count);
        placed[which].extend(homes.map(|home| go_home(&mut index, &want.block, home, limit)));
    }
    for which in order {
        let (want, answers) = (&wants[which], &mut placed[which]);
        let count = want.count - answers.len();
        let seats = index.seat(&want.block, count, limit);
        answers.extend(seats.iter().map(|slice| Ok(index.cell(*slice).name.clone())));
        if seats.len() < count {
            let why = why(&index, &want.block);
            answers.resize(want.count, Err(why));
        }
    }
    placed
}

/// Back to where its data is. A server that drains still takes what belongs to it.
fn go_home(index: &mut Index, block: &Block, home: &ServerName, limit: Limit) -> Result<ServerName, NoRoom> {
    let slice = index.slice(home);
    let standing = slice.and_then(|slice| index.cell(slice).standing);
    let (Some(slice), Some(Standing::Up | Standing::Draining)) = (slice, standing) else {
        return Err(Refusal::Waits { who: who(block), server: home.clone(), standing }.into());
    };
    let cell = index.cell(slice);
    if !block.tags.accepts(&cell.name, &cell.tags) {
        return Err(Refusal::Unfit { who: who(block), server: home.clone(), with: with(&block.tags) }.into());
    }
    if let (false, Some(architecture)) = (cell.runs(block.architecture.as_ref()), &block.architecture) {
        let with = format!(" for {architecture}");
        return Err(Refusal::Unfit { who: who(block), server: home.clone(), with }.into());
    }
    if cell.free_soon() < block.size.0 && limit == Limit::Size {
        let free = Megabytes(cell.free_soon());
        return Err(Refusal::FullHome { who: who(block), server: home.clone(), size: block.size, free }.into());
    }
    index.occupy(slice, block);
    Ok(home.clone())
}

/// In which order blocks find the best places: parents first, then the choosy, then the large. Those with the same
/// filter come together, which is also the fastest.
pub(super) fn order(blocks: &[&Block]) -> Vec<usize> {
    let mut nodes: BTreeMap<(&StackName, &NodeName), usize> = BTreeMap::new();
    // Only those with a parent ask for one, and they are few.
    if blocks.iter().any(|block| block.parent.is_some()) {
        nodes.extend(blocks.iter().enumerate().map(|(which, block)| ((&block.stack, &block.node), which)));
    }
    let depth = |mut which: usize| {
        // Whoever is beside itself in the end comes last.
        const DEEPEST: usize = 16;
        let parent = |block: &Block| block.parent.as_ref().and_then(|p| nodes.get(&(&p.stack, &p.node)).copied());
        let mut depth = 0;
        while let (Some(parent), true) = (parent(blocks[which]), depth < DEEPEST) {
            which = parent;
            depth += 1;
        }
        depth
    };
    let mut order: Vec<usize> = (0..blocks.len()).collect();
    let depths: Vec<usize> = order.iter().map(|which| depth(*which)).collect();
    order.sort_by(|one, other| {
        let key = |which: usize| {
            let block = blocks[which];
            (depths[which], Reverse(block.tags.len()), &block.tags, &block.architecture, Reverse(block.size))
        };
        key(*one).cmp(&key(*other)).then_with(|| blocks[*one].cmp(blocks[*other]))
    });
    order
}

/// What becomes of the blocks on servers that are lost or to be emptied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replan {
    /// Those that have a new place, in the order in which they found it.
    pub moves: Vec<Move>,
    /// Those that stay where they are until something changes, and why.
    pub waits: Vec<Wait>,
}

/// A block that goes elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Which.
    pub container: ContainerName,
    /// The server it leaves.
    pub from: ServerName,
    /// The server it goes to.
    pub to: ServerName,
}

/// A block that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// Which.
    pub container: ContainerName,
    /// The server it waits on.
    pub on: ServerName,
    /// Why.
    pub why: NoRoom,
}

/// Finds new places for every movable block on the servers `leave`, which take nothing in return, whether they are up
/// or not. Fixed ones wait; those on their way out anyway are not mentioned.
pub fn replan(grid: &Grid, leave: &BTreeSet<ServerName>, rules: Rules) -> Replan {
    let mut index = Index::new(grid, rules.strategy);
    let limit = rules.overbook.limit(&index);
    let mut plan = Replan::default();
    let mut movable: BTreeMap<&Block, Vec<(&ContainerName, &ServerName)>> = BTreeMap::new();
    for (server, slice) in leave.iter().filter_map(|server| grid.slices.get_key_value(server)) {
        if let (Some(id), Standing::Up) = (index.slice(server), slice.standing) {
            index.stand_as(id, Some(Standing::Draining));
        }
        for (container, block) in &slice.blocks {
            match block.stay {
                Stay::Leaving => {}
                Stay::Movable => movable.entry(block).or_default().push((container, server)),
                Stay::Fixed => {
                    let standing = Some(slice.standing);
                    let why = Refusal::Waits { who: who(block), server: server.clone(), standing }.into();
                    plan.waits.push(Wait { container: container.clone(), on: server.clone(), why });
                }
            }
        }
    }
    let groups: Vec<(&Block, Vec<(&ContainerName, &ServerName)>)> = movable.into_iter().collect();
    let blocks: Vec<&Block> = groups.iter().map(|(block, _)| *block).collect();
    for which in order(&blocks) {
        let (block, containers) = &groups[which];
        let seats: Vec<SliceId> = index.seat(block, containers.len(), limit);
        for (slice, (container, from)) in seats.iter().zip(containers) {
            let to = index.cell(*slice).name.clone();
            plan.moves.push(Move { container: (*container).clone(), from: (*from).clone(), to });
        }
        if let Some(rest) = containers.get(seats.len()..).filter(|rest| !rest.is_empty()) {
            let why = why(&index, block);
            let wait = |(container, on): &(&ContainerName, &ServerName)| Wait {
                container: (*container).clone(),
                on: (*on).clone(),
                why: why.clone(),
            };
            plan.waits.extend(rest.iter().map(wait));
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, Strategy as Any, prop_assert, prop_assert_eq, proptest};

    use super::super::sample::{any_block, any_grid, any_rules, beside, block, container, grid, put, server, slice};
    use super::super::{Bond, Slice};
    use super::*;

    const RULES: Rules = Rules { strategy: Strategy::LeastBusy, overbook: Overbook::Alone };

    /// Where containers go: names of servers, or `-`.
    fn placed(grid: &Grid, wants: &[Want], rules: Rules) -> String {
        let answers = place(grid, wants, rules);
        let word = |answer: &Result<ServerName, NoRoom>| answer.as_ref().map_or("-".into(), ToString::to_string);
        let words = |answers: &Vec<_>| answers.iter().map(word).collect::<Vec<_>>().join(" ");
        answers.iter().map(words).collect::<Vec<_>>().join(", ")
    }

    #[track_caller]
    fn check(grid: &Grid, wants: &[Want], expected: &str) {
        assert_eq!(placed(grid, wants, RULES), expected);
    }

    /// The reason that the only container of a want is told.
    #[track_caller]
    fn check_why(grid: &Grid, want: Want, expected: &str) {
        let answers = place(grid, &[want], RULES);
        let why = answers[0][0].clone().unwrap_err().to_string();
        assert_eq!(why, expected, "the sentence is now\n{why}");
    }

    #[test]
    fn each_strategy_looks_for_something_else() {
        let mut grid = grid([slice(1000, &[]), slice(4000, &[]), slice(500, &[])]);
        put(&mut grid, "s1", "a1", block("a", 100, &[]));
        put(&mut grid, "s2", "b1", block("b", 100, &[]));
        put(&mut grid, "s2", "b2", block("b", 100, &[]));
        put(&mut grid, "s3", "c1", block("c", 10, &[]));
        put(&mut grid, "s3", "c2", block("c", 100, &[]));
        let want = [Want::new(block("web", 300, &[]), 1)];
        for (strategy, expected) in [(Strategy::LeastBusy, "s2"), (Strategy::BestFit, "s3"), (Strategy::Spread, "s1")] {
            assert_eq!(placed(&grid, &want, Rules { strategy, ..RULES }), expected, "{strategy:?}");
        }
    }

    #[test]
    fn twins_share_a_server_only_when_there_is_no_other() {
        let grid = grid([slice(1000, &[]), slice(1000, &[]), slice(9000, &[])]);
        check(&grid, &[Want::new(block("web", 100, &[]), 3)], "s1 s2 s3");
        check(&grid, &[Want::new(block("web", 100, &[]), 4)], "s1 s2 s3 s3");
        for strategy in [Strategy::LeastBusy, Strategy::BestFit, Strategy::Spread] {
            let rules = Rules { strategy, ..RULES };
            let mut servers: Vec<_> = place(&grid, &[Want::new(block("web", 500, &[]), 3)], rules).remove(0);
            servers.sort_by_key(|server| server.clone().unwrap());
            servers.dedup();
            assert_eq!(servers.len(), 3, "{strategy:?}");
        }
    }

    #[test]
    fn a_new_release_prefers_servers_without_its_old_one() {
        let mut grid = grid([slice(1000, &[]), slice(1000, &[])]);
        let old = Block { stay: Stay::Leaving, ..block("web", 100, &[]) };
        put(&mut grid, "s1", "w1", old);
        put(&mut grid, "s2", "b1", block("big", 600, &[]));
        check(&grid, &[Want::new(block("web", 100, &[]), 1)], "s2");
        check(&grid, &[Want::new(block("web", 100, &[]), 2)], "s2 s1");
    }

    #[test]
    fn nobody_is_refused_for_what_is_on_its_way_out() {
        let old = Block { stay: Stay::Leaving, ..block("web", 700, &[]) };
        let mut grid = grid([slice(1000, &[]), slice(1000, &[])]);
        put(&mut grid, "s1", "w1", old.clone());
        put(&mut grid, "s2", "w2", old);
        check(&grid, &[Want::new(block("web", 700, &[]), 3)], "s1 s2 -");
    }

    #[test]
    fn a_parent_draws_its_children_but_twins_stay_apart() {
        let mut grid = grid([slice(1000, &[]), slice(1000, &[]), slice(1000, &[])]);
        put(&mut grid, "s2", "db.1", block("db", 500, &[]));
        let child = |bond, count| [Want::new(beside("db", bond, block("cache", 100, &[])), count)];
        check(&grid, &child(Bond::Preferred, 1), "s2");
        check(&grid, &child(Bond::Preferred, 2), "s2 s1");
        check(&grid, &child(Bond::Required, 2), "s2 s2");
        check(&grid, &child(Bond::Required, 6), "s2 s2 s2 s2 s2 -");
    }

    #[test]
    fn a_parent_of_the_same_launch_goes_first() {
        let grid = grid([slice(1000, &[]), slice(1000, &["ssd"])]);
        let child = Want::new(beside("db", Bond::Required, block("cache", 100, &[])), 1);
        check(&grid, &[child, Want::new(block("db", 100, &["ssd"]), 1)], "s2, s2");
    }

    #[test]
    fn containers_with_data_go_home_or_wait() {
        let mut grid = grid([slice(1000, &[]), slice(1000, &[]), slice(1000, &[])]);
        let home = |home| Want { homes: vec![server(home)], ..Want::new(block("db", 100, &[]), 2) };
        check(&grid, &[home("s2")], "s2 s1");
        grid.slices.get_mut(&server("s2")).unwrap().standing = Standing::Draining;
        check(&grid, &[home("s2")], "s2 s1");
        grid.slices.get_mut(&server("s2")).unwrap().standing = Standing::Gone;
        check(&grid, &[home("s2")], "- s1");
        check(&grid, &[home("s9")], "- s1");
    }

    #[test]
    fn a_server_alone_is_overbooked_and_several_only_when_told_so() {
        let alone = grid([slice(1000, &[])]);
        let several = grid([slice(1000, &[]), slice(600, &[])]);
        let wants = [Want::new(block("web", 600, &[]), 4)];
        let check = |grid, overbook, expected| assert_eq!(placed(grid, &wants, Rules { overbook, ..RULES }), expected);
        check(&alone, Overbook::Alone, "s1 s1 s1 s1");
        check(&alone, Overbook::Refused, "s1 - - -");
        check(&several, Overbook::Alone, "s1 s2 - -");
        check(&several, Overbook::Allowed, "s1 s2 s1 s2");
    }

    #[test]
    fn a_reason_names_what_is_missing_and_what_to_do() {
        let want = |tags: &[&str]| Want::new(block("web", 512, tags), 1);
        check_why(&grid([]), want(&[]), "there is no server for `blog.web`; add one with `servers add`");
        let mut grid = grid([slice(100, &[]), slice(128, &["ssd"]), slice(90, &["ssd", "eu"])]);
        check_why(
            &grid,
            want(&["ssd"]),
            "no server with the tag `ssd` has 512mb free for `blog.web`: the roomiest, `s2`, has 128mb; add one with \
             `servers add`, or lower `size`",
        );
        check_why(
            &grid,
            want(&["gpu", "ssd", "!eu"]),
            "no server that is up has the tags `gpu`, `ssd` and does not have the tag `eu`, as `blog.web` asks for; \
             tag one with `servers tag`, add one with `servers add`, or change `filter`",
        );
        check_why(
            &grid,
            Want::new(beside("db", Bond::Required, block("web", 10, &["!eu"])), 1),
            "`blog.web` belongs beside `blog.db`, which runs on no server without the tag `eu` that is up; start \
             `blog.db` first",
        );
        let home = Want { homes: vec![server("s3")], ..want(&[]) };
        check_why(
            &grid,
            home.clone(),
            "`blog.web` keeps its data on `s3`, which has 90mb of the 512mb it needs; lower `size`, or make room there",
        );
        let other = Want { block: block("web", 10, &["!eu"]), ..home.clone() };
        check_why(
            &grid,
            other,
            "`blog.web` keeps its data on `s3`, which is not a server without the tag `eu`; change `filter` or the \
             server's tags, or remove its data to start anew elsewhere",
        );
        for slice in grid.slices.values_mut() {
            slice.architecture = Some("amd64".into());
        }
        let arm = Block { architecture: Some("arm64".into()), ..block("web", 10, &["ssd"]) };
        check_why(
            &grid,
            Want::new(arm, 1),
            "no server with the tag `ssd` that is up runs images for arm64, which is what `blog.web` was built for; \
             add one with `servers add`, or build for another architecture",
        );
        for (slice, standing) in grid.slices.values_mut().zip([Standing::Draining, Standing::Gone, Standing::Gone]) {
            slice.standing = standing;
        }
        check_why(
            &grid,
            want(&[]),
            "no server is up for `blog.web`: `s1` is draining, `s2`, `s3` are lost; bring one back, `servers resume` \
             one, or add one with `servers add`",
        );
        check_why(&grid, home, "`blog.web` keeps its data on `s3`, which is lost; it waits until `s3` is back");
    }

    #[test]
    fn what_a_lost_server_ran_is_spread_over_the_others_and_fixed_containers_wait() {
        let mut grid = grid([slice(1000, &[]), slice(1000, &[]), slice(1000, &[])]);
        put(&mut grid, "s1", "web.1", block("web", 100, &[]));
        put(&mut grid, "s2", "web.2", block("web", 100, &[]));
        put(&mut grid, "s1", "db.1", Block { stay: Stay::Fixed, ..block("db", 100, &[]) });
        put(&mut grid, "s1", "old.1", Block { stay: Stay::Leaving, ..block("web", 100, &[]) });
        put(&mut grid, "s1", "big.1", block("big", 950, &[]));
        grid.slices.get_mut(&server("s1")).unwrap().standing = Standing::Gone;
        let plan = replan(&grid, &[server("s1")].into(), RULES);
        let moved = |name: &str, to: &str| Move { container: container(name), from: server("s1"), to: server(to) };
        assert_eq!(plan.moves, [moved("big.1", "s3"), moved("web.1", "s2")]);
        let waits: Vec<String> = plan.waits.iter().map(|wait| format!("{}: {}", wait.container, wait.why)).collect();
        assert_eq!(waits, ["db.1: `blog.db` keeps its data on `s1`, which is lost; it waits until `s1` is back"]);
    }

    /// The same rules by looking at everything each time, as the first lines of this file have them.
    fn plainly(grid: &Grid, wants: &[Want], rules: Rules) -> Vec<Vec<Option<ServerName>>> {
        let mut grid = grid.clone();
        let mut placed: Vec<Vec<Option<ServerName>>> = vec![Vec::new(); wants.len()];
        let blocks: Vec<&Block> = wants.iter().map(|want| &want.block).collect();
        let mut number = 0;
        for which in order(&blocks) {
            for _ in 0..wants[which].count {
                let found = best(&grid, &wants[which].block, rules);
                if let Some(server) = &found {
                    number += 1;
                    put(&mut grid, server.as_str(), &format!("new.{number}"), wants[which].block.clone());
                }
                placed[which].push(found);
            }
        }
        placed
    }

    fn best(grid: &Grid, block: &Block, rules: Rules) -> Option<ServerName> {
        let overbooks = match rules.overbook {
            Overbook::Alone => grid.slices.len() == 1,
            Overbook::Allowed => true,
            Overbook::Refused => false,
        };
        let count = |slice: &Slice, stack: &StackName, node: &NodeName, leaves: bool| {
            let same = |other: &&Block| other.stack == *stack && other.node == *node;
            slice.blocks.values().filter(same).filter(|other| (other.stay == Stay::Leaving) == leaves).count()
        };
        let judge = |(name, slice): (&ServerName, &Slice)| {
            let architectures = (&block.architecture, &slice.architecture);
            let runs = !matches!(architectures, (Some(one), Some(other)) if one != other);
            let away = block.parent.as_ref().is_some_and(|p| count(slice, &p.stack, &p.node, false) == 0);
            let bound = block.parent.as_ref().is_some_and(|p| p.bond == Bond::Required);
            if slice.standing != Standing::Up || !block.tags.accepts(name, &slice.tags) || !runs || away && bound {
                return None;
            }
            let used = slice.used().0;
            let squeeze = match block.size.0 {
                size if size <= slice.free().0 => 0,
                size if size <= slice.size.0.saturating_sub(super::super::sample::staying(slice)) => 1,
                _ if overbooks => 2,
                _ => return None,
            };
            let (stack, node) = (&block.stack, &block.node);
            let tier = (count(slice, stack, node, false), away, count(slice, stack, node, true));
            let looks_for = match rules.strategy {
                _ if squeeze > 0 => 0,
                Strategy::LeastBusy => 0,
                Strategy::BestFit => slice.free().0,
                Strategy::Spread => slice.blocks.len() as u64,
            };
            let busy = (used << 24).checked_div(slice.size.0).unwrap_or(u64::from(u32::MAX));
            Some((squeeze, tier, looks_for, busy, name.clone()))
        };
        grid.slices.iter().filter_map(judge).min().map(|(_, _, _, _, name)| name)
    }

    fn any_wants() -> impl Any<Value = Vec<Want>> {
        let want = (any_block(), 0..5_usize).prop_map(|(block, count)| {
            Want::new(
                Block { stay: if block.stay == Stay::Leaving { Stay::Movable } else { block.stay }, ..block },
                count,
            )
        });
        proptest::collection::vec(want, 0..8)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn the_index_chooses_what_a_look_at_everything_would(
            grid in any_grid(), wants in any_wants(), rules in any_rules(),
        ) {
            let placed = place(&grid, &wants, rules);
            let servers: Vec<Vec<Option<ServerName>>> =
                placed.into_iter().map(|answers| answers.into_iter().map(Result::ok).collect()).collect();
            prop_assert_eq!(servers, plainly(&grid, &wants, rules));
        }
    }

    proptest! {
        #[test]
        fn the_order_of_the_wants_changes_nothing(grid in any_grid(), wants in any_wants(), rules in any_rules()) {
            // One want a node: those that are alike in everything may change places.
            let mut wants: Vec<Want> =
                wants.into_iter().map(|want| (want.block.node.clone(), want)).collect::<BTreeMap<_, _>>().into_values().collect();
            let forward = place(&grid, &wants, rules);
            wants.reverse();
            let mut backward = place(&grid, &wants, rules);
            backward.reverse();
            prop_assert_eq!(forward, backward);
        }

        #[test]
        fn a_lost_server_is_replanned_without_moving_what_is_fixed(
            grid in any_grid(), lost in proptest::collection::btree_set(1..8_u32, 0..4), rules in any_rules(),
        ) {
            let lost: BTreeSet<ServerName> = lost.into_iter().map(|number| server(&format!("s{number}"))).collect();
            let plan = replan(&grid, &lost, rules);
            prop_assert_eq!(&plan, &replan(&grid, &lost, rules));
            let mut after = grid.clone();
            for step in &plan.moves {
                let block = after.slices.get_mut(&step.from).unwrap().blocks.remove(&step.container).unwrap();
                prop_assert_eq!(block.stay, Stay::Movable);
                prop_assert!(lost.contains(&step.from) && !lost.contains(&step.to));
                prop_assert_eq!(grid.slices[&step.to].standing, Standing::Up);
                after.slices.get_mut(&step.to).unwrap().blocks.insert(step.container.clone(), block);
            }
            let waits: BTreeSet<&ContainerName> = plan.waits.iter().map(|wait| &wait.container).collect();
            for (name, slice) in &after.slices {
                if rules.overbook == Overbook::Refused {
                    prop_assert!(super::super::sample::staying(slice) <= slice.size.0);
                }
                for (container, block) in slice.blocks.iter().filter(|_| lost.contains(name)) {
                    prop_assert!(block.stay == Stay::Leaving || waits.contains(container));
                }
            }
        }
    }
}
