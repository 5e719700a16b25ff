//! Writes events while they happen, and reads them again.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use jiff::civil::Date;
use tokio::sync::broadcast;

use super::files::Files;
use super::{Event, Outcome, merged};
use crate::hq::collect::Then;
use crate::hq::door::Caller;
use crate::hq::{Hq, HqError};
use crate::names::StackName;

/// How many events wait for a follower who does not read.
const BACKLOG: usize = 1000;

/// The record of events.
pub struct Trail {
    files: Arc<Files>,
    /// When this HQ began.
    since: u64,
    next: AtomicU64,
    told: broadcast::Sender<Event>,
}

impl Trail {
    /// The record below a folder.
    pub fn new(folder: PathBuf, now: Timestamp) -> Self {
        let since = u64::try_from(now.as_microsecond()).unwrap_or(0);
        let told = broadcast::Sender::new(BACKLOG);
        Self { files: Arc::new(Files::new(folder)), since, next: AtomicU64::new(since), told }
    }

    fn id(&self, now: Timestamp) -> u64 {
        let now = u64::try_from(now.as_microsecond()).unwrap_or(0);
        let later = |last: u64| Some(now.max(last + 1));
        self.next.fetch_update(Ordering::SeqCst, Ordering::SeqCst, later).map_or(now, |last| now.max(last + 1))
    }
}

impl Hq {
    /// Something that somebody begins; nothing is written yet.
    pub fn new_event(&self, caller: &Caller, stack: Option<StackName>, what: &str) -> Event {
        let now = self.clock.now();
        Event { stack, ..Event::begin(self.trail.id(now), now, caller, what) }
    }

    /// Writes what came of an event.
    pub async fn end_event(&self, event: Event, result: Outcome, why: Option<&str>) {
        self.write_event(event.end(self.clock.now(), result, why)).await;
    }

    /// Writes an event as it is. A disk that takes no more hinders nobody: what is done may make room.
    pub async fn write_event(&self, event: Event) {
        let (files, line) = (self.trail.files.clone(), event.clone());
        match tokio::task::spawn_blocking(move || files.add(&line)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, what = %event.what, "an event cannot be written"),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
        // Nobody may be listening.
        let _ = self.trail.told.send(event);
    }

    /// The last `count` events of those that are wanted, by their beginning.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn last_events(
        &self,
        count: usize,
        wanted: impl Fn(&Event) -> bool + Send + 'static,
    ) -> Result<Vec<Event>, HqError> {
        let files = self.trail.files.clone();
        let read = tokio::task::spawn_blocking(move || files.last(count, &wanted)).await;
        let events = read.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        let events = events.map_err(|source| HqError::Events { source })?;
        Ok(merged(events, self.trail.since, count))
    }

    /// The days before this one of which there are events; `then` says whether they go.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn old_events(&self, day: Date, then: Then) -> Result<Vec<Date>, HqError> {
        let files = self.trail.files.clone();
        let work = tokio::task::spawn_blocking(move || {
            let days = files.days_before(day)?;
            if then == Then::Take {
                days.iter().try_for_each(|day| files.forget(*day))?;
            }
            Ok(days)
        });
        let days = work.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        days.map_err(|source| HqError::Events { source })
    }

    /// Every event from now on.
    pub fn follow_events(&self) -> broadcast::Receiver<Event> {
        self.trail.told.subscribe()
    }
}
