//! The machines of the grid: how HQ reaches them.

pub mod ssh;
