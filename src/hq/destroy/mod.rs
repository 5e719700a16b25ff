//! The end of a stack; see [`act`].

pub mod act;
