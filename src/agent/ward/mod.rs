//! What an agent keeps in order on its server.

pub mod act;
