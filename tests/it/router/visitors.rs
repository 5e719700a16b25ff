//! What visitors may write in a request, and cannot reach with it.

use quarry::etc::Balancers;
use quarry::router::edge::Edge;
use quarry::router::tls::{Certificate, PrivateKey, TlsChange};
use tokio::io::AsyncWriteExt;

use super::lab::{App, Lab, peers, site, until};
use super::rules::{hash, ruled, status_from, with};
use crate::harness::authority::TestAuthority;

fn behind(trusted: &str, proxy_protocol: bool) -> Balancers {
    Balancers { trusted: vec![trusted.parse().unwrap()], proxy_protocol }
}

/// A lab with a certificate of blog.test, whose node has these rules.
async fn secured(json: &str) -> (Lab, App, TestAuthority) {
    let ((lab, app), authority) = (with(json).await, TestAuthority::new());
    let given = authority.issue(&["blog.test", "www.blog.test"]);
    for domain in ["blog.test", "www.blog.test"] {
        let (domain, key) = (domain.parse().unwrap(), PrivateKey(given.key.clone()));
        let certificate = Certificate { domain, chain: given.chain(), key, staple: None };
        lab.nginx.secure(&TlsChange::Set(certificate)).await.unwrap();
    }
    (lab, app, authority)
}

#[tokio::test]
async fn a_host_with_something_else_than_a_port_reaches_the_app_as_the_one_it_was_routed_by() {
    let (lab, _app) = with("{}").await;
    for (host, seen) in [
        ("blog.test:8080", "blog.test:8080"),
        ("BLOG.test", "BLOG.test"),
        ("blog.test:@evil.example", "blog.test"),
        ("blog.test:80.evil.example", "blog.test"),
    ] {
        let head = lab.get(host, "/head").await.body.to_lowercase();
        let seen = seen.to_lowercase();
        if head.starts_with("get /head ") {
            assert!(head.contains(&format!("\r\nhost: {seen}\r\n")), "{host}: {head}");
            assert!(head.contains(&format!("\r\nx-forwarded-host: {seen}\r\n")), "{host}: {head}");
        } else {
            assert!(host.contains("evil"), "{host}: {head}");
        }
    }
}

