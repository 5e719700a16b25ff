//! Keeps the size of the grid: looks at what is wanted and what is spare, and brings every rental forward beside the
//! others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::outlook::{is_needless, outlook};
use super::rent::Progress;
use super::rental::{Rental, Stage, free_name};
use super::sized::Awaited;
use super::{Limits, Rents, SizingError};
use crate::db::{DbError, Guard, layout};
use crate::grid::{Asked, Grid};
use crate::hq::fleet::presence::Presence;
use crate::hq::{Hq, HqError};
use crate::names::ServerName;
use crate::servers::cloud::Token;

/// A grid that sizes itself is looked at this often, and four times while a server is idle.
const ROUND: Duration = Duration::from_secs(5);
/// And one that people size this often: a record may have been edited by hand.
const SELDOM: Duration = Duration::from_secs(60);
/// A machine that is on its way is looked at this often.
const AGAIN: Duration = Duration::from_secs(2);
/// And one whose server is lost this often.
const LOST: Duration = Duration::from_secs(30);

/// What is under way.
#[derive(Default)]
struct Chores {
    round: Option<Instant>,
    /// When a rental is brought forward next.
    due: BTreeMap<ServerName, Instant>,
    busy: BTreeSet<ServerName>,
    tasks: JoinSet<(ServerName, Result<Progress, Box<HqError>>)>,
    /// Since when something has been spare all the time.
    spare_since: Option<Instant>,
}

impl Hq {
    /// From now on machines come from there.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub async fn rent_from(&self, rents: Rents) -> Result<(), DbError> {
        // The first one counts; there is no second.
        let _ = self.sizing.rents.set(rents);
        match self.read_limits().await {
            Err(error @ DbError::Damaged { .. }) => tracing::error!(%error, "the grid does not size itself"),
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        Ok(())
    }

    /// Has the grid size itself within these limits, or not any more: then what was ordered is given up, and what serves
    /// stays until a person removes it.
    ///
    /// # Errors
    /// [`SizingError::NoCloud`], or when the tree cannot be written.
    pub async fn size_itself(&self, limits: Option<Limits>) -> Result<(), HqError> {
        self.check_awake()?;
        match &limits {
            Some(limits) => {
                self.sizing.rents()?;
                layout::put_json(&*self.db, &layout::autosize(), limits, Guard::Any).await?;
            }
            None => self.db.delete(&layout::autosize(), Guard::Any).await?,
        }
        self.sizing.state().limits = limits;
        self.sizing.look.notify_one();
        Ok(())
    }

    async fn read_limits(&self) -> Result<Option<Limits>, DbError> {
        let limits = match self.sizing.rents() {
            Ok(_) => layout::read_json::<Limits>(&*self.db, &layout::autosize()).await?,
            Err(SizingError::NoCloud | SizingError::Unsaid) => None,
            Err(SizingError::Bounds { .. } | SizingError::Spare(_) | SizingError::InUse { .. }) => None,
        };
        self.sizing.state().limits = limits.clone();
        Ok(limits)
    }

    /// Sizes the grid until the process ends; nothing where no cloud is known.
    pub async fn keep_size(self: Arc<Self>) {
        if self.sizing.rents().is_err() {
            return;
        }
        let mut chores = Chores::default();
        loop {
            tokio::select! {
                () = self.sizing.look.notified() => {}
                () = sleep_until(chores.next()) => {}
                Some(done) = chores.tasks.join_next() => match done {
                    Ok((server, progress)) => self.note_done(&mut chores, server, progress),
                    Err(panic) => std::panic::resume_unwind(panic.into_panic()),
                },
            }
            if let Err(error) = self.look_around(&mut chores).await {
                tracing::warn!(error = ?error, "the size of the grid cannot be seen to");
                chores.round = Some(Instant::now() + ROUND);
            }
        }
    }

    async fn look_around(self: &Arc<Self>, chores: &mut Chores) -> Result<(), HqError> {
        let limits = self.read_limits().await?;
        let rentals = self.rentals().await?;
        let round = match &limits {
            Some(limits) => ROUND.min(limits.idle.duration() / 4).max(Duration::from_millis(100)),
            None if !rentals.is_empty() => ROUND,
            None => SELDOM,
        };
        chores.round = Some(Instant::now() + round);
        let idle_orders = rentals.iter().filter(|(server, _)| !chores.busy.contains(*server));
        match &limits {
            None => {
                for (server, rental) in idle_orders.filter(|(_, rental)| rental.stage.is_coming()) {
                    self.note_rental(server, rental.clone(), Stage::Ending).await?;
                }
            }
            Some(limits) => self.resize(chores, limits, &rentals).await?,
        }
        let known = self.known_stacks().await?;
        self.sizing.state().wants.retain(|stack, _| known.contains(stack));
        let rentals = self.rentals().await?;
        // One that was forgotten has no appointments.
        chores.due.retain(|server, _| rentals.contains_key(server));
        for (server, rental) in rentals {
            if self.has_work(&server, &rental) {
                chores.begin(self, server);
            } else {
                chores.due.remove(&server);
            }
        }
        Ok(())
    }

