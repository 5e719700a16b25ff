//! One at a time for each thing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

/// A lock for each name that somebody holds or waits for.
#[derive(Default)]
pub(super) struct Turns(Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// Waits until nobody else has this name.
    pub(super) async fn take(&self, name: String) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            locks.entry(name).or_default().clone()
        };
        lock.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_name_is_taken_once_and_another_at_the_same_time() {
        let turns = Turns::default();
        let soon = Duration::from_secs(1);
        let first = turns.take("a".to_owned()).await;
        let _other = timeout(soon, turns.take("b".to_owned())).await.unwrap();
        assert!(timeout(soon, turns.take("a".to_owned())).await.is_err());
        drop(first);
        timeout(soon, turns.take("a".to_owned())).await.unwrap();
    }
}
