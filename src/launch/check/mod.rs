//! How a new container shows that it came up.

use serde::{Deserialize, Serialize};

use crate::stack::Health;
use crate::units::Millis;

pub mod act;
pub mod http;

/// How a new container shows that it came up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Check {
    /// The node's own health check.
    Health(Health),
    /// It lives for [`SETTLE`], and its routed port takes connections within [`LISTEN`].
    Listens,
    /// It lives for [`SETTLE`].
    Settles,
}

/// A container without a health check must live this long.
pub const SETTLE: Millis = Millis::seconds(3);
/// A web container must listen within this.
pub const LISTEN: Millis = Millis::seconds(60);
/// A new service may take this long until its port takes connections; then the launch goes on without it.
pub const SERVICE_LISTEN: Millis = Millis::seconds(30);
