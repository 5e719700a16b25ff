//! What happens to a world: what people ask for, and what goes wrong.

use super::dice::Dice;

/// Something that happens. Its `Debug` text is the Rust code of it, for named tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// A push of a stack.
    Push { stack: u8, web: u32, nodes: u8, code: Code },
    /// So many web containers.
    Scale { stack: u8, web: u32 },
    /// So many of the containers that may exist only once: 0 or 1.
    Rest { stack: u8, alone: u32 },
    /// Back to so many releases before.
    Rollback { stack: u8, back: u64 },
    /// New containers.
    Restart { stack: u8 },
    /// A variable changes.
    Colour { stack: u8, colour: u8 },
    /// The stack goes.
    Destroy { stack: u8 },
    /// A server is emptied.
    Drain { server: usize },
    /// It takes new containers again.
    Resume { server: usize },
    /// A server that should have nothing any more is taken out of the grid.
    Remove { server: usize },
    /// A server is taken out, and what it has is given up.
    GiveUp { server: usize },
    /// A server that was taken out comes back.
    Add { server: usize },
    /// There may be so many servers; 0: what is rented stays, and no more comes.
    Limit { max: usize },
    /// A container's process ends by itself.
    Fall { which: u64 },
    /// Somebody stops a container by hand.
    StopByHand { which: u64 },
    /// Somebody removes a container by hand.
    RemoveByHand { which: u64 },
    /// A server's power goes for so many seconds.
    PowerOff { server: usize, seconds: u64 },
    /// A server cannot be reached for so many seconds; what runs there runs on.
    Away { server: usize, seconds: u64 },
    /// The same, but its agent is heard all the time.
    Heard { server: usize, seconds: u64 },
    /// A server's engine takes calls and answers none for so many seconds.
    Stall { server: usize, seconds: u64 },
    /// A server's engine refuses the call after so many others.
    Refuse { server: usize, after: u64 },
    /// HQ is killed after so many more instants: before or after a write, a call or a change of the router.
    Kill { instants: u64 },
    /// The tree does not answer for so many seconds.
    TreeAway { seconds: u64 },
    /// The tree is full after so many writes, for so many seconds.
    TreeFull { puts: u64, seconds: u64 },
    /// The answer to a write gets lost, after so many others.
    Unclear { puts: u64 },
    /// The router does not answer for so many seconds.
    RouterAway { seconds: u64 },
    /// HQ does not reach the tree for so many seconds, and others do.
    CutOff { seconds: u64 },
    /// Somebody starts another HQ on the same tree elsewhere, and stops it after so many seconds.
    Rival { seconds: u64 },
    /// The clock jumps by so many seconds.
    Jump { seconds: i64 },
    /// The cloud refuses so many calls.
    CloudRefuses { calls: usize },
    /// The cloud does what the next calls ask for, and their answers get lost.
    CloudForgets { calls: usize },
    /// The cloud has no more than so many machines; 0: enough again.
    Quota { machines: usize },
    /// A rented machine is gone.
    TakeAway { which: u64 },
}

/// What the containers of a push do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// They run.
    Good,
    /// They end right after they were started.
    Dies,
    /// Their health check fails.
    Sick,
    /// They come up, and fall again and again.
    Falls,
    /// They do not heed SIGTERM.
    Deaf,
    /// Good, but the release command fails.
    ReleaseFails,
    /// Good, and the release command succeeds.
    Releases,
}

/// The nodes of a push beside `web`, as bits.
pub mod nodes {
    /// A service.
    pub const KV: u8 = 1;
    /// A worker that may exist only once and moves.
    pub const ALONE: u8 = 2;
    /// A routed node with a volume.
    pub const ADMIN: u8 = 4;
    /// A worker.
    pub const EXTRA: u8 = 8;
    /// All of them.
    pub const ALL: u8 = 15;
}

/// An act, and how many milliseconds pass after it has begun.
pub type Turn = (Act, u64);

/// How many stacks there can be.
pub const STACKS: u8 = 3;

/// What a seed comes to, in such a world.
pub fn turns(dice: &Dice, land: Land) -> Vec<Turn> {
    let count = 4 + dice.below(22);
    let first = (Act::Push { stack: 0, web: 2, nodes: dice.below(16) as u8, code: Code::Good }, pause(dice));
    let act = |_| {
        let act = if land.cloud && dice.one_in(5) { with_cloud(dice) } else { act(dice, land) };
        (act, pause(dice))
    };
    std::iter::once(first).chain((1..count).map(act)).collect()
}

/// What a world has to begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Land {
    /// Servers of people's, HQ's own with them.
    pub servers: usize,
    /// Where more can be rented.
    pub cloud: bool,
}

