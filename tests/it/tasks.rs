//! Runs of tasks over HQs that die and servers that are away; with fakes, so that every such moment can be had.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use quarry::clock::SetClock;
use quarry::db::{self, Guard, layout};
use quarry::docker::engines::Engines;
use quarry::docker::fake::Behaviour;
use quarry::docker::{self, ContainerRequest, Engine, Network};
use quarry::etc::Settings as Etc;
use quarry::hq::runs::{Outcome, Run, Runs};
use quarry::hq::tasks::Diary;
use quarry::hq::{Awake, Hq, Parts};
use quarry::instruction::tarball::{FORMAT, Manifest};
use quarry::instruction::{Instruction, Settings};
use quarry::launch::{Ground, Identity, Proc};
use quarry::names::{ContainerName, ImageId, NodeName, ReleaseNumber, StackName};
use quarry::router::fake::FakeEdge;
use quarry::stack::{Kind, Overlap, TaskOverlap};

use crate::crash::{request, settings};

/// What outlives an HQ.
struct World {
    tree: Arc<db::fake::Fake>,
    engine: docker::fake::Fake,
    root: tempfile::TempDir,
    image: ImageId,
    clock: Arc<SetClock>,
}

fn blog() -> StackName {
    "blog".parse().unwrap()
}

fn nightly() -> NodeName {
    "nightly".parse().unwrap()
}

impl World {
    /// One with a task that runs each minute.
    async fn with_task(overlap: TaskOverlap) -> (Self, Arc<Hq>) {
        let engine = docker::fake::Fake::new();
        let image = engine.add_image("quarry/blog/nightly:1");
        let root = tempfile::tempdir().unwrap();
        let clock = Arc::new(SetClock::at(Timestamp::from_second(1_800_000_030).unwrap()));
        let world = Self { tree: Arc::new(db::fake::Fake::new()), engine, root, image, clock };
        let hq = world.hq();
        let user = "ann".parse().unwrap();
        hq.ensure_stack(&blog(), &user).await.unwrap();
        let manifest =
            Manifest { format: FORMAT, stack: blog(), release: ReleaseNumber(1), commit: None, env_version: 0 };
        let task = Settings {
            schedule: Some("* * * * *".parse().unwrap()),
            task_overlap: overlap,
            health: None,
            ..*settings(&world.image, Kind::Task, Overlap::StartFirst)
        };
        let deploy =
            Instruction::Deploy { node: nightly(), release: ReleaseNumber(1), count: 0, settings: Box::new(task) };
        let job = hq.launch_job(&manifest, &[deploy], &user).await.unwrap();
        hq.operate(job, &|_| {}).await.unwrap();
        let (name, subnet, labels) = ("quarry-blog".to_owned(), "10.208.0.0/23".to_owned(), Default::default());
        world.engine.create_network(&Network { name, subnet, labels }).await.unwrap();
        (world, hq)
    }

    fn hq(&self) -> Arc<Hq> {
        Hq::new(Parts {
            seal: crate::harness::seal(),
            root: self.root.path().to_owned(),
            settings: Etc::default(),
            db: self.tree.clone(),
            engines: Engines::new("hq".parse().unwrap(), Arc::new(self.engine.clone())),
            edge: Some(Arc::new(FakeEdge::new())),
            awake: Awake::Yes,
            clock: self.clock.clone(),
            identity: Identity { id: "0123abcd".into(), suffix: String::new(), secret: String::new() },
            ground: Ground { address: "172.17.0.1".parse().unwrap(), ports: 20_000..=20_099 },
            url_port: String::new(),
        })
    }

    /// Notes a run that an HQ has begun and died over.
    async fn begun(&self, container: &str) {
        let run = Run {
            began: Timestamp::UNIX_EPOCH,
            ended: None,
            by: None,
            attached: false,
            server: "hq".parse().unwrap(),
            container: container.parse().unwrap(),
            outcome: Outcome::Running,
        };
        let diary = Diary { suspended: true, runs: Runs([(1, run)].into()), ..Diary::default() };
        layout::put_json(&*self.tree, &layout::diary(&blog(), &nightly()), &diary, Guard::Any).await.unwrap();
    }

