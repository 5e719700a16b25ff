//! What goes wrong in a world, and its end.

use std::sync::Arc;
use std::time::Duration;

use quarry::docker::{Engine, State};
use quarry::names::ContainerName;
use tokio::time::sleep;

use super::World;
use super::acts::Act;
use super::machine::Reach;
use super::reign::rival;

/// Something goes wrong.
pub async fn befall(world: &Arc<World>, act: Act) {
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
            let Some(machine) = world.machine(server) else { return };
            machine.power_off();
            after(world, seconds, move |_| machine.power_on());
        }
        Act::Away { server, seconds } => reach(world, server, Reach::Away, seconds),
        Act::Heard { server, seconds } => reach(world, server, Reach::Heard, seconds),
        Act::Stall { server, seconds } => reach(world, server, Reach::Stalled, seconds),
        Act::Refuse { server, after } => {
            let Some(machine) = world.machine(server) else { return };
            *machine.refuse.lock().unwrap() = Some(after);
        }
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
        Act::CutOff { seconds } => world.cut_off(seconds),
        Act::Rival { seconds } => drop(tokio::spawn(rival(world.clone(), seconds))),
        Act::Jump { seconds } => world.clock.jump(seconds),
        Act::CloudRefuses { calls } => world.cloud.refuse(calls),
        Act::CloudForgets { calls } => world.cloud.lose_answers(calls),
        Act::Quota { machines } => world.cloud.quota((machines > 0).then_some(machines)),
        Act::TakeAway { which } => world.take_away(which),
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
    let Some(machine) = world.machine(server).filter(|machine| machine.reach() == Reach::Up) else { return };
    machine.change_reach(Reach::Up, how);
    // Meanwhile its power may have gone.
    after(world, seconds, move |_| machine.change_reach(how, Reach::Up));
}

/// Does something with one of the containers that run.
async fn with_container(world: &World, which: u64, work: impl AsyncFnOnce(quarry::docker::fake::Fake, ContainerName)) {
    let mut running = Vec::new();
    for machine in world.machines() {
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
pub async fn calm(world: &Arc<World>) {
    world.note(|| "nothing goes wrong any more".to_owned());
    world.spare();
    world.tree.set_away(false);
    world.tree.full_after(None);
    world.lose_answer(None);
    world.edge.come_up();
    world.end_rivals();
    world.cloud.refuse(0);
    world.cloud.lose_answers(0);
    world.cloud.quota(None);
    for machine in world.machines() {
        machine.mend().await;
    }
}
