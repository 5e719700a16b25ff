//! The embassy's post on this server: its address, its ports, and what the disk remembers of them.

pub mod act;
