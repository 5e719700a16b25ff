//! What the router does with requests besides passing them on.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use quarry::etc::Balancers;
use quarry::front::{Mode, Rules};
use quarry::names::Domain;
use quarry::router::edge::{Edge, EdgeError};
use quarry::router::{StackRoutes, Target};
use quarry::units::Millis;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::lab::{App, Client, Lab, peers, site, table, until};

fn rules(json: &str) -> Rules {
    serde_json::from_str(json).unwrap()
}

fn domain(text: &str) -> Domain {
    text.parse().unwrap()
}

/// A stack `blog` with the node `web` at blog.test and www.blog.test, under these rules.
pub fn ruled(target: Target, json: &str) -> StackRoutes {
    let mut routes = table("blog", 1, &[("web", &["blog.test", "www.blog.test"], target)]);
    routes.nodes.get_mut(&"web".parse().unwrap()).unwrap().rules = rules(json);
    routes
}

pub async fn with(json: &str) -> (Lab, App) {
    let (lab, app) = (Lab::start().await, App::start("app").await);
    lab.nginx.set(&ruled(peers(&[app.address]), json)).await.unwrap();
    (lab, app)
}

/// The status of one request with these headers, from this address of the machine.
pub async fn status_from(lab: &Lab, from: [u8; 4], headers: &[&str]) -> u16 {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((from, 0))).unwrap();
    let stream = socket.connect(lab.listen).await.unwrap();
    let mut client = Client { stream: tokio::io::BufReader::new(stream) };
    client.ask("GET", "blog.test", "/", headers, "").await.status
}

