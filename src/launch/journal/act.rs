//! Keeping a stack's journal in the tree.

use std::sync::Arc;
use std::time::Duration;

use super::Journal;
use crate::db::{Db, DbError, Guard, layout};
use crate::names::StackName;

/// A stack's journal in the tree. The active operation and the retirement of old containers share it.
pub struct Book {
    db: Arc<dyn Db>,
    stack: StackName,
    journal: tokio::sync::Mutex<Journal>,
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
        Ok(Self { db, stack, journal: tokio::sync::Mutex::new(journal), retiring: tokio::sync::Mutex::default() })
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
        if journal.is_empty() {
            self.db.delete(&key, Guard::Any).await?;
        } else {
            layout::put_json(&*self.db, &key, &journal, Guard::Any).await?;
        }
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
        use std::sync::atomic::{AtomicU64, Ordering};
        static CALLS: AtomicU64 = AtomicU64::new(0);
        let call = CALLS.fetch_add(1, Ordering::SeqCst) + 1;
        if std::env::var("QUARRY_KILL_AT").is_ok_and(|at| at == call.to_string()) {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }
}
