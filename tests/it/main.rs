//! Integration tests, one binary.

// Helpers of tests are tests too: clippy's own exception stops at `#[test]` functions.
#![allow(clippy::unwrap_used)]

mod build;
mod db_contract;
mod db_files;
mod docker_contract;
mod receiver;
mod router;
mod stack_golden;
mod tidy;
