//! Writes what an agent tells, and lets it go when the agent has been silent for as long as the lease lasts.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::pages;
use crate::agent::Vitals;
use crate::db::{Db, DbError, Guard, Key, Lease};
use crate::names::ServerName;

/// What has been written of one server, and until when it holds.
struct Desk {
    lease: Lease,
    renewed: Instant,
    written: BTreeMap<Key, Vec<u8>>,
}

/// Follows the vitals of a server until nobody tells any more; then all of it goes.
pub async fn write(db: &dyn Db, server: &ServerName, ttl: Duration, mut vitals: watch::Receiver<Option<Vitals>>) {
    let mut desk: Option<Desk> = None;
    while vitals.changed().await.is_ok() {
        let Some(told) = vitals.borrow_and_update().clone() else { continue };
        let pages = pages(server, &told);
        let mut kept = keep(db, desk.take(), ttl, pages.clone()).await;
        if let Err(DbError::LeaseEnded(_)) = kept {
            // It was silent for too long, and all that was written is gone.
            kept = keep(db, None, ttl, pages).await;
        }
        desk = kept.inspect_err(|error| tracing::debug!(%server, %error, "vitals cannot be written")).ok();
    }
    if let Some(desk) = desk
        && let Err(error) = db.revoke(&desk.lease).await
    {
        tracing::debug!(%server, %error, "what the agent told stays until its lease ends");
    }
}

async fn keep(db: &dyn Db, desk: Option<Desk>, ttl: Duration, pages: BTreeMap<Key, Vec<u8>>) -> Result<Desk, DbError> {
    let mut desk = match desk {
        Some(desk) => desk,
        None => Desk { lease: db.lease(ttl).await?, renewed: Instant::now(), written: BTreeMap::new() },
    };
    if desk.renewed.elapsed() >= ttl / 3 {
        db.renew(&desk.lease).await?;
        desk.renewed = Instant::now();
    }
    for key in desk.written.keys().filter(|key| !pages.contains_key(*key)) {
        db.delete(key, Guard::Any).await?;
    }
    for (key, page) in pages.iter().filter(|(key, page)| desk.written.get(*key) != Some(*page)) {
        db.put(key, page, Guard::Any, Some(&desk.lease)).await?;
    }
    desk.written = pages;
    Ok(desk)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::StreamExt;

    use super::*;
    use crate::agent::Agent;
    use crate::agent::fake::FakeAgent;
    use crate::db::fake::Fake;

    #[tokio::test(start_paused = true)]
    async fn what_a_silent_agent_told_goes_with_its_lease() {
        let (db, agent) = (Arc::new(Fake::new()), FakeAgent::new());
        let vitals = agent.vitals().await.unwrap().next().await.unwrap().unwrap();
        let (tell, told) = watch::channel(None);
        let ttl = Duration::from_secs(5);
        let writer = db.clone();
        let server: ServerName = "s1".parse().unwrap();
        let writing = tokio::spawn(async move { write(&*writer, &server, ttl, told).await });
        let key: Key = "servers/s1/vitals.json".parse().unwrap();
        for _ in 0..10 {
            tell.send_replace(Some(vitals.clone()));
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(db.read(&key).await.unwrap().is_some());
        }
        tokio::time::sleep(ttl + Duration::from_secs(3)).await;
        assert!(db.read(&key).await.unwrap().is_none());
        tell.send_replace(Some(vitals));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(db.read(&key).await.unwrap().is_some(), "it speaks again");
        drop(tell);
        writing.await.unwrap();
        assert!(db.read(&key).await.unwrap().is_none(), "nobody follows it any more");
    }
}
