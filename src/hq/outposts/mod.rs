//! The HTTP api on every server: its port there, on the server's own loopback, leads over HQ's line to HQ; see [`act`].

pub mod act;
