//! A backup makes the same HQ again, on a machine that has nothing but the file.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;

use super::{app, greet};
use crate::harness::etcd::Cluster;
use crate::harness::{Hq, Repository, until};

/// A site beside the app: files that lie below the root.
fn site() -> Repository {
    Repository::with(&[("quarry.yml", "site:\n  type: static\n  document_root: .\n"), ("index.html", "The site\n")])
}

#[test]
fn a_restored_hq_answers_as_the_one_before_and_takes_pushes() {
    let mut hq = Hq::start();
    let repository = app(&[]);
    hq.push(&repository, "blog").succeeded();
    greet(&repository, "Again");
    hq.push(&repository, "blog").succeeded();
    hq.push(&site(), "site").succeeded();
    hq.quarry(&["env", "set", "blog", "WORD=hush", "--no-restart"]).succeeded();
    let file = hq.file("hq.tar.gz");
    let path = file.to_str().unwrap().to_owned();
    // From HQ itself, and by SSH while somebody pushes.
    hq.quarry(&["backup", &path]).succeeded().said(&["2 stacks", "saving 1 images"]);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
    greet(&repository, "Pushed meanwhile");
    let push = hq.push_beside(&repository, "blog");
    let by_ssh = hq.by_ssh(&["backup", "-"]).succeeded();
    push.wait().succeeded();
    assert!(by_ssh.stdout.starts_with(&[0x1f, 0x8b]));
    let events = hq.quarry(&["events", "--json"]).succeeded().text();
    assert!(events.contains("backup -"), "{events}");
    let page = hq.page("site.localhost", "/");
    let releases = hq.quarry(&["releases", "blog", "--json"]).succeeded().json();
    hq.vanish();

    let done = hq.quarry(&["restore", &path]).succeeded();
    done.said(&["Restoring", "2 stacks", "Restored after", "start it: quarry serve"]);
    hq.quarry(&["restore", &path]).ended(1).said(&["is not empty"]);
    hq.serve();
    until("the app", || (hq.get("blog.localhost", "/").status == 200).then_some(()));
    assert_eq!(hq.page("blog.localhost", "/"), "Again from release 2\n");
    assert_eq!(hq.page("site.localhost", "/"), page);
    assert_eq!(hq.quarry(&["env", "get", "blog", "WORD"]).succeeded().text(), "hush\n");
    let kept = hq.quarry(&["releases", "blog", "--json"]).succeeded().json();
    assert_eq!(kept.as_array().unwrap().len(), releases.as_array().unwrap().len() - 1, "the push came later");
    // The key of before opens it, its host key is the same, and the repository goes on where it was.
    hq.by_ssh(&["ps"]).succeeded();
    hq.push(&repository, "blog").succeeded();
    assert_eq!(hq.page("blog.localhost", "/"), "Pushed meanwhile from release 3\n");
}

#[test]
fn without_images_hq_builds_what_serves_again() {
    let mut hq = Hq::start();
    // An image that no other HQ of this machine has.
    let repository = app(&[("own", &format!("{:?}", hq.root()))]);
    hq.push(&repository, "blog").succeeded();
    let file = hq.file("hq.tar.gz");
    let path = file.to_str().unwrap().to_owned();
    hq.quarry(&["backup", &path, "--images", "none"]).succeeded();
    assert!(fs::metadata(&file).unwrap().len() < 1 << 20);
    hq.vanish();
    hq.quarry(&["restore", &path]).succeeded().said(&["without images"]);
    hq.serve();
    until("the app", || (hq.get("blog.localhost", "/").status == 200).then_some(()));
    assert_eq!(hq.page("blog.localhost", "/"), "Hello from release 2\n");
}

#[test]
fn a_restore_that_was_cut_off_is_opened_by_nobody_and_can_be_run_again() {
    let mut hq = Hq::start();
    hq.push(&app(&[]), "blog").succeeded();
    let file = hq.file("hq.tar.gz");
    let path = file.to_str().unwrap().to_owned();
    hq.quarry(&["backup", &path]).succeeded();
    hq.vanish();
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() - 100]).unwrap();
    hq.quarry(&["restore", &path]).ended(1).said(&["cut off or damaged"]);
    hq.quarry(&["stacks"]).ended(1).said(&["only a part", "`quarry restore` was cut off; run it again"]);
    fs::write(&file, "something else").unwrap();
    hq.quarry(&["restore", &path]).ended(1).said(&["is no backup of quarry"]);
    fs::write(&file, &whole).unwrap();
    hq.quarry(&["restore", &path]).succeeded();
    hq.serve();
    until("the app", || (hq.get("blog.localhost", "/").status == 200).then_some(()));
}

#[test]
fn a_state_in_etcd_goes_into_files_or_stays_where_it_is() {
    for stays in [false, true] {
        let cluster = Cluster::start(1);
        let mut hq = Hq::start_with(&[("etcd/endpoints", &cluster.endpoints().join("\n"))]);
        let repository = app(&[]);
        hq.push(&repository, "blog").succeeded();
        let file = hq.file("hq.tar.gz");
        let path = file.to_str().unwrap().to_owned();
        // From another machine with quarry's own client.
        hq.by_option(&["backup", &path]).succeeded();
        hq.quarry(&["env", "set", "blog", "SINCE=then", "--no-restart"]).succeeded();
        hq.stop(Signal::TERM);
        hq.vanish();
        let words = ["restore", &path, "--etcd"];
        let done = hq.quarry(&words[..if stays { 3 } else { 2 }]).succeeded();
        assert_eq!(done.stderr.contains("the state is in files from now on"), !stays, "{done}");
        hq.serve();
        until("the app", || (hq.get("blog.localhost", "/").status == 200).then_some(()));
        assert_eq!(hq.root().join("stacks/blog/status").exists(), !stays);
        let since = hq.quarry(&["env", "get", "blog", "SINCE"]);
        assert_eq!(since.code == 0, stays, "{since}");
        hq.push(&repository, "blog").succeeded();
    }
}
