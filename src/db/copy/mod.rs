//! From one home to another: which keys travel, and what can go wrong on the way.

use super::{DbError, Key, layout};

pub mod act;

/// What to do with a target that holds values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Refuse it.
    Empty,
    /// Remove them first.
    Replaced,
}

/// What was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// How many keys.
    pub keys: usize,
    /// The bytes of their values.
    pub bytes: usize,
    /// Keys that stayed because they go with a lease.
    pub left: usize,
}

/// Why a tree was not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// There is something already.
    #[error("the target holds values already, such as `{0}`; --replace removes them all first")]
    NotEmpty(Key),
    /// The source is what a copy left that was cut off.
    #[error("the source holds only a part, because a copy to it was cut off; copy from where the whole is")]
    Part,
    /// Somebody changed the source meanwhile.
    #[error("`{0}` was changed while it was copied; stop whatever writes, then copy again with --replace")]
    Moved(Key),
    /// The target does not hold what was written.
    #[error("`{0}` does not read back as it was written; copy again with --replace")]
    Differs(Key),
    /// A home failed.
    #[error("cannot {doing}")]
    Home {
        /// What was tried.
        doing: &'static str,
        /// Why.
        source: DbError,
    },
}

/// Whether a key belongs to the tree's content: who acts on a home is that home's own affair.
pub fn travels(key: &Key) -> bool {
    !key.is_under(layout::REIGN)
}
