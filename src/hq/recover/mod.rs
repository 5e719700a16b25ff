//! What a killed HQ left, finished or undone; see [`act`].

pub mod act;
