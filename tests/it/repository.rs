//! A stack's repository: branches, pins, and checkouts, on real git.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quarry::hq::git::packs::{Packs, put_together};
use quarry::hq::git::{Fetching, GitError, Repository, Settings, Stand};
use quarry::names::reach::Reach;
use quarry::names::{CommitId, ReleaseNumber};

struct Place {
    folder: tempfile::TempDir,
    repository: Repository,
}

fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { hooks: folder.path().join("no-hooks"), push_limit: 0 };
    let repository = Repository::open_or_create(&folder.path().join("stack/repo.git"), &settings).unwrap();
    Place { folder, repository }
}

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn git(&self, folder: &str, words: &[&str]) -> String {
        fs::create_dir_all(self.path(folder)).unwrap();
        let mut command = Command::new("git");
        command.current_dir(self.path(folder)).args(["-c", "protocol.file.allow=always"]).args(words);
        command.env("HOME", self.folder.path()).env("GIT_CONFIG_NOSYSTEM", "1");
        for role in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{role}_NAME"), "Ann Other").env(format!("GIT_{role}_EMAIL"), "a@b.example");
        }
        let output = command.output().expect("apt-get install git");
        assert!(output.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Commits all there is in `folder` and brings it into the stack's repository.
    fn commit(&self, folder: &str, message: &str) -> CommitId {
        if !self.path(folder).join(".git").exists() {
            self.git(folder, &["init", "-q", "-b", "master"]);
        }
        self.git(folder, &["add", "-A"]);
        self.git(folder, &["commit", "-q", "--allow-empty", "-m", message]);
        self.import(folder)
    }

    fn import(&self, folder: &str) -> CommitId {
        let bare = self.path("stack/repo.git").display().to_string();
        self.git(folder, &["push", "-q", "--force", &bare, "HEAD:refs/imported/tip"]);
        self.git(folder, &["rev-parse", "HEAD"]).parse().unwrap()
    }

    fn write(&self, file: &str, content: &str) {
        let path = self.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

fn list(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            found.insert(path.strip_prefix(folder).unwrap().display().to_string());
            if path.is_dir() && !path.is_symlink() {
                open.push(path);
            }
        }
    }
    found
}

