//! Fifty of a thousand servers are lost at once: how long until every container on them that can move has a new place.
//!
//! The grid is made from what runs, as HQ does it, and the plan is checked: fixed containers wait and everything else
//! moves to servers that are up, where no twin of it is. `QUARRY_ROUNDS` may be given.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::Instant;

use quarry::grid::{Block, Filter, Grid, Overbook, Rules, Slice, Standing, Stay, Strategy, Want, place, replan};
use quarry::names::{ContainerName, ServerName};
use quarry::units::Megabytes;

use self::common::program::most_resident;
use self::common::table::{Target, figure, heading, median};
use self::common::{end, rounds};

mod common;

const SERVERS: usize = 1000;
const LOST: usize = 50;
const CONTAINERS: usize = 100_000;

const RULES: Rules = Rules { strategy: Strategy::LeastBusy, overbook: Overbook::Refused };

fn main() -> ExitCode {
    end::run(|| {
        let mut grid = grid();
        // Spread over the whole, as racks and power lines have it.
        let lost: BTreeSet<ServerName> = grid.slices.keys().step_by(SERVERS / LOST).take(LOST).cloned().collect();
        for slice in grid.slices.iter_mut().filter(|(name, _)| lost.contains(name)).map(|(_, slice)| slice) {
            slice.standing = Standing::Gone;
        }
        let seconds = median((0..rounds(9)).map(|_| {
            let begun = Instant::now();
            let plan = replan(&grid, &lost, RULES);
            let seconds = begun.elapsed().as_secs_f64();
            check(&grid, &lost, &plan);
            seconds
        }));
        let plan = replan(&grid, &lost, RULES);
        println!(
            "{CONTAINERS} containers on {SERVERS} servers, {LOST} lost: {} moved, {} wait: {seconds:.3} s",
            plan.moves.len(),
            plan.waits.len()
        );
        heading("seconds, MiB");
        figure("replanned (s)", seconds, Target::AtMost(1.0));
        figure("resident at most (MiB)", most_resident(), Target::AtMost(1024.0));
    })
}

/// Nodes of 1 to 20 containers, every tenth fixed, on servers of 64 GiB that are two thirds full.
fn grid() -> Grid {
    let slice = |number: usize| {
        let mut slice = Slice::new(Megabytes(64 << 10));
        let tags = [("ssd", 2), ("eu", 3)];
        slice
            .tags
            .extend(tags.iter().filter(|(_, every)| number.is_multiple_of(*every)).map(|(tag, _)| (*tag).to_owned()));
        (format!("s{number:04}").parse().unwrap(), slice)
    };
    let mut grid = Grid { slices: (0..SERVERS).map(slice).collect(), ..Grid::default() };
    let filters: [&[&str]; 4] = [&[], &["ssd"], &[], &["eu"]];
    let (mut wants, mut left) = (Vec::new(), CONTAINERS);
    for number in 0.. {
        let count = left.min([1, 2, 4, 10, 20][number % 5]);
        if count == 0 {
            break;
        }
        let size = Megabytes([128, 256, 512, 768][number % 4]);
        let stack = format!("stack-{number}").parse().unwrap();
        let mut block = Block::new(size, stack, "web".parse().unwrap());
        block.tags = Filter::new(filters[number % filters.len()]).unwrap();
        block.stay = if number % 10 == 0 { Stay::Fixed } else { Stay::Movable };
        wants.push(Want::new(block, count));
        left -= count;
    }
    for (want, servers) in wants.iter().zip(place(&grid, &wants, RULES)) {
        for (copy, server) in servers.into_iter().enumerate() {
            let container: ContainerName = format!("{}.web.1.{copy}", want.block.stack).parse().unwrap();
            grid.slices.get_mut(&server.unwrap()).unwrap().blocks.insert(container, want.block.clone());
        }
    }
    grid
}

/// Fails when the plan breaks a promise.
fn check(grid: &Grid, lost: &BTreeSet<ServerName>, plan: &quarry::grid::Replan) {
    let mut after = grid.clone();
    for step in &plan.moves {
        let block = after.slices.get_mut(&step.from).unwrap().blocks.remove(&step.container).unwrap();
        assert_eq!(block.stay, Stay::Movable);
        assert!(!lost.contains(&step.to) && block.tags.accepts(&step.to, &grid.slices[&step.to].tags));
        after.slices.get_mut(&step.to).unwrap().blocks.insert(step.container.clone(), block);
    }
    let waits: BTreeSet<&ContainerName> = plan.waits.iter().map(|wait| &wait.container).collect();
    for (server, slice) in &after.slices {
        assert!(slice.used() <= slice.size, "{server} is overbooked");
        let mut twins: BTreeMap<_, usize> = BTreeMap::new();
        for (container, block) in &slice.blocks {
            *twins.entry((&block.stack, &block.node)).or_default() += 1;
            if lost.contains(server) {
                assert!(block.stay == Stay::Fixed && waits.contains(container), "{container} is forgotten");
            }
        }
        assert!(twins.values().all(|count| *count == 1), "twins share {server}");
    }
}
