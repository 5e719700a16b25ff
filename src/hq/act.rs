//! The one way every operation goes: gather, plan, journal, stage, switch, commit, and retire in the background.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::world::{Claim, Reserved};
use super::{Awake, Hq, HqError};
use crate::db::{DbError, Guard, Key, layout};
use crate::front::Front;
use crate::instruction::Instruction;
use crate::launch::act::Say;
use crate::launch::journal::act::Book;
use crate::launch::journal::{BranchMove, Operation, Phase};
use crate::launch::plan::{PlanError, plan};
use crate::launch::record::Release;
use crate::launch::shortage::{Shortage, shortage};
use crate::launch::world::World;
use crate::launch::{Plan, Proc, Step};
use crate::names::{Domain, NodeName, ReleaseNumber, StackName};
use crate::router::{BadDomain, BadDomains, StackRoutes, check_domains, check_table};

/// The verb of what the reconciler does.
pub const HEAL: &str = "heal";

/// The verb of what moves off a server that is drained.
pub const DRAIN: &str = "drain";

/// One operation, ready to be planned.
pub struct Job {
    /// Whose.
    pub stack: StackName,
    /// A word for people.
    pub verb: &'static str,
    /// What is to come about.
    pub instructions: Vec<Instruction>,
    /// The release it makes; `None` leaves the current one.
    pub release: Option<Release>,
    /// The branch it moves.
    pub branch: Option<BranchMove>,
    /// The version the variables get at the commit; `None` leaves them.
    pub env: Option<u64>,
    /// Nodes whose containers are all replaced.
    pub renew: BTreeSet<NodeName>,
    /// Nodes that are no more: they rest, and are not known any longer.
    pub ended: Vec<NodeName>,
    /// What is ordered of its routing from now on; `None` leaves it.
    pub front: Option<Front>,
    /// Whether something of its commit is still to come once the release is live.
    pub after: bool,
}

impl Job {
    /// One that brings these about, and changes nothing else.
    pub fn of(stack: &StackName, verb: &'static str, instructions: Vec<Instruction>) -> Self {
        Self {
            stack: stack.clone(),
            verb,
            instructions,
            release: None,
            branch: None,
            env: None,
            renew: BTreeSet::new(),
            ended: Vec::new(),
            front: None,
            after: false,
        }
    }

    /// Whether it gets what room there is and comes again for the rest, instead of waiting for all of it.
    pub fn takes_what_there_is(&self) -> bool {
        [HEAL, DRAIN].contains(&self.verb)
    }
}

/// A plan, and what it has been promised.
pub struct Planned {
    /// The plan.
    pub plan: Plan,
    /// What nobody else may have until its containers show it.
    pub claim: Claim,
}

/// How long the last part of an operation waits before it is tried again.
const AGAIN: Duration = Duration::from_secs(1);

impl Hq {
    /// The journal of a stack, opened once.
    ///
    /// # Errors
    /// When it is damaged.
    pub async fn book(&self, stack: &StackName) -> Result<Arc<Book>, DbError> {
        // A place of its own before it is read: what was read of a stack that goes meanwhile must not be kept as news.
        let place = self.books.lock().unwrap_or_else(PoisonError::into_inner).entry(stack.clone()).or_default().clone();
        let open = || async { Book::open(self.db.clone(), stack.clone()).await.map(Arc::new) };
        place.get_or_try_init(open).await.cloned()
    }

    /// Forgets the journal of a stack that is gone.
    pub fn forget_book(&self, stack: &StackName) {
        self.books.lock().unwrap_or_else(PoisonError::into_inner).remove(stack);
    }

