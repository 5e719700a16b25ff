//! Why a container has no place: a sentence that names what is missing and what to do about it.

use super::index::{Cell, Index};
use super::{Architecture, Block, Bond, Filter, Standing};
use crate::names::ServerName;
use crate::units::Megabytes;

/// Why a container has no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct NoRoom(Box<Refusal>);

impl NoRoom {
    /// What is missing.
    pub fn refusal(&self) -> &Refusal {
        &self.0
    }
}

impl From<Refusal> for NoRoom {
    fn from(refusal: Refusal) -> Self {
        Self(Box::new(refusal))
    }
}

/// What is missing. `who` is `<stack>.<node>`; the first of these that is so is the one that is said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The grid is empty.
    #[error("there is no server for `{who}`; add one with `servers add`")]
    NoServer {
        /// Who asked.
        who: String,
    },
    /// All servers are drained or lost.
    #[error(
        "no server is up for `{who}`: {servers}; bring one back, `servers resume` one, or add one with `servers add`"
    )]
    NoneUp {
        /// Who asked.
        who: String,
        /// How the servers stand.
        servers: String,
    },
    /// No server that is up passes the filter.
    #[error(
        "no server that is up {tags}, as `{who}` asks for; tag one with `servers tag`, add one with `servers add`, or \
         change `filter`"
    )]
    Tags {
        /// Who asked.
        who: String,
        /// What is asked for: `has the tag …`.
        tags: String,
    },
    /// The image runs on none of the servers that would do.
    #[error(
        "no server{with} that is up runs images for {architecture}, which is what `{who}` was built for; add one with \
         `servers add`, or build for another architecture"
    )]
    Architecture {
        /// Who asked.
        who: String,
        /// What the image was built for.
        architecture: Architecture,
        /// The other conditions.
        with: String,
    },
    /// The node beside which it belongs runs nowhere where it could.
    #[error("`{who}` belongs beside `{parent}`, which runs on no server{with} that is up; start `{parent}` first")]
    Parent {
        /// Who asked.
        who: String,
        /// Beside which node.
        parent: String,
        /// The other conditions.
        with: String,
    },
    /// Servers would do, and are full.
    #[error(
        "no server{with} has {size} free for `{who}`: the roomiest, `{roomiest}`, has {free}; add one with \
         `servers add`, or lower `size`"
    )]
    Full {
        /// Who asked.
        who: String,
        /// How much it needs.
        size: Megabytes,
        /// The other conditions.
        with: String,
        /// The server with the most room.
        roomiest: ServerName,
        /// How much that is.
        free: Megabytes,
    },
    /// Its data is on a server that is not there.
    #[error("`{who}` keeps its data on `{server}`, which {}; it waits until `{server}` is back", away(*.standing))]
    Waits {
        /// Who asked.
        who: String,
        /// Where its data is.
        server: ServerName,
        /// How that server stands; `None`: it is no longer part of the grid.
        standing: Option<Standing>,
    },
    /// Its data is on a server that will not do any more.
    #[error(
        "`{who}` keeps its data on `{server}`, which is not a server{with}; change `filter` or the server's tags, or \
         remove its data to start anew elsewhere"
    )]
    Unfit {
        /// Who asked.
        who: String,
        /// Where its data is.
        server: ServerName,
        /// What it asks for.
        with: String,
    },
    /// Its data is on a server that is full.
    #[error(
        "`{who}` keeps its data on `{server}`, which has {free} of the {size} it needs; lower `size`, or make room there"
    )]
    FullHome {
        /// Who asked.
        who: String,
        /// Where its data is.
        server: ServerName,
        /// How much it needs.
        size: Megabytes,
        /// How much there is.
        free: Megabytes,
    },
    /// The grid asks for no more servers.
    #[error("{why}; the grid is as large as it may be ({max} servers), so raise `max`")]
    Largest {
        /// What is missing on those it has.
        why: NoRoom,
        /// How many servers it may have.
        max: usize,
    },
}

