//! The life of one HQ process: it may end at any instant, and then nothing of it goes on.

use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::watch;

/// One HQ's life. Whoever calls the world on behalf of a dead HQ waits for ever.
#[derive(Debug)]
pub struct Life {
    dead: watch::Sender<bool>,
    /// Instants left; more than it will ever see when nobody has set a fuse.
    fuse: AtomicU64,
    /// It does not reach the tree.
    cut_off: AtomicBool,
}

impl Life {
    pub fn new() -> Self {
        Self { dead: watch::Sender::new(false), fuse: AtomicU64::new(u64::MAX), cut_off: AtomicBool::new(false) }
    }

    /// It ends after so many more instants; 0: now.
    pub fn end_after(&self, instants: u64) {
        match instants {
            0 => self.end(),
            instants => self.fuse.store(instants, Ordering::SeqCst),
        }
    }

    pub fn end(&self) {
        self.dead.send_replace(true);
    }

    /// Nothing more happens to it.
    pub fn spare(&self) {
        self.fuse.store(u64::MAX, Ordering::SeqCst);
    }

    /// Whether it reaches the tree from now on.
    pub fn cut_off(&self, cut_off: bool) {
        self.cut_off.store(cut_off, Ordering::SeqCst);
    }

    pub fn is_cut_off(&self) -> bool {
        self.cut_off.load(Ordering::SeqCst)
    }

    pub fn is_over(&self) -> bool {
        *self.dead.borrow()
    }

    /// Waits for its end.
    pub async fn over(&self) {
        // The sender lives as long as `self`.
        let _ = self.dead.subscribe().wait_for(|dead| *dead).await;
    }

    /// Goes on only if it lives.
    pub async fn alive(&self) {
        if self.is_over() {
            pending::<()>().await;
        }
    }

    /// One more instant; false when it was the last one.
    pub fn tick(&self) -> bool {
        let last = self.fuse.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) == Ok(1);
        if last {
            self.end();
        }
        !self.is_over()
    }

    /// One more instant, in which it may end.
    pub async fn instant(&self) {
        self.tick();
        self.alive().await;
    }
}
