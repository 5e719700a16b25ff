//! HTTPS from end to end: certificates that people give, and those that come by themselves from an authority.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::process::Signal;
use serde_json::Value;

use super::{app, greet};
use crate::harness::authority::{TestAuthority, Visitor};
use crate::harness::lab::Lab;
use crate::harness::pebble::Pebble;
use crate::harness::{Hq, Repository, until};

/// An app with these domains.
fn with_domains(domains: &str) -> Repository {
    app(&[("quarry.yml", &quarry(domains))])
}

fn quarry(domains: &str) -> String {
    format!("web:\n  expose: 8080\n  health: /\n  domains: [{domains}]\n")
}

fn block<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// The certificate that is shown, by the end of its signature.
fn shown(visitor: &Visitor, to: SocketAddr, host: &str) -> Option<String> {
    let der = block(visitor.shown(to, host)).ok()?;
    Some(der[der.len() - 16..].iter().map(|byte| format!("{byte:02x}")).collect())
}

fn page(visitor: &Visitor, to: SocketAddr, host: &str) -> String {
    block(visitor.get(to, host, "/")).unwrap_or_else(|error| error.to_string())
}

fn row(hq: &Hq, domain: &str) -> Option<Value> {
    let rows = hq.quarry(&["certs", "--json"]).succeeded().json();
    rows.as_array().unwrap().iter().find(|row| row["domain"] == domain).cloned()
}

