//! A whole HQ for a test: `quarry serve` with a root of its own, real git, ssh and curl before it, real docker and nginx
//! behind it. Whatever it makes goes when the test ends, also when it fails; what a killed test left behind goes when the
//! next one takes its slot.

pub mod authority;
pub mod client;
pub mod docker;
pub mod etcd;
pub mod hq;
pub mod lab;
pub mod pebble;
pub mod person;
pub mod program;
pub mod registry;
pub mod repository;
pub mod slot;
pub mod terminal;
pub mod wait;
pub mod web;
pub mod wire;
pub mod wrk;

pub use hq::Hq;
pub use program::Running;
pub use repository::Repository;
pub use terminal::Terminal;
pub use wait::until;

/// The key of all variables of every HQ that lives in a test's own process, also of those that come after it.
pub fn seal() -> std::sync::Arc<quarry::seal::Seal> {
    static SEAL: std::sync::LazyLock<std::sync::Arc<quarry::seal::Seal>> =
        std::sync::LazyLock::new(|| std::sync::Arc::new(quarry::seal::Seal::fresh()));
    SEAL.clone()
}
