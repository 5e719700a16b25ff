//! Following one agent; see [`act`].

pub mod act;
