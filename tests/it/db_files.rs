//! What the tree promises when it lives in files: people edit them, disks fill up, processes die.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use quarry::db::fake::Fake;
use quarry::db::files::Files;
use quarry::db::{Change, Db, DbError, Guard, layout};

use crate::db_contract::{LONG, key, listed, put, until_gone, until_told, value};

/// A root and the tree in it.
fn tree() -> (tempfile::TempDir, Files) {
    let root = tempfile::tempdir().unwrap();
    let files = Files::open(root.path()).unwrap();
    (root, files)
}

/// Writes a file as a person does: in place.
fn by_hand(root: &Path, at: &str, text: &str) -> PathBuf {
    let path = root.join(at);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path
}

/// Every file and link below a folder, dot files too, as paths relative to it.
fn all_files(folder: &Path) -> Vec<String> {
    fn below(folder: &Path, root: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                below(&entry.path(), root, found);
            } else {
                found.push(entry.path().strip_prefix(root).unwrap().display().to_string());
            }
        }
    }
    let mut found = Vec::new();
    below(folder, folder, &mut found);
    found.sort();
    found
}

#[tokio::test]
async fn each_key_is_one_file_that_only_its_owner_reads() {
    let (root, db) = tree();
    put(&db, "stacks/blog/env/A", "hello").await;
    let path = root.path().join("stacks/blog/env/A");
    assert_eq!(fs::read_to_string(&path).unwrap(), "hello");
    assert_eq!(db.place(&key("stacks/blog/env/A")), format!("the file {}", path.display()));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    let inner = root.path().join("home");
    let _other = Files::open(&inner).unwrap();
    assert_eq!(mode(&inner), 0o711);
}

#[tokio::test]
async fn a_hand_edited_file_is_read_and_guards_notice() {
    let (root, db) = tree();
    let before = put(&db, "stacks/blog/env/A", "1").await;
    by_hand(root.path(), "stacks/blog/env/A", "2");
    by_hand(root.path(), "stacks/blog/env/B", "3");
    assert_eq!(value(&db, "stacks/blog/env/A").await.as_deref(), Some("2"));
    assert_eq!(listed(&db, "stacks").await, ["stacks/blog/env/A", "stacks/blog/env/B"]);
    let stale = db.put(&key("stacks/blog/env/A"), b"4", Guard::Unchanged(before), None).await;
    assert!(matches!(stale, Err(DbError::Changed { .. })));
}

#[tokio::test]
async fn a_watch_tells_of_hand_edits() {
    let (root, db) = tree();
    let mut changes = db.watch("stacks").await.unwrap();
    by_hand(root.path(), "stacks/blog/env/A", "1");
    until_told(&mut changes, "stacks/blog/env/A", Some("1")).await;
    by_hand(root.path(), "stacks/blog/env/A", "2");
    until_told(&mut changes, "stacks/blog/env/A", Some("2")).await;
    // As editors and `sed -i` do it.
    by_hand(root.path(), "stacks/blog/env/.A.swp", "3");
    fs::rename(root.path().join("stacks/blog/env/.A.swp"), root.path().join("stacks/blog/env/A")).unwrap();
    until_told(&mut changes, "stacks/blog/env/A", Some("3")).await;
    fs::rename(root.path().join("stacks/blog"), root.path().join("stacks/news")).unwrap();
    until_told(&mut changes, "stacks/news/env/A", Some("3")).await;
    by_hand(root.path(), "stacks/news/env/A", "4");
    until_told(&mut changes, "stacks/news/env/A", Some("4")).await;
    for round in ["5", "6"] {
        fs::remove_dir_all(root.path().join("stacks/news")).unwrap();
        until_told(&mut changes, "stacks/news/env/A", None).await;
        by_hand(root.path(), "stacks/news/env/A", round);
        until_told(&mut changes, "stacks/news/env/A", Some(round)).await;
    }
}

