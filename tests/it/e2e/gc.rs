//! What could be done without goes, and what can be rolled back to stays.

use std::fs;

use super::{app, greet};
use crate::harness::{Hq, docker, until};

fn images(hq: &Hq) -> usize {
    let pattern = format!("reference=quarry/blog/*:*-{}", &hq.id()[..4]);
    docker::list(&["images", "--filter", &pattern, "--format", "{{.Tag}}"]).len()
}

#[test]
fn a_full_disk_leaves_what_serves_and_what_it_can_be_rolled_back_to() {
    // Every disk is that full.
    let hq = Hq::start_with(&[("gc/disk", "1%\n"), ("gc/events", "30d\n")]);
    let repository = app(&[]);
    for word in ["One", "Two", "Three", "Four", "Five"] {
        greet(&repository, word);
        hq.push(&repository, "blog").succeeded();
        hq.wait_for_containers(&["stack=blog"], 1);
    }
    // What came before is collected behind each push, the checkout last.
    let checkout = hq.root().join("stacks/blog/src");
    let releases = || hq.quarry(&["releases", "blog", "--json"]).json().as_array().unwrap().len();
    until("three releases", || (releases() == 3 && !checkout.exists()).then_some(()));
    fs::create_dir(&checkout).unwrap();
    fs::write(hq.root().join("events/2026-01-01.jsonl"), "").unwrap();
    fs::create_dir_all(hq.root().join("sites/blog/1")).unwrap();
    // Somebody else's image, and one of a release that never served.
    let stray = format!("quarry/blog/web:9-{}-{}", "0".repeat(20), &hq.id()[..4]);
    let other = format!("quarry-it-other:{}", hq.id());
    for name in [&stray, &other] {
        docker::image(name, &format!("FROM debian:bookworm-slim\nLABEL own={name}\n"));
    }
    let told = hq.quarry(&["gc", "--dry-run"]).succeeded().text();
    for what in [&stray, "the files sites/blog/1", "the events of 2026-01-01", "the checkout of blog"] {
        assert!(told.contains(what), "{what} is missing in {told}");
    }
    assert!(!told.contains(&other) && images(&hq) == 4, "{told}");
    let done = hq.by_ssh(&["gc"]).succeeded().text();
    assert!(told.lines().all(|line| done.contains(line)), "{told}\n{done}");
    assert_eq!(images(&hq), 3);
    assert!(!hq.root().join("events/2026-01-01.jsonl").exists() && !checkout.exists());
    docker::docker(&["rmi", &other]).succeeded();
    assert_eq!(hq.quarry(&["gc", "--dry-run"]).succeeded().text(), "");
    assert_eq!(hq.page("blog.localhost", "/"), "Five from release 5\n");
    hq.quarry(&["rollback", "blog", "3"]).succeeded();
    assert_eq!(hq.page("blog.localhost", "/"), "Three from release 6\n");
}

#[test]
fn what_failed_builds_leave_has_a_name_and_goes_with_the_next_release() {
    let hq = Hq::start();
    let repository = app(&[]);
    // Of a stack that no push has made nothing is left anyway.
    hq.push(&repository, "blog").succeeded();
    let own = format!("RUN echo {} > own\n", hq.id());
    let dockerfile = |last: &str| {
        format!("FROM debian:bookworm-slim\nWORKDIR /app\nCOPY . .\n{own}{last}EXPOSE 8080\nCMD exec perl app.pl\n")
    };
    repository.write("Dockerfile", &dockerfile("RUN false\n"));
    repository.commit("it does not build");
    hq.push(&repository, "blog").failed();
    let left = || {
        let pattern = format!("reference=quarry/blog/*.unfinished:*-{}", &hq.id()[..4]);
        docker::list(&["images", "--filter", &pattern, "--format", "{{.Tag}}"]).len()
    };
    assert_eq!(left(), 1);
    assert_eq!(hq.quarry(&["gc"]).succeeded().text(), "", "the next push goes on from it");
    repository.write("Dockerfile", &dockerfile(""));
    repository.commit("it builds");
    hq.push(&repository, "blog").succeeded();
    until("the end of what was left", || {
        hq.quarry(&["gc"]).succeeded();
        (left() == 0).then_some(())
    });
    assert_eq!(hq.page("blog.localhost", "/"), "Hello from release 2\n");
}

