//! Certificates, accounts and tries in the tree; see [`act`], the one place where keys are read and written.

pub mod act;
