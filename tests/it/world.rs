//! A simulated world: several stacks on servers that fail, driven by an HQ that dies, under a seeded sequence of what
//! people ask for and what goes wrong. At every step the promises of DESIGN hold; at rest everything is as was promised.
//!
//! `QUARRY_SEEDS=5000` tries so many seeds, `QUARRY_SEED=17` one of them, telling what happens. A seed that fails is
//! shrunk to the acts that matter, printed as the Rust code of a test, and becomes one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quarry::db;
use quarry::names::StackName;
use quarry::router::fake::FakeEdge;
use quarry::servers::cloud;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

use self::acts::Land;
use self::dice::Dice;
use self::life::Life;
use self::machine::Machine;
use self::members::Members;
use self::promises::{Promise, State};
use self::reign::Running;

mod acts;
mod checks;
mod clock;
mod dice;
mod found;
pub mod life;
mod machine;
mod members;
mod operations;
mod people;
mod promises;
mod pushes;
mod reign;
mod rented;
mod rest;
mod seams;
mod seeds;
mod signs;
mod story;
mod supply;
mod troubles;

/// How long a story takes at most, even on a machine that has other work.
const BEARABLE: Duration = Duration::from_secs(60);

/// What outlives every HQ.
pub struct World {
    pub tree: Arc<db::fake::Fake>,
    pub edge: FakeEdge,
    /// Where servers can be rented, if they can.
    pub cloud: cloud::fake::Fake,
    pub has_cloud: bool,
    /// The most servers there ever may have been.
    pub most: Mutex<usize>,
    /// Something may have been placed where there was no room: at some time the grid did not size itself, or containers
    /// were replaced by others of the same release.
    pub overbooks: AtomicBool,
    pub root: tempfile::TempDir,
    pub dice: Dice,
    pub clock: clock::Clock,
    /// The HQ that acts, unless it is starting.
    pub hq: watch::Sender<Option<Running>>,
    members: Mutex<Members>,
    /// Each fixed node's machine, by stack and node.
    homes: Mutex<BTreeMap<(String, String), Lies>>,
    promises: Mutex<BTreeMap<StackName, Promise>>,
    /// Writes until one whose answer gets lost.
    unclear: Mutex<Option<u64>>,
    /// The HQ process there is, also while it starts.
    process: Mutex<Option<Arc<Life>>>,
    /// HQs that were started beside it.
    rivals: Mutex<Vec<Arc<Life>>>,
    count: Mutex<u64>,
    began: Instant,
    /// When that was in real time.
    really_began: std::time::Instant,
    log: Mutex<Vec<String>>,
    /// The first promise that was not kept.
    wrong: Mutex<Option<String>>,
    went_wrong: Notify,
}

/// Where the data of a fixed node lies.
#[derive(Debug, Clone)]
struct Lies {
    at: IpAddr,
    /// It was part of some release.
    counts: bool,
}

impl World {
    pub fn new(seed: u64, Land { servers, cloud: has_cloud }: Land) -> Arc<Self> {
        let world = Arc::new(Self {
            tree: Arc::new(db::fake::Fake::new()),
            edge: FakeEdge::new(),
            cloud: cloud::fake::Fake::new(),
            has_cloud,
            most: Mutex::new(0),
            overbooks: AtomicBool::new(false),
            root: tempfile::tempdir().unwrap(),
            dice: Dice::new(seed),
            clock: clock::Clock::new(),
            hq: watch::Sender::new(None),
            members: Mutex::default(),
            homes: Mutex::default(),
            promises: Mutex::default(),
            unclear: Mutex::default(),
            process: Mutex::default(),
            rivals: Mutex::default(),
            count: Mutex::default(),
            began: Instant::now(),
            really_began: std::time::Instant::now(),
            log: Mutex::default(),
            wrong: Mutex::default(),
            went_wrong: Notify::new(),
        });
        for number in 0..servers {
            let machine = world.arrive(Machine::new(number, has_cloud));
            world.seat(&machine.name, &machine);
        }
        if has_cloud {
            world.furnish_cloud();
        }
        world
    }

    /// Another number each time.
    pub fn counted(&self) -> u64 {
        let mut count = self.count.lock().unwrap();
        *count += 1;
        *count
    }

    /// Notes what happened, for whoever reads the story of a failure.
    pub fn note(&self, what: impl FnOnce() -> String) {
        let line = format!("{:>9.3} {}", self.began.elapsed().as_secs_f64(), what());
        self.log.lock().unwrap().push(line);
    }

