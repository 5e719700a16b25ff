//! A home whose writes can be made to wait, so that the tree can move while HQ has it open.

pub mod act;