fn time(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

/// An HQ whose certificates come from this authority, and who sees these names at 127.0.0.1.
fn certified(hq: &mut Hq, pebble: &Pebble, names: &str) {
    for (name, text) in pebble.settings(hq.http.port()) {
        let path = hq.file("etc").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    see(hq, names);
    hq.hosts = Some(hq.file("hosts"));
    hq.stop(Signal::TERM);
    hq.serve();
}

fn see(hq: &Hq, names: &str) {
    std::fs::write(hq.file("hosts"), format!("127.0.0.1 localhost {names}\n")).unwrap();
}

#[test]
fn a_certificate_of_ones_own_is_checked_and_shown_at_once() {
    let hq = Hq::start();
    let authority = TestAuthority::new();
    hq.push(&with_domains("blog.test, www.blog.test"), "blog").succeeded();
    let given = authority.issue(&["blog.test", "*.blog.test"]);

    let alone = format!("{}{}", given.leaf, authority.issue(&["blog.test"]).key);
    hq.by_ssh_with(&["certs", "add", "blog.test"], alone.as_bytes()).ended(1).said(&["does not fit"]);
    let words = ["certs", "add", "shop.test", "blog.test"];
    hq.by_ssh_with(&words, given.text().as_bytes()).ended(1).said(&["not for `shop.test`"]);
    assert_eq!(row(&hq, "blog.test"), None, "what was refused changes nothing");
    assert_eq!(hq.get("blog.test", "/").status, 200);

    let words = ["certs", "add", "blog.test", "'*.blog.test'"];
    hq.by_ssh_with(&words, given.text().as_bytes()).succeeded().said(&["blog.test, *.blog.test served with it until"]);
    let visitor = authority.visitor();
    for host in ["blog.test", "www.blog.test"] {
        assert!(page(&visitor, hq.https, host).starts_with("HTTP/1.1 200 "), "{host}");
        assert_eq!(hq.get(host, "/").status, 301, "{host}");
    }
    let opened = hq.quarry(&["stacks", "show", "blog"]).succeeded().text();
    for url in [format!("https://blog.test:{}", hq.https.port()), "http://blog.localhost:".to_owned()] {
        assert!(opened.contains(&url), "{opened}");
    }
    let listed = row(&hq, "blog.test").unwrap();
    assert_eq!(
        (&listed["kind"], &listed["stack"], &listed["issuer"]),
        (&"custom".into(), &"blog".into(), &"test link".into())
    );

    hq.quarry(&["certs", "remove", "blog.test"]).succeeded();
    hq.quarry(&["certs", "remove", "blog.test"]).ended(1).said(&["has no certificate of its own"]);
    assert_eq!(shown(&visitor, hq.https, "blog.test"), None);
    assert_eq!(hq.get("blog.test", "/").status, 200);
    hq.quarry(&["certs", "renew", "blog.test"]).ended(1).said(&["acme/email"]);
}

#[test]
fn a_certificate_comes_with_the_repository_and_a_wrong_one_refuses_the_push() {
    let hq = Hq::start();
    let authority = TestAuthority::new();
    let given = authority.issue(&["blog.test"]);
    let with_files = format!("{}  ssl_cert: tls/chain.pem\n  ssl_key: tls/key.pem\n", quarry("blog.test"));
    let files = [
        ("quarry.yml", with_files.as_str()),
        ("tls/chain.pem", &given.chain()),
        ("tls/key.pem", &authority.issue(&["blog.test"]).key),
    ];
    let repository = app(&files);
    hq.push(&repository, "blog").failed().said(&["the private key does not fit the certificate of `blog.test`"]);
    repository.write("tls/key.pem", &given.key);
    repository.commit("the right key");
    hq.push(&repository, "blog").succeeded().said(&[&format!("https://blog.test:{}", hq.https.port())]);
    assert!(page(&authority.visitor(), hq.https, "blog.test").starts_with("HTTP/1.1 200 "));
    assert_eq!(row(&hq, "blog.test").unwrap()["kind"], "custom");
}

#[test]
fn a_certificate_comes_by_itself_and_serves_with_hq_off() {
    let mut hq = Hq::start();
    let pebble = Pebble::start(hq.http.port(), 86_400, 0);
    certified(&mut hq, &pebble, "blog.test new.test added.test");
    let visitor = pebble.visitor();
    let repository = with_domains("blog.test");
    hq.push(&repository, "blog").succeeded();
    let began = Instant::now();
    let first = until("HTTPS of blog.test", || shown(&visitor, hq.https, "blog.test"));
    eprintln!("HTTPS {:?} after the push", began.elapsed());
    assert!(page(&visitor, hq.https, "blog.test").starts_with("HTTP/1.1 200 "));
    assert_eq!(hq.get("blog.test", "/").status, 301);
    assert_eq!(hq.get("blog.localhost", "/").status, 200, "nobody can have one for it");
    let listed = row(&hq, "blog.test").unwrap();
    assert_eq!((&listed["kind"], &listed["problem"]), (&"automatic".into(), &Value::Null));
    assert!(time(&listed["next"]) > Timestamp::now() && time(&listed["next"]) < time(&listed["expires"]), "{listed}");

    hq.quarry(&["certs", "renew", "blog.test"]).succeeded().said(&["blog.test has a new certificate until"]);
    let second = shown(&visitor, hq.https, "blog.test").unwrap();
    assert_ne!(first, second);

    // Whoever restarts orders nothing that is there, and makes no second account.
    let accounts = || std::fs::read_dir(hq.root().join("certs/accounts")).unwrap().count();
    assert_eq!(accounts(), 1);
    hq.stop(Signal::KILL);
    assert_eq!(shown(&visitor, hq.https, "blog.test").unwrap(), second);
    hq.serve();
    repository.write("quarry.yml", &quarry("blog.test, new.test"));
    repository.commit("another domain");
    hq.push(&repository, "blog").succeeded();
    until("HTTPS of new.test", || shown(&visitor, hq.https, "new.test"));
    assert_eq!(shown(&visitor, hq.https, "blog.test").unwrap(), second);
    let began = Instant::now();
    hq.by_ssh(&["domains", "add", "blog", "added.test"]).succeeded();
    until("HTTPS of added.test", || shown(&visitor, hq.https, "added.test"));
    let after = began.elapsed();
    eprintln!("HTTPS {after:?} after domains add");
    assert!(after < Duration::from_secs(10), "{after:?}");
    assert_eq!(pebble.log().matches("There are now 1 accounts in memory").count(), 1);
    assert!(!pebble.log().contains("There are now 2 accounts"), "one account for all");
}

#[test]
fn a_domain_that_leads_elsewhere_waits_and_one_that_is_refused_waits_longer() {
    let mut hq = Hq::start();
    let pebble = Pebble::start(hq.http.port(), 86_400, 0);
    certified(&mut hq, &pebble, "refused.test");
    pebble.lead("refused.test", "127.0.0.9");
    hq.push(&with_domains("late.test, refused.test"), "blog").succeeded();
    let problem = |domain: &str, expected: &str| {
        until(&format!("{expected} of {domain}"), || {
            row(&hq, domain).filter(|row| row["problem"].as_str().is_some_and(|problem| problem.contains(expected)))
        })
    };
    problem("late.test", "DNS has no address for it");
    assert!(!pebble.log().contains("late.test"), "the authority was not asked");
    let refused = problem("refused.test", "the authority says");
    assert!(time(&refused["next"]) > Timestamp::now() + Duration::from_secs(30), "{refused}");
    assert_eq!(refused["kind"], Value::Null);
    assert_eq!(hq.get("refused.test", "/").status, 200, "nobody is led to what is not there");
    let again = hq.quarry(&["certs", "renew", "refused.test"]).ended(3);
    again.said(&["there is no new certificate for `refused.test`", "it is tried again at"]);
    let tries = std::fs::read_to_string(hq.root().join("certs/tries/refused.test.json")).unwrap();
    assert!(tries.contains("\"count\": 2"), "{tries}");

    // Its owner has mended its DNS.
    see(&hq, "late.test refused.test");
    let visitor = pebble.visitor();
    until("HTTPS of late.test", || shown(&visitor, hq.https, "late.test"));
    pebble.lead("refused.test", "127.0.0.1");
    hq.quarry(&["certs", "renew", "refused.test"]).succeeded();
    assert!(page(&visitor, hq.https, "refused.test").starts_with("HTTP/1.1 200 "));
    assert_eq!(row(&hq, "refused.test").unwrap()["problem"], Value::Null);
}

#[test]
fn an_hq_that_is_killed_in_the_middle_of_an_order_begins_it_anew() {
    let mut hq = Hq::start();
    let pebble = Pebble::start(hq.http.port(), 86_400, 3);
    certified(&mut hq, &pebble, "blog.test");
    hq.push(&with_domains("blog.test"), "blog").succeeded();
    until("the challenge", || pebble.log().contains("Pulled a task from the Tasks queue").then_some(()));
    hq.stop(Signal::KILL);
    assert!(!hq.root().join("certs/domains/blog.test.json").exists(), "it was in the middle");
    hq.serve();
    let visitor = pebble.visitor();
    until("HTTPS of blog.test", || shown(&visitor, hq.https, "blog.test"));
    assert_eq!(std::fs::read_dir(hq.root().join("certs/accounts")).unwrap().count(), 1);
}

#[test]
fn a_certificate_is_renewed_when_two_thirds_of_its_life_are_over() {
    let mut hq = Hq::start();
    let pebble = Pebble::start(hq.http.port(), 30, 0);
    certified(&mut hq, &pebble, "blog.test");
    hq.push(&with_domains("blog.test"), "blog").succeeded();
    let visitor = pebble.visitor();
    let first = until("HTTPS of blog.test", || shown(&visitor, hq.https, "blog.test"));
    let began = Instant::now();
    until("another certificate", || shown(&visitor, hq.https, "blog.test").filter(|now| *now != first));
    let after = began.elapsed();
    assert!((Duration::from_secs(15)..Duration::from_secs(27)).contains(&after), "{after:?}");
}

#[test]
fn every_router_shows_certificates_and_answers_the_authority() {
    let lab = Lab::up(1);
    let hq = Hq::start();
    let key = std::fs::read(lab.folder().join("key")).unwrap();
    let address = format!("root@{}", lab.server(1).ip());
    hq.quarry_with(&["servers", "add", &address, "--tags", "router"], &key).succeeded();
    let there = SocketAddr::from((lab.server(1).ip(), hq.https.port()));
    let repository = with_domains("blog.test");
    greet(&repository, "far");
    hq.push(&repository, "blog").succeeded();
    let authority = TestAuthority::new();
    let (old, new) = (authority.issue(&["blog.test"]), authority.issue(&["blog.test"]));
    hq.quarry_with(&["certs", "add", "blog.test"], old.text().as_bytes()).succeeded();
    let visitor = authority.visitor();
    let text = until("the far router shows it", || {
        Some(page(&visitor, there, "blog.test")).filter(|text| text.contains("far"))
    });
    assert!(text.contains("Strict-Transport-Security: max-age="), "{text}");
    let before = shown(&visitor, there, "blog.test");
    hq.quarry_with(&["certs", "add", "blog.test"], new.text().as_bytes()).succeeded();
    assert_ne!(shown(&visitor, there, "blog.test"), before, "both show it when the command is done");
    assert_eq!(shown(&visitor, there, "blog.test"), shown(&visitor, hq.https, "blog.test"));
}

#[test]
fn whoever_does_not_see_a_stack_neither_sees_nor_changes_certificates_of_its_domains() {
    let hq = Hq::start();
    let (authority, eve) = (TestAuthority::new(), hq.person("eve"));
    hq.push(&with_domains("blog.test"), "blog").succeeded();
    let given = authority.issue(&["blog.test"]);
    for domain in ["blog.test", "nobody.test"] {
        let refused = eve.run_with(&["certs", "add", domain], given.text().as_bytes()).failed();
        assert!(!refused.stderr.contains("blog "), "{refused}");
    }
    assert_eq!(row(&hq, "blog.test"), None);
    hq.quarry_with(&["certs", "add", "blog.test"], given.text().as_bytes()).succeeded();
    assert_eq!(eve.run(&["certs", "--json"]).succeeded().json(), Value::Array(Vec::new()));
    eve.run(&["certs", "remove", "blog.test"]).failed();
    assert!(page(&authority.visitor(), hq.https, "blog.test").starts_with("HTTP/1.1 200 "));
}
