//! Integration tests, one binary.

mod docker_contract;