    /// Orders what is missing and decides what goes.
    async fn resize(
        &self,
        chores: &mut Chores,
        limits: &Limits,
        rentals: &BTreeMap<ServerName, Rental>,
    ) -> Result<(), HqError> {
        let wants = self.sizing.wants();
        let awaited = if wants.is_empty() { Awaited::No } else { Awaited::Yes };
        let grid = self.sized_grid(limits, rentals, awaited).await?;
        let found = outlook(grid.clone(), &wants);
        let troubles = self.sizing.troubles();
        let hopeless = rentals.iter().find(|(server, rental)| {
            let asked = Asked { size: rental.size, tags: rental.tags.clone() };
            let failing = rental.stage == Stage::Ordered && troubles.contains_key(*server);
            failing && !chores.busy.contains(*server) && is_needless(grid.clone(), &wants, &asked)
        });
        if let Some((server, rental)) = hopeless {
            self.note_rental(server, rental.clone(), Stage::Ending).await?;
        }
        self.order(&grid, rentals, found.asks).await?;
        let leaves = rentals.values().any(|rental| rental.stage == Stage::Leaving);
        match found.spare.filter(|_| !leaves).and_then(|server| rentals.get_key_value(&server)) {
            Some((server, rental)) => {
                let since = *chores.spare_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= limits.idle.duration() && !chores.busy.contains(server) {
                    self.note_rental(server, rental.clone(), Stage::Leaving).await?;
                }
            }
            None if leaves => {}
            None => chores.spare_since = None,
        }
        Ok(())
    }

    async fn order(
        &self,
        grid: &Grid,
        rentals: &BTreeMap<ServerName, Rental>,
        asks: Vec<Asked>,
    ) -> Result<(), HqError> {
        if asks.is_empty() {
            return Ok(());
        }
        let mut taken: BTreeSet<ServerName> = rentals.keys().chain(grid.slices.keys()).cloned().collect();
        taken.extend(self.server_records().await?.into_keys());
        for Asked { size, tags } in asks {
            let (server, now) = (free_name(&taken), self.clock.now());
            let token = Token::new(&self.launcher.identity.id, &server, now.as_millisecond().unsigned_abs());
            let rental = Rental { token, size, tags, stage: Stage::Ordered, since: now, id: None };
            tracing::info!(%server, %size, "a machine is ordered");
            layout::put_json(&*self.db, &layout::rental(&server), &rental, Guard::Absent).await?;
            taken.insert(server);
        }
        Ok(())
    }

    /// Whether a rental has to be looked at.
    fn has_work(&self, server: &ServerName, rental: &Rental) -> bool {
        match rental.stage {
            Stage::Ordered | Stage::Made | Stage::Leaving | Stage::Ending | Stage::Ended => true,
            Stage::Serving => !self.members().contains_key(server) || self.presence(server) == Presence::Gone,
        }
    }

    fn note_done(&self, chores: &mut Chores, server: ServerName, progress: Result<Progress, Box<HqError>>) {
        chores.busy.remove(&server);
        let pause = match progress {
            Ok(Progress::Rests) => LOST,
            Ok(Progress::Waits) => AGAIN,
            Ok(Progress::Stays) => {
                chores.spare_since = None;
                AGAIN
            }
            Err(error) => {
                let why = chain(&*error);
                let pause = self.sizing.note_trouble(&server, why.clone(), Instant::now());
                tracing::warn!(%server, why, again_in = ?pause, "a rented machine does not come forward");
                pause
            }
        };
        chores.due.insert(server, Instant::now() + pause);
    }
}

impl Chores {
    /// The earliest appointment.
    fn next(&self) -> Instant {
        let round = self.round.unwrap_or_else(Instant::now);
        let due = self.due.iter().filter(|(server, _)| !self.busy.contains(*server)).map(|(_, at)| *at);
        due.chain([round]).min().unwrap_or(round)
    }

    /// Brings a rental forward, unless that is under way or was not long ago.
    fn begin(&mut self, hq: &Arc<Hq>, server: ServerName) {
        let is_due = self.due.get(&server).is_none_or(|at| *at <= Instant::now());
        if !is_due || !self.busy.insert(server.clone()) {
            return;
        }
        self.due.remove(&server);
        let hq = hq.clone();
        self.tasks.spawn(async move {
            let progress = hq.bring_forward(&server).await.map_err(Box::new);
            (server, progress)
        });
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
