//! Changes of a stack that need no push: scale, restart, rollback, variables; see [`act`].

pub mod act;