impl Land {
    /// Servers of people's only.
    pub fn of(servers: usize) -> Self {
        Self { servers, cloud: false }
    }

    /// The same, and a cloud.
    pub fn with_cloud(servers: usize) -> Self {
        Self { servers, cloud: true }
    }

    /// The Rust code of it, for named tests.
    pub fn code(self) -> String {
        let Self { servers, cloud } = self;
        if cloud { format!("Land::with_cloud({servers})") } else { format!("Land::of({servers})") }
    }
}

/// What may happen only where there is a cloud.
fn with_cloud(dice: &Dice) -> Act {
    let calls = |dice: &Dice| 1 + dice.below(dice.weighed(&[(3, 3), (1, 60)])) as usize;
    match dice.weighed(&[(6, 0), (3, 1), (3, 2), (2, 3), (3, 4)]) {
        0 => Act::Limit { max: dice.below(7) as usize },
        1 => Act::CloudRefuses { calls: calls(dice) },
        2 => Act::CloudForgets { calls: calls(dice) },
        3 => Act::Quota { machines: dice.below(4) as usize },
        _ => Act::TakeAway { which: dice.below(8) },
    }
}

fn pause(dice: &Dice) -> u64 {
    let longest = dice.weighed(&[(2, 1), (3, 40), (4, 400), (4, 4_000), (3, 40_000)]);
    dice.below(longest)
}

fn seconds(dice: &Dice) -> u64 {
    1 + dice.below(dice.weighed(&[(2, 3), (3, 30), (1, 300)]))
}

/// How many of the rented machines anything happens to.
const RENTED: usize = 3;

fn act(dice: &Dice, land: Land) -> Act {
    let stack = dice.below(STACKS.into()) as u8;
    let servers = land.servers + if land.cloud { RENTED } else { 0 };
    let server = dice.below(servers as u64) as usize;
    match dice.weighed(&[
        (24, 0),
        (8, 1),
        (3, 2),
        (6, 3),
        (4, 4),
        (5, 5),
        (5, 6),
        (5, 7),
        (2, 8),
        (3, 9),
        (4, 10),
        (4, 11),
        (4, 12),
        (5, 13),
        (10, 14),
        (3, 15),
        (2, 16),
        (2, 17),
        (3, 18),
        (1, 19),
        (3, 20),
        (3, 21),
        (3, 22),
        (2, 23),
        (3, 24),
        (2, 25),
        (2, 26),
        (2, 27),
    ]) {
        0 => Act::Push { stack, web: dice.below(4) as u32, nodes: dice.below(16) as u8, code: code(dice) },
        1 => Act::Scale { stack, web: dice.below(5) as u32 },
        2 => Act::Rest { stack, alone: dice.below(2) as u32 },
        3 => Act::Rollback { stack, back: 1 + dice.below(3) },
        4 => Act::Restart { stack },
        5 => Act::Colour { stack, colour: dice.below(4) as u8 },
        6 => Act::Destroy { stack },
        7 => Act::Fall { which: dice.below(64) },
        8 => Act::StopByHand { which: dice.below(64) },
        9 => Act::RemoveByHand { which: dice.below(64) },
        10 => Act::PowerOff { server, seconds: seconds(dice) },
        11 => Act::Away { server, seconds: seconds(dice) },
        12 => Act::Stall { server, seconds: seconds(dice) },
        13 => Act::Refuse { server, after: dice.below(16) },
        14 => Act::Kill { instants: dice.below(dice.weighed(&[(1, 1), (3, 60)])) },
        15 => Act::TreeAway { seconds: seconds(dice) },
        16 => Act::TreeFull { puts: dice.below(12), seconds: seconds(dice) },
        17 => Act::Unclear { puts: dice.below(12) },
        18 => Act::RouterAway { seconds: seconds(dice) },
        20 => Act::Drain { server },
        21 => Act::Resume { server },
        22 => Act::Remove { server },
        23 => Act::GiveUp { server },
        24 => Act::Add { server },
        25 => Act::Heard { server, seconds: seconds(dice) },
        26 => Act::CutOff { seconds: seconds(dice) },
        27 => Act::Rival { seconds: seconds(dice) },
        _ => Act::Jump { seconds: dice.below(200_000) as i64 - 100_000 },
    }
}

fn code(dice: &Dice) -> Code {
    dice.weighed(&[
        (10, Code::Good),
        (2, Code::Dies),
        (2, Code::Sick),
        (2, Code::Falls),
        (2, Code::Deaf),
        (1, Code::ReleaseFails),
        (1, Code::Releases),
    ])
}
