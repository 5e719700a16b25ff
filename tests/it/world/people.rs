//! What people do with the servers of a world.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use quarry::db::{Guard, layout};
use quarry::grid::Standing;
use quarry::hq::HqError;
use quarry::hq::servers::leave::Force;
use quarry::names::ServerName;

use super::World;
use super::acts::Act;
use super::machine::{Docker, Machine};
use super::reign::Running;
use super::rented::limits;
use super::story::running;

/// Whether people do this with servers.
pub fn is_about_servers(act: Act) -> bool {
    use Act::{Add, Drain, GiveUp, Limit, Remove, Resume};
    matches!(act, Drain { .. } | Resume { .. } | Remove { .. } | GiveUp { .. } | Add { .. } | Limit { .. })
}

/// Somebody does something with the servers, and hears nothing more when HQ dies meanwhile.
pub async fn manage(world: Arc<World>, act: Act) {
    let running = running(&world).await;
    tokio::select! {
        biased;
        () = running.life.over() => {}
        done = work(&world, &running, act) => world.note(|| format!("{act:?}: {done:?}")),
    }
}

async fn work(world: &Arc<World>, running: &Running, act: Act) -> Result<(), HqError> {
    let hq = &running.hq;
    let machine = |number: usize| world.machine(number).map(|machine| (machine.name.clone(), machine));
    match act {
        Act::Drain { server } => {
            let Some((name, _)) = machine(server) else { return Ok(()) };
            hq.drain_server(&name, &|_| {}).await.map(drop)
        }
        Act::Resume { server } => {
            let Some((name, _)) = machine(server) else { return Ok(()) };
            hq.change_server(&name, |record| record.standing = Standing::Up).await.map(drop)
        }
        Act::Remove { server } => {
            let Some((name, _)) = machine(server) else { return Ok(()) };
            hq.remove_server(&name, Force::No, &|_| {}).await
        }
        Act::GiveUp { server } if server > 0 => {
            let Some((name, machine)) = machine(server) else { return Ok(()) };
            // A rented one of the same name may have come since.
            if world.seated(&name).is_some_and(|seated| Arc::ptr_eq(&seated, &machine)) {
                machine.set_given_up(true);
                hq.remove_server(&name, Force::Yes, &|_| {}).await?;
            }
            Ok(())
        }
        Act::Add { server } => match machine(server) {
            Some((name, machine)) => add(world, running, &name, &machine).await,
            None => Ok(()),
        },
        Act::Limit { max } if world.has_cloud => {
            let limits = (max > 0).then(|| limits(max, 25));
            world.allow(max);
            world.overbooks.fetch_or(max == 0, Ordering::SeqCst);
            hq.size_itself(limits).await
        }
        _ => Ok(()),
    }
}

/// A server of people's that is none any more is one again.
async fn add(world: &Arc<World>, running: &Running, name: &ServerName, machine: &Arc<Machine>) -> Result<(), HqError> {
    let Running { hq, life } = running;
    let known = hq.server_records().await?.contains_key(name) || name == hq.engines().here();
    if known || machine.is_scrapped() || name.as_str().starts_with("auto") {
        return Ok(());
    }
    let record = machine.record();
    layout::put_json(&*hq.db, &layout::server_settings(name), &record, Guard::Any).await?;
    world.join(name, machine);
    let docker = Docker { world: world.clone(), life: life.clone(), machine: machine.clone() };
    hq.enrol(name, &record, Arc::new(docker));
    Ok(())
}