#[test]
fn an_image_stays_as_long_as_a_kept_release_or_a_node_has_it() {
    let hq = Hq::start_with(&[("releases-kept", "2\n")]);
    hq.push(&app(&[]), "blog").succeeded();
    // These have the image of the first, and no container that would hold it.
    hq.quarry(&["env", "set", "blog", "WORD=two"]).succeeded();
    hq.quarry(&["scale", "blog", "web=0"]).succeeded();
    hq.wait_for_containers(&["stack=blog"], 0);
    hq.quarry(&["env", "set", "blog", "WORD=three"]).succeeded();
    until("the end of release 1", || {
        hq.quarry(&["gc"]).succeeded();
        (!hq.root().join("stacks/blog/build/1.tar.gz").exists()).then_some(())
    });
    assert_eq!(images(&hq), 1);
    hq.quarry(&["scale", "blog", "web=1"]).succeeded();
    assert_eq!(hq.page("blog.localhost", "/env/WORD"), "three");
    hq.quarry(&["rollback", "blog", "2"]).succeeded();
    assert_eq!(hq.page("blog.localhost", "/env/WORD"), "two");
    // Nobody needs it any more.
    let other = app(&[(
        "Dockerfile",
        &format!(
            "FROM debian:bookworm-slim\nLABEL own={}\nWORKDIR /app\nCOPY . .\nEXPOSE 8080\nCMD exec perl app.pl\n",
            hq.id()
        ),
    )]);
    for word in ["Other", "Another"] {
        greet(&other, word);
        hq.push_as(&other, "blog", &["-f", "HEAD:master"]).succeeded();
    }
    until("the end of the first image", || {
        hq.quarry(&["gc"]).succeeded();
        (images(&hq) == 2).then_some(())
    });
}

#[test]
fn many_pushes_leave_few_packs_and_everything_is_still_there() {
    let hq = Hq::start();
    let repository = app(&[]);
    hq.push(&repository, "blog").succeeded();
    for number in 1..=25 {
        greet(&repository, &format!("Side {number}"));
        hq.push_as(&repository, "blog", &[&format!("HEAD:refs/heads/side-{number}")]).succeeded();
    }
    let packs = || {
        let files = fs::read_dir(hq.root().join("stacks/blog/repo.git/objects/pack")).unwrap();
        files.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|is| is == "pack")).count()
    };
    assert!(packs() > 20, "{}", packs());
    let told = hq.quarry(&["gc", "--dry-run"]).succeeded().text();
    assert!(told.contains("packs of the repository stacks/blog/repo.git"), "{told}");
    assert_eq!(hq.by_ssh(&["gc"]).succeeded().text(), told);
    assert!(packs() <= 2, "{}", packs());
    assert_eq!(hq.quarry(&["gc", "--dry-run"]).succeeded().text(), "");
    let copy = hq.file("copy");
    hq.git(repository.path(), &["clone", "-q", &hq.url("blog"), copy.to_str().unwrap()]).succeeded();
    hq.git(&copy, &["fsck", "--strict"]).succeeded();
    for number in [1, 13, 25] {
        let text = hq.git(&copy, &["show", &format!("origin/side-{number}:greeting")]).succeeded().text();
        assert_eq!(text, format!("Side {number}\n"));
    }
    hq.by_ssh(&["deploy", "blog", "side-25"]).succeeded();
    assert_eq!(hq.page("blog.localhost", "/"), "Side 25 from release 2\n");
}
