//! The SSH lines HQ has open: one a server.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::ssh::Line;
use crate::docker::EngineError;
use crate::names::ServerName;

/// The line of each server but HQ's own. Clones share one list.
#[derive(Clone, Debug, Default)]
pub struct Lines(Arc<RwLock<BTreeMap<ServerName, Arc<Line>>>>);

impl Lines {
    /// The line to a server.
    ///
    /// # Errors
    /// [`EngineError::NoServer`] when there is no such server.
    pub fn of(&self, server: &ServerName) -> Result<Arc<Line>, EngineError> {
        let lines = self.0.read().unwrap_or_else(PoisonError::into_inner);
        lines.get(server).cloned().ok_or_else(|| EngineError::NoServer { server: server.clone() })
    }

    /// One more line, or another one in place of a server's former one.
    pub fn add(&self, line: Arc<Line>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(line.server().clone(), line);
    }

    /// One line less; it ends with its last user.
    pub fn remove(&self, server: &ServerName) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(server);
    }
}
