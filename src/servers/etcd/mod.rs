//! The etcd that HQ makes on its servers: [`circle`] speaks to it, [`process`] installs and starts its members there.

pub mod circle;
pub mod process;
pub mod script;
