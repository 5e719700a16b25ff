//! What git can do with HQ besides a plain push.

use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::{app, greet, with_app};
use crate::harness::{Hq, Repository, until};

#[test]
fn a_pusher_clones_back_what_was_pushed() {
    let (hq, repository) = with_app(&[]);
    let folder = tempfile::tempdir().unwrap();
    hq.git(folder.path(), &["clone", "-q", &hq.url("blog"), "back"]).succeeded();
    let back = hq.git(&folder.path().join("back"), &["rev-parse", "HEAD"]).succeeded().text();
    assert_eq!(back.trim(), repository.head());
    assert!(folder.path().join("back/app.pl").exists());
    hq.git(folder.path(), &["clone", "-q", &hq.url("nothing"), "none"]).failed().said(&["nothing"]);
}

#[test]
fn a_shallow_push_deploys() {
    let hq = Hq::start();
    let origin = app(&[]);
    greet(&origin, "Second");
    greet(&origin, "Third");
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}", origin.path().display());
    hq.git(folder.path(), &["clone", "-q", "--depth", "1", &url, "shallow"]).succeeded();
    let shallow = folder.path().join("shallow");
    assert_eq!(hq.git(&shallow, &["rev-list", "--count", "HEAD"]).text().trim(), "1");
    hq.git(&shallow, &["push", &hq.url("blog"), "HEAD"]).succeeded();
    assert_eq!(hq.page("blog.localhost", "/"), "Third from release 1\n");
}

#[test]
fn only_the_deploy_branch_deploys_and_others_are_stored() {
    let (hq, repository) = with_app(&[]);
    greet(&repository, "Draft");
    let draft = repository.head();
    hq.push_as(&repository, "blog", &["HEAD:refs/heads/draft"])
        .succeeded()
        .said(&["-----> Stored draft; only `master` deploys (or: deploy blog draft)"]);
    assert_eq!(hq.page("blog.localhost", "/"), "Hello from release 1\n");
    let refs = hq.git(&hq.root(), &["ls-remote", &hq.url("blog")]).succeeded().text();
    assert!(refs.contains(&format!("{draft}\trefs/heads/draft")), "{refs}");

    hq.by_ssh(&["deploy", "blog", "draft"]).succeeded().said(&["-----> Release 2 of blog is live"]);
    assert_eq!(hq.page("blog.localhost", "/"), "Draft from release 2\n");

    hq.push_as(&repository, "blog", &["v1", "HEAD:refs/tags/v1"]).failed();
    hq.push_as(&repository, "blog", &["HEAD:refs/tags/v1"]).succeeded();
    hq.push_as(&repository, "blog", &["--delete", "draft"]).succeeded().said(&["- [deleted]         draft"]);
    let refs = hq.git(&hq.root(), &["ls-remote", &hq.url("blog")]).succeeded().text();
    assert!(!refs.contains("draft") && refs.contains("refs/tags/v1"), "{refs}");
}

#[test]
fn a_submodule_whose_server_says_nothing_is_given_up_with_the_push() {
    let hq = Hq::start_with(&[("submodule-hosts", "127.0.0.1\n")]);
    let repository = app(&[]);
    hq.push(&repository, "blog").succeeded();
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("git://127.0.0.1:{}/lib", server.local_addr().unwrap().port());
    repository.write(".gitmodules", &format!("[submodule \"lib\"]\n\tpath = lib\n\turl = {url}\n"));
    repository.git(&["add", "-A"]).succeeded();
    let link = format!("160000,{},lib", "1".repeat(40));
    repository.git(&["update-index", "--add", "--cacheinfo", &link]).succeeded();
    repository.git(&["commit", "-q", "-m", "with lib"]).succeeded();
    let mut push = hq.push_beside(&repository, "blog");
    push.wait_for(&format!("-----> Fetching the submodule lib from {url}"));
    // HQ looks first who answers at all; git is the one who says something.
    let mut connections = server.incoming().flatten();
    let mut fetching = connections.find(|stream| stream.peek(&mut [0]).is_ok_and(|length| length > 0)).unwrap();
    push.interrupt();
    push.wait().failed();
    // Its end of the connection closes when git has ended.
    fetching.set_read_timeout(Some(crate::harness::wait::PATIENCE)).unwrap();
    std::io::Read::read_to_end(&mut fetching, &mut Vec::new()).unwrap();
    repository.git(&["reset", "-q", "--hard", "HEAD~1"]).succeeded();
    greet(&repository, "Again");
    hq.push(&repository, "blog").succeeded();
    assert_eq!(hq.page("blog.localhost", "/"), "Again from release 2\n");
}