#[tokio::test]
async fn a_domain_leads_to_another_one_with_path_and_question() {
    let (lab, app) = with(r#"{"redirect":{"www.blog.test":"blog.test"}}"#).await;
    let reply = lab.get("www.blog.test", "/a%20b?c=%2F").await;
    let expected = format!("http://blog.test:{}/a%20b?c=%2F", lab.listen.port());
    assert_eq!((reply.status, reply.header("location")), (301, Some(expected)));
    let posted = lab.client().await.ask("POST", "www.blog.test", "/", &[], "x").await;
    assert_eq!(posted.status, 308, "the method stays");
    assert_eq!((lab.get("blog.test", "/").await.status, app.requests()), (200, 1));
    let mut routes = ruled(peers(&[app.address]), r#"{"redirect":{"www.blog.test":"blog.test"}}"#);
    let web = routes.nodes.get_mut(&"web".parse().unwrap()).unwrap();
    web.redirects.insert(domain("www.blog.test"), domain("elsewhere.example"));
    lab.nginx.set(&routes).await.unwrap();
    let reply = lab.get("www.blog.test", "/").await;
    assert!(reply.header("location").unwrap().starts_with("http://elsewhere.example"), "an order counts first");
}

#[tokio::test]
async fn a_body_larger_than_allowed_never_reaches_the_app() {
    let (lab, app) = with(r#"{"body":1}"#).await;
    let post = async |length: usize| {
        let mut client = lab.client().await;
        client.send_head("POST", "blog.test", "/", &[], length).await.unwrap();
        let _ = client.stream.write_all(&vec![b'x'; length.min(1 << 20)]).await;
        client.read_reply("POST").await.unwrap().status
    };
    assert_eq!(post(1 << 20).await, 200);
    assert_eq!((post((1 << 20) + 1).await, app.requests()), (413, 1));
    let mut client = lab.client().await;
    client.send_head("PUT", "blog.test", "/", &["Transfer-Encoding: chunked"], 0).await.unwrap();
    client.stream.write_all(b"1\r\nx\r\n0\r\n\r\n").await.unwrap();
    let chunked = client.read_reply("PUT").await.unwrap();
    assert_eq!((chunked.status, app.requests()), (411, 1), "nobody says how long it is");
    assert_eq!(lab.get("blog.test", "/").await.status, 200);
}

#[tokio::test]
async fn an_app_that_is_silent_for_too_long_is_given_up() {
    let (lab, _app) = with(r#"{"timeout":300}"#).await;
    let began = Instant::now();
    let reply = lab.get("blog.test", "/wait").await;
    assert_eq!(reply.status, 504);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_buffered_node_gets_a_request_when_all_of_it_is_there() {
    let (lab, app) = with(r#"{"buffering":true}"#).await;
    let mut slow = lab.client().await;
    slow.send_head("POST", "blog.test", "/", &[], 10).await.unwrap();
    slow.stream.write_all(b"half").await.unwrap();
    assert_eq!(lab.get("blog.test", "/").await.status, 200);
    assert_eq!(app.requests(), 1, "only the whole one");
    slow.stream.write_all(b"a half").await.unwrap();
    let reply = slow.read_reply("POST").await.unwrap();
    assert_eq!((reply.status, reply.body.as_str(), app.requests()), (200, "app 10", 2));
}

pub fn hash() -> String {
    let made = std::process::Command::new("openssl").args(["passwd", "-6", "-salt", "abcdefgh", "secret"]).output();
    String::from_utf8(made.unwrap().stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn only_who_has_the_password_comes_in_and_guessing_is_slow() {
    let (lab, app) = with(&format!(r#"{{"auth":{{"anna":"{}"}}}}"#, hash())).await;
    let ask = async |client: &mut Client, header: &str| client.ask("GET", "blog.test", "/head", &[header], "").await;
    let mut client = lab.client().await;
    let stranger = client.get("blog.test", "/").await;
    assert_eq!(stranger.status, 401);
    assert_eq!(stranger.header("www-authenticate").unwrap(), r#"Basic realm="blog", charset="UTF-8""#);
    // anna:secret
    let right = "Authorization: Basic YW5uYTpzZWNyZXQ=";
    assert_eq!(ask(&mut client, right).await.status, 200);
    // anna:wrong, berta:secret, anna alone, no base64
    let wrong = ["YW5uYTp3cm9uZw==", "YmVydGE6c2VjcmV0", "YW5uYQ==", "%%%"];
    for wrong in wrong {
        assert_eq!(ask(&mut client, &format!("Authorization: Basic {wrong}")).await.status, 401, "{wrong}");
    }
    assert_eq!(ask(&mut client, "Authorization: Bearer YW5uYTpzZWNyZXQ=").await.status, 401);
    let mut statuses = Vec::new();
    for _ in 0..12 {
        statuses.push(ask(&mut client, "Authorization: Basic YW5uYTp3cm9uZw==").await.status);
    }
    assert_eq!((statuses[0], statuses[11]), (401, 429), "{statuses:?}");
    assert_eq!(app.requests(), 1);
    assert_eq!(status_from(&lab, [127, 0, 0, 9], &[right]).await, 200, "another one at another address");
}

#[tokio::test]
async fn addresses_are_let_in_or_kept_out() {
    let (lab, _app) = with(r#"{"allow":["127.0.0.0/29","::1"],"deny":["127.0.0.3"]}"#).await;
    for (last, expected) in [(1, 200), (2, 200), (3, 403), (7, 200), (8, 403), (200, 403)] {
        assert_eq!(status_from(&lab, [127, 0, 0, last], &[]).await, expected, "127.0.0.{last}");
    }
    let claims = ["X-Forwarded-For: 127.0.0.1", "X-Real-IP: 127.0.0.1", "Forwarded: for=127.0.0.1"];
    assert_eq!(status_from(&lab, [127, 0, 0, 200], &claims).await, 403, "what a visitor says of itself");
}

#[tokio::test]
async fn each_client_has_a_rate_of_its_own() {
    let (lab, app) = with(r#"{"rate":{"count":1,"per":3600,"burst":3}}"#).await;
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(status_from(&lab, [127, 0, 0, 1], &[]).await);
    }
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    assert_eq!(status_from(&lab, [127, 0, 0, 2], &[]).await, 200);
    assert_eq!(app.requests(), 4);
    let refused = lab.get("blog.test", "/").await;
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((3500..=3600).contains(&wait), "{wait}");
    lab.nginx.set(&ruled(peers(&[app.address]), r#"{"rate":{"count":50,"per":1,"burst":1}}"#)).await.unwrap();
    until("the rate lets one through again", async || lab.get("blog.test", "/").await.status == 200).await;
}

#[tokio::test]
async fn browsers_are_told_for_how_long_to_come_by_https() {
    // Without a certificate nobody speaks HTTPS: a trusted balancer does it.
    let front = Balancers { trusted: vec!["127.0.0.1".parse().unwrap()], proxy_protocol: false };
    let (lab, app) = (Lab::behind(front).await, App::start("app").await);
    let ask = async |json: &str| {
        lab.nginx.set(&ruled(peers(&[app.address]), json)).await.unwrap();
        let by = ["X-Forwarded-Proto: https"];
        lab.client().await.ask("GET", "blog.test", "/", &by, "").await.header("strict-transport-security")
    };
    assert_eq!(ask("{}").await.as_deref(), Some("max-age=604800"));
    assert_eq!(
        ask(r#"{"hsts":"max-age=60; includeSubDomains"}"#).await.as_deref(),
        Some("max-age=60; includeSubDomains")
    );
    assert_eq!(lab.get("blog.test", "/").await.header("strict-transport-security"), None, "not over HTTP");
}

#[tokio::test]
async fn pages_of_ones_own_stand_in_for_the_routers() {
    let (lab, _app) = with(r#"{"pages":{"502":"own 502","503":"own 503","403":"own 403"},"deny":["127.0.0.5"]}"#).await;
    assert_eq!(lab.get("blog.test", "/").await.body, "app 0");
    let nobody: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let pages = r#"{"pages":{"502":"own 502","503":"own 503"}}"#;
    lab.nginx.set(&ruled(peers(&[nobody]), pages)).await.unwrap();
    let reply = lab.get("blog.test", "/").await;
    assert_eq!((reply.status, reply.body.as_str()), (502, "own 502"));
    lab.nginx.set(&ruled(peers(&[]), pages)).await.unwrap();
    let reply = lab.get("blog.test", "/").await;
    assert_eq!((reply.status, reply.body.as_str()), (503, "own 503"));
    let other = lab.get("other.test", "/").await;
    assert!(other.status == 404 && !other.body.contains("own"), "{}", other.body);
}

#[tokio::test]
async fn a_stack_under_maintenance_says_so_and_others_do_not() {
    let (lab, app) = with("{}").await;
    lab.nginx.set(&table("shop", 1, &[("web", &["shop.test"], peers(&[app.address]))])).await.unwrap();
    let mut routes = ruled(peers(&[app.address]), "{}");
    routes.mode = Mode::Maintenance { page: None };
    lab.nginx.set(&routes).await.unwrap();
    let reply = lab.get("blog.test", "/").await;
    assert!(reply.status == 503 && reply.body.contains("Back soon"), "{}", reply.body);
    assert_eq!(reply.header("retry-after").as_deref(), Some("300"));
    routes.mode = Mode::Maintenance { page: Some("<p>moving".into()) };
    lab.nginx.set(&routes).await.unwrap();
    assert_eq!(lab.get("blog.test", "/").await.body, "<p>moving");
    assert_eq!(lab.get("shop.test", "/").await.status, 200);
    assert_eq!(app.requests(), 1);
}

#[tokio::test]
async fn requests_of_a_paused_stack_wait_and_all_are_answered_in_the_end() {
    let (lab, app) = with("{}").await;
    let mut routes = ruled(peers(&[app.address]), "{}");
    routes.mode = Mode::Paused { hold: Millis::seconds(60) };
    lab.nginx.set(&routes).await.unwrap();
    let mut clients = Vec::new();
    for round in 0..20 {
        let mut client = lab.client().await;
        let method = if round % 2 == 0 { "GET" } else { "POST" };
        client.send_head(method, "blog.test", "/", &[], 3 * (round % 2)).await.unwrap();
        client.stream.write_all(&b"abc"[..3 * (round % 2)]).await.unwrap();
        clients.push((client, method));
    }
    // Another stack's requests are answered meanwhile, by the same workers.
    let other = App::start("other").await;
    lab.nginx.set(&table("shop", 1, &[("web", &["shop.test"], peers(&[other.address]))])).await.unwrap();
    for _ in 0..20 {
        assert_eq!(lab.get("shop.test", "/").await.status, 200);
    }
    assert_eq!(app.requests(), 0);
    let new = App::start("new").await;
    lab.nginx.set(&ruled(peers(&[new.address]), "{}")).await.unwrap();
    for (client, method) in &mut clients {
        assert_eq!(client.read_reply(method).await.unwrap().status, 200);
    }
    assert_eq!((app.requests(), new.requests()), (0, 20), "they go where the table leads by then");
}

#[tokio::test]
async fn a_request_waits_no_longer_than_it_was_told_to() {
    let (lab, app) = with("{}").await;
    let mut routes = ruled(peers(&[app.address]), "{}");
    routes.mode = Mode::Paused { hold: Millis(200) };
    lab.nginx.set(&routes).await.unwrap();
    let reply = lab.get("blog.test", "/").await;
    assert_eq!((reply.status, app.requests()), (503, 0));
    assert!(reply.header("retry-after").is_some());
}

#[tokio::test]
async fn a_snippet_shapes_its_own_node_alone_and_changes_nothing_when_it_is_refused() {
    let (lab, app) = with("{}").await;
    lab.nginx.set(&table("shop", 1, &[("web", &["shop.test"], peers(&[app.address]))])).await.unwrap();
    let json = r#"{"snippet":"add_header X-Own \"a;b {} $request_method\" always; rewrite ^/old/(.*)$ /$1 break;"}"#;
    let snippet = rules(json).snippet.unwrap();
    lab.nginx.try_snippet(&snippet).await.unwrap();
    let before = lab.pids();
    lab.nginx.set(&ruled(peers(&[app.address]), json)).await.unwrap();
    let reply = lab.get("blog.test", "/old/head").await;
    assert_eq!(reply.header("x-own").as_deref(), Some("a;b {} GET"));
    assert!(reply.body.starts_with("GET /head "), "{}", reply.body);
    let posted = lab.client().await.ask("POST", "blog.test", "/", &[], "abc").await;
    assert_eq!((posted.status, posted.body.as_str()), (200, "app 3"));
    assert_eq!(lab.get("shop.test", "/").await.header("x-own"), None);
    assert_eq!(lab.pids()[0], before[0], "the master is the same");

    let bad = "gzip_comp_level 77;".parse().unwrap();
    let told = lab.nginx.try_snippet(&bad).await.unwrap_err();
    let words = "`gzip_comp_level \"77\";`: value must be between 1 and 9";
    assert!(matches!(&told, EdgeError::Snippet { message } if message == words), "{told}");
    let texts = || std::fs::read_dir(lab.path("")).unwrap().flatten();
    let texts = texts().filter(|entry| entry.file_name().to_string_lossy().starts_with("text-")).count();
    assert_eq!(texts, 1, "what was tried leaves nothing behind");

    // It is there again after a restart of HQ, without nginx reading its text anew.
    let again = quarry::router::nginx::Nginx::listening(lab.folder.path(), lab.both());
    assert_eq!(again.start_or_adopt().await.unwrap(), quarry::router::nginx::Came::Adopted);
}

#[tokio::test]
async fn a_snippet_shapes_a_site_too() {
    let lab = Lab::start().await;
    let folder = lab.folder.path().join("site");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("index.html"), "home").unwrap();
    lab.nginx.set(&ruled(site(&folder), r#"{"snippet":"expires 1h;"}"#)).await.unwrap();
    let reply = lab.get("blog.test", "/").await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "home"));
    assert_eq!(reply.header("cache-control").as_deref(), Some("max-age=3600"));
    assert_eq!(lab.get("blog.test", "/.env").await.status, 404);
    assert_eq!(lab.get("blog.test", "/none").await.status, 404);
}

#[tokio::test]
async fn only_trusted_balancers_speak_for_visitors() {
    let front = Balancers { trusted: vec!["127.0.0.2".parse().unwrap()], proxy_protocol: false };
    let (lab, app) = (Lab::behind(front).await, App::start("app").await);
    lab.nginx.set(&ruled(peers(&[app.address]), r#"{"allow":["203.0.113.0/24"]}"#)).await.unwrap();
    let claims = ["X-Forwarded-For: 203.0.113.7"];
    assert_eq!(status_from(&lab, [127, 0, 0, 2], &claims).await, 200);
    assert_eq!(status_from(&lab, [127, 0, 0, 3], &claims).await, 403);
    // Of a chain the last one counts that no trusted one has written itself.
    let chain = ["X-Forwarded-For: 203.0.113.7, 198.51.100.1, 127.0.0.2"];
    assert_eq!(status_from(&lab, [127, 0, 0, 2], &chain).await, 403);
}

#[tokio::test]
async fn the_proxy_protocol_names_the_visitor_if_a_trusted_balancer_speaks_it() {
    let front = Balancers { trusted: vec!["127.0.0.2".parse().unwrap()], proxy_protocol: true };
    let (lab, app) = (Lab::behind(front).await, App::start("app").await);
    lab.nginx.set(&ruled(peers(&[app.address]), r#"{"allow":["203.0.113.0/24"]}"#)).await.unwrap();
    let ask = async |from: [u8; 4], line: &str| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((from, 0))).unwrap();
        let mut stream = socket.connect(lab.listen).await.unwrap();
        let request = format!("{line}GET / HTTP/1.1\r\nHost: blog.test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    let line = "PROXY TCP4 203.0.113.7 203.0.113.1 40000 80\r\n";
    assert_eq!(ask([127, 0, 0, 2], line).await, "200");
    assert_eq!(ask([127, 0, 0, 3], line).await, "403", "whoever says so and is not trusted");
    assert_ne!(ask([127, 0, 0, 2], "").await, "200", "one who does not speak it");
}

#[tokio::test]
async fn a_router_that_asks_for_a_site_has_looked_at_its_visitor_itself() {
    let lab = Lab::start().await;
    let folder = lab.folder.path().join("site");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("index.html"), "home").unwrap();
    let mut routes = ruled(site(&folder), r#"{"allow":["203.0.113.7"]}"#);
    routes.nodes.get_mut(&"web".parse().unwrap()).unwrap().pass = Some("word".into());
    lab.nginx.set(&routes).await.unwrap();
    assert_eq!(status_from(&lab, [127, 0, 0, 1], &["Quarry-Router: word"]).await, 200);
    for other in ["Quarry-Router: 1", "Quarry-Router:"] {
        assert_eq!(status_from(&lab, [127, 0, 0, 1], &[other]).await, 403, "{other}");
    }
    // A container never hears the word; only a router behind a node that has one does.
    let app = App::start("app").await;
    lab.nginx.set(&ruled(peers(&[app.address]), "{}")).await.unwrap();
    let mut client = lab.client().await;
    let head = client.ask("GET", "blog.test", "/head", &["Quarry-Router: word"], "").await.body;
    assert!(!head.to_lowercase().contains("quarry-router"), "{head}");
}