#[tokio::test]
async fn a_watch_tells_only_of_whole_values_of_keys() {
    let (root, db) = tree();
    by_hand(root.path(), "stacks/blog/env/OLD", "1");
    let mut changes = db.watch("stacks/blog").await.unwrap();
    for noise in ["stacks/blog/env/.hidden", "stacks/blog/repo.git/HEAD", "stacks/blog/src/stacks/x/env/A"] {
        by_hand(root.path(), noise, "noise");
    }
    let mut slow = fs::File::create(root.path().join("stacks/blog/env/SLOW")).unwrap();
    slow.write_all(b"half").unwrap();
    put(&db, "stacks/blog/env/A", "1").await;
    let first = tokio::time::timeout(LONG, changes.next()).await.unwrap().unwrap();
    assert!(matches!(&first, Change::Put(entry) if entry.key.as_str() == "stacks/blog/env/A"), "{first:?}");
    slow.write_all(b" and half").unwrap();
    drop(slow);
    let next = tokio::time::timeout(LONG, changes.next()).await.unwrap().unwrap();
    assert!(matches!(&next, Change::Put(entry) if entry.value == b"half and half"), "{next:?}");
    assert!(changes.next().now_or_never().is_none());
}

#[tokio::test]
async fn a_watch_ends_with_its_tree_and_does_not_keep_it_locked() {
    let (root, db) = tree();
    let mut changes = db.watch("stacks").await.unwrap();
    drop(db);
    assert_eq!(tokio::time::timeout(LONG, changes.next()).await.unwrap(), None);
    Files::open(root.path()).unwrap();
}

#[tokio::test]
async fn a_broken_record_is_reported_by_its_file_and_harms_no_other() {
    let (root, db) = tree();
    let stack = "blog".parse().unwrap();
    for number in 1..=3 {
        let release = layout::release(&stack, quarry::names::ReleaseNumber(number));
        layout::put_json(&db, &release, &number, Guard::Absent).await.unwrap();
    }
    let broken = by_hand(root.path(), "stacks/blog/releases/2.json", "{\"number\": 2, \"com");
    let entries = layout::all(&db, &layout::releases_prefix(&stack)).await.unwrap();
    let read: Vec<Result<u64, DbError>> = entries.iter().map(|entry| layout::parse_json(&db, entry)).collect();
    match read.as_slice() {
        [Ok(1), Err(error @ DbError::Damaged { .. }), Ok(3)] => {
            assert!(error.to_string().contains(&broken.display().to_string()), "{error}");
        }
        other => panic!("{other:?}"),
    }
    let one = layout::read_json::<u64>(&db, &key("stacks/blog/releases/2.json")).await.unwrap_err();
    assert!(one.to_string().contains("mend or remove the file /"), "{one}");
}

#[tokio::test]
async fn a_second_opener_is_told_who_holds_the_tree() {
    let (root, db) = tree();
    match Files::open(root.path()).map(drop) {
        Err(DbError::InUse { holder, .. }) => assert_eq!(holder, std::process::id().to_string()),
        other => panic!("expected a refusal, got {other:?}"),
    }
    drop(db);
    Files::open(root.path()).unwrap();
}

#[tokio::test]
async fn other_things_in_the_root_are_neither_listed_nor_removed() {
    let (root, db) = tree();
    let others = [
        "volumes/blog/db/data",
        "router/routes.json",
        "sites/blog/index.html",
        "logs/hq.log",
        "hooks/pre-receive",
        "stacks/blog/repo.git/HEAD",
        "stacks/blog/src/package.json",
        "stacks/blog/build/1.tar.gz",
        "stacks/blog/env/.hidden",
        "stacks/blog/env/A~",
        "stacks/blog/bad\\name",
        "backup/stacks/blog/status",
        "notes.txt",
    ];
    for other in others {
        by_hand(root.path(), other, "not a key");
    }
    let _socket = UnixListener::bind(root.path().join("hq.sock")).unwrap();
    let _inner_socket = UnixListener::bind(root.path().join("stacks/blog/sock")).unwrap();
    put(&db, "stacks/blog/env/A", "1").await;
    put(&db, "stacks/blog/status", "1").await;
    assert_eq!(listed(&db, "").await, ["stacks/blog/env/A", "stacks/blog/status"]);
    for foreign in ["volumes", "stacks/blog/src", "stacks/blog/repo.git", "backup/stacks"] {
        assert!(listed(&db, foreign).await.is_empty(), "{foreign}");
        db.delete_under(foreign).await.unwrap();
    }
    assert_eq!(db.names("").await.unwrap(), ["stacks"]);
    assert_eq!(db.names("stacks/blog").await.unwrap(), ["env", "status"]);
    db.delete_under("stacks").await.unwrap();
    let mut left: Vec<&str> = [".lock", "hq.sock", "stacks/blog/sock"].into_iter().chain(others).collect();
    left.sort_unstable();
    assert_eq!(all_files(root.path()), left);
}

