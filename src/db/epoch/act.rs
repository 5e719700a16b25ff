//! Takes the epoch, keeps it, gives it back.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::{Claimant, EpochError, Holder, Latest, TTL, Throne, throne};
use crate::db::{Db, DbError, Guard, Lease, layout};

/// Pause between renewals: two may fail before the lease ends.
const RENEWAL: Duration = Duration::from_secs(TTL.as_secs() / 3);
/// Pause after a home did not answer.
const AGAIN: Duration = Duration::from_secs(1);

/// The right to act on a home. Dropping it keeps the others waiting until the lease ends; [`Reign::end`] does not.
pub struct Reign {
    kept: Option<Kept>,
}

/// On a home that is shared.
struct Kept {
    seat: Arc<Seat>,
    keeper: JoinHandle<EpochError>,
}

struct Seat {
    db: Arc<dyn Db>,
    claimant: Claimant,
    /// The lease under which it was written down last; none before.
    lease: Mutex<Option<Lease>>,
}

impl Reign {
    /// Takes the epoch of a home, from now on renews it and fences the home's writes with it. A home that is not shared
    /// has locked out everybody else when it was opened.
    ///
    /// # Errors
    /// [`EpochError::Held`] naming the HQ that acts, or why the home failed.
    pub async fn begin(db: Arc<dyn Db>, claimant: Claimant) -> Result<Self, EpochError> {
        if !db.is_shared() {
            return Ok(Self { kept: None });
        }
        let seat = Arc::new(Seat { db, claimant, lease: Mutex::default() });
        seat.take().await?;
        let keeper = tokio::spawn(keep(seat.clone()));
        Ok(Self { kept: Some(Kept { seat, keeper }) })
    }