fn away(standing: Option<Standing>) -> String {
    match standing {
        None => "is no longer part of the grid".to_owned(),
        Some(Standing::Up) => "is told to give up what it has".to_owned(),
        Some(standing) => format!("is {}", standing.word()),
    }
}

/// `<stack>.<node>`.
pub(super) fn who(block: &Block) -> String {
    format!("{}.{}", block.stack, block.node)
}

/// Says why no slice takes a block, the memory taken by now counted.
pub(super) fn why(index: &Index, block: &Block) -> NoRoom {
    let who = who(block);
    let all: Vec<&Cell> = index.cells.iter().filter(|cell| cell.standing.is_some()).collect();
    if all.is_empty() {
        return Refusal::NoServer { who }.into();
    }
    let mut left: Vec<&Cell> = all.iter().copied().filter(|cell| cell.is_open()).collect();
    if left.is_empty() {
        return Refusal::NoneUp { who, servers: standings(&all) }.into();
    }
    left.retain(|cell| block.tags.accepts(&cell.name, &cell.tags));
    if left.is_empty() {
        let tags = words(&block.tags, "has", "does not have");
        return Refusal::Tags { who, tags }.into();
    }
    let mut with = with(&block.tags);
    left.retain(|cell| cell.runs(block.architecture.as_ref()));
    if let (true, Some(architecture)) = (left.is_empty(), block.architecture.clone()) {
        return Refusal::Architecture { who, architecture, with }.into();
    }
    if let Some(parent) = block.parent.as_ref().filter(|parent| parent.bond == Bond::Required) {
        let stands = index.stands(&parent.stack, &parent.node).iter().filter(|stand| stand.staying > 0);
        let beside: Vec<&ServerName> = stands.map(|stand| &index.cell(stand.slice).name).collect();
        left.retain(|cell| beside.contains(&&cell.name));
        let parent = format!("{}.{}", parent.stack, parent.node);
        if left.is_empty() {
            return Refusal::Parent { who, parent, with }.into();
        }
        with = format!("{with} beside `{parent}`");
    }
    // The first of the roomiest by name.
    let Some(roomiest) = left.into_iter().rev().max_by_key(|cell| cell.free_soon()) else {
        return Refusal::NoServer { who }.into();
    };
    let free = Megabytes(roomiest.free_soon());
    Refusal::Full { who, size: block.size, with, roomiest: roomiest.name.clone(), free }.into()
}

/// How servers stand, those of a kind together, few enough to read.
fn standings(cells: &[&Cell]) -> String {
    const MOST_NAMES: usize = 3;
    let kinds = [Standing::Draining, Standing::Suspect, Standing::Gone];
    let kind = |standing: Standing| {
        let names: Vec<String> = cells
            .iter()
            .filter(|cell| cell.standing == Some(standing))
            .map(|cell| format!("`{}`", cell.name))
            .collect();
        let is = if names.len() == 1 { "is" } else { "are" };
        let said = match names.len() {
            0 => return None,
            count if count > MOST_NAMES => format!("{count} servers"),
            _ => names.join(", "),
        };
        Some(format!("{said} {is} {}", standing.word()))
    };
    kinds.into_iter().filter_map(kind).collect::<Vec<_>>().join(", ")
}

/// The servers that pass a filter, after the word `server`: ` with the tag …`.
pub(super) fn with(filter: &Filter) -> String {
    let words = words(filter, "with", "without");
    if words.is_empty() { words } else { format!(" {words}") }
}

fn words(filter: &Filter, has: &str, lacks: &str) -> String {
    let has = tags(filter.required().collect()).map(|tags| format!("{has} the {tags}"));
    let lacks = tags(filter.excluded().collect()).map(|tags| format!("{lacks} the {tags}"));
    has.into_iter().chain(lacks).collect::<Vec<_>>().join(" and ")
}

fn tags(tags: Vec<&str>) -> Option<String> {
    let quoted: Vec<String> = tags.iter().map(|tag| format!("`{tag}`")).collect();
    match quoted.len() {
        0 => None,
        1 => Some(format!("tag {}", quoted[0])),
        _ => Some(format!("tags {}", quoted.join(", "))),
    }
}