#[test]
fn what_was_pushed_can_be_deployed_by_the_words_people_have_for_it() {
    let (hq, repository) = with_app(&[]);
    let first = repository.head();
    repository.git(&["tag", "-a", "-m", "first", "v1"]).succeeded();
    hq.push_as(&repository, "blog", &["v1"]).succeeded();
    greet(&repository, "Second");
    hq.push(&repository, "blog").succeeded();
    hq.by_ssh(&["deploy", "blog", &first[..10]]).succeeded().said(&["-----> Release 3 of blog is live, after"]);
    assert_eq!(hq.page("blog.localhost", "/"), "Hello from release 3\n");
    hq.by_ssh(&["deploy", "blog", "v1"]).succeeded();
    for wrong in [&first[..3], "zzzz", "a b"] {
        hq.by_ssh(&["deploy", "blog", &format!("'{wrong}'")]).ended(1).said(&["has no branch, tag or commit"]);
    }
}

#[test]
fn what_git_itself_would_not_make_is_no_branch() {
    let (hq, repository) = with_app(&[]);
    let blob = repository.git(&["rev-parse", "HEAD:app.pl"]).succeeded().text();
    for wrong in ["HEAD", "refs/heads/master"] {
        hq.push_as(&repository, "blog", &[&format!("HEAD:refs/heads/{wrong}")])
            .failed()
            .said(&[&format!(" !     `{wrong}` is no name for a branch")]);
    }
    let done = hq.push_as(&repository, "blog", &[&format!("{}:refs/heads/blob", blob.trim())]).failed();
    // Some gits refuse it themselves.
    let refs = hq.git(&hq.root(), &["ls-remote", &hq.url("blog")]).succeeded().text();
    assert!(!refs.contains("blob") && refs.lines().count() == 2, "{refs}{done}");
}

#[test]
fn the_deploy_branch_cannot_be_deleted() {
    let (hq, repository) = with_app(&[]);
    hq.push_as(&repository, "blog", &["--delete", "master"]).failed().said(&[" !     ", "destroy blog"]);
    assert_eq!(hq.page("blog.localhost", "/"), "Hello from release 1\n");
}

#[test]
fn a_forced_push_is_told_and_deploys() {
    let (hq, repository) = with_app(&[]);
    let first = repository.head();
    repository.git(&["commit", "-q", "--amend", "--allow-empty", "-m", "another"]).succeeded();
    greet(&repository, "Forced");
    hq.push(&repository, "blog").failed().said(&["[rejected]"]);
    hq.push_as(&repository, "blog", &["--force", "HEAD"])
        .succeeded()
        .said(&[&format!("-----> Forced push: {} is left behind", &first[..10]), "-----> Release 2 of blog is live"]);
    assert_eq!(hq.page("blog.localhost", "/"), "Forced from release 2\n");
}

#[test]
fn main_deploys_when_it_is_pushed_first() {
    let hq = Hq::start();
    let repository = app(&[]);
    hq.push_as(&repository, "blog", &["HEAD:refs/heads/main"]).succeeded();
    greet(&repository, "On master");
    hq.push(&repository, "blog").succeeded().said(&["-----> Stored master; only `main` deploys"]);
    assert_eq!(hq.page("blog.localhost", "/"), "Hello from release 1\n");
}

#[test]
fn submodules_are_part_of_the_stack() {
    let hq = Hq::start_with(&[("submodule-hosts", "127.0.0.1\n")]);
    let served = tempfile::tempdir().unwrap();
    let theme = Repository::with(&[("colour.html", "<p>green</p>\n")]);
    let bare = served.path().join("theme");
    hq.git(served.path(), &["clone", "-q", "--bare", theme.path().to_str().unwrap(), bare.to_str().unwrap()])
        .succeeded();
    let daemon = Daemon::start(served.path());
    let site = Repository::sample("static");
    site.git(&["submodule", "--quiet", "add", &format!("git://127.0.0.1:{}/theme", daemon.port), "theme"]).succeeded();
    site.commit("with a theme");
    hq.push(&site, "pages").succeeded();
    assert_eq!(hq.page("pages.localhost", "/theme/colour.html"), "<p>green</p>\n");
    assert_eq!(hq.get("pages.localhost", "/theme/.git").status, 404);

    // Where the submodule has gone, what was fetched still serves another push.
    drop(daemon);
    site.write("index.html", "<h1>later</h1>\n");
    site.commit("later");
    hq.push(&site, "pages").succeeded();
    assert_eq!(hq.page("pages.localhost", "/theme/colour.html"), "<p>green</p>\n");
}

/// `git daemon` on a port of its own.
struct Daemon {
    child: Child,
    port: u16,
}

impl Daemon {
    fn start(folder: &std::path::Path) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new("git");
        command.args(["daemon", "--export-all", "--reuseaddr", "--listen=127.0.0.1"]);
        command.arg(format!("--port={port}")).arg(format!("--base-path={}", folder.display()));
        let child = command.stderr(Stdio::null()).spawn().unwrap();
        let daemon = Self { child, port };
        until("git daemon", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        daemon
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Git takes the daemon, its child, along on SIGTERM.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}
