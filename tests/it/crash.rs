//! HQ dies before and after every write of its state, during every operation; what it left is finished or undone by the
//! next one. Here with fakes in one process, so that every instant is tried; `e2e::killed` does it with `kill -9`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use jiff::Timestamp;
use quarry::clock::SetClock;
use quarry::db::{self, Change, Db, DbError, Entry, Guard, Key, Lease, Version, layout};
use quarry::docker::engines::Engines;
use quarry::docker::{self, ContainerRequest, Engine, Restart, State};
use quarry::etc::Settings as Etc;
use quarry::hq::act::Job;
use quarry::hq::reconcile::drift;
use quarry::hq::{Awake, Hq, Parts};
use quarry::instruction::tarball::{FORMAT, Manifest};
use quarry::instruction::{Instruction, Settings};
use quarry::launch::{Ground, Identity, label};
use quarry::names::{ContainerName, ImageId, NodeName, ReleaseNumber, StackName};
use quarry::router::Target;
use quarry::router::edge::Edge;
use quarry::router::fake::FakeEdge;
use quarry::stack::{Command, Health, Kind, Overlap, Probe};
use quarry::units::port::Port;
use quarry::units::{Megabytes, Millis};

/// A tree whose owner dies at the n-th write: before it (odd n) or right after it (even n).
struct Mortal {
    tree: Arc<db::fake::Fake>,
    instants: AtomicI64,
}

impl Mortal {
    async fn instant(&self) {
        if self.instants.fetch_sub(1, Ordering::SeqCst) == 1 {
            std::future::pending().await
        }
    }
}

#[async_trait]
impl Db for Mortal {
    fn place(&self, key: &Key) -> String {
        self.tree.place(key)
    }
    async fn read(&self, key: &Key) -> Result<Option<Entry>, DbError> {
        self.tree.read(key).await
    }
    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Entry>, DbError> {
        self.tree.list(prefix, after, limit).await
    }
    async fn names(&self, prefix: &str) -> Result<Vec<String>, DbError> {
        self.tree.names(prefix).await
    }
    async fn put(&self, key: &Key, value: &[u8], guard: Guard, lease: Option<&Lease>) -> Result<Version, DbError> {
        self.instant().await;
        let put = self.tree.put(key, value, guard, lease).await;
        self.instant().await;
        put
    }
    async fn delete(&self, key: &Key, guard: Guard) -> Result<(), DbError> {
        self.instant().await;
        let deleted = self.tree.delete(key, guard).await;
        self.instant().await;
        deleted
    }
    async fn delete_under(&self, prefix: &str) -> Result<(), DbError> {
        self.instant().await;
        let deleted = self.tree.delete_under(prefix).await;
        self.instant().await;
        deleted
    }
    async fn watch(&self, prefix: &str) -> Result<BoxStream<'static, Change>, DbError> {
        self.tree.watch(prefix).await
    }
    async fn leased(&self) -> Result<BTreeSet<Key>, DbError> {
        self.tree.leased().await
    }

    async fn lease(&self, ttl: Duration) -> Result<Lease, DbError> {
        self.tree.lease(ttl).await
    }
    async fn renew(&self, lease: &Lease) -> Result<(), DbError> {
        self.tree.renew(lease).await
    }
    async fn revoke(&self, lease: &Lease) -> Result<(), DbError> {
        self.tree.revoke(lease).await
    }
}

/// What outlives an HQ.
#[derive(Clone)]
struct World {
    tree: Arc<db::fake::Fake>,
    engine: docker::fake::Fake,
    edge: Arc<FakeEdge>,
    root: Arc<tempfile::TempDir>,
    image: ImageId,
}

impl World {
    fn new() -> Self {
        let engine = docker::fake::Fake::new();
        let image = engine.add_image("quarry/blog/web:1");
        Self {
            tree: Arc::new(db::fake::Fake::new()),
            engine,
            edge: Arc::new(FakeEdge::new()),
            root: Arc::new(tempfile::tempdir().unwrap()),
            image,
        }
    }

    /// An HQ on this world that lives for so many instants.
    fn hq(&self, instants: i64) -> Arc<Hq> {
        Hq::new(Parts {
            seal: crate::harness::seal(),
            root: self.root.path().to_owned(),
            settings: Etc::default(),
            db: Arc::new(Mortal { tree: self.tree.clone(), instants: AtomicI64::new(instants) }),
            engines: Engines::new("hq".parse().unwrap(), Arc::new(self.engine.clone())),
            edge: Some(self.edge.clone()),
            awake: Awake::Yes,
            clock: Arc::new(SetClock::at(Timestamp::UNIX_EPOCH)),
            identity: Identity { id: "0123abcd".into(), suffix: String::new(), secret: String::new() },
            ground: Ground { address: "172.17.0.1".parse().unwrap(), ports: 20_000..=20_099 },
            url_port: String::new(),
        })
    }

