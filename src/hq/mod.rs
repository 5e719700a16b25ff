//! HQ: what comes in by SSH and by its unix socket, and git.

pub mod call;
pub mod door;
pub mod exec;
pub mod frames;
pub mod git;
pub mod guard;
pub(crate) mod guest;
pub mod hooks;
pub mod host_key;
pub mod keys;
pub(crate) mod lane;
pub mod push;
pub mod relay;
pub mod socket;
pub mod ssh;
pub mod tcp;
