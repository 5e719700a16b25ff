//! Releases are kept and brought back.

use super::{app, greet, with_app};
use crate::harness::Hq;

#[test]
fn a_rollback_brings_back_code_and_variables() {
    let (hq, repository) = with_app(&[]);
    hq.quarry(&["env", "set", "blog", "WORD=old"]).succeeded();
    greet(&repository, "Changed");
    hq.push(&repository, "blog").succeeded();
    hq.quarry(&["env", "set", "blog", "WORD=new"]).succeeded();
    assert_eq!(hq.page("blog.localhost", "/"), "Changed from release 4\n");

    hq.by_ssh(&["rollback", "blog", "2"]).succeeded().said(&["-----> Rolling blog back to release 2", "is live"]);
    assert_eq!(hq.page("blog.localhost", "/"), "Hello from release 5\n");
    assert_eq!(hq.page("blog.localhost", "/env/WORD"), "old");
    assert_eq!(hq.quarry(&["env", "get", "blog", "WORD"]).succeeded().text(), "old\n");

    // Without a number it is the one before, which was the newest.
    hq.quarry(&["rollback", "blog"]).succeeded();
    assert_eq!(hq.page("blog.localhost", "/"), "Changed from release 6\n");
    assert_eq!(hq.page("blog.localhost", "/env/WORD"), "new");
    let text = hq.quarry(&["releases", "blog"]).succeeded().text();
    let newest: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(newest[..2], ["6", "*"], "{text}");
    assert!(text.contains("rollback to 2") || text.contains("rollback"), "{text}");
    // The branch stays where the pusher left it: the next push is an ordinary one.
    greet(&repository, "Onwards");
    hq.push(&repository, "blog").succeeded();
    assert_eq!(hq.page("blog.localhost", "/"), "Onwards from release 7\n");
    hq.wait_for_containers(&["stack=blog"], 1);
}

#[test]
fn a_static_site_is_rolled_back_too() {
    let hq = Hq::start();
    let site = crate::harness::Repository::with(&[
        ("quarry.yml", "site:\n  document_root: public\n"),
        ("public/index.html", "one\n"),
        ("public/old.html", "old\n"),
    ]);
    hq.push(&site, "pages").succeeded();
    std::fs::remove_file(site.file("public/old.html")).unwrap();
    site.write("public/index.html", "two\n");
    site.commit("two");
    hq.push(&site, "pages").succeeded();
    assert_eq!((hq.page("pages.localhost", "/"), hq.get("pages.localhost", "/old.html").status), ("two\n".into(), 404));
    hq.quarry(&["rollback", "pages"]).succeeded();
    assert_eq!(
        (hq.page("pages.localhost", "/"), hq.page("pages.localhost", "/old.html")),
        ("one\n".into(), "old\n".into())
    );
}

#[test]
fn old_releases_are_collected_and_the_last_ones_kept() {
    let hq = Hq::start_with(&[("releases-kept", "2\n")]);
    let repository = app(&[]);
    hq.push(&repository, "blog").succeeded();
    for number in 2..=3 {
        greet(&repository, &format!("Edition {number}"));
        hq.push(&repository, "blog").succeeded();
    }
    crate::harness::until("the collection of release 1", || {
        let images = crate::harness::docker::list(&["images", "-q", &format!("quarry/blog/web:1-*-{}", &hq.id()[..4])]);
        (images.is_empty() && !hq.root().join("stacks/blog/build/1.tar.gz").exists()).then_some(())
    });
    hq.quarry(&["rollback", "blog", "1"]).ended(1).said(&["release 1 of `blog` is not kept"]);
    hq.quarry(&["rollback", "blog", "2"]).succeeded();
    assert_eq!(hq.page("blog.localhost", "/"), "Edition 2 from release 4\n");
}
