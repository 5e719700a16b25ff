//! What a container reaches: its own stack and what is public, not what other stacks publish on the server.

use super::app;
use crate::harness::Hq;

/// Says `reached` or `refused` for an address of the server, asked from inside a container.
fn ask(hq: &Hq, stack: &str, address: &str) -> String {
    let script = format!(
        "use IO::Socket::INET; \
         print IO::Socket::INET->new(PeerAddr => '{address}', Timeout => 5) ? 'reached' : 'refused'"
    );
    hq.quarry(&["run", stack, "perl", "-e", &script]).succeeded().text()
}

#[test]
fn a_container_reaches_its_own_stack_but_no_port_another_stack_publishes() {
    let hq = Hq::start();
    for stack in ["blog", "shop"] {
        hq.push(&app(&[("quarry.yml", "web:\n  health: /\n")]), stack).succeeded();
    }
    let ps = hq.quarry(&["ps", "--json"]).succeeded().json();
    let shop = ps.as_array().unwrap().iter().find(|row| row["stack"] == "shop").unwrap();
    let published = shop["address"].as_str().unwrap();
    assert_eq!(ask(&hq, "blog", published), "refused", "another stack's container was reached at {published}");
    assert_eq!(ask(&hq, "blog", "web:8080"), "reached", "its own stack");
    assert_eq!(hq.page("shop.localhost", "/"), "Hello from release 1\n", "the router still reaches it");
}
