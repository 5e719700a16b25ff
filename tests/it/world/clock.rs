//! The time of day of a world: it goes on with the test's own time, and jumps.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};
use quarry::clock;
use tokio::time::Instant;

pub struct Clock {
    began: Instant,
    jumped: AtomicI64,
}

impl Clock {
    pub fn new() -> Self {
        Self { began: Instant::now(), jumped: AtomicI64::new(1_000_000_000) }
    }

    pub fn jump(&self, seconds: i64) {
        self.jumped.fetch_add(seconds, Ordering::SeqCst);
    }
}

impl clock::Clock for Clock {
    fn now(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.began.elapsed()).unwrap();
        Timestamp::UNIX_EPOCH + passed + SignedDuration::from_secs(self.jumped.load(Ordering::SeqCst))
    }
}
