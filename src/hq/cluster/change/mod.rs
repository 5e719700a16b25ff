//! The way from the members there are to those there are to be.

pub mod act;
