//! Quarry: `git push quarry master` and the stack is live on a grid of your own servers.
//!
//! The folders are the nouns. A module imports only from layers below its own; `tests/it/tidy.rs` keeps it so:
//!
//! ```text
//! 9 cli   8 api dock   7 hq   6 agent launch   5 build embassy network   4 certs instruction servers   3 stack docker router
//! 2 etc db front grid buildpacks seal   1 env   0 names units clock descriptors
//! ```
//!
//! A push enters in [`hq`], becomes a [`stack::Stack`], is built, compiled to [`instruction::Instruction`]s and
//! performed by [`launch`].

pub mod agent;
pub mod api;
pub mod build;
pub mod buildpacks;
pub mod certs;
pub mod cli;
pub mod clock;
pub mod db;
pub mod descriptors;
pub mod dock;
pub mod docker;
pub mod embassy;
pub mod env;
pub mod etc;
pub mod front;
pub mod grid;
pub mod hq;
pub mod instruction;
pub mod launch;
pub mod names;
pub mod network;
pub mod router;
pub mod seal;
pub mod servers;
pub mod stack;
pub mod units;
