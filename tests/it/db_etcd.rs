//! What the tree promises when it lives in etcd: members die, hang and forget, answers get lost, doors are locked.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{FutureExt, StreamExt};
use jiff::Timestamp;
use quarry::db::copy::act::copy;
use quarry::db::copy::{CopyError, Target};
use quarry::db::epoch::act::Reign;
use quarry::db::epoch::{Claimant, EpochError};
use quarry::db::etcd::Etcd;
use quarry::db::files::Files;
use quarry::db::{Change, Db, DbError, Guard, VALUE_LIMIT, layout};
use rustix::process::Signal;

use crate::db_contract::{LONG, key, listed, put, until_told, value};
use crate::harness::etcd::Cluster;
use crate::harness::wire::{Mode, Wire};

const PREFIX: &str = "/quarry";

fn tree(cluster: &Cluster) -> Etcd {
    Etcd::new(&cluster.cluster(PREFIX))
}

/// The tree as somebody sees it whose only way to the first member can be cut.
fn behind_a_wire(cluster: &Cluster) -> (Wire, Etcd) {
    let wire = Wire::to(cluster.endpoint(0).strip_prefix("http://").unwrap().parse().unwrap());
    let mut way = cluster.cluster(PREFIX);
    way.endpoints = vec![format!("http://{}", wire.address)];
    (wire, Etcd::new(&way))
}

/// How long any call takes at most, with room for a busy machine.
const AT_MOST: Duration = Duration::from_secs(9);

