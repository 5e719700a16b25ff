//! One contract for every home of the state tree, and what only files must promise.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use quarry::db::etcd::Etcd;
use quarry::db::fake::Fake;
use quarry::db::files::Files;
use quarry::db::{Change, Db, DbError, Guard, Key, Lease, VALUE_LIMIT, Version, layout};

use crate::harness::etcd::Cluster;

/// Longer than anything here takes on a busy machine.
pub const LONG: Duration = Duration::from_secs(20);

pub fn key(text: &str) -> Key {
    text.parse().unwrap()
}

pub async fn put(db: &dyn Db, at: &str, value: &str) -> Version {
    db.put(&key(at), value.as_bytes(), Guard::Any, None).await.unwrap()
}

pub async fn value(db: &dyn Db, at: &str) -> Option<String> {
    db.read(&key(at)).await.unwrap().map(|entry| String::from_utf8(entry.value).unwrap())
}

pub async fn listed(db: &dyn Db, prefix: &str) -> Vec<String> {
    layout::all(db, prefix).await.unwrap().iter().map(|entry| entry.key.to_string()).collect()
}

pub async fn until_gone(db: &dyn Db, at: &str) {
    let gone = async {
        while value(db, at).await.is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, gone).await.unwrap_or_else(|_| panic!("{at} is still there"));
}

/// Waits until the stream says that `at` has `expected` (or is gone).
pub async fn until_told(changes: &mut BoxStream<'static, Change>, at: &str, expected: Option<&str>) {
    let told = async {
        loop {
            let (key, value) = match changes.next().await.expect("the watch goes on") {
                Change::Put(entry) => (entry.key, Some(String::from_utf8(entry.value).unwrap())),
                Change::Deleted(key) => (key, None),
            };
            if key.as_str() == at && value.as_deref() == expected {
                return;
            }
        }
    };
    let told = tokio::time::timeout(LONG, told).await;
    told.unwrap_or_else(|_| panic!("nobody told that {at} is {expected:?}"));
}

/// A home of the tree under test.
trait Home {
    type Tree: Db + 'static;
    /// An empty tree.
    fn open(&self) -> Self::Tree;
    /// How long a lease in a test is: servers take their real time.
    fn ttl(&self) -> Duration {
        Duration::from_secs(10)
    }
    /// Lets time pass for leases.
    async fn pass(&self, time: Duration) {
        tokio::time::pause();
        tokio::time::advance(time).await;
        tokio::time::resume();
    }
}

struct InMemory;

impl Home for InMemory {
    type Tree = Fake;
    fn open(&self) -> Fake {
        Fake::new()
    }
}

struct InFolder(tempfile::TempDir);

impl Home for InFolder {
    type Tree = Files;
    fn open(&self) -> Files {
        Files::open(self.0.path()).unwrap()
    }
}

/// The tree of a real cluster; each one that is opened has a prefix of its own.
struct InEtcd(Cluster, AtomicUsize);

impl InEtcd {
    fn with(members: usize) -> Self {
        Self(Cluster::start(members), AtomicUsize::new(0))
    }
}

