//! The state tree: small values under slash-separated keys, each with a version.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

use crate::names::printable::excerpt;

mod act;
pub mod copy;
pub mod epoch;
pub mod etcd;
pub mod fake;
pub mod files;
pub mod gate;
pub mod layout;
mod leases;
pub mod paths;

/// The longest value in bytes, the same for every backend.
pub const VALUE_LIMIT: usize = 1_000_000;

/// The most segments of a key: etcd looks at all of them in one transaction, which holds 128 comparisons.
const SEGMENTS_LIMIT: usize = 64;

/// A key: segments joined by `/`, none empty, none starting with a dot, no control characters or backslashes, at most
/// 255 bytes a segment (a file name holds no more), 64 segments and 512 bytes in all.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The segments in order.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// The last segment.
    pub fn last(&self) -> &str {
        self.segments().next_back().expect("a key has at least one segment")
    }

    /// Whether this key lies below `prefix` (or is it), compared by whole segments. The empty prefix holds all.
    pub fn is_under(&self, prefix: &str) -> bool {
        let prefix = prefix.trim_end_matches('/');
        prefix.is_empty() || self.0.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl FromStr for Key {
    type Err = DbError;
    fn from_str(text: &str) -> Result<Self, DbError> {
        let good = |segment: &str| {
            (1..=255).contains(&segment.len())
                && !segment.starts_with('.')
                && !segment.chars().any(|c| c.is_control() || c == '\\')
        };
        if text.len() <= 512 && text.split('/').count() <= SEGMENTS_LIMIT && text.split('/').all(good) {
            Ok(Self(text.to_owned()))
        } else {
            Err(DbError::BadKey { key: excerpt(text, 80) })
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Tells one content of a key from another; only equality has a meaning.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version(pub String);

/// A value with its key and version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it is.
    pub key: Key,
    /// What it is.
    pub value: Vec<u8>,
    /// Which content this is.
    pub version: Version,
}

/// What must hold for a change to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guard {
    /// Nothing.
    Any,
    /// The key is not there.
    Absent,
    /// The key is there in this version.
    Unchanged(Version),
}

/// A time-limited hold on keys: when it is not renewed they go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lease(pub String);

/// A change somebody made, this process or another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The key has this content now.
    Put(Entry),
    /// The key is gone.
    Deleted(Key),
}

/// What went wrong with the tree.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// Not a key.
    #[error(
        "`{key}` is not a key: segments joined by `/`, none empty or starting with a dot, \
         at most {SEGMENTS_LIMIT} of 255 bytes each and 512 bytes in all"
    )]
    BadKey {
        /// What came, shortened and escaped.
        key: String,
    },
    /// A place of the root folder that holds other things than keys, see [`paths`].
    #[error("`{key}` is not a place for values of the state tree")]
    Foreign {
        /// Which place.
        key: Key,
    },
    /// One key would lie below another one's value.
    #[error("cannot write `{key}`: `{taken}` is in its way; a name holds either a value or further keys")]
    Nested {
        /// Which key.
        key: Key,
        /// The key or folder that is there already.
        taken: String,
    },
    /// The guard did not hold; nothing was changed.
    #[error("`{key}` was changed by somebody else in the meantime")]
    Changed {
        /// Which key.
        key: Key,
    },
    /// Longer than [`VALUE_LIMIT`].
    #[error("the value for `{key}` has {size} bytes; the limit is {VALUE_LIMIT}")]
    TooLarge {
        /// Which key.
        key: Key,
        /// Its size.
        size: usize,
    },
    /// The content is not what this key holds.
    #[error("`{key}` is damaged: {what}; mend or remove {place}")]
    Damaged {
        /// Which key.
        key: Key,
        /// What is wrong.
        what: String,
        /// The file or address a person can open.
        place: String,
    },
    /// Another process has the tree open.
    #[error("the state under {place} is in use by another process (pid {holder}); stop it, or talk to its socket")]
    InUse {
        /// The root.
        place: String,
        /// The holder's process id as it wrote it.
        holder: String,
    },
    /// No room for the value; nothing was changed.
    #[error("no space left for `{key}`; free some disk under {place}")]
    Full {
        /// Which key.
        key: Key,
        /// Where it would have gone.
        place: String,
    },
    /// The servers that hold the tree do not answer; nothing was changed.
    #[error("etcd does not answer at {place} ({what}); everything that runs runs on, look after etcd's members")]
    Away {
        /// Their addresses.
        place: String,
        /// What the last one tried said.
        what: String,
    },
    /// The servers that hold the tree went away during a write.
    #[error("etcd stopped answering at {place} ({what}) before it said whether `{key}` was written")]
    Unclear {
        /// Key or prefix.
        key: String,
        /// Their addresses.
        place: String,
        /// What the last one tried said.
        what: String,
    },
    /// The servers that hold the tree answer and refuse.
    #[error("etcd at {place} refuses: {what}")]
    Refused {
        /// Their addresses.
        place: String,
        /// Why, in etcd's words, and what to do.
        what: String,
    },
    /// Writes of this process no longer count, see [`Db::fence`].
    #[error("this HQ has lost its right to write `{key}`: {epoch} is no longer its own")]
    Fenced {
        /// Key or prefix.
        key: String,
        /// The key that says who acts.
        epoch: Key,
    },
    /// The backend failed.
    #[error("cannot {doing} `{key}`")]
    Backend {
        /// `read`, `write`, `list`, …
        doing: &'static str,
        /// Key or prefix.
        key: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The lease is over.
    #[error("the lease {0:?} has ended")]
    LeaseEnded(Lease),
}

