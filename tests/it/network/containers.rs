//! Containers that are kept reach the internet and their links, and nothing else of the cluster.

use serde_json::json;

use super::lab::Host::{Container, Outsider, Peer, Server};
use super::peers::lab;

#[test]
fn a_kept_container_reaches_the_internet_and_its_links_and_no_more() {
    let lab = lab();
    for port in [80, 2379, 20000] {
        lab.listen(Peer, port);
        lab.listen(Outsider, port);
    }
    lab.listen(Server, 20000);
    let policy = |links: serde_json::Value| {
        json!({
            "peers": [Peer.v4(), Peer.v6(), Server.v4(), Server.v6()],
            "open": ["22"],
            "containers": { "kept": { "links": links, "cluster": ["22", "80"] } },
        })
    };
    let gateway = ["172.30.0.1".parse().unwrap(), "fd98::1".parse().unwrap()];
    let ours = [gateway[0], gateway[1], Server.v4(), Server.v6()];
    let reaches = |address, port| lab.reaches(Container, address, port);
    assert!(reaches(Peer.v4(), 2379) && reaches(Server.v6(), 2379), "nothing keeps it yet");
    lab.policy(&policy(json!([]))).succeeded();
    for address in [Outsider.v4(), Outsider.v6()] {
        assert!(reaches(address, 2379), "the internet");
    }
    for address in ours {
        assert!(reaches(address, 22) && !reaches(address, 2379) && !reaches(address, 20000), "{address}");
    }
    // To the peer the container's packets come from the server, which may everything.
    for address in [Peer.v4(), Peer.v6()] {
        assert!(lab.reaches(Server, address, 2379));
        assert!(reaches(address, 80) && !reaches(address, 2379) && !reaches(address, 20000), "{address}");
    }
    let links = json!([
        { "from": "172.30.0.0/26", "port": 20000 }, { "from": "fd98::/64", "port": 20000 },
        { "from": "172.30.0.0/26", "to": Peer.v4(), "port": 20000 }, { "from": "fd98::/64", "to": Peer.v6(), "port": 20000 },
        { "from": "172.30.0.128/26", "port": 2379 },
    ]);
    lab.policy(&policy(links)).succeeded();
    for address in [ours[0], ours[1], Peer.v4(), Peer.v6()] {
        assert!(reaches(address, 20000) && !reaches(address, 2379), "{address}");
    }
    lab.locknet(&["--check"]).succeeded();
}

#[test]
fn peers_wide_enough_to_have_the_containers_inside_make_no_peers_of_them() {
    let lab = lab();
    lab.policy(&json!({
        "peers": ["172.16.0.0/12", "10.0.0.0/8"],
        "open": ["22"],
        "containers": { "kept": { "links": [], "cluster": [] } },
    }))
    .succeeded();
    assert!(!lab.reaches(Container, Server.v4(), 2379) && lab.reaches(Peer, Server.v4(), 2379));
    lab.listen(Container, 7000);
    assert!(lab.reaches(Server, Container.v4(), 7000));
}