impl Home for InEtcd {
    type Tree = Etcd;
    fn open(&self) -> Etcd {
        Etcd::new(&self.0.cluster(&format!("/quarry-{}", self.1.fetch_add(1, Ordering::Relaxed))))
    }
    fn ttl(&self) -> Duration {
        Duration::from_secs(3)
    }
    async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

/// Runs each named promise on the fake, on files and on real etcd.
macro_rules! contract {
    ($($promise:ident),* $(,)?) => {
        mod fake {
            $(#[tokio::test]
            async fn $promise() {
                super::$promise(&super::InMemory).await;
            })*
        }
        mod files {
            $(#[tokio::test]
            async fn $promise() {
                super::$promise(&super::InFolder(tempfile::tempdir().unwrap())).await;
            })*
        }
        mod etcd {
            $(#[tokio::test]
            async fn $promise() {
                super::$promise(&super::InEtcd::with(1)).await;
            })*
        }
        #[tokio::test]
        async fn three_members_keep_the_whole_contract() {
            let home = InEtcd::with(3);
            $($promise(&home).await;)*
        }
    };
}

contract!(
    what_is_put_is_read_until_deleted,
    a_guard_that_does_not_hold_changes_nothing,
    lists_come_in_key_order_page_by_page,
    a_prefix_matches_whole_segments,
    delete_under_takes_the_prefix_and_nothing_else,
    names_are_the_next_segments_that_hold_keys,
    a_watch_tells_what_changes_under_its_prefix,
    keys_of_a_lease_go_with_it,
    a_renewed_lease_stays,
    an_ended_lease_takes_no_keys,
    a_key_put_anew_without_its_lease_stays,
    values_end_at_the_limit,
    foreign_and_bad_places_are_refused,
    a_name_holds_a_value_or_further_keys,
    one_of_many_putters_wins,
);

async fn what_is_put_is_read_until_deleted(home: &impl Home) {
    let db = &home.open();
    assert_eq!(value(db, "stacks/a/status").await, None);
    let first = put(db, "stacks/a/status", "one").await;
    let second = put(db, "stacks/a/status", "two").await;
    assert_ne!(first, second);
    let entry = db.read(&key("stacks/a/status")).await.unwrap().unwrap();
    assert_eq!((entry.key.as_str(), entry.value.as_slice(), &entry.version), ("stacks/a/status", &b"two"[..], &second));
    db.put(&key("stacks/a/env/RAW"), b"\xff\0\n", Guard::Any, None).await.unwrap();
    assert_eq!(db.read(&key("stacks/a/env/RAW")).await.unwrap().unwrap().value, b"\xff\0\n");
    put(db, "stacks/a/env/EMPTY", "").await;
    assert_eq!(value(db, "stacks/a/env/EMPTY").await, Some(String::new()));
    for _ in 0..2 {
        db.delete(&key("stacks/a/status"), Guard::Any).await.unwrap();
        assert_eq!(value(db, "stacks/a/status").await, None);
    }
}

async fn a_guard_that_does_not_hold_changes_nothing(home: &impl Home) {
    let (db, at) = (&home.open(), &key("proc/a/web.json"));
    let changed = |result: Result<(), DbError>| match result {
        Err(DbError::Changed { key }) => assert_eq!(key, *at),
        other => panic!("expected a refusal, got {other:?}"),
    };
    let put = async |text: &str, guard| db.put(at, text.as_bytes(), guard, None).await;
    changed(put("x", Guard::Unchanged(Version("none".into()))).await.map(drop));
    changed(db.delete(at, Guard::Unchanged(Version("none".into()))).await);
    db.delete(at, Guard::Absent).await.unwrap();
    let first = put("one", Guard::Absent).await.unwrap();
    changed(put("x", Guard::Absent).await.map(drop));
    changed(db.delete(at, Guard::Absent).await);
    let second = put("two", Guard::Unchanged(first.clone())).await.unwrap();
    changed(put("x", Guard::Unchanged(first.clone())).await.map(drop));
    changed(db.delete(at, Guard::Unchanged(first)).await);
    assert_eq!(value(db, "proc/a/web.json").await.as_deref(), Some("two"));
    db.delete(at, Guard::Unchanged(second)).await.unwrap();
    assert_eq!(value(db, "proc/a/web.json").await, None);
}

async fn lists_come_in_key_order_page_by_page(home: &impl Home) {
    let db = &home.open();
    // A folder sorts as `a/`: behind `a-b`, before `aa`.
    let keys = ["proc/a-b/x", "proc/a.json", "proc/a/x", "proc/a/y/z", "proc/aa", "proc/b/x", "ps/a"];
    for at in keys.iter().rev() {
        put(db, at, "value").await;
    }
    for size in 1..=8 {
        let mut seen: Vec<Key> = Vec::new();
        loop {
            let page = db.list("", seen.last(), size).await.unwrap();
            assert!(page.len() <= size);
            seen.extend(page.iter().map(|entry| entry.key.clone()));
            if page.len() < size {
                break;
            }
        }
        assert_eq!(seen.iter().map(Key::as_str).collect::<Vec<_>>(), keys, "pages of {size}");
    }
    let page = db.list("proc", Some(&key("proc/a/nothing-here")), 2).await.unwrap();
    assert_eq!(page.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), ["proc/a/x", "proc/a/y/z"]);
    assert_eq!(page[0].version, db.read(&key("proc/a/x")).await.unwrap().unwrap().version);
    assert!(db.list("", None, 0).await.unwrap().is_empty());
}

async fn a_prefix_matches_whole_segments(home: &impl Home) {
    let db = &home.open();
    for at in ["stacks/a/status", "stacks/ab/status", "stacks/a/env/A"] {
        put(db, at, "1").await;
    }
    assert_eq!(listed(db, "stacks/a").await, ["stacks/a/env/A", "stacks/a/status"]);
    assert_eq!(listed(db, "stacks/a/").await, ["stacks/a/env/A", "stacks/a/status"]);
    assert_eq!(listed(db, "stacks/a/status").await, ["stacks/a/status"]);
    for nothing in ["stacks/a/stat", "stacks/none", "stacks/a/status/x", "routes"] {
        assert!(listed(db, nothing).await.is_empty(), "{nothing}");
    }
}

