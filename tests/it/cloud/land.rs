//! A world with a cloud in it: what outlives an HQ, and HQs that live on it and may end at any instant.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use jiff::{SignedDuration, Timestamp};
use quarry::clock::Clock;
use quarry::db::{self, Change, Db, DbError, Entry, Guard, Key, Lease, Version, layout};
use quarry::docker::engines::Engines;
use quarry::docker::fake::Fake as Docker;
use quarry::docker::{Engine, EngineError};
use quarry::etc::Settings as Etc;
use quarry::grid::Autosize;
use quarry::hq::cloud::gate::Gate;
use quarry::hq::cloud::{Limits, Rents};
use quarry::hq::fleet::presence::Signs;
use quarry::hq::servers::Wanted;
use quarry::hq::{Awake, Hq, HqError, Parts};
use quarry::instruction::Instruction;
use quarry::instruction::tarball::{FORMAT, Manifest};
use quarry::launch::{Ground, Identity, label};
use quarry::names::{ImageId, NodeName, ReleaseNumber, ServerName, StackName};
use quarry::router::fake::FakeEdge;
use quarry::servers::cloud::fake::Fake as Cloud;
use quarry::servers::cloud::{self, CloudError, Machine, Order};
use quarry::servers::supply::{Supply, SupplyError};
use quarry::servers::{Record, Way};
use quarry::stack::{Kind, Overlap};
use quarry::units::{Megabytes, Millis};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::crash::settings;
use crate::world::life::Life;

/// A host key that nobody is asked for.
const HOST_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

/// Memory of HQ's own server and of those that are rented.
pub const SIZE: u64 = 1000;

/// For how long a server must have been spare.
pub const IDLE: Duration = Duration::from_secs(60);

/// How long a machine may take.
pub const CREATE_TIMEOUT: Duration = Duration::from_secs(600);

/// What outlives an HQ.
#[derive(Clone)]
pub struct Land {
    pub tree: Arc<db::fake::Fake>,
    pub cloud: Cloud,
    /// By address.
    engines: Arc<Mutex<BTreeMap<String, Docker>>>,
    edge: Arc<FakeEdge>,
    root: Arc<tempfile::TempDir>,
    image: ImageId,
    began: Instant,
}