async fn works(db: &Etcd, round: &str) {
    let began = Instant::now();
    put(db, "stacks/a/status", round).await;
    assert_eq!(value(db, "stacks/a/status").await.as_deref(), Some(round));
    assert_eq!(db.names("stacks").await.unwrap(), ["a"]);
    assert!(began.elapsed() < AT_MOST * 2, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_notices_that_one_member_of_three_is_lost() {
    let mut cluster = Cluster::start(3);
    let db = tree(&cluster);
    let mut changes = db.watch("stacks").await.unwrap();
    works(&db, "all").await;
    let lease = db.lease(LONG).await.unwrap();
    for (round, kill) in [("first", 0), ("leader", cluster.leader())] {
        cluster.kill(kill);
        works(&db, round).await;
        db.renew(&lease).await.unwrap();
        until_told(&mut changes, "stacks/a/status", Some(round)).await;
        cluster.start_again();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_hangs_is_passed_over() {
    let cluster = Cluster::start(3);
    let db = tree(&cluster);
    works(&db, "all").await;
    let leader = cluster.leader();
    cluster.signal(leader, Signal::STOP);
    works(&db, "one hangs").await;
    // What it had in hand when it stopped arrives late and changes nothing.
    cluster.signal(leader, Signal::CONT);
    works(&db, "again").await;
    assert_eq!(value(&db, "stacks/a/status").await.as_deref(), Some("again"));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_members_lost_is_said_and_mends_itself() {
    let mut cluster = Cluster::start(3);
    let db = tree(&cluster);
    put(&db, "stacks/a/status", "before").await;
    let mut changes = db.watch("stacks").await.unwrap();
    let lease = db.lease(LONG).await.unwrap();
    db.put(&key("ps/hq/a.json"), b"1", Guard::Any, Some(&lease)).await.unwrap();
    cluster.kill_all();
    let began = Instant::now();
    let error = db.read(&key("stacks/a/status")).await.unwrap_err();
    assert!(began.elapsed() < AT_MOST, "{:?}", began.elapsed());
    assert!(matches!(error, DbError::Away { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.starts_with("etcd does not answer at http://127.") && text.contains("efused"), "{text}");
    assert!(db.names("stacks").await.unwrap_err().is_away());
    let write = db.put(&key("stacks/a/status"), b"x", Guard::Any, None).await.unwrap_err();
    assert!(matches!(write, DbError::Away { .. }), "nothing was sent: {write:?}");
    assert!(changes.next().now_or_never().is_none(), "the watch neither ends nor takes silence for a change");
    cluster.start_again();
    works(&db, "after").await;
    until_told(&mut changes, "stacks/a/status", Some("after")).await;
    db.renew(&lease).await.unwrap();
    assert_eq!(listed(&db, "").await, ["ps/hq/a.json", "stacks/a/status"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_after_what_it_missed_was_compacted() {
    let cluster = Cluster::start(1);
    let db = tree(&cluster);
    for name in ["gone", "stays", "changes"] {
        put(&db, &format!("proc/a/{name}.json"), "1").await;
    }
    let (wire, far) = behind_a_wire(&cluster);
    let mut changes = far.watch("proc/a").await.unwrap();
    put(&db, "proc/a/changes.json", "2").await;
    until_told(&mut changes, "proc/a/changes.json", Some("2")).await;
    wire.set(Mode::Cut);
    db.delete(&key("proc/a/gone.json"), Guard::Any).await.unwrap();
    put(&db, "proc/a/changes.json", "3").await;
    put(&db, "proc/a/comes.json", "1").await;
    put(&db, "proc/ab/elsewhere.json", "1").await;
    put(&db, "proc/a/comes and goes.json", "1").await;
    db.delete(&key("proc/a/comes and goes.json"), Guard::Any).await.unwrap();
    let now = put(&db, "proc/b.json", "1").await.0;
    cluster.etcdctl(&["compaction", "--physical", &now]).succeeded();
    wire.set(Mode::Whole);
    let mut told = Vec::new();
    while told.len() < 3 {
        let change = tokio::time::timeout(LONG, changes.next()).await.expect("all is told").unwrap();
        told.push(match change {
            Change::Put(entry) => format!("{}={}", entry.key, String::from_utf8(entry.value).unwrap()),
            Change::Deleted(key) => format!("{key} is gone"),
        });
    }
    assert_eq!(told, ["proc/a/gone.json is gone", "proc/a/changes.json=3", "proc/a/comes.json=1"]);
    put(&db, "proc/a/stays.json", "4").await;
    until_told(&mut changes, "proc/a/stays.json", Some("4")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_was_cut_off_misses_nothing() {
    let cluster = Cluster::start(1);
    let db = tree(&cluster);
    put(&db, "proc/a/web.json", "1").await;
    let (wire, far) = behind_a_wire(&cluster);
    let mut changes = far.watch("proc").await.unwrap();
    wire.set(Mode::Cut);
    put(&db, "proc/a/web.json", "2").await;
    db.delete(&key("proc/a/web.json"), Guard::Any).await.unwrap();
    wire.set(Mode::Whole);
    until_told(&mut changes, "proc/a/web.json", Some("2")).await;
    until_told(&mut changes, "proc/a/web.json", None).await;
}

/// Does something whose first answer gets lost on the way.
async fn with_a_lost_answer<T>(wire: &Wire, work: impl Future<Output = T>) -> T {
    wire.set(Mode::Deaf);
    let lost = wire.lost();
    let mend = async {
        while wire.lost() < lost + 60 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        wire.set(Mode::Cut);
        wire.set(Mode::Whole);
    };
    tokio::time::timeout(LONG, async { tokio::join!(work, mend).0 }).await.expect("it is asked again")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_whose_answer_got_lost_happens_once() {
    let cluster = Cluster::start(1);
    let (db, at) = (tree(&cluster), &key("journal/a.json"));
    let (wire, far) = behind_a_wire(&cluster);
    assert!(far.read(at).await.unwrap().is_none());
    let first = with_a_lost_answer(&wire, far.put(at, b"one", Guard::Absent, None)).await.unwrap();
    assert_eq!(db.read(at).await.unwrap().unwrap().version, first);
    assert!(matches!(far.put(at, b"x", Guard::Absent, None).await, Err(DbError::Changed { .. })));
    let second = with_a_lost_answer(&wire, far.put(at, b"two", Guard::Unchanged(first), None)).await.unwrap();
    assert_eq!(db.read(at).await.unwrap().unwrap().version, second);
    with_a_lost_answer(&wire, far.delete(at, Guard::Unchanged(second))).await.unwrap();
    assert_eq!(value(&db, "journal/a.json").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_was_sent_and_never_answered_is_unclear() {
    let cluster = Cluster::start(1);
    let (wire, far) = behind_a_wire(&cluster);
    let at = &key("journal/a.json");
    assert!(far.read(at).await.unwrap().is_none());
    wire.set(Mode::Deaf);
    let began = Instant::now();
    let error = far.put(at, b"one", Guard::Absent, None).await.unwrap_err();
    assert!(matches!(error, DbError::Unclear { .. }) && error.is_away(), "{error:?}");
    assert!(began.elapsed() < AT_MOST, "{:?}", began.elapsed());
    assert!(matches!(far.read(at).await, Err(DbError::Away { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_lets_in_who_has_a_certificate_and_trusts_the_right_authority() {
    let cluster = Cluster::start_with_tls();
    let mut way = cluster.cluster(PREFIX);
    way.ca = Some(cluster.text("ca.pem"));
    let stranger = Etcd::new(&way);
    way.identity = Some((cluster.text("client.pem"), cluster.text("client-key.pem")));
    let db = Etcd::new(&way);
    db.ping().await.unwrap();
    works(&db, "with tls").await;
    let mut changes = db.watch("stacks").await.unwrap();
    put(&db, "stacks/a/status", "2").await;
    until_told(&mut changes, "stacks/a/status", Some("2")).await;
    let refused = stranger.ping().await.unwrap_err().to_string();
    assert!(refused.contains("etcd does not answer") && refused.contains("etcd/cert and etcd/key"), "{refused}");
    way.ca = None;
    let refused = Etcd::new(&way).ping().await.unwrap_err().to_string();
    assert!(refused.contains("invalid peer certificate"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_needed_and_sees_its_prefix_alone() {
    let mut cluster = Cluster::start(1);
    for words in [
        "user add root:secret",
        "user grant-role root root",
        "user add quarry:pass",
        "role add quarry",
        "role grant-permission quarry readwrite --prefix=true /quarry",
        "user grant-role quarry quarry",
        "auth enable",
    ] {
        cluster.etcdctl(&words.split(' ').collect::<Vec<_>>()).succeeded();
    }
    cluster.login = Some("root:secret".to_owned());
    let mut way = cluster.cluster(PREFIX);
    let refusal = async |way: &_| match Etcd::new(way).ping().await.unwrap_err() {
        refused @ DbError::Refused { .. } => refused.to_string(),
        other => panic!("expected a refusal, got {other:?}"),
    };
    assert!(refusal(&way).await.contains("etcd/user and etcd/password"));
    way.login = Some(("quarry".into(), "wrong".into()));
    assert!(refusal(&way).await.contains("authentication failed"));
    way.login = Some(("quarry".into(), "pass".into()));
    let db = Etcd::new(&way);
    let mut changes = db.watch("stacks").await.unwrap();
    works(&db, "with login").await;
    let lease = db.lease(LONG).await.unwrap();
    db.put(&key("ps/hq/a.json"), b"1", Guard::Any, Some(&lease)).await.unwrap();
    way.prefix = "/others".into();
    assert!(refusal(&way).await.contains("permission denied"));
    // A restart forgets who had logged in.
    cluster.kill(0);
    cluster.start_again();
    works(&db, "again").await;
    until_told(&mut changes, "stacks/a/status", Some("again")).await;
    db.renew(&lease).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn large_and_many_values_come_whole() {
    let cluster = Cluster::start(1);
    let db = Arc::new(tree(&cluster));
    let large: Vec<String> = (10..30).map(|number| format!("config/files/{number}")).collect();
    for at in &large {
        db.put(&key(at), &vec![b'x'; VALUE_LIMIT], Guard::Any, None).await.unwrap();
    }
    assert_eq!(listed(&*db, "config").await, large);
    let writers = (0..40).map(|stack| {
        let db = db.clone();
        tokio::spawn(async move {
            for number in 0..30 {
                put(&*db, &format!("stacks/s{stack:02}/releases/{number:02}.json"), "{}").await;
            }
        })
    });
    futures_util::future::join_all(writers).await.into_iter().for_each(|done| done.unwrap());
    let stacks: Vec<String> = (0..40).map(|stack| format!("s{stack:02}")).collect();
    assert_eq!(db.names("stacks").await.unwrap(), stacks);
    assert_eq!(listed(&*db, "stacks").await.len(), 40 * 30);
    assert_eq!(db.list("stacks", Some(&key("stacks/s20/status")), 700).await.unwrap().len(), 19 * 30);
    db.delete_under("stacks").await.unwrap();
    assert_eq!(listed(&*db, "").await, large);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_etcd_is_said_and_goes_on_when_there_is_room_again() {
    let cluster = Cluster::start_small();
    let db = tree(&cluster);
    put(&db, "stacks/a/status", "before").await;
    let large = vec![b'x'; VALUE_LIMIT];
    let mut full = None;
    // etcd notices what it has written a moment later.
    for _ in 0..200 {
        full = db.put(&key("config/files/large"), &large, Guard::Any, None).await.err();
        if full.is_some() {
            break;
        }
    }
    let full = full.expect("200 MB do not fit");
    assert!(matches!(&full, DbError::Full { .. }), "{full:?}");
    assert!(full.to_string().contains("compact, defragment and disarm"), "{full}");
    assert!(matches!(db.put(&key("stacks/a/status"), b"x", Guard::Any, None).await, Err(DbError::Full { .. })));
    assert_eq!(value(&db, "stacks/a/status").await.as_deref(), Some("before"));
    db.delete(&key("config/files/large"), Guard::Any).await.unwrap();
    let head = cluster.etcdctl(&["get", "x", "-w", "json"]).succeeded().json();
    cluster.etcdctl(&["compaction", "--physical", &head["header"]["revision"].to_string()]).succeeded();
    cluster.etcdctl(&["defrag"]).succeeded();
    cluster.etcdctl(&["alarm", "disarm"]).succeeded();
    works(&db, "after").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_others_are_neither_seen_nor_touched() {
    let cluster = Cluster::start(1);
    let db = tree(&cluster);
    put(&db, "stacks/a/status", "1").await;
    for other in ["/quarryman/stacks/b/status", "/quarry/notes", "/quarry/stacks/a/src/x", "/quarry/stacks//c"] {
        cluster.etcdctl(&["put", other, "theirs"]).succeeded();
    }
    let mut changes = db.watch("").await.unwrap();
    assert_eq!(listed(&db, "").await, ["stacks/a/status"]);
    assert_eq!(db.names("").await.unwrap(), ["stacks"]);
    cluster.etcdctl(&["put", "/quarry/notes", "more"]).succeeded();
    cluster.etcdctl(&["put", "/quarry/stacks/a/status", "by hand"]).succeeded();
    match tokio::time::timeout(LONG, changes.next()).await.unwrap().unwrap() {
        Change::Put(entry) => assert_eq!((entry.key.as_str(), &*entry.value), ("stacks/a/status", &b"by hand"[..])),
        other => panic!("{other:?}"),
    }
    assert!(db.place(&key("stacks/a/status")).starts_with("the key /quarry/stacks/a/status in etcd at http://127."));
}

fn claimant(host: &str) -> Claimant {
    Claimant { host: host.into(), pid: 12, since: Timestamp::UNIX_EPOCH, place: format!("{host} 8:1") }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_hq_is_refused_and_one_without_its_epoch_writes_nothing() {
    let cluster = Cluster::start(1);
    let (one, other) = (Arc::new(tree(&cluster)), Arc::new(tree(&cluster)));
    let reign = Reign::begin(one.clone(), claimant("a")).await.unwrap();
    put(&*one, "journal/a.json", "1").await;
    match Reign::begin(other.clone(), claimant("b")).await.map(drop) {
        Err(EpochError::Held(who)) => assert_eq!(who, claimant("a")),
        refused => panic!("expected a refusal, got {refused:?}"),
    }
    let number = |at: &str| {
        let entry = cluster.etcdctl(&["get", "--print-value-only", at]).succeeded().text();
        serde_json::from_str::<serde_json::Value>(&entry).unwrap()["number"].as_u64().unwrap()
    };
    assert_eq!((number("/quarry/hq/epoch"), number("/quarry/hq/last-epoch")), (1, 1));
    reign.end().await;
    let _next = Reign::begin(other.clone(), claimant("b")).await.unwrap();
    assert_eq!(number("/quarry/hq/epoch"), 2);
    let fenced = |result: Result<(), DbError>| match result {
        Err(DbError::Fenced { epoch, .. }) => assert_eq!(epoch, layout::epoch()),
        other => panic!("expected a fence, got {other:?}"),
    };
    let at = &key("journal/a.json");
    fenced(one.put(at, b"2", Guard::Any, None).await.map(drop));
    fenced(one.put(&key("journal/b.json"), b"2", Guard::Absent, None).await.map(drop));
    fenced(one.delete(at, Guard::Any).await);
    fenced(one.delete_under("journal").await);
    assert_eq!(value(&*one, "journal/a.json").await.as_deref(), Some("1"), "reading goes on");
    put(&*other, "journal/a.json", "2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_travels_to_etcd_and_back_unchanged() {
    let (cluster, root) = (Cluster::start(1), tempfile::tempdir().unwrap());
    let (files, etcd) = (Files::open(root.path()).unwrap(), tree(&cluster));
    put(&files, "stacks/blog/status", "{}").await;
    put(&files, "stacks/blog/env/EMPTY", "").await;
    files.put(&key("config/files/raw"), b"\xff\0\n", Guard::Any, None).await.unwrap();
    files.put(&key("config/files/large"), &vec![b'x'; VALUE_LIMIT], Guard::Any, None).await.unwrap();
    let lease = files.lease(LONG).await.unwrap();
    files.put(&key("ps/hq/a.json"), b"1", Guard::Any, Some(&lease)).await.unwrap();
    fs::create_dir_all(root.path().join("stacks/blog/repo.git")).unwrap();
    fs::write(root.path().join("stacks/blog/repo.git/HEAD"), "ref").unwrap();
    let copied = copy(&files, &etcd, Target::Empty).await.unwrap();
    assert_eq!((copied.keys, copied.left), (4, 1));
    assert!(matches!(copy(&files, &etcd, Target::Empty).await, Err(CopyError::NotEmpty(_))));
    put(&etcd, "stacks/blog/env/ADDED", "1").await;
    copy(&etcd, &files, Target::Replaced).await.unwrap();
    let keys = [
        "config/files/large",
        "config/files/raw",
        "stacks/blog/env/ADDED",
        "stacks/blog/env/EMPTY",
        "stacks/blog/status",
    ];
    assert_eq!(listed(&files, "").await, keys);
    assert_eq!(files.read(&key("config/files/raw")).await.unwrap().unwrap().value, b"\xff\0\n");
    assert!(root.path().join("stacks/blog/repo.git/HEAD").exists(), "what is no key stays");
}
