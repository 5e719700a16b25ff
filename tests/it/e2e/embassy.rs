//! Containers find what they link to at one address, wherever it runs: in their own stack, in others they may use, by
//! variable and by name; and nobody else does.

use rustix::process::Signal;

use super::services::{mongo, store};
use super::{app, greet};
use crate::harness::{Hq, Repository, until};

const SHARED: &str = "mongo:\n  type: service\n  container: quarry-test/mongo:1\n  volumes: /data/db\n";

const LINKING: &str = "web:\n  dockerfile: Dockerfile\n  expose: 8080\n  health: /\n  link: shared/mongo\n";

/// `ADDRESS PORT`: asks the store for `colour`.
const ASK: &str = r#"use IO::Socket::INET; my ($address, $port) = map { $_ =~ s/^\$//r eq $_ ? $_ : $ENV{substr $_, 1} } @ARGV;
my $to = IO::Socket::INET->new(PeerAddr => $address, PeerPort => $port, Timeout => 5) or die "refused: $!\n";
print $to "GET colour\n"; my $line = <$to>; die "closed\n" unless defined $line; print $line;"#;

fn ask(hq: &Hq, stack: &str, address: &str, port: &str) -> crate::harness::program::Done {
    hq.quarry(&["run", stack, "perl", "-e", ASK, "--", address, port])
}

fn variable(hq: &Hq, name: &str) -> String {
    hq.page("shop.localhost", &format!("/env/{name}"))
}

#[test]
fn a_link_leads_through_the_embassy_and_only_for_who_links() {
    mongo();
    let mut hq = Hq::with_agent(&[]);
    let embassy = hq.embassy();

    // Within its own stack.
    let yml = "mongo:\n  type: service\n  container: quarry-test/mongo:1\n  volumes: /data/db\nweb:\n  dockerfile: Dockerfile\n  expose: 8080\n  link: mongo\n";
    let blog = app(&[("quarry.yml", yml)]);
    hq.push(&blog, "blog").succeeded();
    let own = |name: &str| hq.page("blog.localhost", &format!("/env/MONGO_PORT_27017_TCP{name}"));
    assert_eq!(own("_ADDR"), embassy);
    let number: u16 = own("_PORT").parse().unwrap();
    assert!((10_000..20_000).contains(&number), "{number}");
    assert_eq!(own(""), format!("tcp://{embassy}:{number}"));
    assert_eq!(store(&hq, "POST", "colour", "green"), "OK\n");
    assert_eq!(store(&hq, "GET", "colour", ""), "green\n");

    // From another stack: who may not use it is not told that it is there.
    hq.push(&Repository::with(&[("quarry.yml", SHARED)]), "shared").succeeded();
    let shop = app(&[("quarry.yml", LINKING)]);
    hq.person("eve").push(&shop, "shop").failed().said(&["there is no stack `shared`"]);
    hq.quarry(&["rights", "grant", "eve", "shared", "deploy"]).succeeded();
    hq.person("eve").push(&shop, "shop").succeeded();
    assert_eq!(variable(&hq, "SHARED_MONGO_PORT_27017_TCP_ADDR"), embassy);
    let port = variable(&hq, "SHARED_MONGO_PORT_27017_TCP_PORT");
    assert_ne!(port, number.to_string());
    assert_eq!(ask(&hq, "shop", "$SHARED_MONGO_PORT_27017_TCP_ADDR", &port).succeeded().text(), "nothing\n");
    assert_eq!(ask(&hq, "shop", "mongo.shared.quarry", &port).succeeded().text(), "nothing\n");
    // Nobody who did not link.
    ask(&hq, "blog", &embassy, &port).failed();
    ask(&hq, "shop", &embassy, &number.to_string()).failed();

    // A link that leads nowhere is refused, with what there is.
    let nowhere = LINKING.replace("shared/mongo", "shared/postgres");
    hq.push(&app(&[("quarry.yml", &nowhere)]), "other")
        .failed()
        .said(&["`web` links to `shared/postgres`, but no such node runs there; `shared` has `mongo`"]);

    // The number stays whatever becomes of the containers, of HQ and of the agent.
    hq.quarry(&["restart", "blog/mongo"]).succeeded();
    assert_eq!(store(&hq, "GET", "colour", ""), "green\n");
    greet(&blog, "again");
    hq.push(&blog, "blog").succeeded();
    assert_eq!(hq.page("blog.localhost", "/env/MONGO_PORT_27017_TCP_PORT"), number.to_string());
    hq.stop(Signal::KILL);
    hq.kill_agent();
    assert_ne!(store(&hq, "GET", "colour", ""), "green\n", "nobody carries it");
    hq.start_agent();
    until("the agent to carry on by itself", || (store(&hq, "GET", "colour", "") == "green\n").then_some(()));

    hq.serve();
    hq.quarry(&["destroy", "shared", "--force"]).succeeded();
    assert!(!hq.root().join(format!("embassy/ports/{port}.json")).exists());
    ask(&hq, "shop", &embassy, &port).failed();
}
