//! Keeping a stack's journal in the tree.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Journal;
use crate::db::{Db, DbError, Guard, layout};
use crate::names::StackName;

/// A stack's journal in the tree. The active operation and the retirement of old containers share it.
pub struct Book {
    db: Arc<dyn Db>,
    stack: StackName,
    journal: tokio::sync::Mutex<Journal>,
    /// The tree may hold a version that does not count, because the answer to its write got lost.
    doubt: AtomicBool,
    /// Held by the one task that retires.
    pub(crate) retiring: tokio::sync::Mutex<()>,
}

impl Book {
    /// The journal as it was left.
    ///
    /// # Errors
    /// When it cannot be read or is damaged.
    pub async fn open(db: Arc<dyn Db>, stack: StackName) -> Result<Self, DbError> {
        let journal = layout::read_json(&*db, &layout::journal(&stack)).await?.unwrap_or_default();
        let (journal, retiring) = (tokio::sync::Mutex::new(journal), tokio::sync::Mutex::default());
        Ok(Self { db, stack, journal, doubt: AtomicBool::new(false), retiring })
    }

    /// Whose journal this is.
    pub fn stack(&self) -> &StackName {
        &self.stack
    }

    /// A copy of what it says now.
    pub async fn read(&self) -> Journal {
        self.journal.lock().await.clone()
    }

    /// Changes it, durable when this returns; an empty journal's file goes away. On an error nothing has changed.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn write(&self, change: impl FnOnce(&mut Journal)) -> Result<(), DbError> {
        let mut held = self.journal.lock().await;
        let mut journal = held.clone();
        change(&mut journal);
        crash_point();
        let key = layout::journal(&self.stack);
        let written = match journal.is_empty() {
            true => self.db.delete(&key, Guard::Any).await,
            false => layout::put_json(&*self.db, &key, &journal, Guard::Any).await,
        };
        if written.as_ref().is_err_and(DbError::is_unclear) {
            self.doubt.store(true, Ordering::SeqCst);
        }
        written?;
        self.doubt.store(false, Ordering::SeqCst);
        *held = journal;
        crash_point();
        Ok(())
    }
}

impl Book {
    /// As [`Book::write`], for the change that decides which way an operation goes: where the answer to it got lost, it
    /// is asked for until it comes. To go on in doubt would be to take back what the next HQ takes for committed.
    ///
    /// # Errors
    /// When it certainly was not written.
    pub async fn write_surely(&self, change: impl Fn(&mut Journal)) -> Result<(), DbError> {
        let mut doubt = false;
        loop {
            match self.write(&change).await {
                Err(error) if error.is_unclear() || (doubt && error.is_away()) => {
                    tracing::warn!(stack = %self.stack, %error, "it is unclear whether an operation counts; asking again");
                    doubt = true;
                    tokio::time::sleep(AGAIN).await;
                }
                other => return other,
            }
        }
    }

    /// Writes what counts once more where the answer to a write got lost, so that the next HQ finds it too.
    ///
    /// # Errors
    /// When it cannot be written yet.
    pub async fn dispel_doubt(&self) -> Result<(), DbError> {
        match self.doubt.load(Ordering::SeqCst) {
            true => self.write(|_| {}).await,
            false => Ok(()),
        }
    }

    /// Whether a task retires old containers at the moment.
    pub fn is_retiring(&self) -> bool {
        self.retiring.try_lock().is_err()
    }
}

/// Pause before the outcome of a write is asked for again.
const AGAIN: Duration = Duration::from_secs(1);

/// In debug builds, kills the process at the n-th call, n being in `QUARRY_KILL_AT`: the crash tests count through
/// every journal step with it.
fn crash_point() {
    #[cfg(debug_assertions)]
    {
        use std::sync::atomic::AtomicU64;
        static CALLS: AtomicU64 = AtomicU64::new(0);
        let call = CALLS.fetch_add(1, Ordering::SeqCst) + 1;
        if std::env::var("QUARRY_KILL_AT").is_ok_and(|at| at == call.to_string()) {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }
}