    /// The releases that are kept, oldest first. A damaged one is left out with a warning: it must not take the others
    /// with it.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub async fn releases(&self, stack: &StackName) -> Result<Vec<Release>, DbError> {
        let entries = layout::all(&*self.db, &layout::releases_prefix(stack)).await?;
        let mut releases: Vec<Release> = entries
            .iter()
            .filter_map(|entry| match layout::parse_json(&*self.db, entry) {
                Ok(release) => Some(release),
                Err(error) => {
                    tracing::warn!(%stack, %error, "a release record is damaged");
                    None
                }
            })
            .collect();
        releases.sort_by_key(|release| release.number);
        Ok(releases)
    }

    /// What should run of a stack.
    ///
    /// # Errors
    /// When it cannot be read or is damaged.
    pub async fn procs(&self, stack: &StackName) -> Result<Vec<Proc>, DbError> {
        let entries = layout::all(&*self.db, &layout::proc_prefix(stack)).await?;
        entries.iter().map(|entry| layout::parse_json(&*self.db, entry)).collect()
    }

    /// The tables of all stacks. For one that is damaged stands what the router serves of that stack.
    ///
    /// # Errors
    /// When one is damaged and the router does not know it either: a domain's owner must be certain.
    pub async fn tables(&self) -> Result<Vec<StackRoutes>, DbError> {
        let entries = layout::all(&*self.db, layout::ROUTES).await?;
        let mut tables = Vec::new();
        for entry in &entries {
            let table = match layout::parse_json(&*self.db, entry) {
                Ok(table) => table,
                Err(error) => {
                    tracing::warn!(%error, "routes are damaged; what the router serves counts");
                    self.served_table(&entry.key).await.ok_or(error)?
                }
            };
            tables.push(table);
        }
        Ok(tables)
    }

    /// The tables of all stacks, of which this one is about to change its own: that one must be whole, because what a
    /// person broke is a person's to mend.
    pub(super) async fn tables_around(&self, stack: &StackName) -> Result<Vec<StackRoutes>, DbError> {
        layout::read_json::<StackRoutes>(&*self.db, &layout::routes(stack)).await?;
        self.tables().await
    }

    /// What the router serves of the stack whose table has this key.
    async fn served_table(&self, key: &Key) -> Option<StackRoutes> {
        let tables = self.launcher.edge.as_ref()?.tables().await.ok()?;
        tables.into_iter().find(|table| layout::routes(&table.stack) == *key)
    }

    /// Refuses when no HQ serves here.
    ///
    /// # Errors
    /// [`HqError::Asleep`].
    pub fn check_awake(&self) -> Result<(), HqError> {
        match self.awake {
            Awake::Yes => Ok(()),
            Awake::No => Err(HqError::Asleep),
        }
    }

    /// Plans an operation without touching anything.
    ///
    /// # Errors
    /// As [`plan`] and [`Hq::world`].
    pub async fn dry_run(&self, job: &Job) -> Result<Plan, HqError> {
        let (release, env_version) = self.numbers(job).await?;
        let mut world = self.world(&job.stack, release, env_version).await?;
        world.forget(&job.renew);
        world.front = job.front.clone().unwrap_or(world.front);
        self.note_architectures(&job.instructions, &mut world).await?;
        Ok(plan(&job.instructions, &world)?)
    }

    /// The release a job ends in and the version of variables its containers get.
    async fn numbers(&self, job: &Job) -> Result<(ReleaseNumber, u64), HqError> {
        match &job.release {
            Some(release) => Ok((release.number, release.env_version)),
            None => {
                let releases = self.releases(&job.stack).await?;
                let last = releases.last().ok_or_else(|| HqError::NeverDeployed(job.stack.clone()))?;
                Ok((last.number, last.env_version))
            }
        }
    }

    /// Brings an operation about. When it returns an error nothing has changed; when it returns the operation counts,
    /// whatever happens to HQ. The caller holds the stack's turn.
    ///
    /// # Errors
    /// Why it was refused; everything begun has been taken back.
    pub async fn operate(self: &Arc<Self>, mut job: Job, say: Say<'_>) -> Result<Plan, HqError> {
        self.check_awake()?;
        let _table = self.queue.table(&job.stack).await;
        self.settle_earlier(&job.stack).await?;
        if let Some(front) = &mut job.front {
            // The mode may have changed since the order was given.
            front.mode = self.front(&job.stack).await?.mode;
        }
        let book = self.book(&job.stack).await?;
        let Planned { plan, claim } = self.find_room(&job, say).await?;
        if job.takes_what_there_is() && !plan.does_something() {
            tracing::debug!(stack = %job.stack, notes = ?plan.notes, "what is missing waits");
            return Ok(plan);
        }
        for note in &plan.notes {
            say(&super::progress::detail(note));
        }
        let done = self.perform(&book, job, plan, say).await;
        claim.remove(&mut *self.planning.lock().await);
        done
    }

    /// One try to plan a job, and what has no room of it where the grid sizes itself. What the plan hands out is claimed
    /// before anybody else plans.
    ///
    /// # Errors
    /// When docker or the tree cannot be read; why there is no plan is part of the answer.
    pub(super) async fn try_plan(&self, job: &Job) -> Result<(Result<Planned, PlanError>, Shortage), HqError> {
        let (release, env_version) = self.numbers(job).await?;
        self.hand_out(&job.stack, &job.instructions).await?;
        let mut reserved = self.planning.lock().await;
        let mut world = self.gather(&job.stack, release, env_version, &reserved).await?;
        world.forget(&job.renew);
        world.front = job.front.clone().unwrap_or(world.front);
        world.waits = job.verb == HEAL;
        self.note_architectures(&job.instructions, &mut world).await?;
        let shortage = match self.sizing.limits() {
            Some(_) => shortage(&job.instructions, &world).unwrap_or_default(),
            None => Shortage::default(),
        };
        let planned = match plan(&job.instructions, &world) {
            Ok(mut plan) => {
                plan.end(&job.ended);
                self.check_tables(&plan, &world, &reserved).await?;
                let claim = Claim::of(&plan);
                claim.add(&mut reserved);
                Ok(Planned { plan, claim })
            }
            Err(error) => Err(error),
        };
        Ok((planned, shortage))
    }

    /// Refuses a plan whose table the router would refuse once it is too late: others may have got a domain since the
    /// commit was looked at, and orders and releases meet here only.
    async fn check_tables(&self, plan: &Plan, world: &World, reserved: &Reserved) -> Result<(), HqError> {
        let has = world.routes.iter().flat_map(|routes| routes.nodes.values()).flat_map(|node| &node.domains);
        let has: BTreeSet<&Domain> = has.collect();
        for table in plan.tables() {
            check_table(table)?;
            let new = || table.nodes.values().flat_map(|node| &node.domains).filter(|domain| !has.contains(domain));
            if new().next().is_none() {
                continue;
            }
            check_domains(&table.stack, new(), &self.settings.hostnames, &self.tables().await?)?;
            let promised = new().filter_map(|domain| {
                let owner = reserved.owner(domain).filter(|owner| **owner != table.stack)?;
                Some(BadDomain::Taken { domain: domain.clone(), owner: owner.clone() })
            });
            let promised: Vec<BadDomain> = promised.collect();
            if !promised.is_empty() {
                return Err(BadDomains(promised).into());
            }
        }
        Ok(())
    }

    async fn perform(self: &Arc<Self>, book: &Arc<Book>, job: Job, plan: Plan, say: Say<'_>) -> Result<Plan, HqError> {
        let operation = Operation {
            verb: job.verb.to_owned(),
            pinned: job.release.as_ref().map(|release| release.number),
            release: job.release,
            branch: job.branch,
            plan: plan.clone(),
            phase: Phase::Before(0),
            env_version: job.env,
            front: job.front,
            after: job.after,
        };
        book.write(|journal| journal.active = Some(operation)).await?;
        self.open_ways(&plan, say).await;
        let staged = match self.launcher.before_commit(book, say).await {
            Ok(()) => self.commit(book).await.map_err(HqError::from),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = staged {
            self.take_back(book, say).await;
            self.close_ways();
            return Err(error);
        }
        self.finish(book, say).await;
        self.close_ways();
        Ok(plan)
    }

    /// The instant from which the operation counts.
    async fn commit(&self, book: &Book) -> Result<(), DbError> {
        book.write_surely(|journal| {
            if let Some(active) = &mut journal.active {
                active.phase = Phase::Committed;
            }
        })
        .await
    }

    /// Takes an uncommitted operation back. What cannot be taken back now stays in the journal for the next start.
    pub async fn take_back(&self, book: &Book, say: Say<'_>) {
        if let Err(error) = self.launcher.take_back(book, say).await {
            tracing::error!(stack = %book.stack(), %error, "a failed launch could not be taken back; the next start tries again");
            return;
        }
        self.unpin(book).await;
        if let Err(error) = book.write(|journal| journal.active = None).await {
            tracing::error!(stack = %book.stack(), %error, "the journal cannot be cleared");
        }
    }

    /// Writes a committed operation's records, moves routes and branch, and begins to retire the old. Only forward:
    /// what fails is tried again until it succeeds.
    pub async fn finish(self: &Arc<Self>, book: &Arc<Book>, say: Say<'_>) {
        let mut told = false;
        while let Err(error) = self.settle(book).await {
            tracing::error!(stack = %book.stack(), error = ?error, "a committed operation cannot be finished yet");
            if !told {
                say(&format!("-----> The release counts, but HQ cannot finish it yet: {error}; trying on"));
                told = true;
            }
            tokio::time::sleep(AGAIN).await;
        }
        let (hq, book) = (self.clone(), book.clone());
        tokio::spawn(async move {
            // Should a server be lost from now on, it is known what was started there.
            let (_, ()) = tokio::join!(hq.survey(), hq.launcher.retire(&book));
            hq.collect(book.stack()).await;
        });
    }

    /// One try to write everything a committed operation means. Each part may be done twice.
    async fn settle(&self, book: &Book) -> Result<(), HqError> {
        let Some(active) = book.read().await.active else { return Ok(()) };
        let stack = book.stack();
        for step in &active.plan.route {
            // The router first: as long as it may serve the old table, nobody else may have that one's ports.
            self.launcher.perform(stack, step, &|_| {}).await?;
            if let Step::Route { table } = step {
                layout::put_json(&*self.db, &layout::routes(stack), table, Guard::Any).await?;
            }
        }
        self.agents.refresh().await;
        self.note_data(stack, active.plan.procs.values()).await?;
        for proc in active.plan.procs.values() {
            layout::put_json(&*self.db, &layout::proc(stack, &proc.node), proc, Guard::Any).await?;
        }
        for node in &active.plan.ended {
            self.db.delete(&layout::proc(stack, node), Guard::Any).await?;
        }
        if let Some(version) = active.env_version {
            let env = self.launcher.env_of(stack, version).await?;
            self.put_env(stack, &env).await?;
        }
        if let Some(front) = &active.front {
            layout::put_json(&*self.db, &layout::front(stack), front, Guard::Any).await?;
        }
        if let Some(release) = &active.release {
            layout::put_json(&*self.db, &layout::release(stack, release.number), release, Guard::Any).await?;
        }
        if let Some(branch) = &active.branch {
            self.move_branch(stack, branch).await?;
        }
        // With the journal goes the only other place that tells of them.
        self.note_networks(stack, &active.plan);
        book.write(|journal| {
            if let Some(done) = journal.active.take() {
                journal.retiring.extend(done.plan.retire);
                if let Some(release) = done.release {
                    journal.after = done.after.then_some(release.number);
                }
            }
        })
        .await?;
        Ok(())
    }
}