/// An HQ and what it does by itself.
pub struct Running {
    pub hq: Arc<Hq>,
    life: Arc<Life>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.life.end();
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Land {
    /// HQ's own server, and a cloud.
    pub async fn new() -> Self {
        let here = Docker::new();
        let image = here.add_image("quarry/blog/web:1");
        let land = Self {
            tree: Arc::new(db::fake::Fake::new()),
            cloud: Cloud::new(),
            engines: Arc::new(Mutex::new(BTreeMap::from([("hq".to_owned(), here)]))),
            edge: Arc::new(FakeEdge::new()),
            root: Arc::new(tempfile::tempdir().unwrap()),
            image,
            began: Instant::now(),
        };
        land.keep("hq", &record(None, SIZE)).await;
        land
    }

    /// The same, sizing itself with at most so many servers.
    pub async fn sized(max: usize) -> Self {
        let land = Self::new().await;
        land.limit(Some(max)).await;
        land
    }

    /// Limits, as a person who edits the record writes them.
    pub async fn limit(&self, max: Option<usize>) {
        let Some(max) = max else { return self.tree.delete(&layout::autosize(), Guard::Any).await.unwrap() };
        let idle = Some(Millis(IDLE.as_millis() as u64));
        let limits = Limits::new(Autosize::new(1, max, Megabytes(SIZE)), idle).unwrap();
        layout::put_json(&*self.tree, &layout::autosize(), &limits, Guard::Any).await.unwrap();
    }

    async fn keep(&self, server: &str, record: &Record) {
        let key = layout::server_settings(&server.parse().unwrap());
        layout::put_json(&*self.tree, &key, record, Guard::Any).await.unwrap();
    }

    /// A server that a person has added.
    pub async fn add(&self, server: &str, address: &str) {
        self.engine(address);
        self.keep(server, &record(Some(address), SIZE)).await;
    }

    /// The engine at an address; one that is new is empty.
    pub fn engine(&self, address: &str) -> Docker {
        self.engines.lock().unwrap().entry(address.to_owned()).or_default().clone()
    }

    /// An HQ on this land, as `serve` starts it.
    pub async fn hq(&self) -> Running {
        self.mortal_hq(Arc::new(Life::new())).await.unwrap()
    }

    /// The same, with this life; `None` when that is over before it serves.
    pub async fn mortal_hq(&self, life: Arc<Life>) -> Option<Running> {
        let mut hq = Hq::new(self.parts(&life));
        let carrier = Carrier { land: self.clone(), engines: hq.engines().clone() };
        Arc::get_mut(&mut hq).unwrap().launcher.supply = Arc::new(carrier);
        let mut running = Running { hq: hq.clone(), life: life.clone(), tasks: Vec::new() };
        let start = async {
            for (server, record) in hq.server_records().await.unwrap() {
                match &record.way {
                    Some(way) => hq.enrol(&server, &record, Arc::new(self.engine(&way.address.host))),
                    // HQ's own has its engine already, and no other way in.
                    None => drop(hq.change_server(&server, |_| {}).await.unwrap()),
                }
            }
            hq.recover().await.unwrap();
            let rents = Rents {
                cloud: Arc::new(MortalCloud { cloud: self.cloud.clone(), life: life.clone() }),
                gate: Arc::new(Lets { land: self.clone(), life: life.clone() }),
                create_timeout: Millis(CREATE_TIMEOUT.as_millis() as u64),
            };
            hq.rent_from(rents).await.unwrap();
        };
        tokio::select! {
            () = start => {}
            () = life.over() => return None,
        }
        running.tasks.push(tokio::spawn(hq.clone().keep_size()));
        running.tasks.push(tokio::spawn(hq.reconcile()));
        Some(running)
    }

    fn parts(&self, life: &Arc<Life>) -> Parts {
        let here: Arc<dyn Engine> = Arc::new(self.engine("hq"));
        let address = "10.99.250.1".parse().unwrap();
        Parts {
            seal: crate::harness::seal(),
            root: self.root.path().to_owned(),
            settings: Etc { address: Some(address), ..Etc::default() },
            db: Arc::new(Tree { tree: self.tree.clone(), life: life.clone() }),
            engines: Engines::new("hq".parse().unwrap(), here),
            edge: Some(self.edge.clone()),
            awake: Awake::Yes,
            clock: Arc::new(LandClock(self.began)),
            identity: Identity { id: "0123abcd".into(), suffix: String::new() },
            ground: Ground { address, ports: 20_000..=20_099 },
            url_port: String::new(),
        }
    }

    /// One more node of a stack's next release.
    pub fn web(&self, count: u32, size: u64) -> Vec<Instruction> {
        self.node("web", count, size, &[])
    }

    pub fn node(&self, name: &str, count: u32, size: u64, volumes: &[&str]) -> Vec<Instruction> {
        let mut how = settings(&self.image, Kind::Worker, Overlap::StartFirst);
        how.size = Megabytes(size);
        how.volumes = volumes.iter().map(|path| path.parse().unwrap()).collect();
        let node: NodeName = name.parse().unwrap();
        vec![Instruction::Deploy { node, release: ReleaseNumber(1), count, settings: how }]
    }

    /// How many machines stand. There must never be two for one need.
    pub fn standing(&self) -> Vec<String> {
        self.cloud.standing().iter().map(|order| order.name.to_string()).collect()
    }

    /// What HQ rents, as `name stage`.
    pub async fn rentals(&self) -> Vec<String> {
        let entries = layout::all(&*self.tree, layout::RENTALS).await.unwrap();
        let line = |entry: &Entry| {
            let value: serde_json::Value = serde_json::from_slice(&entry.value).unwrap();
            let name = entry.key.as_str().rsplit('/').next().unwrap().trim_end_matches(".json").to_owned();
            format!("{name} {}", value["stage"].as_str().unwrap())
        };
        entries.iter().map(line).collect()
    }

    /// Waits in the test's own time.
    #[track_caller]
    pub fn until<'a, F>(&'a self, what: &'a str, mut look: impl FnMut() -> F + 'a) -> impl Future<Output = ()> + 'a
    where
        F: Future<Output = bool>,
    {
        let place = std::panic::Location::caller();
        async move {
            let looking = async {
                while !look().await {
                    sleep(Duration::from_millis(20)).await;
                }
            };
            if timeout(Duration::from_secs(3600), looking).await.is_err() {
                let rentals = self.rentals().await;
                panic!("{place}: waited in vain for {what}; rented: {rentals:?}, calls: {:?}", self.cloud.calls());
            }
        }
    }

