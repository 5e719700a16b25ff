//! One HQ after another, each as `serve` starts it.

use std::sync::Arc;
use std::time::Duration;

use quarry::clock::Clock;
use quarry::db::Db;
use quarry::db::epoch::Claimant;
use quarry::db::epoch::act::Reign;
use quarry::docker::engines::Engines;
use quarry::etc::Settings;
use quarry::hq::{Awake, Hq, HqError, Parts};
use quarry::launch::{Ground, Identity};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::World;
use super::life::Life;
use super::machine::{Docker, Machine};
use super::rented::rents;
use super::seams::{Router, Tree};
use super::signs::tell;
use super::supply::Carrier;

/// An HQ that has recovered and acts.
#[derive(Clone)]
pub struct Running {
    pub hq: Arc<Hq>,
    pub life: Arc<Life>,
}

/// How many releases are kept: few, so that old ones are collected.
const KEPT: u32 = 3;

/// Starts an HQ whenever there is none, as a service manager does.
pub async fn keep(world: Arc<World>) {
    for process in 1.. {
        let life = Arc::new(Life::new());
        world.note(|| format!("HQ {process} starts"));
        world.starting(life.clone());
        tokio::select! {
            () = serve(&world, &life, process, "hq") => {}
            () = life.over() => {}
        }
        life.end();
        world.is_gone(&life);
        world.note(|| format!("HQ {process} is gone"));
        sleep(Duration::from_millis(100 + world.dice.below(4000))).await;
    }
}

/// One HQ more, on another machine, for so many seconds. It acts only when the other's right has run out.
pub async fn rival(world: Arc<World>, seconds: u64) {
    let life = Arc::new(Life::new());
    world.note_rival(life.clone());
    tokio::select! {
        () = serve(&world, &life, 1000, "rival") => {}
        () = life.over() => {}
        () = sleep(Duration::from_secs(seconds)) => {}
    }
    life.end();
    world.is_gone(&life);
    world.note(|| "the rival is gone".to_owned());
}

/// Serves until its right to act is lost.
async fn serve(world: &Arc<World>, life: &Arc<Life>, process: u32, host: &str) {
    let db: Arc<dyn Db> = Arc::new(Tree { world: world.clone(), life: life.clone(), tree: world.tree.beside() });
    let claimant = Claimant { host: host.into(), pid: process, since: world.clock.now(), place: format!("{host} 8:1") };
    let Some(mut reign) = again(|| Reign::begin(db.clone(), claimant.clone())).await else { return };
    let mut hq = Hq::new(parts(world, life, db, docker(world, life, &world.own())));
    let carrier = Carrier { world: world.clone(), life: life.clone() };
    Arc::get_mut(&mut hq).unwrap().launcher.supply = Arc::new(carrier);
    let Some(records) = again(|| hq.server_records()).await else { return };
    for (server, record) in records {
        let Some(way) = &record.way else {
            // HQ's own has its engine already, and no other way in.
            let Some(_) = again(|| hq.change_server(&server, |_| {})).await else { return };
            continue;
        };
        let machine = world.machine_at(way.ip).unwrap();
        world.seat(&server, &machine);
        hq.enrol(&server, &record, docker(world, life, &machine));
    }
    let recovered = again(|| async {
        match hq.recover().await {
            Err(HqError::State(error)) if error.is_away() => Err(error),
            other => {
                if let Err(error) = other {
                    world.note(|| format!("recovery: {error:?}"));
                }
                Ok(())
            }
        }
    });
    let Some(()) = recovered.await else { return };
    if world.has_cloud {
        let Some(()) = again(|| hq.rent_from(rents(world, life))).await else { return };
    }
    world.note(|| format!("HQ {process} is ready"));
    world.hq.send_replace(Some(Running { hq: hq.clone(), life: life.clone() }));
    // They end with this HQ.
    let mut tasks = JoinSet::new();
    tasks.spawn(tell(world.clone(), hq.clone()));
    tasks.spawn(hq.clone().keep_size());
    tasks.spawn(hq.reconcile());
    // Without a cloud there is no size to keep.
    let mut ends = if world.has_cloud { 0 } else { 1 };
    loop {
        tokio::select! {
            error = reign.lost() => {
                world.note(|| format!("HQ {process} lost its right: {error}"));
                return;
            }
            Some(ended) = tasks.join_next(), if !life.is_over() => {
                let panicked = ended.is_err_and(|error| error.is_panic());
                if panicked || ends == 0 {
                    world.broken(|| format!("a part of HQ ended, panicked: {panicked}"));
                }
                ends -= 1;
            }
        }
    }
}

/// What `work` comes to when it has succeeded.
async fn again<T, E, F: Future<Output = Result<T, E>>>(work: impl Fn() -> F) -> Option<T> {
    loop {
        match work().await {
            Ok(done) => return Some(done),
            Err(_) => sleep(Duration::from_secs(2)).await,
        }
    }
}

fn docker(world: &Arc<World>, life: &Arc<Life>, machine: &Arc<Machine>) -> Arc<Docker> {
    Arc::new(Docker { world: world.clone(), life: life.clone(), machine: machine.clone() })
}

fn parts(world: &Arc<World>, life: &Arc<Life>, db: Arc<dyn Db>, local: Arc<Docker>) -> Parts {
    let own = world.own();
    let engines = Engines::new(own.name.clone(), local);
    let address = Some(own.address);
    Parts {
        seal: crate::harness::seal(),
        root: world.root.path().to_owned(),
        settings: Settings { releases_kept: KEPT, address, ..Settings::default() },
        db,
        engines,
        edge: Some(Arc::new(Router { world: world.clone(), life: life.clone() })),
        awake: Awake::Yes,
        clock: Arc::new(WorldClock(world.clone())),
        identity: identity(),
        ground: Ground { address: own.address, ports: 20_000..=20_099 },
        url_port: String::new(),
    }
}

/// Who every HQ of a world is.
pub fn identity() -> Identity {
    Identity { id: "0123abcd".into(), suffix: String::new(), secret: String::new() }
}

struct WorldClock(Arc<World>);

impl Clock for WorldClock {
    fn now(&self) -> jiff::Timestamp {
        self.0.clock.now()
    }
}
