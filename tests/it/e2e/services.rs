//! Services stay across pushes, keep their volumes and tell their address.

use super::{app, greet};
use crate::harness::web::request;
use crate::harness::{Hq, docker};

/// Stands for the image of a database that would come from a registry.
const MONGO: &str = "quarry-test/mongo:1";

pub(super) fn mongo() {
    let script = include_str!("../../samples/six/store.pl");
    let lines: Vec<String> = script.lines().map(|line| format!("'{}'", line.replace('\'', "'\\''"))).collect();
    let text = format!(
        "FROM debian:bookworm-slim\nRUN printf '%s\\n' {} > /store.pl\nEXPOSE 27017\nCMD [\"perl\", \"/store.pl\"]\n",
        lines.join(" ")
    );
    docker::image(MONGO, &text);
}

const YML: &str = "mongo:\n  type: service\n  container: quarry-test/mongo:1\n  volumes: /data/db\nweb:\n  dockerfile: Dockerfile\n  expose: 8080\n  link: mongo\n";

pub(super) fn store(hq: &Hq, method: &str, key: &str, value: &str) -> String {
    request(hq.http, method, "blog.localhost", &format!("/store/{key}"), value.as_bytes()).unwrap().text()
}

fn variable(hq: &Hq, name: &str) -> String {
    hq.page("blog.localhost", &format!("/env/{name}"))
}

#[test]
fn a_service_is_linked_in_docker_s_form_and_stays_across_pushes() {
    mongo();
    let hq = Hq::start();
    let repository = app(&[("quarry.yml", YML)]);
    hq.push(&repository, "blog").succeeded();
    let address = variable(&hq, "MONGO_PORT_27017_TCP_ADDR");
    assert!(address.parse::<std::net::Ipv4Addr>().is_ok(), "`{address}` is no address");
    assert_eq!(variable(&hq, "MONGO_PORT_27017_TCP_PORT"), "27017");
    assert_eq!(variable(&hq, "MONGO_PORT_27017_TCP_PROTO"), "tcp");
    assert_eq!(variable(&hq, "MONGO_PORT_27017_TCP"), format!("tcp://{address}:27017"));
    assert_eq!(variable(&hq, "MONGO_PORT"), format!("tcp://{address}:27017"));
    assert_eq!(store(&hq, "POST", "colour", "green"), "OK\n");
    let kept = std::fs::read_to_string(hq.root().join("volumes/blog/mongo/data_db/colour")).unwrap();
    assert_eq!(kept, "green\n");

    let service = hq.containers(&["node=mongo"]);
    greet(&repository, "Second");
    hq.push(&repository, "blog").succeeded();
    assert_eq!(hq.containers(&["node=mongo"]), service, "a push replaced the service");
    assert_eq!(store(&hq, "GET", "colour", ""), "green\n");

    // Named, it is restarted: another container with the same volume and the same address.
    hq.quarry(&["restart", "blog/mongo"]).succeeded();
    assert_ne!(hq.wait_for_containers(&["node=mongo"], 1), service);
    assert_eq!(variable(&hq, "MONGO_PORT_27017_TCP_ADDR"), address);
    assert_eq!(store(&hq, "GET", "colour", ""), "green\n");
    hq.quarry(&["scale", "blog", "mongo=2"]).ended(3).said(&["mongo"]);

    // Volumes go with the stack and not before.
    hq.quarry(&["destroy", "blog", "--force"]).succeeded();
    assert!(!hq.root().join("volumes/blog").exists());
}

#[test]
fn a_node_with_a_volume_is_replaced_and_never_doubled() {
    let hq = Hq::start();
    let yml = "web:\n  expose: 8080\n  volumes: /data\n  health: /\n";
    let repository = app(&[("quarry.yml", yml)]);
    hq.push(&repository, "blog").succeeded();
    hq.quarry(&["run", "blog", "sh", "-c", "echo kept > /data/file"]).succeeded();
    greet(&repository, "Second");
    hq.push(&repository, "blog").succeeded();
    assert_eq!(hq.page("blog.localhost", "/"), "Second from release 2\n");
    assert_eq!(hq.quarry(&["run", "blog", "cat", "/data/file"]).succeeded().text(), "kept\n");
    // One that fails starts the old one again.
    repository.write("app.pl", "exit 3;\n");
    repository.commit("broken");
    hq.push(&repository, "blog").failed();
    crate::harness::until("the old release to answer", || {
        (hq.get("blog.localhost", "/").text() == "Second from release 2\n").then_some(())
    });
    hq.wait_for_containers(&["stack=blog"], 1);
    hq.quarry(&["scale", "blog", "web=2"]).ended(3).said(&["web"]);
}

#[test]
fn an_image_that_nobody_has_refuses_the_push() {
    let hq = Hq::start();
    let yml = "web:\n  container: no-such-registry.invalid/nothing:1\n  expose: 80\n";
    let repository = crate::harness::Repository::with(&[("quarry.yml", yml)]);
    hq.push(&repository, "blog")
        .failed()
        .said(&["the image `no-such-registry.invalid/nothing:1` is not on this server"]);
    hq.push(&app(&[("quarry.yml", "web:\n  dockerfile: |\n    FROM no-such-registry.invalid/base\n")]), "blog")
        .failed();
}