    /// Waits until nothing is under way with any machine, and these stand.
    #[track_caller]
    pub fn until_standing<'a>(&'a self, expected: &'a [&'a str]) -> impl Future<Output = ()> + 'a {
        self.until("the machines", move || async move {
            let rested: Vec<String> = expected.iter().map(|name| format!("{name} serving")).collect();
            self.standing() == expected && self.rentals().await == rested
        })
    }
}

impl Running {
    /// Launches a release of a stack.
    ///
    /// # Errors
    /// Why it was refused.
    pub async fn launch(&self, stack: &str, instructions: Vec<Instruction>) -> Result<Vec<String>, HqError> {
        let (hq, stack): (_, StackName) = (&self.hq, stack.parse().unwrap());
        let said = Mutex::new(Vec::new());
        let say = |line: &str| said.lock().unwrap().push(line.to_owned());
        let _turn = hq.turn(&stack, "a test", &say).await;
        let user = "ann".parse().unwrap();
        hq.ensure_stack(&stack, &user).await?;
        let number = hq.releases(&stack).await?.len() as u64 + 1;
        let manifest = Manifest {
            format: FORMAT,
            stack: stack.clone(),
            release: ReleaseNumber(number),
            commit: None,
            env_version: 0,
        };
        let job = hq.launch_job(&manifest, &instructions, &user).await?;
        hq.operate(job, &say).await?;
        Ok(said.into_inner().unwrap())
    }

    /// Scales a node.
    ///
    /// # Errors
    /// Why it was refused.
    pub async fn scale(&self, stack: &str, node: &str, count: u32) -> Result<(), HqError> {
        let stack: StackName = stack.parse().unwrap();
        let _turn = self.hq.turn(&stack, "a test", &|_| {}).await;
        let counts = BTreeMap::from([(node.parse().unwrap(), count)]);
        self.hq.operate(Hq::scale_job(&stack, &counts), &|_| {}).await.map(drop)
    }

    /// The servers a stack's containers are on, in order.
    pub async fn places(&self, stack: &str) -> Vec<String> {
        let containers = self.hq.containers().await.unwrap();
        let of_stack = containers.iter().filter(|seen| seen.container.labels.get(label::STACK).unwrap() == stack);
        let mut places: Vec<String> = of_stack.map(|seen| seen.server.to_string()).collect();
        places.sort();
        places
    }

    /// A server's machine is gone for good.
    pub fn lose(&self, land: &Land, server: &str) {
        let server: ServerName = server.parse().unwrap();
        let standing = land.cloud.standing();
        let order = standing.iter().find(|order| order.name == server).unwrap();
        let address = self.hq.members()[&server].ground.address.to_string();
        land.cloud.take_away(&order.token);
        land.engine(&address).go_away(true);
        let silent = Some(Duration::from_secs(9999));
        self.hq.note_signs(&server, Signs { silent, told: Some(quarry::hq::agents::Voice::Gone) });
    }

    /// Ends when the HQ's life does.
    pub async fn over(&self) {
        self.life.over().await;
    }
}

fn record(address: Option<&str>, size: u64) -> Record {
    let way = address.map(|address| Way {
        address: format!("root@{address}").parse().unwrap(),
        host_key: HOST_KEY.parse().unwrap(),
        ip: address.parse().unwrap(),
        hq: "10.99.250.1".parse().unwrap(),
    });
    Record {
        way,
        hostname: "a-server".to_owned(),
        tags: BTreeSet::new(),
        size: Megabytes(size),
        memory: Megabytes(size),
        processors: 2,
        architecture: "x86_64".into(),
        standing: Default::default(),
        order: None,
    }
}

/// Lets machines in without SSH.
struct Lets {
    land: Land,
    life: Arc<Life>,
}