    /// Waits until another HQ has taken over, if ever.
    pub async fn lost(&mut self) -> EpochError {
        let Some(kept) = &mut self.kept else { return std::future::pending().await };
        match (&mut kept.keeper).await {
            Ok(error) => error,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// Gives the epoch back, so that the next HQ need not wait. A home that does not answer lets it end by itself.
    pub async fn end(self) {
        let Some(kept) = self.kept else { return };
        kept.keeper.abort();
        if let Some(lease) = kept.seat.lease()
            && let Err(error) = kept.seat.db.revoke(&lease).await
        {
            tracing::warn!(%error, "the epoch could not be given back; the next HQ waits until it ends");
        }
    }
}

/// Renews the lease; ends when another HQ has acted.
async fn keep(seat: Arc<Seat>) -> EpochError {
    loop {
        sleep(RENEWAL).await;
        let mut told = false;
        while let Err(error) = seat.renew().await {
            match error {
                EpochError::Held(_) | EpochError::Overtaken => return error,
                EpochError::Home(error) if !told => {
                    tracing::warn!(%error, "the epoch cannot be renewed; trying on");
                    told = true;
                }
                EpochError::Home(_) => {}
            }
            sleep(AGAIN).await;
        }
        if told {
            tracing::info!("the epoch is renewed again");
        }
    }
}

impl Seat {
    fn lease(&self) -> Option<Lease> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn renew(&self) -> Result<(), EpochError> {
        let Some(lease) = self.lease() else { return self.take().await };
        match self.db.renew(&lease).await {
            Err(DbError::LeaseEnded(_)) => {
                self.take().await?;
                tracing::warn!("the epoch had ended and was taken anew; no other HQ has acted in between");
                Ok(())
            }
            other => Ok(other?),
        }
    }

    /// Takes the epoch, anew if it was held before: then nobody else may have had it since.
    async fn take(&self) -> Result<(), EpochError> {
        loop {
            let found: Option<Holder> = layout::read_json(&*self.db, &layout::epoch()).await?;
            let last = self.db.read(&layout::last_epoch()).await?;
            let latest = last.as_ref().map(|entry| layout::parse_json::<Latest>(&*self.db, entry)).transpose()?;
            let mine = latest.as_ref().is_some_and(|latest| latest.who == self.claimant);
            if self.lease().is_some() && !mine {
                return Err(EpochError::Overtaken);
            }
            match (throne(found.as_ref(), &self.claimant), found) {
                (Throne::Free, _) => {}
                (Throne::Predecessor, Some(holder)) => self.db.revoke(&Lease(holder.lease)).await?,
                (_, Some(holder)) => return Err(EpochError::Held(holder.who)),
                (Throne::Predecessor | Throne::Taken, None) => {}
            }
            let guard = last.map_or(Guard::Absent, |entry| Guard::Unchanged(entry.version));
            let number = latest.map_or(0, |latest| latest.number) + 1;
            let next = Latest { number, who: self.claimant.clone() };
            match layout::put_json(&*self.db, &layout::last_epoch(), &next, guard).await {
                // Another one came first: it may be the one to name now.
                Err(DbError::Changed { .. }) => continue,
                other => other?,
            }
            if self.sit_down(number).await? {
                return Ok(());
            }
        }
    }

    /// Writes the holder under a new lease; false when somebody else was quicker.
    async fn sit_down(&self, number: u64) -> Result<bool, EpochError> {
        let lease = self.db.lease(TTL).await?;
        let holder = Holder { number, who: self.claimant.clone(), lease: lease.0.clone() };
        let mut text = serde_json::to_vec_pretty(&holder).expect("a holder has string keys and serialises");
        text.push(b'\n');
        match self.db.put(&layout::epoch(), &text, Guard::Absent, Some(&lease)).await {
            Ok(version) => {
                self.db.fence(layout::epoch(), version);
                *self.lease.lock().unwrap_or_else(PoisonError::into_inner) = Some(lease);
                Ok(true)
            }
            Err(DbError::Changed { .. }) => {
                self.db.revoke(&lease).await?;
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use tokio::time::{advance, timeout};

    use super::*;
    use crate::db::Key;
    use crate::db::fake::Fake;

    fn claimant(host: &str) -> Claimant {
        Claimant { host: host.into(), pid: 12, since: Timestamp::UNIX_EPOCH, place: format!("{host} 8:1") }
    }

    async fn begin(db: &Arc<Fake>, host: &str) -> Result<Reign, EpochError> {
        Reign::begin(db.clone(), claimant(host)).await
    }

    async fn write(db: &Fake) -> Result<(), DbError> {
        let key: Key = "journal/a.json".parse().unwrap();
        db.put(&key, b"{}", Guard::Any, None).await.map(drop)
    }

    async fn number(db: &Fake) -> u64 {
        layout::read_json::<Holder>(db, &layout::epoch()).await.unwrap().unwrap().number
    }

    /// Lets tasks and timers run for as long.
    async fn pass(time: Duration) {
        let seconds = time.as_secs();
        for _ in 0..seconds {
            advance(Duration::from_secs(1)).await;
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_hq_is_refused_by_the_name_of_the_first() {
        let one = Arc::new(Fake::new());
        let other = Arc::new(one.beside());
        let _reign = begin(&one, "a").await.unwrap();
        pass(TTL * 3).await;
        write(&one).await.unwrap();
        match begin(&other, "b").await.map(drop) {
            Err(EpochError::Held(who)) => assert_eq!(who, claimant("a")),
            refused => panic!("expected a refusal, got {refused:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_given_back_or_dead_epoch_is_free_and_numbers_go_up() {
        let one = Arc::new(Fake::new());
        begin(&one, "a").await.unwrap().end().await;
        let other = Arc::new(one.beside());
        let reign = begin(&other, "b").await.unwrap();
        assert_eq!(number(&one).await, 2);
        // Its process dies: nobody renews.
        reign.kept.as_ref().unwrap().keeper.abort();
        pass(TTL + Duration::from_secs(1)).await;
        begin(&Arc::new(one.beside()), "c").await.unwrap();
        assert_eq!(number(&one).await, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_folder_on_the_same_boot_waits_for_nobody() {
        let one = Arc::new(Fake::new());
        let dead = begin(&one, "a").await.unwrap();
        dead.kept.as_ref().unwrap().keeper.abort();
        let next = Arc::new(one.beside());
        begin(&next, "a").await.unwrap();
        write(&next).await.unwrap();
        assert!(matches!(write(&one).await, Err(DbError::Fenced { .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn an_hq_that_was_cut_off_goes_on_when_nobody_else_acted() {
        let one = Arc::new(Fake::new());
        let mut reign = begin(&one, "a").await.unwrap();
        let lease = reign.kept.as_ref().unwrap().seat.lease().unwrap();
        one.revoke(&lease).await.unwrap();
        assert!(matches!(write(&one).await, Err(DbError::Fenced { .. })));
        pass(TTL).await;
        write(&one).await.unwrap();
        assert_eq!(number(&one).await, 2);
        assert!(timeout(Duration::from_millis(1), reign.lost()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_home_that_is_away_for_a_while_costs_nothing() {
        let one = Arc::new(Fake::new());
        let mut reign = begin(&one, "a").await.unwrap();
        one.set_away(true);
        pass(TTL * 2).await;
        one.set_away(false);
        pass(TTL).await;
        write(&one).await.unwrap();
        assert!(timeout(Duration::from_millis(1), reign.lost()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn an_hq_whose_epoch_another_one_had_stops_for_good() {
        let one = Arc::new(Fake::new());
        let mut reign = begin(&one, "a").await.unwrap();
        let lease = reign.kept.as_ref().unwrap().seat.lease().unwrap();
        one.revoke(&lease).await.unwrap();
        // The other one has come and gone before this one looks again.
        begin(&Arc::new(one.beside()), "b").await.unwrap().end().await;
        assert!(matches!(timeout(TTL, reign.lost()).await, Ok(EpochError::Overtaken)));
        assert!(matches!(write(&one).await, Err(DbError::Fenced { .. })));
    }
}
