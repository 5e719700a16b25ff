//! Repositories of every kind are pushed, and answer.

use crate::harness::{Hq, Repository};

#[test]
fn a_static_site_is_live_after_its_push() {
    let hq = Hq::start();
    let site = Repository::sample("static");
    hq.push(&site, "pages").succeeded().said(&[
        "-----> Detected static (index.html)",
        "-----> Launching release 1",
        "-----> Release 1 of pages is live",
        "http://pages.localhost",
    ]);
    assert!(hq.page("pages.localhost", "/").contains("<h1>Hello from a static site</h1>"));
    assert_eq!(hq.get("pages.localhost", "/nothing").status, 404);
    assert_eq!(hq.get("unknown.localhost", "/").status, 404);
}

#[test]
fn flask_is_live_by_its_procfile() {
    let hq = Hq::start();
    let flask = Repository::sample("flask");
    hq.push(&flask, "api").succeeded().said(&["python"]);
    assert_eq!(hq.page("api.localhost", "/"), "Hello from Flask, release 1\n");
    assert_eq!(hq.page("api.localhost", "/env/QUARRY_STACK"), "api");
    // Unchanged dependencies are not installed again.
    flask.write("note.txt", "nothing that matters\n");
    flask.commit("a note");
    let again = hq.push(&flask, "api").succeeded();
    assert!(!again.stderr.contains("Downloading"), "{again}");
    assert_eq!(hq.page("api.localhost", "/"), "Hello from Flask, release 2\n");
}

#[test]
fn express_is_live_by_detection() {
    let hq = Hq::start();
    hq.push(&Repository::sample("express"), "shop").succeeded().said(&["node"]);
    assert_eq!(hq.page("shop.localhost", "/"), "Hello from Express, release 1\n");
}

#[test]
fn a_dockerfile_is_built_and_its_port_routed() {
    let hq = Hq::start();
    hq.push(&Repository::sample("dockerfile"), "blog")
        .succeeded()
        .said(&["Dockerfile", "-----> Release 1 of blog is live"]);
    assert_eq!(hq.page("blog.localhost", "/"), "Hello from release 1\n");
}

#[test]
fn six_nodes_of_one_quarry_yml_run_together() {
    let hq = Hq::start();
    let six = Repository::sample("six");
    hq.push(&six, "shop").succeeded().said(&["-----> Release 1 of shop is live", "http://docs.shop.example.test"]);
    for domain in ["shop.example.test", "www.shop.example.test"] {
        assert_eq!(hq.page(domain, "/"), "Hello from release 1\n");
    }
    assert_eq!(hq.page("docs.shop.example.test", "/"), "<h1>Documentation of the shop</h1>\n");
    for (node, count) in [("mongo", 1), ("mailer", 1), ("counter", 2), ("web", 2), ("base", 0), ("site", 0)] {
        let label = format!("node={node}");
        assert_eq!(hq.containers(&["stack=shop", &label]).len(), count, "{node}");
    }
    let logs = hq.quarry(&["logs", "shop/counter"]).succeeded().text();
    assert!(logs.contains("counter 1 works") && logs.contains("counter 2 works"), "{logs}");

    // A second push moves the whole stack, and the service with its data stays.
    let mongo = hq.containers(&["node=mongo"]);
    assert_eq!(store(&hq, "POST", "colour", "green"), "OK\n");
    six.write("site/index.html", "<h1>Second edition</h1>\n");
    six.write("greeting", "Good day\n");
    six.write("Dockerfile", "FROM debian:bookworm-slim\nWORKDIR /app\nCOPY *.pl greeting ./\n");
    six.commit("second");
    let done = hq.push(&six, "shop").succeeded();
    assert_eq!(hq.page("shop.example.test", "/"), "Good day from release 2\n");
    assert_eq!(hq.page("docs.shop.example.test", "/"), "<h1>Second edition</h1>\n");
    assert_eq!(hq.containers(&["node=mongo"]), mongo, "the service was replaced");
    done.said(&["service mongo keeps running as it is; changed: image", "restart shop/mongo"]);
    assert_eq!(store(&hq, "GET", "colour", ""), "green\n");
    for (node, count) in [("mailer", 1), ("counter", 2), ("web", 2)] {
        let label = format!("node={node}");
        hq.wait_for_containers(&["stack=shop", &label], count);
        hq.wait_for_containers(&["stack=shop", &label, "release=2"], count);
    }
}

fn store(hq: &Hq, method: &str, key: &str, value: &str) -> String {
    let path = format!("/store/{key}");
    crate::harness::web::request(hq.http, method, "shop.example.test", &path, value.as_bytes()).unwrap().text()
}

#[test]
fn what_a_push_leaves_at_rest_or_can_never_have_is_told() {
    let hq = Hq::start();
    let yml = "web:\n  health: /\n  size: 900gb\nworker:\n  type: worker\n  dockerfile: Dockerfile\n  run: sleep 600\n  scale: 0\n";
    let repository = super::app(&[("quarry.yml", yml)]);
    hq.push(&repository, "blog").succeeded().said(&[
        "-----> Warning: `size` of web is 921600mb; this server has",
        "-----> Release 1 of blog is live",
        "worker rests; start it: scale blog worker=1",
    ]);
}
