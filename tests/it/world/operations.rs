//! What people ask an HQ for, and what they may expect from then on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use quarry::hq::{Hq, HqError};
use quarry::instruction::Instruction;
use quarry::instruction::compile::succeed;
use quarry::instruction::tarball::{FORMAT, Manifest};
use quarry::launch::record::Release;
use quarry::names::{ReleaseNumber, StackName, UserName};

use super::World;
use super::acts::Act;
use super::promises::{COLOUR, Promise, Seen, State, again, see};
use super::pushes::{build, instructions, node};

fn ann() -> UserName {
    "ann".parse().unwrap()
}

/// The stack an act is about, when people ask for it.
pub fn stack_of(act: Act) -> Option<StackName> {
    match act {
        Act::Push { stack, .. }
        | Act::Scale { stack, .. }
        | Act::Rest { stack, .. }
        | Act::Rollback { stack, .. }
        | Act::Restart { stack }
        | Act::Colour { stack, .. }
        | Act::Destroy { stack } => Some(named(stack)),
        _ => None,
    }
}

pub fn named(stack: u8) -> StackName {
    ["blog", "shop", "wiki"][usize::from(stack)].parse().unwrap()
}

/// Does what somebody asked for, in the stack's turn, and notes what is promised from its answer.
pub async fn ask(world: &Arc<World>, hq: &Arc<Hq>, stack: &StackName, act: Act) -> Result<(), HqError> {
    let _turn = hq.turn(stack, "somebody", &|_| {}).await;
    world.note(|| format!("{act:?} has its turn"));
    let unsettled = hq.book(stack).await?.read().await.active.is_some();
    let old = see(hq, stack).await?;
    if !unsettled {
        world.expect_allowed(stack, &old);
    }
    let Some(wish) = wish(world, hq, stack, &old, act).await? else { return Ok(()) };
    let sure = |promise| if unsettled { Promise::Anything } else { promise };
    world.promise(stack, sure(Promise::OneOf(vec![old.clone(), wish.state.clone()])));
    world.note(|| format!("{act:?} is asked for"));
    let answer = perform(hq, stack, act, wish.launch).await;
    world.note(|| format!("{act:?}: {}", answer.as_ref().err().map_or("done".into(), told)));
    match &answer {
        Ok(()) => world.promise(stack, sure(Promise::OneOf(vec![wish.state]))),
        // Once begun, a destruction goes on.
        Err(_) if matches!(act, Act::Destroy { .. }) => {}
        Err(_) => world.promise(stack, sure(Promise::OneOf(vec![old]))),
    }
    answer
}

/// What somebody wants a stack to be.
struct Wish {
    state: State,
    launch: Option<(Manifest, Vec<Instruction>)>,
}

fn told(error: &HqError) -> String {
    let chain = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// What the stack is when it has been done; `None` when there is nothing to ask for.
async fn wish(world: &Arc<World>, hq: &Hq, stack: &StackName, old: &State, act: Act) -> Result<Option<Wish>, HqError> {
    let releases = hq.releases(stack).await?;
    let plain = |state| Some(Wish { state, launch: None });
    if let Act::Push { .. } = act {
        return Ok(Some(pushed(world, stack, old, releases.last(), act)));
    }
    let Some(now) = old else {
        return Ok(plain(None).filter(|_| matches!(act, Act::Destroy { .. })));
    };
    let counted = |name: &str, count| {
        let mut seen = now.clone();
        *seen.counts.get_mut(&node(name))? = count;
        plain(Some(seen))
    };
    Ok(match act {
        Act::Scale { web, .. } => counted("web", web),
        Act::Rest { alone, .. } => counted("alone", alone),
        Act::Rollback { back, .. } => {
            let number = ReleaseNumber(now.number.saturating_sub(back));
            match releases.iter().find(|release| release.number == number) {
                Some(release) => plain(Some(again(hq, stack, now, release).await?)),
                None => None,
            }
        }
        Act::Restart { .. } => {
            // What comes and what goes are of one release and cannot be told apart.
            world.overbooks.store(true, Ordering::SeqCst);
            plain(old.clone())
        }
        Act::Colour { colour, .. } => match releases.last() {
            Some(last) => {
                let again = again(hq, stack, now, last).await?;
                plain(Some(Seen { colour: Some(colour.to_string()), ..again }))
            }
            None => None,
        },
        Act::Destroy { .. } => plain(None),
        _ => None,
    })
}

fn pushed(world: &Arc<World>, stack: &StackName, old: &State, last: Option<&Release>, act: Act) -> Wish {
    let Act::Push { web, nodes, code, .. } = act else { unreachable!("only pushes come here") };
    let number = last.map_or(1, |last| last.number.0 + 1);
    let image = build(world, stack, number, code);
    let mut list = instructions(stack, number, &image, web, nodes, code);
    let count = |instruction: &Instruction| match instruction {
        Instruction::Ensure { node, .. } => Some((node.clone(), 1)),
        Instruction::Deploy { node, count, .. } => Some((node.clone(), *count)),
        Instruction::Scale { .. } | Instruction::Route { .. } | Instruction::Kill { .. } => None,
    };
    let counts = list.iter().filter_map(count).collect();
    let colour = old.as_ref().and_then(|old| old.colour.clone());
    succeed(&mut list, &last.map(|last| last.instructions.clone()).unwrap_or_default());
    let manifest =
        Manifest { format: FORMAT, stack: stack.clone(), release: ReleaseNumber(number), commit: None, env_version: 0 };
    Wish { state: Some(Seen { number, code: image, counts, colour }), launch: Some((manifest, list)) }
}

async fn perform(
    hq: &Arc<Hq>,
    stack: &StackName,
    act: Act,
    launch: Option<(Manifest, Vec<Instruction>)>,
) -> Result<(), HqError> {
    let quiet = |_: &str| {};
    if let Some((manifest, list)) = launch {
        hq.ensure_stack(stack, &ann()).await?;
        let job = hq.launch_job(&manifest, &list, &ann()).await?;
        return hq.operate(job, &quiet).await.map(drop);
    }
    match act {
        Act::Scale { web: count, .. } | Act::Rest { alone: count, .. } => {
            let name = if matches!(act, Act::Scale { .. }) { "web" } else { "alone" };
            hq.operate(Hq::scale_job(stack, &BTreeMap::from([(node(name), count)])), &quiet).await.map(drop)
        }
        Act::Rollback { back, .. } => {
            let last = hq.releases(stack).await?.last().map_or(0, |last| last.number.0);
            let number = ReleaseNumber(last.saturating_sub(back));
            hq.rollback(stack, Some(number), &ann(), &quiet).await.map(drop)
        }
        Act::Restart { .. } => hq.restart(stack, &BTreeSet::new(), &quiet).await,
        Act::Colour { colour, .. } => {
            let env = quarry::env::from_arguments([format!("{COLOUR}={colour}").as_str()]).unwrap();
            hq.release_env(stack, &env, vec![COLOUR.into()], &ann(), &quiet).await.map(drop)
        }
        Act::Destroy { .. } => hq.destroy(stack, &quiet).await,
        _ => Ok(()),
    }
}
