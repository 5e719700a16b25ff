//! A stack's variables, see [`act`].

pub mod act;
