//! A command that runs for a request.

pub mod act;
