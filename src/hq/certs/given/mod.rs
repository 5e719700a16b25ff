//! Certificates that come with a repository, by `ssl_cert` and `ssl_key` of a node; see [`act`].

use crate::certs::chain::Checked;
use crate::names::Domain;

pub mod act;

/// A certificate that was checked before its release is launched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// Whose: the domains that the node names.
    pub domains: Vec<Domain>,
    /// The certificate.
    pub checked: Checked,
}
