//! Blocks with tags and twins on a grid of servers: how long until each has its place, and how much memory that takes.
//!
//! `together` is what a launch or a lost server asks: all blocks at once, their servers as the answer. `single` adds
//! them one by one to a grid that keeps them, with the event of each, as if 2,000,000 containers came in a row. Both
//! on one thread, and the seconds it was on a processor count. Every answer is checked afterwards: filters, memory,
//! and twins apart wherever there are enough servers. Names of parts may be given (`together single`), and
//! `QUARRY_ROUNDS` and `QUARRY_BLOCKS` (at most).

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::process::ExitCode;

use quarry::grid::{Block, Event, Filter, Grid, Overbook, Rules, Slice, Slicegrid, Strategy, Want, place};
use quarry::names::{ContainerName, ServerName};
use quarry::units::Megabytes;

use self::common::program::{most_resident, on_processor};
use self::common::table::median;
use self::common::{Parts, end, number, rounds};

mod common;

/// Blocks, and the slices they go to: some 328 each, as in Nomad's challenge.
const SIZES: [(usize, usize); 4] = [(10_000, 31), (100_000, 305), (1_000_000, 3050), (2_000_000, 6100)];

/// Never more promised than there is.
const RULES: Rules = Rules { strategy: Strategy::LeastBusy, overbook: Overbook::Refused };

fn main() -> ExitCode {
    end::run(|| {
        let parts = Parts::wanted();
        if parts.want("together") {
            let each = measure(rounds(5), together);
            growth(&each);
            let (longest, resident) = (each.iter().map(|(_, seconds)| *seconds).fold(0.0, f64::max), most_resident());
            println!("the longest: {longest:.2} s (≤ 2, {})", word(longest <= 2.0));
            println!("resident at most: {resident:.0} MiB (≤ 1024, {})", word(resident <= 1024.0));
        }
        if parts.want("single") {
            println!("one by one, each kept and told in an event:");
            growth(&measure(1, single));
            println!("resident at most: {:.0} MiB", most_resident());
        }
    })
}

/// Seconds for each number of blocks.
fn measure(rounds: usize, once: fn(&Grid, &[Want]) -> f64) -> Vec<(f64, f64)> {
    let most = number("QUARRY_BLOCKS", usize::MAX);
    let mut each = Vec::new();
    for (blocks, slices) in SIZES.into_iter().filter(|(blocks, _)| *blocks <= most) {
        let (grid, wants) = (grid(slices), wants(blocks));
        let seconds = median((0..rounds).map(|_| once(&grid, &wants)));
        println!("{blocks} blocks on {slices} slices: {seconds:.2} s");
        each.push((blocks as f64, seconds));
    }
    each
}

fn word(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

/// How the time of the most blocks compares with what n·log n makes of that of a twentieth, on a twentieth of servers.
fn growth(each: &[(f64, f64)]) {
    if let (Some((few, short)), Some((many, long))) = (each.get(1), each.get(3)) {
        let work = |blocks: f64| blocks * blocks.log2();
        let ratio = (long / short) / (work(*many) / work(*few));
        println!("2,000,000 beside what n·log n makes of 100,000: {ratio:.2}");
    }
}

/// Servers of 192 GiB, as far as they have to be told apart: every second with `ssd`, every third with `eu`.
fn grid(slices: usize) -> Grid {
    let slice = |number: usize| {
        let mut slice = Slice::new(Megabytes(192 << 10));
        let tags = [("ssd", 2), ("eu", 3), ("arm", 7), ("router", 31)];
        slice
            .tags
            .extend(tags.iter().filter(|(_, every)| number.is_multiple_of(*every)).map(|(tag, _)| (*tag).to_owned()));
        (format!("s{number:04}").parse().unwrap(), slice)
    };
    Grid { slices: (0..slices).map(slice).collect(), ..Grid::default() }
}

/// Nodes of 1 to 150 containers of 64 to 1024 MB, half of them choosy.
fn wants(blocks: usize) -> Vec<Want> {
    let counts = [1, 2, 3, 5, 8, 20, 100, 150];
    let sizes = [64, 128, 256, 512, 1024];
    let filters: [&[&str]; 6] = [&[], &["ssd"], &[], &["eu", "!arm"], &[], &["!ssd"]];
    let mut wants = Vec::new();
    let mut left = blocks;
    for number in 0.. {
        let count = left.min(counts[number % counts.len()]);
        if count == 0 {
            break;
        }
        let (stack, node) = (format!("stack-{}", number / 4), ["web", "worker", "mail", "search"][number % 4]);
        let mut block =
            Block::new(Megabytes(sizes[number % sizes.len()]), stack.parse().unwrap(), node.parse().unwrap());
        block.tags = Filter::new(filters[number % filters.len()]).unwrap();
        wants.push(Want::new(block, count));
        left -= count;
    }
    wants
}

fn together(grid: &Grid, wants: &[Want]) -> f64 {
    let begun = on_processor();
    let placed = place(grid, wants, RULES);
    let seconds = on_processor() - begun;
    let servers = placed.iter().map(|servers| servers.iter().map(|server| server.as_ref().unwrap()).collect());
    check(grid, wants, servers);
    seconds
}

fn single(grid: &Grid, wants: &[Want]) -> f64 {
    // Copies of all nodes in turn, which is worse than one node after the other.
    let most = wants.iter().map(|want| want.count).max().unwrap_or(0);
    let turn = |copy: usize| wants.iter().filter(move |want| copy < want.count).map(move |want| (copy, want));
    let named = |(copy, want): (usize, &Want)| -> (ContainerName, Block) {
        let block = want.block.clone();
        (format!("{}.{}.1.{copy}", block.stack, block.node).parse().unwrap(), block)
    };
    let mut slicegrid = Slicegrid::new(grid.clone(), RULES);
    let mut seconds = 0.0;
    for copy in 0..most {
        let blocks: Vec<_> = turn(copy).map(named).collect();
        let begun = on_processor();
        for (container, block) in blocks {
            let events = slicegrid.add(container, block).unwrap();
            assert!(matches!(events[..], [Event::Added { .. }]));
        }
        seconds += on_processor() - begun;
    }
    let mut servers: BTreeMap<(&str, &str), Vec<&ServerName>> = BTreeMap::new();
    for (server, slice) in &slicegrid.grid().slices {
        for block in slice.blocks.values() {
            servers.entry((block.stack.as_str(), block.node.as_str())).or_default().push(server);
        }
    }
    let node = |want: &Want| servers.get(&(want.block.stack.as_str(), want.block.node.as_str())).unwrap().clone();
    check(grid, wants, wants.iter().map(node));
    seconds
}

/// Fails when a promise is not kept.
fn check<'a>(grid: &Grid, wants: &[Want], placed: impl Iterator<Item = Vec<&'a ServerName>>) {
    let mut used: BTreeMap<&ServerName, u64> = BTreeMap::new();
    for (want, mut servers) in wants.iter().zip(placed) {
        assert_eq!(servers.len(), want.count);
        for server in &servers {
            *used.entry(server).or_default() += want.block.size.0;
            assert!(want.block.tags.accepts(server, &grid.slices[*server].tags), "{server} has not {want:?}");
        }
        let will_do = grid.slices.iter().filter(|(name, slice)| want.block.tags.accepts(name, &slice.tags)).count();
        servers.sort();
        servers.dedup();
        assert_eq!(servers.len(), want.count.min(will_do), "twins of {want:?} share a server");
    }
    assert!(used.iter().all(|(server, used)| *used <= grid.slices[*server].size.0), "more is promised than there is");
}
