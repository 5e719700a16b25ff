//! What people have been promised of each stack: what it comes to, given what HQ answered.

use std::collections::BTreeMap;

use quarry::db::DbError;
use quarry::hq::{Hq, HqError};
use quarry::instruction::Instruction;
use quarry::launch::record::Release;
use quarry::names::{ImageId, NodeName, StackName};

/// What people see of a stack that has a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The release's number.
    pub number: u64,
    /// Which push its code is from.
    pub code: ImageId,
    /// How many containers each node should have.
    pub counts: BTreeMap<NodeName, u32>,
    /// The variable.
    pub colour: Option<String>,
}

/// A stack; `None` without a release.
pub type State = Option<Seen>;

/// What a stack may be now: one state when HQ has answered, two while nobody knows, anything when HQ itself said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Promise {
    OneOf(Vec<State>),
    Anything,
}

impl Promise {
    pub fn allows(&self, state: &State) -> bool {
        match self {
            Promise::OneOf(states) => states.contains(state),
            Promise::Anything => true,
        }
    }
}

/// The name of the variable that changes.
pub const COLOUR: &str = "COLOUR";

/// What people see of a stack now.
pub async fn see(hq: &Hq, stack: &StackName) -> Result<State, HqError> {
    let releases = hq.releases(stack).await?;
    let Some(last) = releases.last() else { return Ok(None) };
    let procs = hq.procs(stack).await?;
    let colour = hq.env(stack).await?.value(&COLOUR.parse().unwrap()).map(str::to_owned);
    Ok(Some(Seen {
        number: last.number.0,
        code: code(last),
        counts: procs.into_iter().map(|proc| (proc.node, proc.count)).collect(),
        colour,
    }))
}

/// What a kept release would be again after `now`: its code and variables, the counts of now.
pub async fn again(hq: &Hq, stack: &StackName, now: &Seen, release: &Release) -> Result<Seen, DbError> {
    let count = |instruction: &Instruction| match instruction {
        Instruction::Ensure { node, .. } => Some((node.clone(), 1)),
        Instruction::Deploy { node, count, .. } => {
            Some((node.clone(), now.counts.get(node).copied().unwrap_or(*count)))
        }
        Instruction::Scale { .. } | Instruction::Route { .. } | Instruction::Kill { .. } => None,
    };
    let env = hq.launcher.env_of(stack, release.env_version).await?;
    Ok(Seen {
        number: now.number + 1,
        code: code(release),
        counts: release.instructions.iter().filter_map(count).collect(),
        colour: env.value(&COLOUR.parse().unwrap()).map(str::to_owned),
    })
}

/// Every push builds an image of its own for `web`.
fn code(release: &Release) -> ImageId {
    let web = release.instructions.iter().find_map(|instruction| match instruction {
        Instruction::Deploy { node, settings, .. } if node.as_str() == "web" => Some(settings.image.clone()),
        _ => None,
    });
    web.unwrap()
}
