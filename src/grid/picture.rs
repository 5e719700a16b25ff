//! The grid as a drawing for a terminal: a column for each server, its containers stacked from the ground, heights by
//! memory. With many servers a line for each.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{Grid, Slice, Standing};
use crate::names::{NodeName, ServerName, StackName};
use crate::units::Megabytes;

/// Whether the picture has colours. Every meaning is in the text as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// Text only.
    Plain,
    /// ANSI colours, one for each stack.
    Colour,
}

/// Columns narrower than this do not hold a container's name.
const NARROWEST: usize = 26;
const WIDEST: usize = 40;
/// Blanks between two columns.
const GAP: usize = 2;
/// Lines of the column with the most memory, or the most promised.
const TALLEST: u64 = 20;
/// A line of text and the line that parts it from the next.
const SHORTEST: u64 = 2;

/// With more containers than this on a server, those of one node are drawn as one box.
const MANY: usize = 12;
/// With more boxes than this, the smallest share one.
const TOO_MANY: usize = 24;

/// With more rows of columns than this, servers are drawn as lines.
const MANY_ROWS: usize = 4;
/// Characters of the bar in a server's line.
const BAR: u64 = 20;
/// Waiting containers that are named.
const MOST_WAITING: usize = 10;

/// Backgrounds that white text is readable on, in light and dark terminals alike.
const BACKGROUNDS: [u8; 8] = [25, 29, 54, 61, 89, 94, 130, 24];

/// Draws the grid for a terminal `width` characters wide, servers by name, in several rows where they need to be; as
/// lines where there would be too many.
///
/// A container too small for its share of the height still gets a line, so a column may grow beyond its share.
pub fn draw(grid: &Grid, width: usize, paint: Paint) -> String {
    let mut picture =
        if grid.slices.is_empty() { "no servers in the grid\n".into() } else { servers(grid, width, paint) };
    picture.push_str(&expected(grid));
    picture
}

fn servers(grid: &Grid, width: usize, paint: Paint) -> String {
    let slices: Vec<(&ServerName, &Slice)> = grid.slices.iter().collect();
    let per_row = ((width + GAP) / (NARROWEST + GAP)).clamp(1, slices.len());
    let mut picture = if slices.len() > per_row * MANY_ROWS {
        lines(&slices, width)
    } else {
        columns(&slices, ((width + GAP) / per_row).saturating_sub(GAP).clamp(NARROWEST, WIDEST), per_row, paint)
    };
    picture.push_str(&total(grid));
    picture
}

fn columns(slices: &[(&ServerName, &Slice)], width: usize, per_row: usize, paint: Paint) -> String {
    let largest = slices.iter().map(|(_, slice)| slice.size.max(slice.used()).0).max().unwrap_or(1).max(1);
    let mut picture = String::new();
    for row in slices.chunks(per_row) {
        let columns = row.iter().map(|(server, slice)| Column { server, slice, largest, width, paint });
        picture.push_str(&side_by_side(&columns.map(|column| column.lines()).collect::<Vec<_>>(), width));
        picture.push('\n');
    }
    picture
}

/// A line for each server: name, how much of it is used, how it stands, tags.
fn lines(slices: &[(&ServerName, &Slice)], width: usize) -> String {
    let names = slices.iter().map(|(name, _)| name.as_str().len()).max().unwrap_or(0);
    let mut picture = String::new();
    for (server, slice) in slices {
        let used = slice.used();
        let full = (used.0 * BAR).div_ceil(slice.size.0.max(1)).min(BAR);
        let bar = format!("{}{}", "█".repeat(full as usize), "░".repeat((BAR - full) as usize));
        let of = format!("{} of {}", amount(used), amount(slice.size));
        let standing = if slice.standing == Standing::Up { "" } else { slice.standing.word() };
        let line = format!("{server:<names$}  {bar}  {of:<18} {standing:<8} {}", tags(slice));
        picture.push_str(cut(line.trim_end(), width.max(NARROWEST)).trim_end());
        picture.push('\n');
    }
    picture.push('\n');
    picture
}

fn tags(slice: &Slice) -> String {
    let tags: Vec<String> = slice.tags.iter().map(|tag| format!("#{tag}")).collect();
    tags.join(" ")
}