    /// What happened so far.
    pub fn story(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// A promise was not kept. The first one counts.
    pub fn broken(&self, what: impl FnOnce() -> String) {
        let mut wrong = self.wrong.lock().unwrap();
        if wrong.is_none() {
            let what = what();
            self.note(|| format!("WRONG: {what}"));
            *wrong = Some(what);
            self.went_wrong.notify_waiters();
        }
    }

    /// Somebody asks for something: whoever does that without end keeps a real machine busy, too.
    pub fn asked(&self) {
        if self.really_began.elapsed() > BEARABLE {
            self.broken(|| "HQ asks and asks and comes to no end".to_owned());
        }
    }

    /// The first promise that was not kept.
    pub fn wrong(&self) -> Option<String> {
        self.wrong.lock().unwrap().clone()
    }

    /// From now on a stack is one of these.
    pub fn promise(&self, stack: &StackName, promise: Promise) {
        if let Promise::OneOf(states) = &promise
            && let [state] = states.as_slice()
        {
            // The data of a node that has ended waits for it. That of a stack that is gone is gone, and so is what a
            // push that came to nothing began.
            let has = |node: &str| {
                let seen = state.as_ref();
                seen.is_some_and(|seen| seen.counts.keys().any(|has| has.as_str() == node))
            };
            self.homes.lock().unwrap().retain(|(of, node), home| {
                home.counts |= of == stack.as_str() && has(node);
                of != stack.as_str() || (home.counts && state.is_some())
            });
        }
        self.promises.lock().unwrap().insert(stack.clone(), promise);
    }

    /// What is wrong when a stack shows itself like this.
    pub fn not_promised(&self, stack: &StackName, state: &State) -> Option<String> {
        let promises = self.promises.lock().unwrap();
        let nothing = Promise::OneOf(vec![None]);
        let promise = promises.get(stack).unwrap_or(&nothing);
        (!promise.allows(state)).then(|| format!("{stack} is {state:?}, and was promised to be {promise:?}"))
    }

    /// A stack that nobody works on shows itself like this.
    pub fn expect_allowed(&self, stack: &StackName, state: &State) {
        match self.not_promised(stack, state) {
            Some(wrong) => self.broken(|| wrong),
            None => self.promise(stack, Promise::OneOf(vec![state.clone()])),
        }
    }

    /// A new HQ process.
    pub fn starting(&self, life: Arc<Life>) {
        *self.process.lock().unwrap() = Some(life);
    }

    /// The HQ there is ends after so many more instants.
    pub fn kill(&self, instants: u64) {
        if let Some(life) = &*self.process.lock().unwrap() {
            life.end_after(instants);
        }
    }

    /// The HQ there is lives on.
    pub fn spare(&self) {
        if let Some(life) = &*self.process.lock().unwrap() {
            life.spare();
        }
    }

    /// The HQ there is does not reach the tree for so long.
    pub fn cut_off(&self, seconds: u64) {
        let Some(life) = self.process.lock().unwrap().clone() else { return };
        life.cut_off(true);
        tokio::spawn(async move {
            sleep(Duration::from_secs(seconds)).await;
            life.cut_off(false);
        });
    }

    /// One more HQ beside the one there is.
    pub fn note_rival(&self, life: Arc<Life>) {
        self.rivals.lock().unwrap().push(life);
    }

    /// Only one HQ is left, and it reaches the tree.
    pub fn end_rivals(&self) {
        self.rivals.lock().unwrap().iter().for_each(|life| life.end());
        if let Some(life) = &*self.process.lock().unwrap() {
            life.cut_off(false);
        }
    }

    /// The HQ with this life acts no more.
    pub fn is_gone(&self, life: &Arc<Life>) {
        self.hq.send_if_modified(|hq| {
            let its = hq.as_ref().is_some_and(|running| Arc::ptr_eq(&running.life, life));
            *hq = hq.take().filter(|_| !its);
            its
        });
    }

    /// The answer to a write gets lost, after so many others.
    pub fn lose_answer(&self, after: Option<u64>) {
        *self.unclear.lock().unwrap() = after;
    }

    fn loses_answer(&self) -> bool {
        let mut unclear = self.unclear.lock().unwrap();
        match &mut *unclear {
            Some(0) => {
                *unclear = None;
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }
}
