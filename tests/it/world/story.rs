//! Lets a sequence of acts happen to a new world and tells the first promise that was not kept.

use std::sync::Arc;
use std::time::Duration;

use quarry::db::layout;
use quarry::grid::Standing;
use quarry::hq::cloud::rental::Stage;
use quarry::hq::servers::leave::Force;
use quarry::hq::{Hq, HqError};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::World;
use super::acts::{Act, Code, Land, Turn, nodes};
use super::operations::{ask, named, stack_of};
use super::people::{is_about_servers, manage};
use super::reign::{Running, keep};
use super::rented::limits;
use super::troubles::{befall, calm};

/// How long a world in which nothing goes wrong may take to come to rest.
const REST: Duration = Duration::from_secs(1800);

/// How long it must then stay so.
const QUIET: Duration = Duration::from_secs(100);

/// More servers than any world needs.
const ENOUGH: usize = 12;

/// A world and what happens to it.
pub struct Story<'a> {
    pub seed: u64,
    pub land: Land,
    pub turns: &'a [Turn],
}

/// Why a story does not end well, and all that happened in it.
#[derive(Debug)]
pub struct Failure {
    pub why: String,
    pub told: String,
}

impl Story<'_> {
    /// Lets it happen.
    ///
    /// # Errors
    /// The first promise that was not kept.
    pub fn tell(&self) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let failed = runtime.block_on(async {
            let world = World::new(self.seed, self.land);
            world.furnish().await;
            let kept = tokio::spawn(keep(world.clone()));
            let failed = tokio::select! {
                biased;
                () = world.went_wrong.notified() => world.wrong(),
                failed = happen(&world, self.turns) => failed.err().or_else(|| world.wrong()),
            };
            kept.abort();
            failed.map(|why| Failure { why, told: world.story() })
        });
        runtime.shutdown_background();
        failed.map_or(Ok(()), Err)
    }
}

async fn happen(world: &Arc<World>, turns: &[Turn]) -> Result<(), String> {
    let mut asked = JoinSet::new();
    for (act, pause) in turns {
        world.note(|| format!("{act:?}"));
        match act {
            act if is_about_servers(*act) => drop(asked.spawn(manage(world.clone(), *act))),
            act if stack_of(*act).is_some() => drop(asked.spawn(somebody(world.clone(), *act))),
            act => befall(world, *act).await,
        }
        sleep(Duration::from_millis(*pause)).await;
    }
    calm(world).await;
    let answered = async {
        while let Some(done) = asked.join_next().await {
            done.map_err(|error| format!("an operation panicked: {error}"))?;
        }
        Ok::<(), String>(())
    };
    timeout(REST, answered).await.map_err(|_| "an operation does not end".to_owned())??;
    // Somebody may have pushed until now. What falls again and again never rests.
    world.behave_all();
    make_room(world).await?;
    stay_at_rest(world).await?;
    // Whatever has happened, people can work on.
    let last = Act::Push { stack: 0, web: 2, nodes: nodes::ALL, code: Code::Good };
    let running = running(world).await;
    if let Err(error) = ask(world, &running.hq, &named(0), last).await {
        return Err(format!("a push into a world at rest is refused: {error:?}"));
    }
    come_to_rest(world).await
}

/// The HQ that acts, as soon as there is one.
pub async fn running(world: &World) -> Running {
    let mut hq = world.hq.subscribe();
    let lives = |hq: &Option<Running>| hq.as_ref().is_some_and(|running| !running.life.is_over());
    let found = hq.wait_for(lives).await.unwrap().clone();
    found.unwrap()
}

/// What an HQ does that lives on meanwhile.
async fn of_hq<T>(world: &World, work: impl AsyncFn(&Arc<Hq>) -> T) -> T {
    loop {
        let Running { hq, life } = running(world).await;
        tokio::select! {
            biased;
            () = life.over() => {}
            done = work(&hq) => return done,
        }
    }
}