impl DbError {
    /// Whether the tree cannot be reached at the moment, which says nothing about what is in it.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Away { .. } | Self::Unclear { .. })
    }

    /// Whether the write may have happened, or may not.
    pub fn is_unclear(&self) -> bool {
        matches!(self, Self::Unclear { .. })
    }
}

/// One home of the tree. Every method is safe to call at the same time from many tasks.
#[async_trait]
pub trait Db: Send + Sync {
    /// Where a person finds the value of `key`, for messages: "the file `/home/quarry/…`".
    fn place(&self, key: &Key) -> String;

    /// The value of a key; `None` when it is not there.
    async fn read(&self, key: &Key) -> Result<Option<Entry>, DbError>;

    /// Entries under `prefix` (whole segments; empty for all) in key order, after `after`, at most `limit`. Values come
    /// as they are: parse each alone, so that a broken one spoils no other. A value that cannot be read at all is an
    /// error, because leaving it out would say that it is gone.
    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Entry>, DbError>;

    /// The names directly below `prefix` that are keys or hold some, in order: the stacks, the users.
    async fn names(&self, prefix: &str) -> Result<Vec<String>, DbError>;

    /// Writes a value whole or not at all, durable when it returns. A value under a `lease` goes with it.
    async fn put(&self, key: &Key, value: &[u8], guard: Guard, lease: Option<&Lease>) -> Result<Version, DbError>;

    /// Removes a key; not there is success unless the guard asks for a version.
    async fn delete(&self, key: &Key, guard: Guard) -> Result<(), DbError>;

    /// Removes every key under `prefix` (whole segments), which must not be empty.
    async fn delete_under(&self, prefix: &str) -> Result<(), DbError>;

    /// Changes under `prefix` from now on, hand edits included; several quick ones of a key may come as one.
    async fn watch(&self, prefix: &str) -> Result<BoxStream<'static, Change>, DbError>;

    /// Every key that goes with a lease.
    async fn leased(&self) -> Result<BTreeSet<Key>, DbError>;

    /// Whether other machines can have it open too, so that an [`epoch`] must say whose writes count. Where not, opening
    /// it has locked it already.
    fn is_shared(&self) -> bool {
        false
    }

    /// From now on writes through this value happen only while the key is there in this version; the look at it and the
    /// write are one. Keys under [`layout::REIGN`] are exempt: they say who acts. Homes that are not shared ignore it.
    fn fence(&self, _epoch: Key, _version: Version) {}

    /// From now on it is asked at these addresses, where the same tree is. Homes that have none ignore it.
    fn relocate(&self, _endpoints: &[String]) {}

    /// A new lease that ends `ttl` after its last renewal (up to two seconds later where servers keep the time), or when
    /// the process that holds it is gone for as long.
    async fn lease(&self, ttl: Duration) -> Result<Lease, DbError>;

    /// Renews a lease.
    async fn renew(&self, lease: &Lease) -> Result<(), DbError>;

    /// Ends a lease and removes its keys; ended is success.
    async fn revoke(&self, lease: &Lease) -> Result<(), DbError>;
}
