//! How long to wait before the next attempt.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(200);

/// A server that is back is noticed within about this time.
const LONGEST: Duration = Duration::from_secs(5);

/// A connection that lived for this long was a good one.
const GOOD: Duration = Duration::from_secs(10);

/// Waits that double.
#[derive(Debug)]
pub(super) struct Backoff(Duration);

impl Backoff {
    pub(super) fn new() -> Self {
        Self(FIRST)
    }

    /// The wait after an attempt whose connection lived for `lived`. `chance` (0 to 1) takes up to half of it away, so
    /// that many servers behind one cable do not come back at the same instant.
    pub(super) fn next(&mut self, lived: Duration, chance: f64) -> Duration {
        if lived >= GOOD {
            self.0 = FIRST;
        }
        let wait = self.0.mul_f64(1.0 - chance.clamp(0.0, 1.0) / 2.0);
        self.0 = (self.0 * 2).min(LONGEST);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_their_limit_and_begin_anew_after_a_good_connection() {
        let mut backoff = Backoff::new();
        let mut waits = |lived, count| (0..count).map(|_| backoff.next(lived, 0.0).as_millis()).collect::<Vec<_>>();
        assert_eq!(waits(Duration::ZERO, 7), [200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(waits(GOOD, 1), [200]);
        assert_eq!(waits(Duration::ZERO, 1), [400]);
    }

    #[test]
    fn chance_takes_at_most_half() {
        for (chance, expected) in [(0.0, 200), (0.5, 150), (1.0, 100), (7.0, 100)] {
            assert_eq!(Backoff::new().next(Duration::ZERO, chance).as_millis(), expected, "{chance}");
        }
    }
}