/// What waits, and what was asked for.
fn expected(grid: &Grid) -> String {
    let mut text = String::new();
    for asked in &grid.asked {
        let tags: Vec<String> = asked.tags.iter().map(|tag| format!(" #{tag}")).collect();
        text.push_str(&format!("asked for: a server with {}{}\n", amount(asked.size), tags.concat()));
    }
    for (container, block) in grid.waiting.iter().take(MOST_WAITING) {
        text.push_str(&format!("waits for room: {container} {}\n", amount(block.size)));
    }
    if let more @ 1.. = grid.waiting.len().saturating_sub(MOST_WAITING) {
        text.push_str(&format!("and {more} more wait\n"));
    }
    text
}

fn total(grid: &Grid) -> String {
    let servers = match grid.slices.len() {
        1 => "1 server".to_owned(),
        count => format!("{count} servers"),
    };
    let kinds = [Standing::Draining, Standing::Suspect, Standing::Gone].map(|standing| {
        let count = grid.slices.values().filter(|slice| slice.standing == standing).count();
        if count == 0 { String::new() } else { format!(", {count} {}", standing.word()) }
    });
    let servers = servers + &kinds.concat();
    let containers = match grid.slices.values().map(|slice| slice.blocks.len()).sum() {
        1_usize => "1 container".to_owned(),
        count => format!("{count} containers"),
    };
    let (size, used, free) = (amount(grid.size()), amount(grid.used()), amount(grid.free()));
    format!("{servers}, {containers}: {size} in all, {used} used, {free} free\n")
}

/// Columns with their feet on one line.
fn side_by_side(columns: &[Vec<String>], width: usize) -> String {
    let height = columns.iter().map(Vec::len).max().unwrap_or(0);
    let mut text = String::new();
    for line in 0..height {
        let cell = |column: &Vec<String>| {
            let above = height - column.len();
            line.checked_sub(above).map_or_else(|| " ".repeat(width), |line| column[line].clone())
        };
        let cells: Vec<String> = columns.iter().map(cell).collect();
        text.push_str(cells.join(&" ".repeat(GAP)).trim_end());
        text.push('\n');
    }
    text
}

/// What stands in a column.
struct Pile {
    label: String,
    size: Megabytes,
    /// Whose colour it has; several stacks' have none.
    stack: Option<StackName>,
}

/// The containers of a slice as boxes, few enough to look at.
fn piles(slice: &Slice) -> Vec<Pile> {
    let each = slice.blocks.iter().map(|(name, block)| Pile {
        label: name.to_string(),
        size: block.size,
        stack: Some(block.stack.clone()),
    });
    let mut piles: Vec<Pile> = if slice.blocks.len() <= MANY { each.collect() } else { by_node(slice) };
    if piles.len() > TOO_MANY {
        // A stable sort: among equals the first names stay.
        piles.sort_by_key(|pile| std::cmp::Reverse(pile.size));
        let rest = piles.split_off(TOO_MANY - 1);
        piles.sort_by(|one, other| one.label.cmp(&other.label));
        let size = Megabytes(rest.iter().map(|pile| pile.size.0).sum());
        piles.push(Pile { label: format!("and {} more", rest.len()), size, stack: None });
    }
    piles
}

fn by_node(slice: &Slice) -> Vec<Pile> {
    let mut nodes: BTreeMap<(&StackName, &NodeName), (usize, u64)> = BTreeMap::new();
    for block in slice.blocks.values() {
        let (count, size) = nodes.entry((&block.stack, &block.node)).or_default();
        *count += 1;
        *size += block.size.0;
    }
    let pile = |((stack, node), (count, size)): ((&StackName, &NodeName), (usize, u64))| Pile {
        label: if count == 1 { format!("{stack}.{node}") } else { format!("{stack}.{node} ×{count}") },
        size: Megabytes(size),
        stack: Some(stack.clone()),
    };
    nodes.into_iter().map(pile).collect()
}

/// One server's drawing; every line is `width` characters wide.
struct Column<'a> {
    server: &'a ServerName,
    slice: &'a Slice,
    largest: u64,
    width: usize,
    paint: Paint,
}

