//! The machines of the grid: what is known of each, and how HQ reaches them.

pub mod facts;
pub mod lines;
pub mod process;
pub mod record;
pub mod ssh;
pub mod supply;

pub use lines::Lines;
pub use record::{Record, Way};
pub use supply::Supply;
