//! Stacks by name: made, listed, their repositories; see [`act`].

pub mod act;
