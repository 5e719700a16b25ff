//! An edge in memory, with the same promises as nginx, that can be told to refuse.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::StackRoutes;
use super::domains::taken;
use super::edge::{Edge, EdgeError, Tally};
use super::tls::{TlsChange, TlsState};
use crate::front::Snippet;
use crate::names::StackName;

/// The edge.
#[derive(Debug, Default)]
pub struct FakeEdge {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    tables: BTreeMap<StackName, StackRoutes>,
    tls: TlsState,
    history: Vec<Change>,
    flights: BTreeMap<SocketAddr, u64>,
    tallies: Vec<Tally>,
    refusal: Option<String>,
    down: bool,
}

/// A change the edge took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A table was set.
    Set(StackRoutes),
    /// A stack was removed.
    Removed(StackName),
}

impl FakeEdge {
    /// An edge without routes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Every change taken, in order.
    pub fn history(&self) -> Vec<Change> {
        self.lock().history.clone()
    }

    /// Shows the tables, whether the edge answers or not.
    pub fn look<T>(&self, look: impl FnOnce(&BTreeMap<StackName, StackRoutes>) -> T) -> T {
        look(&self.lock().tables)
    }

    /// From now on every `set` is refused with these words; `None` ends that.
    pub fn refuse(&self, words: Option<&str>) {
        self.lock().refusal = words.map(str::to_owned);
    }

    /// From now on nothing answers.
    pub fn go_down(&self) {
        self.lock().down = true;
    }

    /// Answers again, with the tables it had.
    pub fn come_up(&self) {
        self.lock().down = false;
    }

    /// So many requests are under way at this address from now on.
    pub fn hold(&self, peer: SocketAddr, requests: u64) {
        self.lock().flights.insert(peer, requests);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn up(&self) -> Result<MutexGuard<'_, Inner>, EdgeError> {
        let inner = self.lock();
        if inner.down {
            return Err(EdgeError::Down { log: "nowhere".to_owned(), source: "the fake is down".into() });
        }
        Ok(inner)
    }
}

#[async_trait]
impl Edge for FakeEdge {
    async fn try_snippet(&self, _snippet: &Snippet) -> Result<(), EdgeError> {
        self.up().map(drop)
    }

    async fn set(&self, routes: &StackRoutes) -> Result<(), EdgeError> {
        let mut inner = self.up()?;
        let refused = |message| EdgeError::Refused { stack: routes.stack.clone(), message };
        if let Some(words) = &inner.refusal {
            return Err(refused(words.clone()));
        }
        let domains: Vec<_> = routes.nodes.values().flat_map(|node| &node.domains).collect();
        let mut seen = BTreeSet::new();
        if let Some(twice) = domains.iter().find(|domain| !seen.insert(**domain)) {
            return Err(refused(format!("the domain `{twice}` is in two nodes")));
        }
        let others: Vec<StackRoutes> = inner.tables.values().cloned().collect();
        if let Some(bad) = taken(&routes.stack, domains, &others).into_values().next() {
            return Err(refused(bad.to_string()));
        }
        inner.tables.insert(routes.stack.clone(), routes.clone());
        inner.history.push(Change::Set(routes.clone()));
        Ok(())
    }

    async fn remove(&self, stack: &StackName) -> Result<(), EdgeError> {
        let mut inner = self.up()?;
        inner.tables.remove(stack);
        inner.history.push(Change::Removed(stack.clone()));
        Ok(())
    }

    async fn tables(&self) -> Result<Vec<StackRoutes>, EdgeError> {
        Ok(self.up()?.tables.values().cloned().collect())
    }

    async fn secure(&self, change: &TlsChange) -> Result<(), EdgeError> {
        let mut inner = self.up()?;
        if let Some(message) = inner.refusal.clone() {
            return Err(EdgeError::Tls { message });
        }
        inner.tls.apply(change);
        Ok(())
    }

    async fn secured(&self) -> Result<TlsState, EdgeError> {
        Ok(self.up()?.tls.clone())
    }

    async fn in_flight(&self, peer: SocketAddr) -> Result<u64, EdgeError> {
        Ok(self.up()?.flights.get(&peer).copied().unwrap_or(0))
    }

    async fn tallies(&self) -> Result<Vec<Tally>, EdgeError> {
        Ok(self.up()?.tallies.clone())
    }
}