#[test]
fn a_checkout_is_the_tree_and_nothing_of_git() {
    let place = place();
    place.write("work/bin/run", "#!/bin/sh\n");
    place.write("work/data.txt", "line\n");
    fs::set_permissions(place.path("work/bin/run"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("data.txt", place.path("work/link")).unwrap();
    symlink("/etc/passwd", place.path("work/outside")).unwrap();
    let commit = place.commit("work", "first\n\nbody");
    // Also when git believes that all of it is checked out already.
    place.repository.move_branch("master", None, &commit).unwrap();
    place.repository.set_head("master").unwrap();
    place.repository.checkout(&commit, &place.path("out"), &fetching()).unwrap();
    let expected = ["bin", "bin/run", "data.txt", "link", "outside"].map(String::from);
    assert_eq!(list(&place.path("out")), BTreeSet::from(expected));
    let mode = |file: &str| fs::metadata(place.path(file)).unwrap().permissions().mode() & 0o111;
    assert!(mode("out/bin/run") != 0 && mode("out/data.txt") == 0);
    assert_eq!(fs::read_link(place.path("out/outside")).unwrap(), Path::new("/etc/passwd"));
    let said = place.repository.commit(&commit).unwrap();
    assert_eq!((said.subject.as_str(), said.author.as_str()), ("first", "Ann Other"));
    assert!(said.time > 1_700_000_000);
}

#[test]
fn a_tree_that_would_write_outside_of_the_checkout_is_refused() {
    let place = place();
    place.write("work/file", "content\n");
    place.commit("work", "plain");
    let blob = place.git("work", &["rev-parse", "HEAD:file"]);
    let tree = place.git("work", &["rev-parse", "HEAD^{tree}"]);
    let raw = |entries: &[(&str, &str, &str)]| -> CommitId {
        let mut bytes = Vec::new();
        for (mode, name, id) in entries {
            bytes.extend_from_slice(format!("{mode} {name}\0").as_bytes());
            bytes.extend((0..20).map(|at| u8::from_str_radix(&id[at * 2..at * 2 + 2], 16).unwrap()));
        }
        fs::write(place.path("raw"), bytes).unwrap();
        let raw = place.path("raw").display().to_string();
        let tree = place.git("stack/repo.git", &["hash-object", "-t", "tree", "-w", "--literally", &raw]);
        place.git("stack/repo.git", &["commit-tree", "-m", "bad", &tree]).parse().unwrap()
    };
    // A symlink and a folder of one name: the folder's files would follow the symlink.
    for entries in [
        &[("120000", "a", blob.as_str()), ("40000", "a", tree.as_str())][..],
        &[("100644", "..", &blob)],
        &[("40000", "..", &tree)],
        &[("40000", ".git", &tree)],
        &[("40000", ".GIT", &tree)],
        &[("100644", "../evil", &blob)],
    ] {
        let commit = raw(entries);
        let refused = place.repository.checkout(&commit, &place.path("out/checkout"), &fetching());
        assert!(matches!(refused, Err(GitError::Path { .. })), "{entries:?}: {refused:?}");
        assert!(!place.path("out/evil").exists() && !place.path("out/checkout/a").exists());
    }
}

#[test]
fn a_branch_moves_only_from_where_it_was_believed_to_be() {
    let place = place();
    let [one, two, three] = ["1", "2", "3"].map(|message| place.commit("work", message));
    let repository = &place.repository;
    assert!(repository.tip("master").unwrap().is_none());
    assert!(matches!(repository.move_branch("master", Some(&one), &two), Err(GitError::Moved { .. })));
    repository.move_branch("master", None, &one).unwrap();
    assert!(matches!(repository.move_branch("master", None, &two), Err(GitError::Moved { .. })));
    repository.move_branch("master", Some(&one), &two).unwrap();
    repository.move_branch("master", Some(&one), &two).unwrap();
    assert!(matches!(repository.move_branch("master", Some(&one), &three), Err(GitError::Moved { .. })));
    assert_eq!(repository.branches().unwrap().into_iter().collect::<Vec<_>>(), [("master".to_owned(), two.clone())]);
    assert!(matches!(repository.delete_branch("master", &one), Err(GitError::Moved { .. })));
    repository.delete_branch("master", &two).unwrap();
    repository.delete_branch("master", &two).unwrap();
    assert!(repository.tip("master").unwrap().is_none());
}

#[test]
fn ancestors_are_told_from_rewritten_history() {
    let place = place();
    let [one, two, three] = ["1", "2", "3"].map(|message| place.commit("work", message));
    place.git("work", &["checkout", "-q", "-B", "side", one.as_str()]);
    let side = place.commit("work", "side");
    place.git("work", &["merge", "-q", "--no-ff", "-m", "merge", three.as_str()]);
    let merge = place.import("work");
    let check = |old: &CommitId, new: &CommitId, expected: bool| {
        assert_eq!(place.repository.is_ancestor(old, new).unwrap(), expected, "{old} {new}");
    };
    check(&one, &three, true);
    check(&two, &two, true);
    check(&three, &one, false);
    check(&two, &side, false);
    check(&two, &merge, true);
    check(&"f".repeat(40).parse().unwrap(), &merge, false);
}

#[test]
fn a_push_that_waited_goes_on_from_a_tip_it_contains_and_from_no_other() {
    let place = place();
    let [one, two, three] = ["1", "2", "3"].map(|message| place.commit("work", message));
    place.git("work", &["checkout", "-q", "-B", "side", one.as_str()]);
    let side = place.commit("work", "side");
    let check = |tip: &CommitId, old: Option<&CommitId>, new: &CommitId, expected: Stand| {
        let now = place.repository.tip("master").unwrap();
        place.repository.move_branch("master", now.as_ref(), tip).unwrap();
        assert_eq!(place.repository.stand("master", old, new).unwrap(), expected, "{tip} {old:?} {new}");
    };
    assert_eq!(place.repository.stand("master", None, &one).unwrap(), Stand::AsSeen);
    assert_eq!(place.repository.stand("master", Some(&one), &two).unwrap(), Stand::Aside);
    check(&one, Some(&one), &three, Stand::AsSeen);
    check(&two, Some(&one), &three, Stand::Behind(two.clone()));
    check(&two, None, &three, Stand::Behind(two.clone()));
    check(&three, Some(&one), &three, Stand::There);
    check(&side, Some(&one), &three, Stand::Aside);
    check(&one, Some(&two), &three, Stand::Aside);
}

#[test]
fn pinned_releases_are_listed_and_kept_by_garbage_collection() {
    let place = place();
    let [one, two] = ["1", "2"].map(|message| place.commit("work", message));
    let repository = &place.repository;
    repository.pin(ReleaseNumber(1), &one).unwrap();
    repository.pin(ReleaseNumber(10), &two).unwrap();
    repository.pin(ReleaseNumber(2), &two).unwrap();
    let expected = [(ReleaseNumber(1), one.clone()), (ReleaseNumber(2), two.clone()), (ReleaseNumber(10), two.clone())];
    assert_eq!(repository.pins().unwrap().into_iter().collect::<Vec<_>>(), expected);
    repository.unpin(ReleaseNumber(2)).unwrap();
    repository.unpin(ReleaseNumber(10)).unwrap();
    repository.unpin(ReleaseNumber(10)).unwrap();
    place.git("stack/repo.git", &["update-ref", "-d", "refs/imported/tip"]);
    place.git("stack/repo.git", &["gc", "-q", "--prune=now"]);
    let again = Repository::open(&place.path("stack/repo.git")).unwrap();
    assert!(again.commit(&one).is_ok());
    assert!(matches!(again.commit(&two), Err(GitError::NoCommit { .. })));
}

/// `git daemon` on a port of its own, ended with the test.
struct Daemon(Child, u16);

impl Daemon {
    fn start(folder: &Path) -> Daemon {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new("git");
        command.args(["daemon", "--export-all", "--reuseaddr", "--listen=127.0.0.1", "--informative-errors"]);
        command.arg(format!("--port={port}")).arg(format!("--base-path={}", folder.display()));
        let child = command.stderr(Stdio::null()).spawn().expect("apt-get install git");
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "git daemon does not answer");
            std::thread::sleep(Duration::from_millis(10));
        }
        Daemon(child, port)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // git runs the daemon as a child of its own and takes it along on SIGTERM.
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

#[test]
fn submodules_are_fetched_with_the_commit_that_was_recorded() {
    let place = place();
    fs::create_dir_all(place.path("served")).unwrap();
    let daemon = Daemon::start(&place.path("served"));
    let url = |name: &str| format!("git://127.0.0.1:{}/{name}", daemon.1);
    let make = |name: &str, file: &str| {
        place.write(&format!("served/{name}/{file}"), "here\n");
        place.git(&format!("served/{name}"), &["init", "-q", "-b", "master"]);
        place.git(&format!("served/{name}"), &["add", "-A"]);
        place.git(&format!("served/{name}"), &["commit", "-q", "-m", name]);
    };
    make("inner", "deep.txt");
    make("theme", "theme.css");
    place.git("served/theme", &["submodule", "--quiet", "add", &url("inner"), "inner"]);
    place.git("served/theme", &["commit", "-q", "-m", "with inner"]);
    place.write("work/index.html", "hello\n");
    place.commit("work", "plain");
    place.git("work", &["submodule", "--quiet", "add", &url("theme"), "themes/one"]);
    let commit = place.commit("work", "with theme");
    // The submodule has gone on since.
    place.git("served/theme", &["commit", "-q", "--allow-empty", "-m", "later"]);
    place.repository.checkout(&commit, &place.path("out"), &fetching()).unwrap();
    let expected = [
        ".gitmodules",
        "index.html",
        "themes",
        "themes/one",
        "themes/one/.gitmodules",
        "themes/one/inner",
        "themes/one/inner/deep.txt",
        "themes/one/theme.css",
    ];
    assert_eq!(list(&place.path("out")), BTreeSet::from(expected.map(String::from)));
    // What has been fetched is kept: the second checkout needs no network.
    drop(daemon);
    place.repository.checkout(&commit, &place.path("again"), &fetching()).unwrap();
    assert_eq!(list(&place.path("again")).len(), expected.len());
}

#[test]
fn a_submodule_that_cannot_be_fetched_is_named_with_the_reason() {
    let place = place();
    for (url, reason) in [
        ("../sibling", "is the stack `sibling` of this HQ, which does not exist; push it first"),
        ("../../etc", "leads to no stack of this HQ"),
        ("file:///etc", "this is no address of a git server"),
        ("ext::sh -c id", "this is no address of a git server"),
        ("--upload-pack=touch /tmp/evil", "this is no address of a git server"),
        ("git://127.0.0.2/lib", "leads inside the network of this HQ"),
    ] {
        let folder = "bad";
        let _ = fs::remove_dir_all(place.path(folder));
        place.write("bad/file", "x\n");
        place.commit(folder, "first");
        let id = place.git(folder, &["rev-parse", "HEAD"]);
        place.write("bad/.gitmodules", &format!("[submodule \"lib\"]\n\tpath = lib\n\turl = \"{url}\"\n"));
        place.git(folder, &["add", "-A"]);
        // A commit the stack's repository has is no commit of the submodule's.
        let id = format!("{}{}", &id[..39], if id.ends_with('0') { "1" } else { "0" });
        place.git(folder, &["update-index", "--add", "--cacheinfo", &format!("160000,{id},lib")]);
        place.git(folder, &["commit", "-q", "-m", "with lib"]);
        let commit = place.import(folder);
        let refused = place.repository.checkout(&commit, &place.path("out"), &fetching()).unwrap_err().to_string();
        assert!(refused.starts_with("cannot fetch the submodule `lib`: ") && refused.contains(reason), "{refused}");
    }
    assert!(!Path::new("/tmp/evil").exists());
}

/// Fetches from servers of this machine.
fn fetching() -> Fetching {
    let named = ["127.0.0.1".to_owned()].into();
    Fetching { reach: Reach { named, ..Reach::default() }, ..Fetching::default() }
}

/// A commit in `bad` with the submodule `lib` from this address.
fn with_submodule(place: &Place, url: &str, id: &str) -> CommitId {
    place.write("bad/.gitmodules", &format!("[submodule \"lib\"]\n\tpath = lib\n\turl = \"{url}\"\n"));
    place.git("bad", &["init", "-q", "-b", "master"]);
    place.git("bad", &["add", "-A"]);
    place.git("bad", &["update-index", "--add", "--cacheinfo", &format!("160000,{id},lib")]);
    place.git("bad", &["commit", "-q", "-m", "with lib"]);
    place.import("bad")
}

#[test]
fn a_relative_submodule_is_the_stack_of_that_name() {
    let place = place();
    let sibling = place.path("lib/repo.git");
    Repository::open_or_create(&sibling, &Settings { hooks: place.path("no-hooks"), push_limit: 0 }).unwrap();
    place.write("library/lib.txt", "here\n");
    place.git("library", &["init", "-q", "-b", "master"]);
    place.git("library", &["add", "-A"]);
    place.git("library", &["commit", "-q", "-m", "first"]);
    let id = place.git("library", &["rev-parse", "HEAD"]);
    let commit = with_submodule(&place, "../lib.git", &id);
    let refused = place.repository.checkout(&commit, &place.path("out"), &fetching()).unwrap_err().to_string();
    assert!(refused.contains("the stack `lib` has no commit"), "{refused}");
    place.git("library", &["push", "-q", &sibling.display().to_string(), "HEAD:refs/imported/tip"]);
    place.repository.checkout(&commit, &place.path("out"), &fetching()).unwrap();
    assert_eq!(fs::read_to_string(place.path("out/lib/lib.txt")).unwrap(), "here\n");
}

#[test]
fn a_server_that_says_nothing_is_given_up_by_itself_and_on_request() {
    let place = place();
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("git://127.0.0.1:{}/lib", server.local_addr().unwrap().port());
    let commit = with_submodule(&place, &url, &"1".repeat(40));
    let brief = Fetching { limit: Duration::from_millis(300), ..fetching() };
    let refused = place.repository.checkout(&commit, &place.path("out"), &brief).unwrap_err().to_string();
    assert!(refused.contains("its server did not send it within"), "{refused}");
    let (said, heard) = std::sync::mpsc::channel();
    let said = std::sync::Mutex::new(said);
    let say = Arc::new(move |line| said.lock().unwrap().send(line).unwrap());
    let long = Fetching { say, ..fetching() };
    let stop = long.stop.clone();
    let path = place.path("stack/repo.git");
    let into = place.path("again");
    let fetching = std::thread::spawn(move || Repository::open(&path).unwrap().checkout(&commit, &into, &long));
    assert_eq!(heard.recv().unwrap(), format!("Fetching the submodule lib from {url}"));
    // The first fetch came and was given up; the second one's git is the one who says something now.
    let mut spoken = server.incoming().flatten().filter(|stream| stream.peek(&mut [0]).is_ok_and(|length| length > 0));
    drop((spoken.next(), spoken.next()));
    stop.now();
    let ended = Instant::now();
    fetching.join().unwrap().unwrap_err();
    assert!(ended.elapsed() < Duration::from_secs(30));
}

#[test]
fn packs_become_one_and_nothing_that_is_needed_or_new_is_lost() {
    let place = place();
    let bare = place.path("stack/repo.git");
    let git = |words: &[&str]| place.git("stack/repo.git", words);
    let mut commits = Vec::new();
    for number in 1..=3 {
        place.write("work/file", &format!("{number}\n"));
        commits.push(place.commit("work", "one more"));
        git(&["repack", "-d", "-q"]);
    }
    place.repository.pin(ReleaseNumber(1), &commits[0]).unwrap();
    // What nothing leads to: of a push that was refused long ago, and of one that is under way.
    let lost = |text: &str| {
        let tree = git(&["rev-parse", "HEAD^{tree}"]);
        git(&["commit-tree", &tree, "-m", text])
    };
    git(&["update-ref", "refs/heads/master", commits[2].as_str()]);
    let (old, new) = (lost("old"), lost("new"));
    let object = format!("stack/repo.git/objects/{}/{}", &old[..2], &old[2..]);
    let file = fs::File::options().write(true).open(place.path(&object));
    let file = file.or_else(|_| {
        fs::set_permissions(place.path(&object), fs::Permissions::from_mode(0o644))?;
        fs::File::options().write(true).open(place.path(&object))
    });
    file.unwrap().set_modified(std::time::SystemTime::now() - Duration::from_secs(3 * 86_400)).unwrap();
    let packs = Packs::of(&bare).unwrap();
    assert!(packs.count == 3 && packs.bytes > 0 && packs.first.is_some() && packs.tried.is_none(), "{packs:?}");
    put_together(&bare, &packs).unwrap();
    let after = Packs::of(&bare).unwrap();
    assert!(after.count <= 2 && after.tried.is_some(), "{after:?}");
    for commit in &commits {
        assert_eq!(place.repository.commit(commit).unwrap().subject, "one more");
    }
    assert_eq!(git(&["cat-file", "-t", &new]), "commit");
    let gone = Command::new("git").arg("--git-dir").arg(&bare).args(["cat-file", "-e", &old]).output().unwrap();
    assert!(!gone.status.success(), "what was refused long ago is kept");
    assert_eq!(Packs::of(&place.path("nowhere.git")).unwrap(), Packs::default());
}
