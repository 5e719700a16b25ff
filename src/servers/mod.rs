//! The machines of the grid: how HQ reaches them, and how images get there.

pub mod registry;
pub mod ssh;