    fn settings(&self, kind: Kind, overlap: Overlap) -> Box<Settings> {
        settings(&self.image, kind, overlap)
    }

    /// A container that is none of quarry's.
    fn request(&self) -> ContainerRequest {
        request(&self.image)
    }

    /// A service, two web containers, a worker that may exist only once, and (in odd releases) a worker that comes and
    /// goes.
    fn instructions(&self, number: u64) -> Vec<Instruction> {
        let release = ReleaseNumber(number);
        let deploy = |name: &str, count, settings| Instruction::Deploy { node: node(name), release, count, settings };
        let mut list = vec![
            Instruction::Ensure { node: node("kv"), settings: self.settings(Kind::Service, Overlap::StopFirst) },
            deploy("web", 2, self.settings(Kind::Web, Overlap::StartFirst)),
            deploy("alone", 1, self.settings(Kind::Worker, Overlap::StopFirst)),
            Instruction::Route {
                node: node("web"),
                add: vec!["blog.localhost".parse().unwrap()],
                remove: Vec::new(),
                document_root: None,
                rules: Box::default(),
            },
        ];
        match number % 2 {
            1 => list.push(deploy("extra", 1, self.settings(Kind::Worker, Overlap::StartFirst))),
            _ => list.push(Instruction::Scale { node: node("extra"), count: 0 }),
        }
        list
    }
}

/// A container that is none of quarry's.
pub fn request(image: &ImageId) -> ContainerRequest {
    ContainerRequest {
        name: "stranger".parse().unwrap(),
        image: image.to_string(),
        entrypoint: None,
        command: Vec::new(),
        cwd: None,
        env: Default::default(),
        labels: BTreeMap::new(),
        ports: Vec::new(),
        binds: Vec::new(),
        network: None,
        hosts: Default::default(),
        memory: None,
        cpus: None,
        pids: None,
        restart: Restart::No,
        stop_timeout: Millis(0),
        tty: false,
        log: Default::default(),
        stdin: false,
    }
}

/// How a node of a test runs.
pub fn settings(image: &ImageId, kind: Kind, overlap: Overlap) -> Box<Settings> {
    Box::new(Settings {
        kind,
        image: image.clone(),
        command: None,
        args: Vec::new(),
        cwd: None,
        ports: if kind == Kind::Worker { Vec::new() } else { vec![Port::tcp(80)] },
        balance: Default::default(),
        protocol: Default::default(),
        volumes: Vec::new(),
        env: Default::default(),
        links: BTreeMap::new(),
        outside: Default::default(),
        size: Megabytes(64),
        filter: Default::default(),
        fixed: false,
        is_static: false,
        cpus: None,
        health: Some(Health {
            probe: Probe::Command(Command::Words(vec!["true".into()])),
            interval: Millis(100),
            timeout: Millis(1000),
            retries: 1,
            start: Millis(1000),
            lasting: false,
        }),
        release: None,
        overlap,
        grace: Millis(500),
        hook: Vec::new(),
        unhook: Vec::new(),
        schedule: None,
        timezone: None,
        task_overlap: Default::default(),
    })
}

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn blog() -> StackName {
    "blog".parse().unwrap()
}

/// The operations that are interrupted.
#[derive(Debug, Clone, Copy)]
enum Act {
    First,
    Again,
    ScaleUp,
    ScaleDown,
    Restart,
    Rollback,
    Variables,
    Destroy,
}

async fn launch(hq: &Arc<Hq>, world: &World) {
    let user = "ann".parse().unwrap();
    hq.ensure_stack(&blog(), &user).await.unwrap();
    let number = hq.releases(&blog()).await.unwrap().len() as u64 + 1;
    let manifest =
        Manifest { format: FORMAT, stack: blog(), release: ReleaseNumber(number), commit: None, env_version: 0 };
    let job = hq.launch_job(&manifest, &world.instructions(number), &user).await.unwrap();
    hq.operate(job, &|_| {}).await.unwrap();
}