impl Column<'_> {
    fn lines(&self) -> Vec<String> {
        let piles = piles(self.slice);
        let heights: Vec<u64> = piles.iter().map(|pile| self.height(pile.size).max(SHORTEST)).collect();
        let taken: u64 = heights.iter().sum();
        let free = match self.slice.free() {
            Megabytes(0) => 0,
            _ => self.height(self.slice.size).saturating_sub(taken).max(SHORTEST),
        };
        let mut lines = self.head();
        let mut edge = ("┌", "┐");
        if free > 0 {
            lines.push(self.edge(edge));
            lines.extend(self.free(free));
            edge = ("├", "┤");
        }
        for (pile, height) in piles.iter().zip(heights) {
            lines.push(self.edge(edge));
            lines.extend(self.pile(pile, height));
            edge = ("├", "┤");
        }
        lines.push(self.edge(("└", "┘")));
        lines.push(self.foot());
        lines
    }

    /// Lines for this much memory, the line above it included.
    fn height(&self, memory: Megabytes) -> u64 {
        (memory.0 * TALLEST + self.largest / 2) / self.largest
    }

    fn head(&self) -> Vec<String> {
        let mut lines = vec![self.framed(" ", self.server.as_str(), &amount(self.slice.size))];
        // Here too: a full column has no free place that could say so.
        let standing = match self.slice.standing {
            Standing::Up => String::new(),
            standing => format!("({}) ", standing.word()),
        };
        let about = format!("{standing}{}", tags(self.slice));
        if !about.is_empty() {
            lines.push(self.framed(" ", about.trim_end(), ""));
        }
        lines
    }

    fn foot(&self) -> String {
        let used = self.slice.used();
        let share = used.0 * 100 / self.slice.size.0.max(1);
        let free = match self.slice.standing {
            Standing::Up => format!("{} free", amount(self.slice.free())),
            standing => standing.word().to_owned(),
        };
        self.framed(" ", &format!("{} used, {share} %", amount(used)), &free)
    }

    fn edge(&self, (left, right): (&str, &str)) -> String {
        format!("{left}{}{right}", "─".repeat(self.width - 2))
    }

    fn free(&self, height: u64) -> Vec<String> {
        let middle = (height - 1) / 2;
        (0..height - 1)
            .map(|line| {
                let text = match self.slice.standing {
                    _ if line != middle.min(height - 2) => "",
                    Standing::Up => "free",
                    standing => standing.word(),
                };
                format!("│{text:^width$}│", width = self.width - 2)
            })
            .collect()
    }

    fn pile(&self, pile: &Pile, height: u64) -> Vec<String> {
        (0..height - 1)
            .map(|line| match line {
                0 => self.framed("│", &pile.label, &amount(pile.size)),
                _ => self.framed("│", "", ""),
            })
            .map(|line| self.painted(line, pile.stack.as_ref().filter(|_| self.slice.standing != Standing::Gone)))
            .collect()
    }

    /// `left … right` between two frames, `left` cut where it is too long.
    fn framed(&self, frame: &str, left: &str, right: &str) -> String {
        let room = self.width - 4;
        let left = cut(left, if right.is_empty() { room } else { room.saturating_sub(right.len() + 1) });
        let blanks = room.saturating_sub(left.chars().count() + right.len());
        format!("{frame} {left}{}{right} {frame}", " ".repeat(blanks))
    }

    /// The inside of a framed line on the stack's colour.
    fn painted(&self, line: String, stack: Option<&StackName>) -> String {
        let inside = line.strip_prefix('│').and_then(|line| line.strip_suffix('│'));
        match (self.paint, stack, inside) {
            (Paint::Colour, Some(stack), Some(inside)) => {
                format!("│\x1b[38;5;231;48;5;{}m{inside}\x1b[0m│", background(stack))
            }
            (Paint::Plain | Paint::Colour, _, _) => line,
        }
    }
}

/// The same stack has the same colour every day, whatever else runs (FNV-1a).
fn background(stack: &StackName) -> u8 {
    let mixed = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    let hash = stack.as_str().bytes().fold(0x811c_9dc5, mixed);
    BACKGROUNDS[hash as usize % BACKGROUNDS.len()]
}