#[tokio::test]
async fn removed_keys_leave_no_empty_folders() {
    let (root, db) = tree();
    put(&db, "proc/blog/web.json", "1").await;
    put(&db, "stacks/blog/env/A", "1").await;
    put(&db, "stacks/blog/status", "1").await;
    db.delete(&key("stacks/blog/env/A"), Guard::Any).await.unwrap();
    assert!(!root.path().join("stacks/blog/env").exists());
    db.delete_under("stacks/blog").await.unwrap();
    assert!(!root.path().join("stacks/blog").exists());
    db.delete(&key("proc/blog/web.json"), Guard::Any).await.unwrap();
    assert!(!root.path().join("proc/blog").exists());
}

#[tokio::test]
async fn links_lead_nowhere() {
    let (root, db) = tree();
    let outside = tempfile::tempdir().unwrap();
    let secret = by_hand(outside.path(), "secret", "untouched");
    by_hand(root.path(), "stacks/blog/status", "1");
    fs::create_dir_all(root.path().join("stacks/blog/env")).unwrap();
    let link = root.path().join("stacks/blog/env/LINK");
    symlink(&secret, &link).unwrap();
    symlink(outside.path(), root.path().join("proc")).unwrap();

    let damaged = |result: Result<(), DbError>, file: &Path| match result {
        Err(error @ DbError::Damaged { .. }) => {
            assert!(error.to_string().contains(&file.display().to_string()), "{error}");
        }
        other => panic!("expected {} to be damaged, got {other:?}", file.display()),
    };
    damaged(db.read(&key("stacks/blog/env/LINK")).await.map(drop), &link);
    damaged(db.list("stacks/blog/env", None, 10).await.map(drop), &link);
    let inside = key("proc/blog/web.json");
    let refused = [db.read(&inside).await.map(drop), db.put(&inside, b"1", Guard::Any, None).await.map(drop)];
    for result in refused {
        assert!(result.unwrap_err().to_string().contains(&root.path().join("proc").display().to_string()));
    }
    assert_eq!(value(&db, "stacks/blog/status").await.as_deref(), Some("1"));

    put(&db, "stacks/blog/env/LINK", "now a file").await;
    assert!(fs::symlink_metadata(&link).unwrap().is_file());
    symlink(outside.path(), root.path().join("stacks/blog/linked")).unwrap();
    db.delete_under("stacks/blog").await.unwrap();
    assert_eq!(all_files(outside.path()), ["secret"]);
    assert_eq!(fs::read_to_string(&secret).unwrap(), "untouched");
}

#[tokio::test]
async fn pipes_and_giants_are_damaged_and_hold_nobody_up() {
    let (root, db) = tree();
    fs::create_dir_all(root.path().join("stacks/blog")).unwrap();
    assert!(Command::new("mkfifo").arg(root.path().join("stacks/blog/pipe")).status().unwrap().success());
    fs::File::create(root.path().join("stacks/blog/giant")).unwrap().set_len(1 << 40).unwrap();
    for at in ["stacks/blog/pipe", "stacks/blog/giant"] {
        let read = tokio::time::timeout(LONG, db.read(&key(at))).await.unwrap();
        let error = read.unwrap_err();
        assert!(matches!(error, DbError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains(at), "{error}");
    }
}

/// A file system with no room to speak of, unmounted at the end.
struct TinyDisk(tempfile::TempDir);

impl TinyDisk {
    fn mount() -> Self {
        let place = tempfile::tempdir().unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(place.path()).status();
        assert!(mount.unwrap().success(), "mounting a tmpfs needs root: run the tests as root");
        Self(place)
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(self.0.path()).status());
    }
}

