//! Integration tests, one binary.

mod build;
mod docker_contract;