/// `text` in at most `room` characters.
fn cut(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(room.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Memory as people say it: `512mb`, `1.5gb`.
fn amount(memory: Megabytes) -> String {
    let mut text = String::new();
    let written = match memory.0 {
        megabytes if megabytes < 1024 => write!(text, "{megabytes}mb"),
        megabytes => {
            let tenths = (megabytes * 10 + 512) / 1024;
            if tenths % 10 == 0 {
                write!(text, "{}gb", tenths / 10)
            } else {
                write!(text, "{}.{}gb", tenths / 10, tenths % 10)
            }
        }
    };
    written.expect("a string takes everything");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grid::Block;

    fn slice(size: u64, blocks: &[(&str, u64)]) -> Slice {
        let block = |name: &str, size| {
            let mut words = name.split('.');
            let (stack, node) = (words.next().unwrap().parse().unwrap(), words.next().unwrap().parse().unwrap());
            Block::new(Megabytes(size), stack, node)
        };
        let blocks = blocks.iter().map(|(name, size)| (name.parse().unwrap(), block(name, *size))).collect();
        Slice { blocks, ..Slice::new(Megabytes(size)) }
    }

    fn grid() -> Grid {
        let mut hq = slice(4096, &[("blog.web.12.1", 512), ("blog.web.12.2", 512), ("shop.mongo.1.1", 1536)]);
        hq.tags = ["eu".to_owned(), "ssd".to_owned()].into();
        let small = slice(2048, &[("a-long-stack-name.worker.1.1", 1024)]);
        let full = slice(1024, &[("blog.web.12.3", 1024)]);
        let slices = [("full", full), ("hq", hq), ("small", small)];
        let slices = slices.into_iter().map(|(name, slice)| (name.parse().unwrap(), slice)).collect();
        Grid { slices, ..Grid::default() }
    }

    const GOLDEN: &str = "
                                    hq                       4gb
                                    #eu #ssd
                                  ┌──────────────────────────────┐
                                  │                              │
                                  │                              │
                                  │             free             │
                                  │                              │
                                  │                              │
                                  ├──────────────────────────────┤
                                  │ blog.web.12.1          512mb │
                                  │                              │
                                  ├──────────────────────────────┤    small                    2gb
                                  │ blog.web.12.2          512mb │  ┌──────────────────────────────┐
                                  │                              │  │                              │
                                  ├──────────────────────────────┤  │                              │
                                  │ shop.mongo.1.1         1.5gb │  │             free             │
  full                     1gb    │                              │  │                              │
┌──────────────────────────────┐  │                              │  ├──────────────────────────────┤
│ blog.web.12.3            1gb │  │                              │  │ a-long-stack-name.worke… 1gb │
│                              │  │                              │  │                              │
│                              │  │                              │  │                              │
│                              │  │                              │  │                              │
└──────────────────────────────┘  └──────────────────────────────┘  └──────────────────────────────┘
  1gb used, 100 %     0mb free      2.5gb used, 62 %  1.5gb free      1gb used, 50 %      1gb free

3 servers, 5 containers: 7gb in all, 4.5gb used, 2.5gb free
";

    #[test]
    fn servers_stand_side_by_side_with_their_containers_to_scale() {
        let picture = draw(&grid(), 100, Paint::Plain);
        assert_eq!(format!("\n{picture}"), GOLDEN, "the picture is now\n{picture}");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for width in NARROWEST..200 {
            for line in draw(&grid(), width, Paint::Plain).lines().filter(|line| !line.contains("servers")) {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
        }
        assert!(draw(&grid(), 1, Paint::Plain).contains("blog.web.12.1"));
    }

    #[test]
    fn colours_only_add_to_the_text() {
        let mut stripped = String::new();
        let coloured = draw(&grid(), 100, Paint::Colour);
        for part in coloured.split('\x1b') {
            stripped.push_str(if stripped.is_empty() { part } else { part.split_once('m').unwrap().1 });
        }
        assert_ne!(coloured, stripped);
        assert_eq!(stripped, draw(&grid(), 100, Paint::Plain));
    }

    fn crowd(stacks: usize, copies: usize) -> Grid {
        let names: Vec<String> =
            (0..stacks).flat_map(|stack| (0..copies).map(move |copy| format!("s{stack:03}.web.1.{copy}"))).collect();
        let blocks: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 64)).collect();
        Grid { slices: [("hq".parse().unwrap(), slice(1024, &blocks))].into(), ..Grid::default() }
    }

    #[test]
    fn a_crowd_is_drawn_by_node_and_stays_on_the_screen() {
        let picture = draw(&crowd(5, 4), 80, Paint::Plain);
        assert!(picture.contains("s004.web ×4") && picture.contains("256mb"), "{picture}");
        assert!(picture.contains("1.3gb used, 125 %") && picture.contains("0mb free"), "{picture}");
        let picture = draw(&crowd(300, 1), 80, Paint::Plain);
        assert!(picture.contains("s022.web") && picture.contains("and 277 more"), "{picture}");
        assert!(picture.lines().count() < 80, "{picture}");
    }

    const STANDINGS: &str = "
                                    hq                       4gb
                                    (draining) #eu #ssd
                                  ┌──────────────────────────────┐
                                  │                              │
                                  │                              │
                                  │           draining           │
                                  │                              │
                                  │                              │
                                  ├──────────────────────────────┤
                                  │ blog.web.12.1          512mb │
                                  │                              │    small                    2gb
                                  ├──────────────────────────────┤    (down)
                                  │ blog.web.12.2          512mb │  ┌──────────────────────────────┐
                                  │                              │  │                              │
                                  ├──────────────────────────────┤  │                              │
  full                     1gb    │ shop.mongo.1.1         1.5gb │  │             down             │
  (lost)                          │                              │  │                              │
┌──────────────────────────────┐  │                              │  ├──────────────────────────────┤
│ blog.web.12.3            1gb │  │                              │  │ a-long-stack-name.worke… 1gb │
│                              │  │                              │  │                              │
│                              │  │                              │  │                              │
│                              │  │                              │  │                              │
└──────────────────────────────┘  └──────────────────────────────┘  └──────────────────────────────┘
  1gb used, 100 %         lost      2.5gb used, 62 %    draining      1gb used, 50 %          down

3 servers, 1 draining, 1 down, 1 lost, 5 containers: 7gb in all, 4.5gb used, 0mb free
";

    #[test]
    fn servers_that_take_nothing_new_say_so() {
        let mut grid = grid();
        let standings = [Standing::Gone, Standing::Draining, Standing::Suspect];
        for (slice, standing) in grid.slices.values_mut().zip(standings) {
            slice.standing = standing;
        }
        let picture = draw(&grid, 100, Paint::Plain);
        assert_eq!(format!("\n{picture}"), STANDINGS, "the picture is now\n{picture}");
    }

    #[test]
    fn many_servers_are_drawn_as_lines() {
        let named = |number: usize| (format!("s{number:03}").parse().unwrap(), slice(2048, &[("blog.web.1.1", 512)]));
        let mut grid = Grid { slices: (0..200).map(named).collect(), ..Grid::default() };
        let third = grid.slices.get_mut(&"s002".parse().unwrap()).unwrap();
        third.standing = Standing::Gone;
        third.tags = ["eu".to_owned()].into();
        let picture = draw(&grid, 80, Paint::Plain);
        let lines: Vec<&str> = picture.lines().collect();
        assert_eq!(lines[1], "s001  █████░░░░░░░░░░░░░░░  512mb of 2gb");
        assert_eq!(lines[2], "s002  █████░░░░░░░░░░░░░░░  512mb of 2gb       lost     #eu");
        assert_eq!(lines[201], "200 servers, 1 lost, 200 containers: 400gb in all, 100gb used, 298.5gb free");
        assert!(draw(&grid, 40, Paint::Plain).lines().take(200).all(|line| line.chars().count() <= 40));
    }

    #[test]
    fn what_waits_is_below_the_picture() {
        let mut grid = Grid::default();
        grid.asked.push(crate::grid::Asked { size: Megabytes(4096), tags: ["ssd".to_owned()].into() });
        for number in 10..22 {
            let block = Block::new(Megabytes(512), "blog".parse().unwrap(), "web".parse().unwrap());
            grid.waiting.insert(format!("blog.web.1.{number}").parse().unwrap(), block);
        }
        let picture = draw(&grid, 80, Paint::Plain);
        assert!(
            picture.starts_with(
                "no servers in the grid\nasked for: a server with 4gb #ssd\nwaits for room: blog.web.1.10 512mb\n"
            ),
            "{picture}"
        );
        assert!(picture.ends_with("waits for room: blog.web.1.19 512mb\nand 2 more wait\n"), "{picture}");
    }

    #[test]
    fn an_empty_grid_says_so() {
        assert_eq!(draw(&Grid::default(), 80, Paint::Plain), "no servers in the grid\n");
    }

    #[test]
    fn amounts_are_short() {
        for (megabytes, expected) in [(0, "0mb"), (1023, "1023mb"), (1024, "1gb"), (1536, "1.5gb"), (15_870, "15.5gb")]
        {
            assert_eq!(amount(Megabytes(megabytes)), expected);
        }
    }
}