#[async_trait]
impl Gate for Lets {
    async fn admit(&self, hq: &Arc<Hq>, wanted: Wanted) -> Result<(), HqError> {
        self.life.alive().await;
        let server = wanted.name.unwrap();
        let found = record(Some(&wanted.address.host), wanted.size.unwrap().0);
        let record = Record { order: wanted.order, tags: wanted.tags, ..found };
        layout::put_json(&*hq.db, &layout::server_settings(&server), &record, Guard::Any).await?;
        hq.enrol(&server, &record, Arc::new(self.land.engine(&wanted.address.host)));
        Ok(())
    }
}

/// A cloud that a dead HQ does not reach, and before and after each of whose calls one may end.
struct MortalCloud {
    cloud: Cloud,
    life: Arc<Life>,
}

#[async_trait]
impl cloud::Cloud for MortalCloud {
    async fn create(&self, order: &Order) -> Result<Machine, CloudError> {
        self.life.instant().await;
        let made = self.cloud.create(order).await;
        self.life.instant().await;
        made
    }

    async fn list(&self, owner: &str) -> Result<Vec<Machine>, CloudError> {
        self.life.alive().await;
        self.cloud.list(owner).await
    }

    async fn destroy(&self, machine: &Machine) -> Result<(), CloudError> {
        self.life.instant().await;
        let gone = self.cloud.destroy(machine).await;
        self.life.instant().await;
        gone
    }
}

/// Brings images to the engine of a server.
struct Carrier {
    land: Land,
    engines: Engines,
}

#[async_trait]
impl Supply for Carrier {
    async fn image(&self, server: &ServerName, image: &ImageId) -> Result<(), SupplyError> {
        let there = self.engines.of(server)?;
        if there.image(image.as_str()).await?.is_none() {
            let found = self.land.engine("hq").image(image.as_str()).await?;
            let found = found.ok_or_else(|| EngineError::NotFound { what: format!("image `{image}`") })?;
            self.land.engine(&self.address(server).await).load(found);
        }
        Ok(())
    }

    async fn make_folder(&self, _: &ServerName, _: &std::path::Path) -> Result<(), SupplyError> {
        Ok(())
    }

    async fn remove_folder(&self, _: &ServerName, _: &std::path::Path) -> Result<(), SupplyError> {
        Ok(())
    }
}

impl Carrier {
    async fn address(&self, server: &ServerName) -> String {
        let record: Record =
            layout::read_json(&*self.land.tree, &layout::server_settings(server)).await.unwrap().unwrap();
        record.way.unwrap().address.host
    }
}

/// The time of day goes on with the test's own time.
struct LandClock(Instant);

impl Clock for LandClock {
    fn now(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.0.elapsed()).unwrap();
        Timestamp::from_second(1_000_000_000).unwrap() + passed
    }
}

/// A tree that a dead HQ does not reach, and before and after each of whose writes one may end.
struct Tree {
    tree: Arc<db::fake::Fake>,
    life: Arc<Life>,
}

#[async_trait]
impl Db for Tree {
    fn place(&self, key: &Key) -> String {
        self.tree.place(key)
    }
    async fn read(&self, key: &Key) -> Result<Option<Entry>, DbError> {
        self.life.alive().await;
        self.tree.read(key).await
    }
    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Entry>, DbError> {
        self.life.alive().await;
        self.tree.list(prefix, after, limit).await
    }
    async fn names(&self, prefix: &str) -> Result<Vec<String>, DbError> {
        self.life.alive().await;
        self.tree.names(prefix).await
    }
    async fn put(&self, key: &Key, value: &[u8], guard: Guard, lease: Option<&Lease>) -> Result<Version, DbError> {
        self.life.instant().await;
        let put = self.tree.put(key, value, guard, lease).await;
        self.life.instant().await;
        put
    }
    async fn delete(&self, key: &Key, guard: Guard) -> Result<(), DbError> {
        self.life.instant().await;
        let deleted = self.tree.delete(key, guard).await;
        self.life.instant().await;
        deleted
    }
    async fn delete_under(&self, prefix: &str) -> Result<(), DbError> {
        self.life.instant().await;
        let deleted = self.tree.delete_under(prefix).await;
        self.life.instant().await;
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
