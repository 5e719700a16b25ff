//! Changes of a stack that need no push: scale, restart, rollback, variables, destroy; see [`act`].

pub mod act;