    /// A container of this name, not yet started.
    async fn make(&self, name: &str) -> ContainerName {
        let name: ContainerName = name.parse().unwrap();
        let image = self.image.to_string();
        self.engine.create(ContainerRequest { name: name.clone(), image, ..request(&self.image) }).await.unwrap();
        name
    }
}

async fn outcomes(hq: &Hq) -> Vec<Outcome> {
    let (_, diary) = hq.task(&blog(), &nightly()).await.unwrap();
    diary.runs.0.into_values().map(|run| run.outcome).collect()
}

/// Waits for the first look, which only learns from when on a task's times count.
async fn looked(hq: &Hq) {
    while hq.task(&blog(), &nightly()).await.unwrap().1.seen.is_none() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until the runs have come to this. Time is the test's own: it passes when there is nothing else to do.
async fn until(hq: &Hq, expected: &[Outcome]) {
    let come = async {
        while outcomes(hq).await != expected {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let late = tokio::time::timeout(Duration::from_secs(300), come).await.is_err();
    assert!(!late, "{:?}, not {expected:?}", outcomes(hq).await);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_was_made_and_not_started_is_run_by_the_next_hq() {
    let (world, _) = World::with_task(TaskOverlap::Skip).await;
    let name = world.make("blog.nightly.1.1").await;
    world.engine.behave(&name, Behaviour::exits(2000, 3).printing(&["it ran"]));
    world.begun(name.as_str()).await;
    let hq = world.hq();
    tokio::spawn(hq.clone().keep_tasks());
    until(&hq, &[Outcome::Exited(3)]).await;
    assert_eq!(hq.task_output(&blog(), &nightly(), 1).await.unwrap(), b"it ran\n");
}

#[tokio::test(start_paused = true)]
async fn runs_are_taken_up_as_soon_as_the_tree_can_be_read() {
    let (world, _) = World::with_task(TaskOverlap::Skip).await;
    let name = world.make("blog.nightly.1.1").await;
    world.engine.behave(&name, Behaviour::exits(1000, 0));
    world.engine.start(&name).await.unwrap();
    world.begun(name.as_str()).await;
    let hq = world.hq();
    world.tree.set_away(true);
    tokio::spawn(hq.clone().keep_tasks());
    tokio::time::sleep(Duration::from_secs(10)).await;
    world.tree.set_away(false);
    until(&hq, &[Outcome::Exited(0)]).await;
}

#[tokio::test(start_paused = true)]
async fn a_time_at_which_a_task_could_not_run_is_in_its_history() {
    let (world, hq) = World::with_task(TaskOverlap::Skip).await;
    let key = layout::proc(&blog(), &nightly());
    let proc: Proc = layout::read_json(&*world.tree, &key).await.unwrap().unwrap();
    let away = Proc { home: Some("s2".parse().unwrap()), ..proc };
    layout::put_json(&*world.tree, &key, &away, Guard::Any).await.unwrap();
    tokio::spawn(hq.clone().keep_tasks());
    looked(&hq).await;
    world.clock.set(Timestamp::from_second(1_800_000_061).unwrap());
    let failed = async {
        loop {
            if let [Outcome::Failed(why)] = &outcomes(&hq).await[..] {
                return why.clone();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let why = tokio::time::timeout(Duration::from_secs(300), failed).await.unwrap();
    assert!(why.contains("s2"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_takes_another_s_place_keeps_its_container() {
    let (world, hq) = World::with_task(TaskOverlap::Replace).await;
    tokio::spawn(hq.clone().keep_tasks());
    looked(&hq).await;
    hq.run_task(&blog(), &nightly(), None).await.unwrap();
    for (minute, expected) in [(1, 1), (2, 2), (3, 3)] {
        world.clock.set(Timestamp::from_second(1_800_000_001 + 60 * minute).unwrap());
        let mut runs = vec![Outcome::Replaced; expected];
        runs.push(Outcome::Running);
        until(&hq, &runs).await;
        // Whoever followed the one before has had all the time to take away what is not theirs.
        tokio::time::sleep(Duration::from_secs(15)).await;
        assert_eq!(outcomes(&hq).await, runs);
        let running = world.engine.containers("quarry.stack=blog").await.unwrap();
        assert_eq!(running.len(), 1, "{running:?}");
    }
}
