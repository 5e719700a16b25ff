//! Wishes of one kind, carried out one after the other in the order of their turns.

use std::collections::VecDeque;

use super::config::{Turn, in_order};

/// One at a time; the others wait.
#[derive(Debug)]
pub struct Lane<T> {
    /// The latest that was heard, carried out or not.
    heard: Option<Turn>,
    is_busy: bool,
    waiting: VecDeque<T>,
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Self { heard: None, is_busy: false, waiting: VecDeque::new() }
    }
}

impl<T> Lane<T> {
    /// Takes a wish, and gives the one to begin with now, if none is under way.
    ///
    /// # Errors
    /// A newer one was heard before; its turn.
    pub fn take(&mut self, turn: Turn, wish: T) -> Result<Option<T>, Turn> {
        in_order(self.heard, turn)?;
        self.heard = Some(turn);
        self.waiting.push_back(wish);
        Ok(self.next())
    }

    /// The one under way is done; the one to go on with.
    pub fn done(&mut self) -> Option<T> {
        self.is_busy = false;
        self.next()
    }

    /// Those that a later one has overtaken while they waited are carried out all the same: each is somebody's answer.
    fn next(&mut self) -> Option<T> {
        if self.is_busy {
            return None;
        }
        let next = self.waiting.pop_front()?;
        self.is_busy = true;
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_goes_after_the_other_and_what_is_older_is_refused() {
        let turn = |generation| Turn { epoch: 1, generation };
        let mut lane = Lane::default();
        assert_eq!(lane.take(turn(1), "a"), Ok(Some("a")));
        assert_eq!(lane.take(turn(3), "b"), Ok(None));
        assert_eq!(lane.take(turn(2), "c"), Err(turn(3)));
        assert_eq!(lane.take(turn(3), "b again"), Ok(None));
        assert_eq!((lane.done(), lane.done(), lane.done()), (Some("b"), Some("b again"), None));
        assert_eq!(lane.take(turn(4), "d"), Ok(Some("d")));
    }
}
