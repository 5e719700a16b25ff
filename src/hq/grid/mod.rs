//! The grid's picture, rebuilt from what runs; see [`act`].

pub mod act;