async fn delete_under_takes_the_prefix_and_nothing_else(home: &impl Home) {
    let db = &home.open();
    for at in ["stacks/a/status", "stacks/ab/status", "stacks/a/env/A", "stacks/a/env/B"] {
        put(db, at, "1").await;
    }
    db.delete_under("stacks/a").await.unwrap();
    db.delete_under("stacks/a").await.unwrap();
    assert_eq!(listed(db, "").await, ["stacks/ab/status"]);
    db.delete_under("stacks/ab/status").await.unwrap();
    assert!(listed(db, "").await.is_empty());
    for refused in ["", "/", "../x"] {
        assert!(matches!(db.delete_under(refused).await, Err(DbError::BadKey { .. })), "{refused:?}");
    }
}

async fn names_are_the_next_segments_that_hold_keys(home: &impl Home) {
    let db = &home.open();
    for at in ["stacks/b/status", "stacks/a/env/A", "stacks/a/env/B", "keys/ann/laptop.pub"] {
        put(db, at, "1").await;
    }
    assert_eq!(db.names("").await.unwrap(), ["keys", "stacks"]);
    assert_eq!(db.names("stacks").await.unwrap(), ["a", "b"]);
    assert_eq!(db.names("stacks/a/env").await.unwrap(), ["A", "B"]);
    assert!(db.names("stacks/a/env/A").await.unwrap().is_empty());
    assert!(db.names("stacks/none").await.unwrap().is_empty());
}

async fn a_watch_tells_what_changes_under_its_prefix(home: &impl Home) {
    let db = &home.open();
    put(db, "proc/a/old.json", "before").await;
    let mut changes = db.watch("proc/a").await.unwrap();
    put(db, "proc/ab/web.json", "elsewhere").await;
    put(db, "proc/a/web.json", "1").await;
    let first = tokio::time::timeout(LONG, changes.next()).await.unwrap().unwrap();
    assert!(matches!(&first, Change::Put(entry) if entry.value == b"1"), "{first:?}");
    put(db, "proc/a/web.json", "2").await;
    until_told(&mut changes, "proc/a/web.json", Some("2")).await;
    db.delete_under("proc/a").await.unwrap();
    until_told(&mut changes, "proc/a/web.json", None).await;
    put(db, "proc/a/deep/er/x", "3").await;
    until_told(&mut changes, "proc/a/deep/er/x", Some("3")).await;
    db.delete(&key("proc/a/deep/er/x"), Guard::Any).await.unwrap();
    until_told(&mut changes, "proc/a/deep/er/x", None).await;
}

async fn keys_of_a_lease_go_with_it(home: &impl Home) {
    let db = &home.open();
    let short = db.lease(Duration::from_secs(1)).await.unwrap();
    let long = db.lease(LONG * 10).await.unwrap();
    put(db, "ps/hq/stays.json", "1").await;
    for (at, lease) in [("ps/hq/a.json", &short), ("ps/hq/b.json", &long)] {
        db.put(&key(at), b"1", Guard::Any, Some(lease)).await.unwrap();
        assert_eq!(value(db, at).await.as_deref(), Some("1"));
    }
    assert_eq!(db.leased().await.unwrap(), BTreeSet::from([key("ps/hq/a.json"), key("ps/hq/b.json")]));
    home.pass(Duration::from_secs(1)).await;
    until_gone(db, "ps/hq/a.json").await;
    assert_eq!(listed(db, "").await, ["ps/hq/b.json", "ps/hq/stays.json"]);
    assert_eq!(db.leased().await.unwrap(), BTreeSet::from([key("ps/hq/b.json")]));
    db.revoke(&long).await.unwrap();
    db.revoke(&long).await.unwrap();
    assert_eq!(listed(db, "").await, ["ps/hq/stays.json"]);
}

async fn a_renewed_lease_stays(home: &impl Home) {
    let db = &home.open();
    let lease = db.lease(home.ttl()).await.unwrap();
    db.put(&key("ps/hq/a.json"), b"1", Guard::Any, Some(&lease)).await.unwrap();
    for _ in 0..5 {
        home.pass(home.ttl() * 6 / 10).await;
        db.renew(&lease).await.unwrap();
        assert!(value(db, "ps/hq/a.json").await.is_some());
    }
    home.pass(home.ttl()).await;
    until_gone(db, "ps/hq/a.json").await;
}

async fn an_ended_lease_takes_no_keys(home: &impl Home) {
    let db = &home.open();
    let lease = db.lease(LONG).await.unwrap();
    db.revoke(&lease).await.unwrap();
    let ended = |result: Result<(), DbError>| match result {
        Err(DbError::LeaseEnded(which)) => assert_eq!(which, lease),
        other => panic!("expected an ended lease, got {other:?}"),
    };
    ended(db.renew(&lease).await);
    ended(db.put(&key("ps/hq/a.json"), b"1", Guard::Any, Some(&lease)).await.map(drop));
    assert_eq!(value(db, "ps/hq/a.json").await, None);
    assert!(matches!(db.renew(&Lease("never".into())).await, Err(DbError::LeaseEnded(_))));
}

