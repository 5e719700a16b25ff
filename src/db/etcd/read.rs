//! Reading: single keys, pages of a range, names.

use std::collections::{BTreeMap, BTreeSet};

use etcd_client::{GetOptions, KeyValue};

use super::Home;
use super::members::{NoAnswer, Why};
use super::space::Range;
use crate::db::{DbError, Entry, Key, Version, paths};

/// Values per request: with the longest ones an answer has 100 MB.
const PAGE: usize = 100;
/// Keys without values per request.
const KEYS_PAGE: usize = 500;
/// The longest answer that is taken: a page of the longest values and something for their keys.
const LONGEST: usize = (PAGE + 1) * 1_100_000;

/// One answer about a range.
pub struct Page {
    /// In order, at most as many as were asked for.
    pub found: Vec<KeyValue>,
    /// Whether there are further ones.
    pub more: bool,
    /// The revision of the whole store it was read at.
    pub revision: i64,
}

pub fn entry(key: Key, found: KeyValue) -> Entry {
    let version = Version(found.mod_revision().to_string());
    Entry { key, version, value: found.into_key_value().1 }
}

impl Home {
    /// The value of one key as etcd has it.
    pub async fn get(&self, name: &str, options: GetOptions) -> Result<Page, NoAnswer> {
        let answer = self.members.ask(|client| {
            let (name, options) = (name.to_owned(), options.clone());
            async move { client.kv_client().max_decoding_message_size(LONGEST).get(name, Some(options)).await }
        });
        let mut value = answer.await?.value;
        let revision = value.header().map_or(0, |header| header.revision());
        Ok(Page { more: value.more(), revision, found: value.take_kvs() })
    }

    /// The first keys of a range.
    async fn page(&self, range: &Range, limit: usize, options: GetOptions) -> Result<Page, NoAnswer> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let options = options.with_range(range.end.clone()).with_limit(limit);
        let answer = self.members.ask(|client| {
            let (start, options) = (range.start.clone(), options.clone());
            async move { client.kv_client().max_decoding_message_size(LONGEST).get(start, Some(options)).await }
        });
        let mut value = answer.await?.value;
        let revision = value.header().map_or(0, |header| header.revision());
        Ok(Page { more: value.more(), revision, found: value.take_kvs() })
    }

    pub async fn read(&self, key: &Key) -> Result<Option<Entry>, DbError> {
        let page = self.get(&self.space.name(key), GetOptions::new()).await;
        let found = page.map_err(|no| self.members.read_error(no))?.found.pop();
        Ok(found.map(|found| entry(key.clone(), found)))
    }

    pub async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Entry>, DbError> {
        let mut entries = Vec::new();
        if let Ok(own) = prefix.parse::<Key>()
            && paths::is_key(&own)
            && after.is_none_or(|after| *after < own)
            && limit > 0
        {
            entries.extend(self.read(&own).await?);
        }
        let mut range = self.space.below(prefix);
        if let Some(after) = after {
            range = range.after(self.space.name(after).as_bytes());
        }
        while entries.len() < limit && !range.is_empty() {
            let page = self.page(&range, PAGE.min(limit - entries.len()), GetOptions::new()).await;
            let page = page.map_err(|no| self.members.read_error(no))?;
            let Some(last) = page.found.last() else { break };
            range = range.after(last.key());
            let kept = page.found.into_iter().filter_map(|found| Some(entry(self.space.key(found.key())?, found)));
            entries.extend(kept);
            if !page.more {
                break;
            }
        }
        Ok(entries)
    }

    /// The names below `prefix`. From the first key of a folder on, what is deeper in it is jumped over.
    pub async fn names(&self, prefix: &str) -> Result<Vec<String>, DbError> {
        let mut names = BTreeSet::new();
        let mut range = self.space.below(prefix);
        let depth = if prefix.is_empty() { 0 } else { prefix.split('/').count() };
        while !range.is_empty() {
            let page = self.page(&range, KEYS_PAGE, GetOptions::new().with_keys_only()).await;
            let page = page.map_err(|no| self.members.read_error(no))?;
            let Some(last) = page.found.last() else { break };
            range = range.after(last.key());
            for key in page.found.iter().filter_map(|found| self.space.key(found.key())) {
                names.extend(key.segments().nth(depth).map(str::to_owned));
                if key.segments().count() > depth + 1 {
                    let folder = key.segments().take(depth + 1).collect::<Vec<_>>().join("/");
                    range.start = range.start.max(self.space.below(&folder).end);
                }
            }
            if !page.more {
                break;
            }
        }
        Ok(names.into_iter().collect())
    }

    /// Every key of the tree that is under a lease.
    pub async fn leased(&self) -> Result<BTreeSet<Key>, DbError> {
        let (keys, _) = self.keys("").await?;
        Ok(keys.into_iter().filter(|(_, seen)| seen.leased).map(|(key, _)| key).collect())
    }

    /// Every key under `prefix` and the revision at which these are all.
    pub async fn keys(&self, prefix: &str) -> Result<(BTreeMap<Key, Seen>, i64), DbError> {
        loop {
            match self.keys_at_once(prefix).await {
                Ok(found) => return Ok(found),
                // It took so long that the revision it began with was compacted.
                Err(NoAnswer::Refused(refusal)) if refusal.why == Why::Compacted => {}
                Err(no) => return Err(self.members.read_error(no)),
            }
        }
    }

    async fn keys_at_once(&self, prefix: &str) -> Result<(BTreeMap<Key, Seen>, i64), NoAnswer> {
        let mut range = self.space.below(prefix);
        let mut options = GetOptions::new().with_keys_only();
        let own = self.get(&self.space.name_of(prefix), options.clone()).await?;
        let revision = own.revision;
        options = options.with_revision(revision);
        let mut keys = BTreeMap::new();
        let mut add = |found: &KeyValue| {
            let seen = Seen { revision: found.mod_revision(), leased: found.lease() != 0 };
            keys.extend(self.space.key(found.key()).map(|key| (key, seen)));
        };
        own.found.iter().for_each(&mut add);
        while !range.is_empty() {
            let page = self.page(&range, KEYS_PAGE, options.clone()).await?;
            page.found.iter().for_each(&mut add);
            let Some(last) = page.found.last().filter(|_| page.more) else { break };
            range = range.after(last.key());
        }
        Ok((keys, revision))
    }
}

/// What a list of keys says of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Of its last change.
    pub revision: i64,
    /// Whether it goes with a lease.
    pub leased: bool,
}
