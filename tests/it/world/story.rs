//! Lets a sequence of acts happen to a new world and tells the first promise that was not kept.

use std::sync::Arc;
use std::time::Duration;

use quarry::db::{Guard, layout};
use quarry::docker::Engine;
use quarry::docker::State;
use quarry::grid::Standing;
use quarry::names::ContainerName;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::World;
use super::acts::{Act, Code, Turn, nodes};
use super::machine::Reach;
use super::operations::{ask, named, stack_of};
use super::reign::{Running, keep};

/// How long a world in which nothing goes wrong may take to come to rest.
const REST: Duration = Duration::from_secs(1800);

/// How long it must then stay so.
const QUIET: Duration = Duration::from_secs(100);

/// A world and what happens to it.
pub struct Story<'a> {
    pub seed: u64,
    pub servers: usize,
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
            let world = World::new(self.seed, self.servers);
            for machine in &world.machines[1..] {
                let key = layout::server_settings(&machine.name);
                layout::put_json(&*world.tree, &key, &machine.record(), Guard::Any).await.unwrap();
            }
            let kept = tokio::spawn(keep(world.clone()));
            for machine in 0..world.machines.len() {
                tokio::spawn(watch(world.clone(), machine));
            }
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

/// Looks at the world whenever something has changed on a server by itself.
async fn watch(world: Arc<World>, machine: usize) {
    let mut changes = world.machines[machine].engine.changes();
    while changes.changed().await.is_ok() {
        world.check("something happened by itself");
    }
}

