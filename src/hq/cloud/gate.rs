//! The seam between a machine that a cloud has made and a server of HQ's.

use std::sync::Arc;

use async_trait::async_trait;

use crate::hq::servers::Wanted;
use crate::hq::{Hq, HqError};

/// Lets machines in.
#[async_trait]
pub trait Gate: Send + Sync {
    /// Makes a machine a server of HQ's, or goes on with that. It may be asked for again at any time.
    async fn admit(&self, hq: &Arc<Hq>, wanted: Wanted) -> Result<(), HqError>;
}
