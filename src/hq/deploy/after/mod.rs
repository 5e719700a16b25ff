//! What runs once a release is live; see [`act`].

pub mod act;