#[tokio::test]
async fn a_full_disk_is_told_and_leaves_the_old_values() {
    let disk = TinyDisk::mount();
    let db = Files::open(disk.0.path()).unwrap();
    put(&db, "stacks/blog/status", "old").await;
    put(&db, "config/files/ballast", &"x".repeat(40_000)).await;
    let before = all_files(disk.0.path());
    for at in ["stacks/blog/status", "routes/new.json"] {
        match db.put(&key(at), &[b'y'; 40_000], Guard::Any, None).await {
            Err(error @ DbError::Full { .. }) => assert!(error.to_string().contains(at), "{error}"),
            other => panic!("expected a full disk, got {other:?}"),
        }
    }
    assert_eq!(all_files(disk.0.path()), before);
    assert_eq!(value(&db, "stacks/blog/status").await.as_deref(), Some("old"));
    assert_eq!(value(&db, "routes/new.json").await, None);
    db.delete(&key("config/files/ballast"), Guard::Any).await.unwrap();
    put(&db, "stacks/blog/status", &"y".repeat(40_000)).await;
}

#[tokio::test]
async fn leases_survive_a_full_disk() {
    let disk = TinyDisk::mount();
    let db = Files::open(disk.0.path()).unwrap();
    let (lease, at) = (db.lease(LONG).await.unwrap(), key("ps/hq/a.json"));
    let mut ballast = 0;
    while db.put(&key(&format!("config/files/{ballast}")), &[b'x'; 4000], Guard::Any, None).await.is_ok() {
        ballast += 1;
    }
    let refused = db.put(&at, b"1", Guard::Any, Some(&lease)).await;
    assert!(matches!(&refused, Err(DbError::Full { key, .. }) if *key == at), "{refused:?}");
    db.delete_under("config").await.unwrap();
    db.put(&at, b"1", Guard::Any, Some(&lease)).await.unwrap();
    drop(db);
    let db = Files::open(disk.0.path()).unwrap();
    db.revoke(&lease).await.unwrap();
    assert!(listed(&db, "").await.is_empty());
}

#[tokio::test]
async fn keys_of_a_lease_whose_holder_died_go_after_its_time() {
    let (root, db) = tree();
    tokio::time::pause();
    let lease = db.lease(Duration::from_secs(10)).await.unwrap();
    let kept = db.lease(Duration::from_secs(10)).await.unwrap();
    for (at, lease) in [("ps/hq/a.json", &lease), ("ps/hq/b.json", &kept)] {
        db.put(&key(at), b"1", Guard::Any, Some(lease)).await.unwrap();
    }
    put(&db, "ps/hq/c.json", "1").await;
    drop(db);
    tokio::time::advance(Duration::from_secs(60)).await;
    let db = Files::open(root.path()).unwrap();
    assert_eq!(listed(&db, "ps").await.len(), 3);
    tokio::time::advance(Duration::from_secs(6)).await;
    // Its holder came back.
    db.renew(&kept).await.unwrap();
    tokio::time::advance(Duration::from_secs(6)).await;
    until_gone(&db, "ps/hq/a.json").await;
    assert_eq!(listed(&db, "ps").await, ["ps/hq/b.json", "ps/hq/c.json"]);
}

#[tokio::test]
async fn a_broken_list_of_leases_costs_the_leases_only() {
    let (root, db) = tree();
    let lease = db.lease(LONG).await.unwrap();
    db.put(&key("ps/hq/a.json"), b"1", Guard::Any, Some(&lease)).await.unwrap();
    drop(db);
    fs::write(root.path().join(".leases.json"), "{\"trunc").unwrap();
    let db = Files::open(root.path()).unwrap();
    assert_eq!(listed(&db, "").await, ["ps/hq/a.json"]);
    assert!(matches!(db.renew(&lease).await, Err(DbError::LeaseEnded(_))));
}

/// The value whose every byte is `letter`: a mixture of two is seen at once.
fn uniform(letter: u8) -> Vec<u8> {
    vec![letter; 300_000]
}

const WRITER_ROOT: &str = "QUARRY_TEST_WRITER_ROOT";

/// Not a test: the process that is killed below.
#[tokio::test]
#[ignore = "run by a_killed_writer_leaves_only_whole_values"]
async fn writer() {
    let Some(root) = std::env::var_os(WRITER_ROOT) else { return };
    let db = Files::open(Path::new(&root)).unwrap();
    for letter in (b'a'..=b'z').cycle() {
        db.put(&key("journal/blog.json"), &uniform(letter), Guard::Any, None).await.unwrap();
    }
}