#[tokio::test]
async fn a_body_is_streamed_whatever_the_method_and_never_lies_on_the_routers_disk() {
    let (lab, app) = with("{}").await;
    let mut slow = lab.client().await;
    slow.send_head("GET", "blog.test", "/", &[], 10).await.unwrap();
    slow.stream.write_all(b"half").await.unwrap();
    until("the app to hear of it", async || app.requests() == 1 && app.bytes() == 4).await;
    slow.stream.write_all(b"a half").await.unwrap();
    assert_eq!(slow.read_reply("GET").await.unwrap().body, "app 10");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sends_more_than_allowed_by_not_saying_how_much() {
    let (lab, app, authority) = secured(r#"{"body":1}"#).await;
    let large = lab.folder.path().join("large");
    let url = format!("https://blog.test:{}/x", lab.https.port());
    let send = |method: &str, size: u64| {
        std::fs::File::create(&large).unwrap().set_len(size).unwrap();
        let body = ["-T", large.to_str().unwrap(), "-H", "Content-Length:"];
        let words = ["--http2", "-X", method, "-o", "/dev/null", "-w", "%{http_code}", &url];
        authority.curl(lab.folder.path(), lab.https, "blog.test", &[&body[..], &words[..]].concat()).text()
    };
    assert_eq!(send("POST", 30 << 20), "411");
    for method in ["GET", "OPTIONS", "DELETE"] {
        assert_eq!(send(method, 1000), "200", "{method}");
        let before = app.bytes();
        assert_ne!(send(method, 30 << 20), "200", "{method}");
        assert!(app.bytes() - before <= 1 << 20, "{method}");
    }
}

#[tokio::test]
async fn the_front_page_of_a_site_is_one_request() {
    let lab = Lab::start().await;
    let folder = lab.folder.path().join("site");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("index.html"), "home").unwrap();
    lab.nginx.set(&ruled(site(&folder), r#"{"rate":{"count":1,"per":3600,"burst":1}}"#)).await.unwrap();
    let first = lab.get("blog.test", "/").await;
    assert_eq!((first.status, first.body.as_str()), (200, "home"));
    assert_eq!(lab.get("blog.test", "/").await.status, 429);
}

#[tokio::test]
async fn behind_a_balancer_that_ends_tls_nobody_is_led_back_to_http() {
    let (lab, app) = (Lab::behind(behind("127.0.0.1", false)).await, App::start("app").await);
    lab.nginx.set(&ruled(peers(&[app.address]), r#"{"redirect":{"www.blog.test":"blog.test"}}"#)).await.unwrap();
    let led = async |headers: &[&str]| {
        lab.client().await.ask("GET", "www.blog.test", "/a", headers, "").await.header("location").unwrap()
    };
    assert_eq!(led(&["X-Forwarded-Proto: https"]).await, "https://blog.test/a");
    let ported = ["X-Forwarded-Proto: https", "X-Forwarded-Port: 8443"];
    assert_eq!(led(&ported).await, "https://blog.test:8443/a");
    assert_eq!(led(&["X-Forwarded-Proto: http", "X-Forwarded-Port: 80"]).await, "http://blog.test/a");
}

#[tokio::test]
async fn with_the_proxy_protocol_headers_of_visitors_say_nothing() {
    let (lab, app) = (Lab::behind(behind("127.0.0.1", true)).await, App::start("app").await);
    lab.nginx.set(&ruled(peers(&[app.address]), "{}")).await.unwrap();
    let mut client = lab.client().await;
    client.stream.write_all(b"PROXY TCP4 203.0.113.7 203.0.113.1 40000 80\r\n").await.unwrap();
    let claims = ["X-Forwarded-Proto: https", "X-Forwarded-Port: 31337", "X-Forwarded-For: 198.51.100.1"];
    let reply = client.ask("GET", "blog.test", "/head", &claims, "").await;
    let head = reply.body.to_lowercase();
    assert!(head.contains("x-forwarded-proto: http\r\n") && !head.contains("31337"), "{head}");
    assert!(head.contains("x-forwarded-for: 203.0.113.7\r\n"), "{head}");
    assert_eq!(reply.header("strict-transport-security"), None);
}

#[tokio::test]
async fn all_addresses_of_one_ipv6_network_are_one_client() {
    let (lab, app) = (Lab::behind(behind("127.0.0.1", false)).await, App::start("app").await);
    lab.nginx.set(&ruled(peers(&[app.address]), r#"{"rate":{"count":1,"per":3600,"burst":2}}"#)).await.unwrap();
    let status = async |of: &str| {
        let header = format!("X-Forwarded-For: {of}");
        lab.client().await.ask("GET", "blog.test", "/", &[&header], "").await.status
    };
    assert_eq!([status("2001:db8::1").await, status("2001:db8::2").await], [200, 200]);
    assert_eq!(status("2001:db8:0:0:ffff::3").await, 429);
    assert_eq!(status("2001:db8:0:1::1").await, 200, "another network");
}

#[tokio::test]
async fn guesses_from_everywhere_are_slow_too_and_who_is_known_comes_in_all_the_same() {
    let (lab, _app) = with(&format!(r#"{{"auth":{{"anna":"{}"}}}}"#, hash())).await;
    // anna:secret, anna:wrong
    let (right, wrong) = ("Authorization: Basic YW5uYTpzZWNyZXQ=", "Authorization: Basic YW5uYTp3cm9uZw==");
    // Each worker remembers by itself.
    for _ in 0..50 {
        assert_eq!(status_from(&lab, [127, 0, 0, 1], &[right]).await, 200);
    }
    let mut last = 401;
    for address in 2..80 {
        last = status_from(&lab, [127, 0, 0, address], &[wrong]).await;
        if last == 429 {
            break;
        }
    }
    assert_eq!(last, 429, "each from an address of its own");
    assert_eq!(status_from(&lab, [127, 0, 0, 1], &[right]).await, 200);
}
