//! Quarry: `git push quarry master` and the stack is live on a grid of your own servers.
//!
//! The folders are the nouns. A module imports only from layers below its own; `tests/it/tidy.rs` keeps it so:
//!
//! ```text
//! 7 cli   6 hq   5 launch   4 build   3 instruction   2 stack docker router
//! 1 env etc db grid buildpacks   0 names units clock
//! ```
//!
//! A push enters in [`hq`], becomes a [`stack::Stack`], is built, compiled to [`instruction::Instruction`]s and
//! performed by [`launch`].

pub mod build;
pub mod buildpacks;
pub mod cli;
pub mod clock;
pub mod db;
pub mod docker;
pub mod env;
pub mod etc;
pub mod grid;
pub mod hq;
pub mod instruction;
pub mod launch;
pub mod names;
pub mod router;
pub mod stack;
pub mod units;
