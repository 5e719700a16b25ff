//! Integration tests, one binary.

mod receiver;
