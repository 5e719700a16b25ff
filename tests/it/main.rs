//! Integration tests, one binary.

mod receiver;
mod repository;
