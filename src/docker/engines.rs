//! The engines HQ drives: one a server.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::{Engine, EngineError};
use crate::names::ServerName;

/// The docker of each server, by the server's name. Clones share one list.
#[derive(Clone)]
pub struct Engines {
    here: ServerName,
    local: Arc<dyn Engine>,
    others: Arc<RwLock<BTreeMap<ServerName, Arc<dyn Engine>>>>,
}

impl Engines {
    /// Only the engine of the server `here`, on which images are built.
    pub fn new(here: ServerName, local: Arc<dyn Engine>) -> Self {
        Self { here, local, others: Arc::default() }
    }

    /// The server HQ itself is on.
    pub fn here(&self) -> &ServerName {
        &self.here
    }

    /// Its engine.
    pub fn local(&self) -> &dyn Engine {
        &*self.local
    }

    /// Its engine, for those who outlive the list.
    pub fn shared(&self) -> Arc<dyn Engine> {
        self.local.clone()
    }

    /// The engine of a server.
    ///
    /// # Errors
    /// [`EngineError::NoServer`] when there is no such server.
    pub fn of(&self, server: &ServerName) -> Result<Arc<dyn Engine>, EngineError> {
        if *server == self.here {
            return Ok(self.local.clone());
        }
        let others = self.others.read().unwrap_or_else(PoisonError::into_inner);
        others.get(server).cloned().ok_or_else(|| EngineError::NoServer { server: server.clone() })
    }

    /// Every server with its engine, HQ's own first.
    pub fn all(&self) -> Vec<(ServerName, Arc<dyn Engine>)> {
        let others = self.others.read().unwrap_or_else(PoisonError::into_inner);
        let own = (self.here.clone(), self.local.clone());
        std::iter::once(own).chain(others.iter().map(|(name, engine)| (name.clone(), engine.clone()))).collect()
    }

    /// One more server, or another way to one that is known.
    pub fn add(&self, server: ServerName, engine: Arc<dyn Engine>) {
        self.others.write().unwrap_or_else(PoisonError::into_inner).insert(server, engine);
    }

    /// One server less; gone is success.
    pub fn remove(&self, server: &ServerName) {
        self.others.write().unwrap_or_else(PoisonError::into_inner).remove(server);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::fake::Fake;

    #[test]
    fn a_server_that_was_added_is_found_and_one_that_was_removed_is_named() {
        let (hq, db): (ServerName, ServerName) = ("hq".parse().unwrap(), "db1".parse().unwrap());
        let engines = Engines::new(hq.clone(), Arc::new(Fake::new()));
        engines.clone().add(db.clone(), Arc::new(Fake::new()));
        let names: Vec<ServerName> = engines.all().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, [hq.clone(), db.clone()]);
        assert!(engines.of(&hq).is_ok() && engines.of(&db).is_ok());
        engines.remove(&db);
        let gone = engines.of(&db).err().unwrap().to_string();
        assert!(gone.contains("`db1`") && gone.contains("servers list"), "{gone}");
    }
}
