//! What a grid that sizes itself needs and what it can spare, as slicegrid sees it.

use super::Wants;
use crate::grid::{Asked, Event, Grid, NoRoom, Rules, Slicegrid, Stay};
use crate::names::ServerName;

/// What is to come and to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlook {
    /// Slices to ask for.
    pub asks: Vec<Asked>,
    /// A slice that the others could take over. None while anything waits for room, helped by a new slice or not: who
    /// waits may be about to find it.
    pub spare: Option<ServerName>,
}

/// The outlook of a grid in which these containers have no room.
pub fn outlook(grid: Grid, wants: &Wants) -> Outlook {
    let mut slicegrid = without_going(grid, wants);
    let mut events = Vec::new();
    for (container, block) in &wants.blocks {
        // What no new slice helps waits for something else.
        events.extend(slicegrid.add(container.clone(), block.clone()).unwrap_or_default());
    }
    events.extend(slicegrid.autosize());
    let asks = events.iter().filter_map(|event| match event {
        Event::Create { size, tags } => Some(Asked { size: *size, tags: tags.clone() }),
        Event::Added { .. } | Event::Removed { .. } | Event::Destroy { .. } => None,
    });
    let spare = events.iter().find_map(|event| match event {
        Event::Destroy { server } if wants.is_empty() => Some(server.clone()),
        Event::Added { .. } | Event::Removed { .. } | Event::Create { .. } | Event::Destroy { .. } => None,
    });
    Outlook { asks: asks.collect(), spare }
}

/// Whether the grid can be made to have room for all of these, beside what others wait for.
///
/// # Errors
/// Why one of them will never have any.
pub fn check(grid: Grid, others: &Wants, wants: &Wants) -> Result<(), NoRoom> {
    let mut slicegrid = without_going(grid, wants);
    for (container, block) in &others.blocks {
        drop(slicegrid.add(container.clone(), block.clone()));
    }
    wants.blocks.iter().try_for_each(|(container, block)| slicegrid.add(container.clone(), block.clone()).map(drop))
}

fn without_going(mut grid: Grid, wants: &Wants) -> Slicegrid {
    let blocks = grid.slices.values_mut().flat_map(|slice| &mut slice.blocks);
    blocks.filter(|(name, _)| wants.going.contains(*name)).for_each(|(_, block)| block.stay = Stay::Leaving);
    Slicegrid::new(grid, Rules::default())
}

/// Whether the grid would do without a slice that it has asked for.
pub fn is_needless(mut grid: Grid, wants: &Wants, asked: &Asked) -> bool {
    if let Some(place) = grid.asked.iter().position(|other| other == asked) {
        grid.asked.remove(place);
    }
    outlook(grid, wants).asks.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grid::{Autosize, Block, Origin, Slice};
    use crate::units::Megabytes;

    fn slice(size: u64, used: u64, origin: Origin) -> Slice {
        let block = Block::new(Megabytes(used), "blog".parse().unwrap(), format!("n{used}").parse().unwrap());
        let blocks = if used == 0 { Default::default() } else { [(format!("b{used}").parse().unwrap(), block)].into() };
        Slice { blocks, origin, ..Slice::new(Megabytes(size)) }
    }

    fn grid(slices: &[(&str, Slice)], max: usize) -> Grid {
        let slices = slices.iter().map(|(name, slice)| (name.parse().unwrap(), slice.clone())).collect();
        Grid { autosize: Some(Autosize::new(1, max, Megabytes(1000))), slices, ..Grid::default() }
    }

    fn wants(sizes: &[u64]) -> Wants {
        let want = |(number, size): (usize, &u64)| {
            let block = Block::new(Megabytes(*size), "shop".parse().unwrap(), "web".parse().unwrap());
            (format!("shop.web.1.{number}").parse().unwrap(), block)
        };
        Wants { blocks: sizes.iter().enumerate().map(want).collect(), going: Default::default() }
    }

    fn asked(size: u64) -> Asked {
        Asked { size: Megabytes(size), tags: Default::default() }
    }

    #[test]
    fn what_has_no_room_is_asked_for_once() {
        let one = grid(&[("s1", slice(1000, 600, Origin::Added))], 3);
        assert_eq!(outlook(one.clone(), &wants(&[600])), Outlook { asks: vec![asked(1000)], spare: None });
        assert_eq!(outlook(one.clone(), &wants(&[600, 600])).asks, [asked(1000), asked(1000)]);
        assert_eq!(outlook(one.clone(), &wants(&[400])).asks, [], "it has room by now");
        let waiting = Grid { asked: vec![asked(1000)], ..one.clone() };
        assert_eq!(outlook(waiting.clone(), &wants(&[600])).asks, []);
        assert!(check(waiting.clone(), &wants(&[]), &wants(&[600, 600])).is_ok());
        let why = check(waiting, &wants(&[]), &wants(&[600, 600, 600])).unwrap_err().to_string();
        assert!(why.contains("raise `max`"), "{why}");
    }

    #[test]
    fn what_goes_with_a_launch_is_not_in_its_way() {
        let full = grid(&[("s1", slice(1000, 900, Origin::Added))], 3);
        let wants = Wants { going: ["b900".parse().unwrap()].into(), ..wants(&[900]) };
        assert_eq!(outlook(full, &wants).asks, []);
    }

    #[test]
    fn a_slice_is_spare_only_when_nobody_waits_for_room() {
        let two = [("s1", slice(1000, 100, Origin::Added)), ("auto1", slice(1000, 200, Origin::Created))];
        assert_eq!(outlook(grid(&two, 2), &wants(&[])).spare, Some("auto1".parse().unwrap()));
        assert_eq!(outlook(grid(&two, 2), &wants(&[5000])).spare, None);
        let own = [("s1", slice(1000, 100, Origin::Added)), ("s2", slice(1000, 200, Origin::Added))];
        assert_eq!(outlook(grid(&own, 2), &wants(&[])).spare, None, "a person's");
    }

    #[test]
    fn an_order_is_needless_when_what_it_was_for_has_gone() {
        let waiting = Grid { asked: vec![asked(1000)], ..grid(&[("s1", slice(1000, 600, Origin::Added))], 3) };
        assert!(!is_needless(waiting.clone(), &wants(&[600]), &asked(1000)));
        assert!(is_needless(waiting.clone(), &wants(&[]), &asked(1000)));
        let least = Grid { autosize: Some(Autosize::new(2, 3, Megabytes(1000))), ..waiting };
        assert!(!is_needless(least, &wants(&[]), &asked(1000)), "there have to be two");
    }
}
