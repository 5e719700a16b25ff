//! Who may reach a server: its peers everything, everybody else the open ports; and the files each server is given.
//!
//! The rules live in an nftables table of quarry's own, beside whatever docker and people keep with iptables, in either
//! of its forms. There, what one table lets through another may still refuse, and a refusal is final: ours only refuses.
//! So it needs no place in `INPUT` or `DOCKER-USER`, a dockerd that restarts or an `iptables -F` does not touch it, and
//! IPv4, IPv6 and ten thousand peers come and go with it as a whole. The other side of it: where a firewall of somebody
//! else refuses a peer, the peer stays refused.

pub mod act;
pub mod config;
pub mod files;
pub mod hosts;
pub mod ip;
pub mod nft;
pub mod policy;
pub mod rules;
pub mod sshd;
pub mod wall;

pub use crate::units::net::Net;
pub use act::Locknet;
pub use policy::{Containers, Link, Policy};
