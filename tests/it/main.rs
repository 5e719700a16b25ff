//! Integration tests, one binary.

// Helpers of tests are tests too: clippy's own exception stops at `#[test]` functions.
#![allow(clippy::unwrap_used)]

mod agent;
mod build;
mod certs;
mod cloud;
mod crash;
mod db_contract;
mod db_etcd;
mod db_files;
mod docker_contract;
mod e2e;
mod embassy;
mod harness;
mod hostile;
mod install;
mod lab;
mod network;
mod receiver;
mod registry;
mod repository;
mod router;
mod stack_golden;
mod tasks;
mod tidy;
mod ways;
mod world;
