//! Small grids for tests: those of tables by hand, and those that proptest makes up.

use proptest::prelude::{Just, Strategy as Any, prop_oneof};

use super::{Block, Bond, Filter, Grid, Origin, Overbook, Parent, Rules, Slice, Standing, Stay, Strategy};
use crate::names::{ContainerName, NodeName, ServerName, StackName};
use crate::units::Megabytes;

pub(super) fn server(name: &str) -> ServerName {
    name.parse().unwrap()
}

pub(super) fn container(name: &str) -> ContainerName {
    name.parse().unwrap()
}

/// A block of `blog`.
pub(super) fn block(node: &str, size: u64, tags: &[&str]) -> Block {
    let node: NodeName = node.parse().unwrap();
    let stack: StackName = "blog".parse().unwrap();
    Block { tags: Filter::new(tags).unwrap(), ..Block::new(Megabytes(size), stack, node) }
}

pub(super) fn beside(node: &str, bond: Bond, block: Block) -> Block {
    let parent = Parent { stack: block.stack.clone(), node: node.parse().unwrap(), bond };
    Block { parent: Some(Box::new(parent)), ..block }
}

pub(super) fn slice(size: u64, tags: &[&str]) -> Slice {
    Slice { tags: tags.iter().map(|tag| (*tag).to_owned()).collect(), ..Slice::new(Megabytes(size)) }
}

/// Slices `s1`, `s2` and so on.
pub(super) fn grid(slices: impl IntoIterator<Item = Slice>) -> Grid {
    let named = slices.into_iter().zip(1..).map(|(slice, number)| (server(&format!("s{number}")), slice));
    Grid { slices: named.collect(), ..Grid::default() }
}

pub(super) fn put(grid: &mut Grid, on: &str, name: &str, block: Block) {
    grid.slices.get_mut(&server(on)).unwrap().blocks.insert(container(name), block);
}

/// Tags, with a server's name among them.
fn words() -> impl Any<Value = Vec<&'static str>> {
    proptest::sample::subsequence(vec!["ssd", "eu", "!eu", "!gpu", "s1", "!s2"], 0..=2)
}

pub(super) fn any_block() -> impl Any<Value = Block> {
    let stay = prop_oneof![6 => Just(Stay::Movable), 1 => Just(Stay::Fixed), 1 => Just(Stay::Leaving)];
    let tags = prop_oneof![2 => Just(Vec::new()), 1 => words()];
    let bond = prop_oneof![6 => Just(None), 1 => Just(Some(Bond::Required)), 1 => Just(Some(Bond::Preferred))];
    let architecture = prop_oneof![4 => Just(None), 1 => Just(Some("amd64".into())), 1 => Just(Some("arm64".into()))];
    (0..4_usize, 0..300_u64, tags, stay, bond, architecture).prop_map(|(node, size, tags, stay, bond, architecture)| {
        let nodes = ["web", "worker", "mail", "db"];
        let block = Block { stay, architecture, ..block(nodes[node], size, &tags) };
        match bond {
            Some(bond) => beside("db", bond, block),
            None => block,
        }
    })
}

pub(super) fn any_slice() -> impl Any<Value = Slice> {
    let tags = proptest::sample::subsequence(vec!["ssd", "eu", "gpu"], 0..=3);
    let standing = prop_oneof![
        6 => Just(Standing::Up), 1 => Just(Standing::Draining), 1 => Just(Standing::Suspect), 1 => Just(Standing::Gone)
    ];
    let architecture = prop_oneof![2 => Just(None), 1 => Just(Some("amd64".into())), 1 => Just(Some("arm64".into()))];
    let origin = prop_oneof![Just(Origin::Added), Just(Origin::Created)];
    (0..1000_u64, tags, standing, architecture, origin).prop_map(|(size, tags, standing, architecture, origin)| Slice {
        standing,
        architecture,
        origin,
        ..slice(size, &tags)
    })
}

/// Up to seven slices, not overbooked but by what leaves.
pub(super) fn any_grid() -> impl Any<Value = Grid> {
    let on_it = proptest::collection::vec((any_block(), 0..7_usize), 0..15);
    (proptest::collection::vec(any_slice(), 0..7), on_it).prop_map(|(slices, blocks)| {
        let mut grid = grid(slices);
        for (number, (block, place)) in blocks.into_iter().enumerate() {
            let slice = grid.slices.values_mut().nth(place);
            if let Some(slice) = slice.filter(|slice| block.stay == Stay::Leaving || slice.free() >= block.size) {
                slice.blocks.insert(container(&format!("old.{number}")), block);
            }
        }
        grid
    })
}

pub(super) fn any_rules() -> impl Any<Value = Rules> {
    let strategy = prop_oneof![Just(Strategy::LeastBusy), Just(Strategy::BestFit), Just(Strategy::Spread)];
    let overbook = prop_oneof![Just(Overbook::Alone), Just(Overbook::Allowed), Just(Overbook::Refused)];
    (strategy, overbook).prop_map(|(strategy, overbook)| Rules { strategy, overbook })
}

/// Memory of what stays on a slice.
pub(super) fn staying(slice: &Slice) -> u64 {
    slice.blocks.values().filter(|block| block.stay != Stay::Leaving).map(|block| block.size.0).sum()
}
