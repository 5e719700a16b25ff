//! Whether a thread waits for its turns on a processor, or pushes aside whoever runs there.
//!
//! Who sends something to the embassy waits for the answer next, and so is about to leave the processor on which the
//! thread is woken. A thread that waits these few microseconds gets that processor for itself, with what was sent still
//! in its cache. One that pushes its waker aside makes somebody move to another processor, which has to be woken for it:
//! over kept connections that doubles what one request in ten takes.
//!
//! Where others keep the processors busy, however, who waits waits for the end of their slices, milliseconds each. The
//! kernel counts how long a thread has waited. One that waits too long for its turns pushes for a second, and twice as
//! long each time it finds soon that waiting still does not do, up to a minute; half as long when it did for a while.

use super::state::Moment;

/// What turns may be waited for on average, in nanoseconds: more than a processor takes to wake, less than a slice.
const FAIR: u64 = 100_000;
/// What is saved up for a long one at most: so many fair ones.
const SAVED: u64 = 64 * FAIR;
/// What a thread has saved that begins to wait: where processors are busy, the first slice is too long.
const AT_FIRST: u64 = 8 * FAIR;
/// Waiting did for a while when it did for so many turns.
const A_WHILE: u64 = 1000;
/// How long a thread pushes the first time, in milliseconds,
const SHORTEST: Moment = 1000;
/// and at most.
const LONGEST: Moment = 64_000;

/// What a thread does when it is woken where somebody else runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// It runs when that one has left the processor, or used up its slice.
    Waits {
        /// The turns that were counted when it began to.
        since: u64,
    },
    /// It runs at once.
    Pushes {
        /// When it tries again to wait.
        until: Moment,
    },
}

/// What the kernel has counted of a thread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// How long it could have run and did not, in nanoseconds.
    pub waited: u64,
    /// How often it came to run.
    pub turns: u64,
}

impl Count {
    /// The kernel's text, as its documentation of scheduler statistics has it: nanoseconds it ran, nanoseconds it waited,
    /// turns. `None` for another text, and where the kernel does not count: a thread that reads has had a turn.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split_ascii_whitespace().skip(1).map(|word| word.parse().ok());
        let (waited, turns) = (numbers.next()??, numbers.next()??);
        (turns > 0).then_some(Self { waited, turns })
    }
}

/// Which manner is right.
#[derive(Debug)]
pub struct Patience {
    manner: Manner,
    seen: Count,
    /// What may be waited before it was too long, in nanoseconds.
    saved: u64,
    /// How long it pushed the last time.
    pause: Moment,
}

impl Default for Patience {
    /// Has been pushing until now.
    fn default() -> Self {
        Self { manner: Manner::Pushes { until: 0 }, seen: Count::default(), saved: 0, pause: 0 }
    }
}

impl Patience {
    /// The manner from now on, when this is counted.
    pub fn judge(&mut self, now: Moment, count: Count) -> Manner {
        match self.manner {
            Manner::Pushes { until } if now < until => {}
            Manner::Pushes { .. } => {
                self.saved = AT_FIRST;
                self.manner = Manner::Waits { since: count.turns };
            }
            Manner::Waits { since } => {
                let turns = count.turns.saturating_sub(self.seen.turns);
                let fair = self.saved.saturating_add(turns.saturating_mul(FAIR));
                match fair.checked_sub(count.waited.saturating_sub(self.seen.waited)) {
                    Some(left) => self.saved = left.min(SAVED),
                    None => {
                        let did_for_a_while = count.turns.saturating_sub(since) >= A_WHILE;
                        let pause = if did_for_a_while { self.pause / 2 } else { self.pause * 2 };
                        self.pause = pause.clamp(SHORTEST, LONGEST);
                        self.manner = Manner::Pushes { until: now + self.pause };
                    }
                }
            }
        }
        self.seen = count;
        self.manner
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thread that takes turns.
    #[derive(Default)]
    struct Thread {
        patience: Patience,
        now: Moment,
        count: Count,
    }

    impl Thread {
        fn waiting() -> Self {
            let mut thread = Self::default();
            assert_eq!(thread.takes(1, 5000), Manner::Waits { since: 1 });
            thread
        }

        /// So many turns in a millisecond, each of which was waited for so long, in microseconds.
        fn takes(&mut self, turns: u64, waiting: u64) -> Manner {
            self.now += 1;
            self.count.turns += turns;
            self.count.waited += turns * waiting * 1000;
            self.patience.judge(self.now, self.count)
        }

        /// With a turn in each, the milliseconds that it goes on as it does.
        fn stays(&mut self, waiting: u64) -> Moment {
            let (began, before) = (self.now, self.patience.manner);
            while self.takes(1, waiting) == before {
                assert!(self.now - began < 1_000_000, "{before:?} for ever");
            }
            self.now - began
        }
    }

    #[test]
    fn the_kernels_text_is_read() {
        let check = |text, expected: Option<(u64, u64)>| {
            let count = Count::parse(text).map(|count| (count.waited, count.turns));
            assert_eq!(count, expected, "{text:?}");
        };
        check("12 34 56\n", Some((34, 56)));
        check("12 0 1", Some((0, 1)));
        check("", None);
        check("1 2\n", None);
        check("1 two 3\n", None);
        check("0 0 0\n", None);
    }

    #[test]
    fn who_gets_turns_soon_waits_for_them() {
        let mut thread = Thread::waiting();
        for _ in 0..10_000 {
            assert_eq!(thread.takes(10, 100), Manner::Waits { since: 1 });
        }
        // As one that took long and had many.
        assert_eq!(thread.takes(10_000, 100), Manner::Waits { since: 1 });
    }

    #[test]
    fn a_single_long_one_is_bad_luck() {
        let mut thread = Thread::waiting();
        for _ in 0..100 {
            for _ in 0..70 {
                assert_eq!(thread.takes(1, 5), Manner::Waits { since: 1 });
            }
            assert_eq!(thread.takes(1, 6400), Manner::Waits { since: 1 });
        }
        assert_eq!(thread.takes(1, 6400), Manner::Pushes { until: thread.now + SHORTEST });
    }

    #[test]
    fn who_waits_for_others_slices_pushes_longer_each_time() {
        let mut thread = Thread::waiting();
        for pause in [1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 64_000] {
            assert_eq!(thread.stays(3000), 1, "a slice is too long");
            // What is waited while it pushes, nobody holds against it.
            assert_eq!(thread.stays(3000), pause);
        }
        // The processors were free for a while.
        for pause in [32_000, 16_000, 8000, 4000, 2000, 1000, 1000] {
            (0..1000).for_each(|_| assert!(matches!(thread.takes(1, 5), Manner::Waits { .. })));
            assert!(matches!(thread.takes(1, 6000), Manner::Waits { .. }), "bad luck");
            assert!(matches!(thread.takes(1, 6000), Manner::Pushes { .. }));
            assert_eq!(thread.stays(3000), pause);
        }
    }

    #[test]
    fn who_has_few_turns_learns_as_well() {
        let mut thread = Thread::waiting();
        let mut seldom = || {
            thread.now += 10_000;
            thread.takes(2, 3000)
        };
        let waits = (0..700).filter(|_| matches!(seldom(), Manner::Waits { .. })).count();
        assert!(waits < 100, "it waits for a slice {waits} times of 700");
    }
}
