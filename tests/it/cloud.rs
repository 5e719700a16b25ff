//! Clouds, and a grid that sizes itself with one: HQ with fakes in one process, in time of the test's own.

pub mod contract;
mod land;
mod promises;
