//! One rental brought forward, as far as it goes; see [`act`].

pub mod act;

/// How far one came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// As far as it goes until something changes.
    Rests,
    /// It has to be looked at again in a moment.
    Waits,
    /// It was to leave, and stays.
    Stays,
}