async fn happen(world: &Arc<World>, turns: &[Turn]) -> Result<(), String> {
    let mut asked = JoinSet::new();
    for (act, pause) in turns {
        world.note(|| format!("{act:?}"));
        match act {
            Act::Drain { server } | Act::Resume { server } => {
                asked.spawn(manage(world.clone(), *server, matches!(act, Act::Drain { .. })));
            }
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
    for machine in &world.machines {
        machine.engine.behave_all();
    }
    come_to_rest(world).await?;
    world.note(|| "all is at rest".to_owned());
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
async fn running(world: &World) -> Running {
    let mut hq = world.hq.subscribe();
    let lives = |hq: &Option<Running>| hq.as_ref().is_some_and(|running| !running.life.is_over());
    let found = hq.wait_for(lives).await.unwrap().clone();
    found.unwrap()
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

/// Somebody empties a server, or fills it again.
async fn manage(world: Arc<World>, server: usize, drain: bool) {
    let Running { hq, life } = running(&world).await;
    let name = world.machines[server].name.clone();
    let work = async {
        match drain {
            true => hq.drain_server(&name, &|_| {}).await.map(drop),
            false => hq.change_server(&name, |record| record.standing = Standing::Up).await.map(drop),
        }
    };
    tokio::select! {
        biased;
        () = life.over() => {}
        done = work => world.note(|| format!("{name}: drained {drain}: {done:?}")),
    }
}

/// Something goes wrong.
async fn befall(world: &Arc<World>, act: Act) {
    match act {
        Act::Fall { which } => with_container(world, which, async |engine, name| engine.fall(&name, 1)).await,
        Act::StopByHand { which } => {
            with_container(world, which, async |engine, name| {
                let _ = engine.signal(&name, "SIGTERM").await;
            })
            .await;
        }
        Act::RemoveByHand { which } => {
            with_container(world, which, async |engine, name| {
                let _ = engine.remove(&name).await;
            })
            .await;
        }
        Act::PowerOff { server, seconds } => {
            let machine = world.machines[server].clone();
            machine.engine.power_off();
            machine.reach.send_replace(Reach::Away);
            after(world, seconds, move |_| {
                machine.engine.power_on();
                machine.reach.send_replace(Reach::Up);
            });
        }
        Act::Away { server, seconds } => reach(world, server, Reach::Away, seconds),
        Act::Stall { server, seconds } => reach(world, server, Reach::Stalled, seconds),
        Act::Refuse { server, after } => *world.machines[server].refuse.lock().unwrap() = Some(after),
        Act::Kill { instants } => world.kill(instants),
        Act::TreeAway { seconds } => {
            world.tree.set_away(true);
            after(world, seconds, |world| world.tree.set_away(false));
        }
        Act::TreeFull { puts, seconds } => {
            world.tree.full_after(Some(puts as usize));
            after(world, seconds, |world| world.tree.full_after(None));
        }
        Act::Unclear { puts } => world.lose_answer(Some(puts)),
        Act::RouterAway { seconds } => {
            world.edge.go_down();
            after(world, seconds, |world| world.edge.come_up());
        }
        Act::Jump { seconds } => world.clock.jump(seconds),
        _ => unreachable!("people ask for this"),
    }
}

fn after(world: &Arc<World>, seconds: u64, work: impl FnOnce(&World) + Send + 'static) {
    let world = world.clone();
    tokio::spawn(async move {
        sleep(Duration::from_secs(seconds)).await;
        work(&world);
    });
}

fn reach(world: &Arc<World>, server: usize, how: Reach, seconds: u64) {
    let machine = world.machines[server].clone();
    if *machine.reach.borrow() != Reach::Up {
        return;
    }
    machine.reach.send_replace(how);
    after(world, seconds, move |_| {
        // Meanwhile its power may have gone.
        machine.reach.send_if_modified(|now| {
            let same = *now == how;
            *now = if same { Reach::Up } else { *now };
            same
        });
    });
}

/// Does something with one of the containers that run.
async fn with_container(world: &World, which: u64, work: impl AsyncFnOnce(quarry::docker::fake::Fake, ContainerName)) {
    let mut running = Vec::new();
    for machine in &world.machines {
        machine.engine.each(|container, _| {
            if container.state == State::Running {
                running.push((machine.engine.clone(), container.name.clone()));
            }
        });
    }
    if running.is_empty() {
        return;
    }
    let (engine, name) = running.swap_remove(which as usize % running.len());
    world.note(|| format!("that is {name}"));
    work(engine, name).await;
}

/// Nothing goes wrong any more.
async fn calm(world: &Arc<World>) {
    world.note(|| "nothing goes wrong any more".to_owned());
    world.spare();
    world.tree.set_away(false);
    world.tree.full_after(None);
    world.lose_answer(None);
    world.edge.come_up();
    for machine in &world.machines {
        *machine.refuse.lock().unwrap() = None;
        if machine.engine.version().await.is_err() {
            machine.engine.power_on();
        }
        machine.reach.send_replace(Reach::Up);
    }
}

/// Waits until everything is as it should be.
async fn come_to_rest(world: &Arc<World>) -> Result<(), String> {
    let until = Instant::now() + REST;
    let mut last = String::new();
    loop {
        let running = running(world).await;
        let unrest = match running.hq.known_stacks().await {
            Ok(_) => world.unrest(&running.hq).await,
            Err(error) => Err(error.into()),
        };
        let why = match unrest {
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

/// A world at rest stays as it is: nothing is written, called or routed.
async fn stay_at_rest(world: &Arc<World>) -> Result<(), String> {
    // What is collected in the background has its time too.
    sleep(QUIET).await;
    let before = work(world).await;
    sleep(QUIET).await;
    let after = work(world).await;
    if before == after { Ok(()) } else { Err(format!("a world at rest does not rest: {before:?}, then {after:?}")) }
}

/// Counts what was ever changed.
async fn work(world: &World) -> (Vec<Vec<String>>, usize, String) {
    let calls = world.machines.iter().map(|machine| machine.engine.calls()).collect();
    let tree = ["journal", "proc", "routes", "stacks"];
    let mut kept = String::new();
    for prefix in tree {
        let entries = layout::all(&*world.tree, prefix).await.unwrap();
        kept.extend(entries.iter().map(|entry| format!("{}@{:?} ", entry.key, entry.version)));
    }
    (calls, world.edge.history().len(), kept)
}
