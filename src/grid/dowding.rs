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