/// Somebody asks for something, and hears nothing more when HQ dies meanwhile.
async fn somebody(world: Arc<World>, act: Act) {
    let (Running { hq, life }, Some(stack)) = (running(&world).await, stack_of(act)) else { return };
    tokio::select! {
        biased;
        () = life.over() => {}
        answer = ask(&world, &hq, &stack, act) => {
            if let Err(error) = answer {
                world.note(|| format!("{act:?} was refused: {error}"));
            }
        }
    }
}

/// Waits until everything is as it should be.
async fn come_to_rest(world: &Arc<World>) -> Result<(), String> {
    let until = Instant::now() + REST;
    let mut last = String::new();
    loop {
        let unrest = of_hq(world, async |hq| {
            hq.known_stacks().await?;
            world.unrest(hq).await
        });
        let why = match unrest.await {
            Ok(None) => return Ok(()),
            Ok(Some(why)) => why,
            Err(error) => format!("{error:?}"),
        };
        if last != why {
            world.note(|| format!("no rest yet: {why}"));
            last.clone_from(&why);
        }
        if Instant::now() > until {
            return Err(format!("the world does not come to rest: {why}"));
        }
        sleep(Duration::from_secs(5)).await;
    }
}

/// Lets people's servers take containers again, gives up those that are gone, and lets as many be rented as are wanted.
async fn make_room(world: &Arc<World>) -> Result<(), String> {
    world.allow(ENOUGH);
    let made = async {
        while let Err(error) = of_hq(world, async |hq| open_wide(world, hq).await).await {
            world.note(|| format!("no room is made: {error:?}"));
            sleep(Duration::from_secs(1)).await;
        }
    };
    timeout(REST, made).await.map_err(|_| "the grid cannot be told how large it may be".to_owned())
}

async fn open_wide(world: &World, hq: &Arc<Hq>) -> Result<(), HqError> {
    for server in hq.server_records().await?.into_keys() {
        // What had its data on a machine that is gone waits until a person says that it is lost.
        if world.seated(&server).is_some_and(|machine| machine.is_scrapped()) {
            hq.remove_server(&server, Force::Yes, &|_| {}).await?;
        }
    }
    let rentals = hq.rentals().await?;
    for (server, record) in hq.server_records().await? {
        let leaves = rentals.get(&server).is_some_and(|rental| rental.stage == Stage::Leaving);
        if record.standing == Standing::Draining && !leaves {
            hq.change_server(&server, |record| record.standing = Standing::Up).await?;
        }
    }
    if world.has_cloud { hq.size_itself(Some(limits(ENOUGH, 0))).await } else { Ok(()) }
}

/// A world at rest stays as it is: nothing is written, called or routed.
async fn stay_at_rest(world: &Arc<World>) -> Result<(), String> {
    // A server that is rented for nothing is given back after a while, one after the other; and what was started before
    // all was well may fall once more, to be started again much later.
    let rounds = if world.has_cloud { ENOUGH } else { 3 };
    let mut last = String::new();
    for _ in 0..rounds {
        come_to_rest(world).await?;
        world.note(|| "all is at rest".to_owned());
        // What is collected in the background has its time too.
        sleep(QUIET).await;
        let before = work(world).await;
        sleep(QUIET).await;
        let after = work(world).await;
        if before == after {
            return Ok(());
        }
        last = format!("a world at rest does not rest: {before:?}, then {after:?}");
    }
    Err(last)
}

/// Counts what was ever changed.
async fn work(world: &World) -> (Vec<Vec<String>>, usize, String) {
    let calls = world.machines().iter().map(|machine| machine.engine.calls()).collect();
    let tree = ["journal", "proc", "routes", "stacks", "servers", "grid/rentals"];
    let mut kept = String::new();
    for prefix in tree {
        let entries = layout::all(&*world.tree, prefix).await.unwrap();
        kept.extend(entries.iter().map(|entry| format!("{}@{:?} ", entry.key, entry.version)));
    }
    (calls, world.edge.history().len(), kept)
}
