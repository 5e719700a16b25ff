//! Waiting for something to become true.

use std::time::{Duration, Instant};

/// How long anything may take on a machine whose two cores build images for another test.
pub const PATIENCE: Duration = Duration::from_secs(150);

/// Polls until there is a value.
pub fn until<T>(what: &str, value: impl FnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, value)
}

/// The same for something that takes longer.
pub fn until_within<T>(patience: Duration, what: &str, mut value: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = value() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