async fn a_key_put_anew_without_its_lease_stays(home: &impl Home) {
    let db = &home.open();
    let lease = db.lease(LONG).await.unwrap();
    db.put(&key("ps/hq/a.json"), b"1", Guard::Any, Some(&lease)).await.unwrap();
    put(db, "ps/hq/a.json", "2").await;
    db.put(&key("ps/hq/b.json"), b"1", Guard::Any, Some(&lease)).await.unwrap();
    db.delete(&key("ps/hq/b.json"), Guard::Any).await.unwrap();
    put(db, "ps/hq/b.json", "2").await;
    db.revoke(&lease).await.unwrap();
    assert_eq!(listed(db, "ps").await, ["ps/hq/a.json", "ps/hq/b.json"]);
}

async fn values_end_at_the_limit(home: &impl Home) {
    let (db, at) = (&home.open(), &key("config/files/big"));
    db.put(at, &vec![b'x'; VALUE_LIMIT], Guard::Any, None).await.unwrap();
    let refused = db.put(at, &vec![b'y'; VALUE_LIMIT + 1], Guard::Any, None).await;
    assert!(matches!(refused, Err(DbError::TooLarge { size, .. }) if size == VALUE_LIMIT + 1));
    assert_eq!(db.read(at).await.unwrap().unwrap().value, vec![b'x'; VALUE_LIMIT]);
}

async fn foreign_and_bad_places_are_refused(home: &impl Home) {
    let db = &home.open();
    for foreign in ["stacks/a/repo.git/HEAD", "stacks/a/src/app.py", "volumes/a/db/x", "status", "backup/a"] {
        let at = key(foreign);
        assert!(matches!(db.read(&at).await, Err(DbError::Foreign { .. })), "{foreign}");
        let refused = db.put(&at, b"1", Guard::Any, None).await;
        assert!(matches!(refused, Err(DbError::Foreign { .. })), "{foreign}");
        assert!(matches!(db.delete(&at, Guard::Any).await, Err(DbError::Foreign { .. })), "{foreign}");
    }
    let long = format!("stacks/{}", "a".repeat(256));
    for bad in ["", "/", "stacks//a", "stacks/../a", ".git/a", "stacks/a\n", "stacks\\a", "stacks/a/", long.as_str()] {
        assert!(matches!(bad.parse::<Key>(), Err(DbError::BadKey { .. })), "{bad:?}");
    }
    assert!(matches!(db.list("../etc", None, 9).await, Err(DbError::BadKey { .. })));
    assert!(matches!(db.names("/etc").await, Err(DbError::BadKey { .. })));
    assert!(matches!(db.watch("a//b").await.map(drop), Err(DbError::BadKey { .. })));
    put(db, &format!("stacks/{}/{}", "a".repeat(240), "b".repeat(255)), "1").await;
}

async fn a_name_holds_a_value_or_further_keys(home: &impl Home) {
    let db = &home.open();
    put(db, "config/files/etc/hosts", "1").await;
    for (at, in_the_way) in
        [("config/files/etc/hosts/x/y", "config/files/etc/hosts"), ("config/files/etc", "config/files/etc")]
    {
        match db.put(&key(at), b"2", Guard::Any, None).await {
            Err(DbError::Nested { key, taken }) => assert_eq!((key.as_str(), taken.as_str()), (at, in_the_way)),
            other => panic!("expected a refusal of {at}, got {other:?}"),
        }
        assert_eq!(value(db, at).await, None);
        db.delete(&key(at), Guard::Any).await.unwrap();
    }
    assert_eq!(listed(db, "").await, ["config/files/etc/hosts"]);
    db.delete(&key("config/files/etc/hosts"), Guard::Any).await.unwrap();
    put(db, "config/files/etc", "now free").await;
    assert_eq!(listed(db, "").await, ["config/files/etc"]);
    put(db, "proc/a/b/c", "1").await;
    db.delete_under("proc/a/b/c").await.unwrap();
    put(db, "proc/a", "free too").await;
}

async fn one_of_many_putters_wins(home: &impl Home) {
    let db = Arc::new(home.open());
    let putters: Vec<_> = (0..32)
        .map(|number: u32| {
            let db = Arc::clone(&db);
            tokio::spawn(async move {
                let value = number.to_string();
                db.put(&key("journal/a.json"), value.as_bytes(), Guard::Absent, None).await.map(|_| value)
            })
        })
        .collect();
    let mut winners = Vec::new();
    for putter in putters {
        match putter.await.unwrap() {
            Ok(value) => winners.push(value),
            Err(error) => assert!(matches!(error, DbError::Changed { .. }), "{error}"),
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(value(&*db, "journal/a.json").await.as_ref(), winners.first());
}
