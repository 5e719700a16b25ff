//! Watching: a stream of etcd's that is opened again wherever it breaks, and goes on where it stopped. Where etcd has
//! forgotten what happened in between, the difference of two lists says it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{EventType, WatchOptions, WatchResponse, WatchStream};
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::Home;
use super::members::{DEADLINE, plain};
use super::read::{Seen, entry};
use crate::db::{Change, DbError, Key};

/// Pause before a stream that broke is opened again.
const AGAIN: Duration = Duration::from_millis(200);
/// Changes that may wait for whoever watches.
const WAITING: usize = 256;
/// The longest message: many changes of long values in one revision.
const LONGEST: usize = 128_000_000;

struct Watch {
    home: Arc<Home>,
    prefix: String,
    /// What is there as far as has been told.
    known: BTreeMap<Key, Seen>,
    /// Everything up to here has been told.
    revision: i64,
    changes: mpsc::Sender<Change>,
}

/// Why a stream ended.
enum End {
    /// Nobody listens any more.
    Unheard,
    /// The connection broke.
    Broken(String),
    /// What comes next is forgotten.
    Compacted,
}

pub async fn watch(home: Arc<Home>, prefix: &str) -> Result<BoxStream<'static, Change>, DbError> {
    let (known, revision) = home.keys(prefix).await?;
    let (changes, heard) = mpsc::channel(WAITING);
    let watch = Watch { home, prefix: prefix.to_owned(), known, revision, changes };
    tokio::spawn(watch.run());
    Ok(stream::unfold(heard, async |mut heard| Some((heard.recv().await?, heard))).boxed())
}

impl Watch {
    async fn run(mut self) {
        let changes = self.changes.clone();
        tokio::select! {
            () = changes.closed() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(&mut self) {
        let mut told = false;
        loop {
            let ended = match self.open().await {
                Ok(mut stream) => {
                    told = false;
                    self.hear(&mut stream).await
                }
                Err(what) => End::Broken(what),
            };
            match ended {
                End::Unheard => return,
                End::Compacted => {
                    if self.catch_up().await.is_err() {
                        return;
                    }
                }
                End::Broken(what) => {
                    if !told {
                        tracing::warn!(prefix = self.prefix, what, "the watch of etcd broke; trying on");
                        told = true;
                    }
                    self.home.members.turn();
                    sleep(AGAIN).await;
                }
            }
        }
    }

    async fn open(&self) -> Result<WatchStream, String> {
        let range = self.home.space.below(&self.prefix);
        // From the prefix itself on; what lies between it and its folder is sorted out when it comes.
        let start = if self.prefix.is_empty() { range.start } else { self.home.space.name_of(&self.prefix).into() };
        let options = WatchOptions::new().with_range(range.end).with_start_revision(self.revision + 1).with_fragment();
        let opened = timeout(DEADLINE, async {
            let client = self.home.members.any().await?;
            client.watch_client().max_decoding_message_size(LONGEST).watch(start, Some(options)).await
        });
        match opened.await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(plain(&error)),
            Err(_) => Err(format!("no answer within {DEADLINE:?}")),
        }
    }

    async fn hear(&mut self, stream: &mut WatchStream) -> End {
        loop {
            match stream.message().await {
                Ok(Some(message)) if message.compact_revision() != 0 => return End::Compacted,
                Ok(Some(message)) if message.canceled() => return End::Broken(message.cancel_reason().to_owned()),
                Ok(Some(message)) => {
                    if self.tell(&message).await.is_err() {
                        return End::Unheard;
                    }
                }
                Ok(None) => return End::Broken("the stream ended".to_owned()),
                Err(error) => return End::Broken(plain(&error)),
            }
        }
    }

    async fn tell(&mut self, message: &WatchResponse) -> Result<(), Unheard> {
        for event in message.events() {
            let Some(found) = event.kv() else { continue };
            // A large revision comes in parts: it counts as told when an event of a later one comes.
            self.revision = self.revision.max(found.mod_revision() - 1);
            let Some(key) = self.home.space.key(found.key()).filter(|key| key.is_under(&self.prefix)) else { continue };
            let change = match event.event_type() {
                EventType::Put => {
                    let seen = Seen { revision: found.mod_revision(), leased: found.lease() != 0 };
                    self.known.insert(key.clone(), seen);
                    Change::Put(entry(key, found.clone()))
                }
                EventType::Delete => {
                    self.known.remove(&key);
                    Change::Deleted(key)
                }
            };
            self.changes.send(change).await.map_err(|_| Unheard)?;
        }
        Ok(())
    }

    /// Tells what has changed since, by comparing lists.
    async fn catch_up(&mut self) -> Result<(), Unheard> {
        let (now, revision) = loop {
            match self.home.keys(&self.prefix).await {
                Ok(found) => break found,
                Err(error) => {
                    tracing::warn!(prefix = self.prefix, %error, "a watch of etcd cannot catch up yet");
                    sleep(AGAIN).await;
                }
            }
        };
        let gone: Vec<Key> = self.known.keys().filter(|key| !now.contains_key(key)).cloned().collect();
        for key in gone {
            self.changes.send(Change::Deleted(key)).await.map_err(|_| Unheard)?;
        }
        for (key, seen) in &now {
            let same = self.known.get(key).is_some_and(|known| known.revision == seen.revision);
            if same {
                continue;
            }
            if let Some(entry) = self.read(key).await {
                self.changes.send(Change::Put(entry)).await.map_err(|_| Unheard)?;
            }
        }
        (self.known, self.revision) = (now, revision);
        Ok(())
    }

    /// The value of a key that was there just now; one that has gone since is told of by the stream that follows.
    async fn read(&self, key: &Key) -> Option<crate::db::Entry> {
        loop {
            match self.home.read(key).await {
                Ok(found) => return found,
                Err(error) => {
                    tracing::warn!(%key, %error, "a watch of etcd cannot catch up yet");
                    sleep(AGAIN).await;
                }
            }
        }
    }
}

struct Unheard;
