//! The machines of the grid: what is known of each, how HQ reaches them, and how images get there.

pub mod authority;
pub mod cloud;
pub mod etcd;
pub mod facts;
pub mod lines;
pub mod member;
pub mod process;
pub mod record;
pub mod registry;
pub mod ssh;
pub mod supply;

pub use lines::Lines;
pub use record::{Record, Way};
pub use supply::Supply;