#[tokio::test]
async fn a_killed_writer_leaves_only_whole_values() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("journal/blog.json");
    for round in 0..12 {
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "db_files::writer", "--ignored"])
            .env(WRITER_ROOT, root.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let began = std::time::Instant::now();
        let before = fs::read(&path).unwrap_or_default();
        // Until it writes, and then a little longer each round: the kill falls into another step each time.
        while fs::read(&path).unwrap_or_default() == before {
            assert!(began.elapsed() < LONG, "the writer does not write");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(700 * round));
        writer.kill().unwrap();
        writer.wait().unwrap();

        let db = Files::open(root.path()).unwrap();
        let value = db.read(&key("journal/blog.json")).await.unwrap().unwrap().value;
        assert_eq!(value, uniform(value[0]), "round {round}");
        assert_eq!(all_files(root.path()), [".lock", "journal/blog.json"], "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_never_sees_half_a_value() {
    let (root, db) = tree();
    put(&db, "journal/blog.json", "").await;
    let path = root.path().join("journal/blog.json");
    let reader = std::thread::spawn(move || {
        let mut letters = std::collections::BTreeSet::new();
        while letters.len() < 3 {
            let value = fs::read(&path).unwrap();
            if let Some(letter) = value.first() {
                assert_eq!(value, uniform(*letter));
                letters.insert(*letter);
            }
        }
    });
    for letter in (b'a'..=b'z').cycle().take(5000) {
        db.put(&key("journal/blog.json"), &uniform(letter), Guard::Any, None).await.unwrap();
        if reader.is_finished() {
            break;
        }
    }
    reader.join().unwrap();
}

/// One call of the seam.
#[derive(Debug, Clone)]
enum Call {
    Put(String, u8, bool),
    Delete(String),
    DeleteUnder(String),
    List(String, Option<String>, usize),
    Names(String),
}

/// What came of it, in words.
async fn called(db: &dyn Db, call: &Call) -> String {
    let kind = |error: DbError| format!("{error:?}").split([' ', '{']).next().unwrap_or_default().to_owned();
    match call {
        Call::Put(at, value, absent) => {
            let guard = if *absent { Guard::Absent } else { Guard::Any };
            db.put(&key(at), &[*value], guard, None).await.map_or_else(kind, |_| "put".into())
        }
        Call::Delete(at) => db.delete(&key(at), Guard::Any).await.map_or_else(kind, |()| "deleted".into()),
        Call::DeleteUnder(prefix) => db.delete_under(prefix).await.map_or_else(kind, |()| "deleted".into()),
        Call::List(prefix, after, limit) => {
            let entries = db.list(prefix, after.as_deref().map(key).as_ref(), *limit).await;
            entries.map_or_else(kind, |all| all.iter().map(|one| format!("{}={:?} ", one.key, one.value)).collect())
        }
        Call::Names(prefix) => db.names(prefix).await.map_or_else(kind, |names| names.join(" ")),
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]

    #[test]
    fn files_and_the_fake_answer_alike(calls in proptest::collection::vec(call(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (_root, files) = tree();
            let fake = Fake::new();
            for (number, call) in calls.iter().enumerate() {
                assert_eq!(called(&files, call).await, called(&fake, call).await, "call {number}: {call:?}");
            }
            assert_eq!(listed(&files, "").await, listed(&fake, "").await);
        });
    }
}

fn call() -> impl proptest::strategy::Strategy<Value = Call> {
    use proptest::prelude::*;
    // Few names, so that keys meet: one below the other, beside each other, `a-b` between `a` and `a/b`.
    let place = "stacks(/(a|a-b|b|src|env)){0,4}|proc(/(a|a\\.json)){1,3}";
    prop_oneof![
        4 => (place, 0_u8..4, any::<bool>()).prop_map(|(at, value, absent)| Call::Put(at, value, absent)),
        2 => place.prop_map(Call::Delete),
        1 => place.prop_map(Call::DeleteUnder),
        2 => (place, proptest::option::of(place), 0_usize..5).prop_map(|(at, after, limit)| Call::List(at, after, limit)),
        1 => place.prop_map(Call::Names),
    ]
}
