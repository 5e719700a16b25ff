//! Images that are gone are built again, see [`act`].

pub mod act;