async fn perform(hq: &Arc<Hq>, world: &World, act: Act) {
    let _turn = hq.turn(&blog(), "a test", &|_| {}).await;
    let user = "ann".parse().unwrap();
    let quiet = |_: &str| {};
    match act {
        Act::First | Act::Again => launch(hq, world).await,
        Act::ScaleUp | Act::ScaleDown => {
            let count = if matches!(act, Act::ScaleUp) { 4 } else { 1 };
            let job = Hq::scale_job(&blog(), &BTreeMap::from([(node("web"), count)]));
            drop(hq.operate(job, &quiet).await.unwrap());
        }
        Act::Restart => hq.restart(&blog(), &BTreeSet::new(), &quiet).await.unwrap(),
        Act::Rollback => drop(hq.rollback(&blog(), None, &user, &quiet).await.unwrap()),
        Act::Variables => {
            let env = quarry::env::from_arguments(["COLOUR=blue"]).unwrap();
            drop(hq.release_env(&blog(), &env, vec!["COLOUR".into()], &user, &quiet).await.unwrap());
        }
        Act::Destroy => hq.destroy(&blog(), &quiet).await.unwrap(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_kill_reaches_only_containers_of_its_own_stack() {
    let world = before(Act::Again).await;
    let hq = world.hq(i64::MAX);
    let stranger: ContainerName = "shop.web.1.1".parse().unwrap();
    let request = ContainerRequest { name: stranger.clone(), ..world.request() };
    world.engine.create(request).await.unwrap();
    let own: ContainerName = "blog.web.1.1".parse().unwrap();
    let kill = |container: &ContainerName| Instruction::Kill { container: container.clone(), grace: Millis(0) };
    let job = Job { instructions: vec![kill(&stranger), kill(&own)], ..Hq::scale_job(&blog(), &BTreeMap::new()) };
    hq.operate(job, &|_| {}).await.unwrap();
    rested(&hq).await;
    assert!(world.engine.container(&own).await.unwrap().is_none());
    assert!(world.engine.container(&stranger).await.unwrap().is_some(), "another stack's container was killed");
}

/// Waits until an HQ has nothing left to retire.
async fn rested(hq: &Arc<Hq>) {
    tokio::time::timeout(Duration::from_secs(600), resting(hq)).await.expect("an HQ left alone comes to rest");
}

async fn resting(hq: &Arc<Hq>) {
    while !hq.book(&blog()).await.unwrap().read().await.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The world before an operation: what the operation needs to find.
async fn before(act: Act) -> World {
    let world = World::new();
    let hq = world.hq(i64::MAX);
    let launches = match act {
        Act::First => 0,
        Act::Rollback => 2,
        Act::Again | Act::ScaleUp | Act::ScaleDown | Act::Restart | Act::Variables | Act::Destroy => 1,
    };
    for _ in 0..launches {
        let _turn = hq.turn(&blog(), "a test", &|_| {}).await;
        launch(&hq, &world).await;
    }
    rested(&hq).await;
    // What it still does in the background would be done beside the next one.
    while Arc::strong_count(&hq) > 1 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world
}

/// What people can see of a stack: releases, variables, containers by node, peers by domain.
async fn seen(hq: &Arc<Hq>, world: &World) -> String {
    let releases: Vec<_> = hq.releases(&blog()).await.unwrap().iter().map(|release| release.number).collect();
    let mut containers: BTreeMap<String, usize> = BTreeMap::new();
    for container in world.engine.containers(label::STACK).await.unwrap() {
        assert_eq!(container.state, State::Running, "{}", container.name);
        *containers.entry(container.labels[label::NODE].clone()).or_default() += 1;
    }
    let tables = world.edge.tables().await.unwrap();
    let domains: Vec<_> = tables.iter().flat_map(|table| table.nodes.values().flat_map(|node| &node.domains)).collect();
    format!(
        "releases {releases:?} env {:?} containers {containers:?} domains {domains:?}",
        hq.env(&blog()).await.unwrap()
    )
}

/// Containers, routes, ports and records agree with each other, and nothing is left over.
async fn assert_whole(hq: &Arc<Hq>, world: &World, when: &str) {
    let containers = world.engine.containers(label::STACK).await.unwrap();
    let tables = world.edge.tables().await.unwrap();
    let mut ports = BTreeSet::new();
    for container in containers.iter().filter_map(|container| container.labels.get(label::ADDRESS)) {
        assert!(ports.insert(container.clone()), "{when}: two containers at {container}");
    }
    for node in tables.iter().flat_map(|table| table.nodes.values()) {
        let Target::Peers(peers) = &node.target else { continue };
        for peer in peers {
            let found = containers.iter().find(|container| container.name == peer.container);
            let address = found.and_then(|container| container.labels.get(label::ADDRESS));
            assert_eq!(
                address,
                Some(&peer.address.to_string()),
                "{when}: the router names a container that is not there"
            );
        }
    }
    let journals = layout::all(&*world.tree, layout::JOURNALS).await.unwrap();
    assert!(journals.is_empty(), "{when}: {journals:?}");
    match hq.releases(&blog()).await.unwrap().last() {
        Some(current) => {
            let state = hq.world(&blog(), current.number, current.env_version).await.unwrap();
            assert_eq!(drift(&state), Vec::new(), "{when}");
            let table = tables.first().unwrap_or_else(|| panic!("{when}: no table"));
            assert_eq!(table.release, current.number, "{when}");
            for instruction in &current.instructions {
                let Instruction::Deploy { node, release, .. } = instruction else { continue };
                for instance in state.of(node) {
                    assert_eq!(instance.release, Some(*release), "{when}: {}", instance.name);
                }
            }
        }
        None => {
            assert_eq!(containers, Vec::new(), "{when}");
            assert_eq!(tables, Vec::new(), "{when}");
        }
    }
    let pins = match Path::new(&hq.repository_path(&blog())).exists() {
        true => hq.pins(&blog()).await.unwrap(),
        false => Vec::new(),
    };
    assert!(pins.is_empty(), "{when}: {pins:?}");
}

/// Kills HQ at every instant of an operation and checks what the next one makes of it.
async fn check(act: Act) {
    let old = {
        let world = before(act).await;
        seen(&world.hq(i64::MAX), &world).await
    };
    let new = {
        let world = before(act).await;
        let hq = world.hq(i64::MAX);
        perform(&hq, &world, act).await;
        rested(&hq).await;
        assert_whole(&hq, &world, "undisturbed").await;
        seen(&hq, &world).await
    };
    assert_ne!(old, new, "{act:?} does something");
    let (mut undone, mut finished) = (0, 0);
    for instants in 1.. {
        let world = before(act).await;
        let doomed = world.hq(instants);
        let operating = {
            let (doomed, world) = (doomed.clone(), world.clone());
            tokio::spawn(async move {
                perform(&doomed, &world, act).await;
                resting(&doomed).await;
            })
        };
        // An HQ that stands still for an hour of the test's own time is dead.
        let survived = tokio::time::timeout(Duration::from_secs(3600), operating).await;
        let when = format!("{act:?} killed at instant {instants}");
        if let Ok(done) = survived {
            done.unwrap();
            break;
        }
        drop(doomed);
        let next = world.hq(i64::MAX);
        next.recover().await.unwrap();
        rested(&next).await;
        assert_whole(&next, &world, &when).await;
        match seen(&next, &world).await {
            state if state == new => finished += 1,
            state if state == old || matches!(act, Act::First | Act::Destroy) => {
                assert!(state == old || matches!(act, Act::First | Act::Destroy), "{when}: {state}");
                undone += 1;
            }
            state => panic!("{when}: neither as before nor as after:\n{state}\nold {old}\nnew {new}"),
        }
    }
    assert!(undone > 0 && finished > 0, "{act:?}: both ways were taken: {undone} {finished}");
}

#[tokio::test(start_paused = true)]
async fn a_first_launch_killed_at_any_instant_is_finished_or_undone() {
    check(Act::First).await;
}

#[tokio::test(start_paused = true)]
async fn a_relaunch_killed_at_any_instant_is_finished_or_undone() {
    check(Act::Again).await;
}

#[tokio::test(start_paused = true)]
async fn scaling_killed_at_any_instant_is_finished_or_undone() {
    check(Act::ScaleUp).await;
    check(Act::ScaleDown).await;
}

#[tokio::test(start_paused = true)]
async fn a_rollback_killed_at_any_instant_is_finished_or_undone() {
    check(Act::Rollback).await;
}

#[tokio::test(start_paused = true)]
async fn a_change_of_variables_killed_at_any_instant_is_finished_or_undone() {
    check(Act::Variables).await;
}

#[tokio::test(start_paused = true)]
async fn a_destruction_killed_at_any_instant_is_finished() {
    check(Act::Destroy).await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_leaves_the_same_number_of_new_containers() {
    let world = before(Act::Restart).await;
    let hq = world.hq(i64::MAX);
    let names = |list: Vec<docker::Container>| -> BTreeSet<String> {
        list.into_iter().filter(|one| one.labels[label::ROLE] == "node").map(|one| one.name.to_string()).collect()
    };
    let old = names(world.engine.containers(label::STACK).await.unwrap());
    perform(&hq, &world, Act::Restart).await;
    rested(&hq).await;
    assert_whole(&hq, &world, "after a restart").await;
    let new = names(world.engine.containers(label::STACK).await.unwrap());
    assert_eq!(old.len(), new.len());
    assert_eq!(old.intersection(&new).count(), 0, "{old:?} {new:?}");
}
