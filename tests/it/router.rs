//! The router against a real nginx: what it promises to those who visit, deploy and operate.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use quarry::router::edge::{Edge, EdgeError};
use quarry::router::fake::FakeEdge;
use quarry::router::nginx::{Came, Nginx};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use lab::{App, Client, Lab, free_address, kill, peers, table, until};

mod lab;
mod rules;
mod sites;
mod tls;
mod upkeep;
mod visitors;

/// What both edges promise to those who drive them.
async fn contract(edge: &dyn Edge) {
    let address: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let refused = |set: Result<(), EdgeError>| matches!(set, Err(EdgeError::Refused { .. }));
    assert_eq!(edge.tables().await.unwrap(), vec![]);
    assert_eq!(edge.in_flight(address).await.unwrap(), 0);
    assert_eq!(edge.tallies().await.unwrap(), vec![]);

    let shop = table("shop", 1, &[("web", &["shop.test", "*.shop.test"], peers(&[address]))]);
    let blog = table("blog", 1, &[("web", &["blog.test"], peers(&[]))]);
    edge.set(&shop).await.unwrap();
    edge.set(&blog).await.unwrap();
    assert_eq!(edge.tables().await.unwrap(), vec![blog.clone(), shop.clone()], "by name");

    let taken = table("blog", 2, &[("web", &["blog.test", "shop.test"], peers(&[address]))]);
    assert!(refused(edge.set(&taken).await), "another stack's domain");
    let twice = table("blog", 2, &[("api", &["blog.test"], peers(&[])), ("web", &["blog.test"], peers(&[]))]);
    assert!(refused(edge.set(&twice).await), "one domain in two nodes");
    assert_eq!(edge.tables().await.unwrap(), vec![blog, shop.clone()], "a refused table changes nothing");

    let under = table("blog", 3, &[("web", &["blog.shop.test", "*.test"], peers(&[address]))]);
    edge.set(&under).await.unwrap();
    edge.remove(&"shop".parse().unwrap()).await.unwrap();
    edge.remove(&"shop".parse().unwrap()).await.unwrap();
    edge.set(&taken).await.unwrap();
    assert!(refused(edge.set(&shop).await), "the domain has moved");
    edge.remove(&"blog".parse().unwrap()).await.unwrap();
    edge.set(&shop).await.unwrap();
    assert_eq!(edge.tables().await.unwrap(), vec![shop]);
}

#[tokio::test]
async fn the_fake_keeps_the_promises_of_an_edge() {
    contract(&FakeEdge::new()).await;
}

#[tokio::test]
async fn nginx_keeps_the_promises_of_an_edge() {
    contract(&*Lab::start().await.nginx).await;
}

#[tokio::test]
async fn requests_go_to_all_containers_of_a_node_in_turn() {
    let lab = Lab::start().await;
    let apps = [App::start("a").await, App::start("b").await, App::start("c").await];
    let addresses: Vec<SocketAddr> = apps.iter().map(|app| app.address).collect();
    lab.nginx.set(&table("blog", 1, &[("web", &["blog.test"], peers(&addresses))])).await.unwrap();
    // One connection is one worker, and a worker keeps its own turn.
    let mut client = lab.client().await;
    for _ in 0..30 {
        assert_eq!(client.get("blog.test", "/").await.status, 200);
    }
    assert_eq!(apps.iter().map(App::requests).collect::<Vec<_>>(), [10, 10, 10]);
}

#[tokio::test]
async fn the_most_special_domain_answers() {
    let lab = Lab::start().await;
    let apps = [App::start("exact").await, App::start("long").await, App::start("short").await];
    let target = |app: &App| peers(&[app.address]);
    lab.nginx.set(&table("exact", 1, &[("web", &["www.a.test"], target(&apps[0]))])).await.unwrap();
    lab.nginx.set(&table("long", 1, &[("web", &["*.a.test"], target(&apps[1]))])).await.unwrap();
    lab.nginx.set(&table("short", 1, &[("web", &["*.test"], target(&apps[2]))])).await.unwrap();
    let hosts = [
        ("www.a.test", "exact 0"),
        ("WWW.A.test.", "exact 0"),
        ("www.a.test:8080", "exact 0"),
        ("api.a.test", "long 0"),
        ("x.y.a.test", "long 0"),
        ("a.test", "short 0"),
        ("x.www.b.test", "short 0"),
    ];
    for (host, expected) in hosts {
        assert_eq!(lab.get(host, "/").await.body, expected, "{host}");
    }
    assert_eq!(lab.get("test", "/").await.status, 404, "a wildcard does not stand for nothing");
    lab.nginx.remove(&"exact".parse().unwrap()).await.unwrap();
    assert_eq!(lab.get("www.a.test", "/").await.body, "long 0", "the wildcard answers again");
}

#[tokio::test]
async fn the_app_learns_who_asks_from_the_router_alone() {
    let lab = Lab::start().await;
    let app = App::start("app").await;
    lab.nginx.set(&table("blog", 1, &[("web", &["blog.test"], peers(&[app.address]))])).await.unwrap();
    let forged = [
        "X-Forwarded-For: 6.6.6.6",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: evil.test",
        "X_Forwarded_For: 6.6.6.6",
        "Forwarded: for=6.6.6.6",
        "X-Real-IP: 6.6.6.6",
        "X-Request-Id: no spaces allowed",
        "Proxy: evil.test",
        "Upgrade: h2c",
        "Connection: upgrade",
    ];
    let reply = lab.client().await.ask("GET", "Blog.test:8080", "/head", &forged, "").await;
    assert_eq!(reply.header("server").as_deref(), Some("app"), "the app's own header");
    let seen = |name: &str| Client::header_of(&reply.body, name);
    assert_eq!(seen("host").as_deref(), Some("Blog.test:8080"));
    assert_eq!(seen("x-forwarded-host").as_deref(), Some("Blog.test:8080"));
    assert_eq!(seen("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(seen("x-forwarded-proto").as_deref(), Some("http"));
    assert_eq!(seen("x-forwarded-port"), Some(lab.listen.port().to_string()));
    assert_eq!(seen("x-request-id").unwrap().len(), 32);
    for name in ["proxy", "upgrade", "connection", "forwarded"] {
        assert_eq!(seen(name), None, "{name}");
    }
    assert!(!reply.body.contains("6.6.6.6") && !reply.body.contains("evil"), "{}", reply.body);

    let named = lab.client().await.ask("GET", "blog.test", "/head", &["X-Request-Id: abcd-1234"], "").await;
    assert!(named.body.contains("X-Request-Id: abcd-1234\r\n"));
}

#[tokio::test]
async fn the_path_reaches_the_app_as_it_was_sent() {
    let lab = Lab::start().await;
    let app = App::start("app").await;
    lab.nginx.set(&table("blog", 1, &[("web", &["blog.test"], peers(&[app.address]))])).await.unwrap();
    for path in ["/a%2Fb//c/../d?q=%20+&x", "/%F0%9F%A6%8A", "/.env"] {
        for (method, body) in [("GET", ""), ("POST", "x"), ("DELETE", "")] {
            lab.client().await.ask(method, "blog.test", path, &[], body).await;
        }
    }
    let log = access_log(&lab, 9).await;
    assert!(log.iter().all(|line| line["status"] == 200), "{log:?}");
    let reply = lab.client().await.ask("POST", "blog.test", "/head", &[], "").await;
    assert!(reply.body.starts_with("POST /head HTTP/1.1\r\n"), "{}", reply.body);
    // The host of an absolute address counts, and the app is told no other.
    let reply = lab.client().await.ask("GET", "evil.test", "http://blog.test/head", &[], "").await;
    assert_eq!(Client::header_of(&reply.body, "host").as_deref(), Some("blog.test"));
}

/// The access log, parsed, once it has so many lines.
async fn access_log(lab: &Lab, lines: usize) -> Vec<serde_json::Value> {
    let read = || std::fs::read_to_string(lab.path("log/access.log")).unwrap();
    until("lines in the access log", async || read().lines().count() >= lines).await;
    read().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn an_app_cannot_reach_the_routers_own_places() {
    let lab = Lab::start().await;
    let app = App::start("app").await;
    lab.nginx.set(&table("blog", 1, &[("web", &["blog.test"], peers(&[app.address]))])).await.unwrap();
    let reply = lab.get("blog.test", "/accel").await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "app 0"));
}

#[tokio::test]
async fn pages_of_the_routers_own_say_nothing_of_what_runs() {
    let lab = Lab::start().await;
    let dead = free_address(1);
    let nodes: &[(&str, &[&str], _)] =
        &[("none", &["none.test"], peers(&[])), ("dead", &["dead.test"], peers(&[dead, free_address(2)]))];
    lab.nginx.set(&table("secretname", 1, nodes)).await.unwrap();
    for (host, status) in [("unknown.test", 404), ("none.test", 503), ("dead.test", 502)] {
        for (method, body) in [("GET", ""), ("POST", "some body"), ("HEAD", "")] {
            let reply = lab.client().await.ask(method, host, "/x", &[], body).await;
            assert_eq!(reply.status, status, "{method} {host}");
            assert_eq!(reply.header("cache-control").as_deref(), Some("no-store"));
            assert_eq!(reply.header("retry-after").is_some(), status == 503);
            assert_eq!(reply.header("content-type").as_deref(), Some("text/html; charset=utf-8"));
            let all = reply.head + &reply.body;
            assert!(!all.contains("secretname") && !all.contains(&dead.to_string()), "{all}");
            assert!(method == "HEAD" || reply.body.contains(&format!(">{status}<")), "{}", reply.body);
        }
    }
    lab.in_flight(dead, 0).await;
    let bare = lab.client().await.raw("GET / HTTP/1.0\r\n\r\n").await;
    assert!(bare.starts_with("HTTP/1.1 404"), "{bare}");
}

#[tokio::test]
async fn a_container_that_refuses_connections_costs_no_request() {
    let lab = Lab::start().await;
    let app = App::start("app").await;
    let dead = free_address(1);
    let routes = table("blog", 1, &[("web", &["blog.test"], peers(&[dead, free_address(2), app.address]))]);
    lab.nginx.set(&routes).await.unwrap();
    for round in 0..20 {
        let (method, body) = if round % 2 == 0 { ("GET", "") } else { ("POST", "some body") };
        let reply = lab.client().await.ask(method, "blog.test", "/", &[], body).await;
        assert_eq!((reply.status, reply.body), (200, format!("app {}", body.len())));
    }
    lab.in_flight(dead, 0).await;
    lab.in_flight(app.address, 0).await;
}

#[tokio::test]
async fn a_container_whose_server_is_silent_holds_up_one_request_and_not_the_next() {
    let lab = Lab::start().await;
    let app = App::start("app").await;
    // With its queue full it takes no further connection, and says nothing of it.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::listen(&silent, 0).unwrap();
    let address = silent.local_addr().unwrap();
    let connect = || std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100));
    let queue: Vec<_> = std::iter::from_fn(|| connect().ok()).collect();
    assert!(!queue.is_empty());
    let routes = table("blog", 1, &[("web", &["blog.test"], peers(&[address, app.address]))]);
    lab.nginx.set(&routes).await.unwrap();
    // One connection is one worker, and each worker finds out by itself.
    let mut client = lab.client().await;
    let (began, mut held_up) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(6) {
        let asked = Instant::now();
        assert_eq!(client.get("blog.test", "/").await.status, 200);
        held_up += usize::from(asked.elapsed() > Duration::from_secs(1));
    }
    assert_eq!(held_up, 1);
}

#[tokio::test]
async fn an_app_that_closes_its_idle_connections_costs_no_request() {
    let lab = Lab::start().await;
    let app = App::start("app").await;
    lab.nginx.set(&table("blog", 1, &[("web", &["blog.test"], peers(&[app.address]))])).await.unwrap();
    let mut client = lab.client().await;
    for round in 0..300 {
        let (method, body) = if round % 3 == 0 { ("POST", "some body") } else { ("GET", "") };
        let reply = client.ask(method, "blog.test", "/close", &[], body).await;
        assert_eq!(reply.status, 200, "round {round}");
    }
    assert_eq!(app.requests(), 300, "and none is sent twice");
}

/// Clients that never stop asking, each over its own connection; their count of failures at the end.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<tokio::task::JoinHandle<(usize, Vec<String>)>>,
}

impl Load {
    fn start(listen: SocketAddr, host: &'static str, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (0..clients).map(|number| {
            let stop = stop.clone();
            tokio::spawn(async move {
                let (mut done, mut failed) = (0, Vec::new());
                let mut client = Client::connect(listen).await;
                while !stop.load(Ordering::SeqCst) {
                    let (method, body) = if number % 2 == 0 { ("GET", "") } else { ("POST", "some body") };
                    match client.try_ask(method, host, "/", &[], body).await {
                        Ok(reply) if reply.status == 200 => done += 1,
                        Ok(reply) => failed.push(reply.head),
                        Err(problem) => {
                            failed.push(problem.to_string());
                            client = Client::connect(listen).await;
                        }
                    }
                }
                (done, failed)
            })
        });
        let clients = clients.collect();
        Self { stop, clients }
    }

    async fn end(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = 0;
        for client in self.clients {
            let (done, failed) = client.await.unwrap();
            assert_eq!(failed, Vec::<String>::new());
            all += done;
        }
        all
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_under_load_drops_nothing_and_sends_nothing_new_to_the_old() {
    let lab = Lab::start().await;
    let apps = [App::start("a").await, App::start("b").await];
    let routes = |turn: usize| table("blog", 1, &[("web", &["blog.test"], peers(&[apps[turn % 2].address]))]);
    lab.nginx.set(&routes(0)).await.unwrap();
    let load = Load::start(lab.listen, "blog.test", 8);
    for turn in 1..=200 {
        let (old, new) = (&apps[(turn - 1) % 2], &apps[turn % 2]);
        lab.nginx.set(&routes(turn)).await.unwrap();
        // Those under way were counted before the switch was answered; when they are through, nobody comes any more.
        lab.in_flight(old.address, 0).await;
        let (left, before) = (old.requests(), new.requests());
        until("requests at the new app", async || new.requests() > before + 5).await;
        assert_eq!(old.requests(), left, "turn {turn}");
    }
    assert!(load.end().await > 1000);
    lab.in_flight(apps[0].address, 0).await;
    lab.in_flight(apps[1].address, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_of_a_stack_switch_at_once() {
    let lab = Lab::start().await;
    let apps = [App::start("0").await, App::start("1").await];
    // The domains change node with every release too.
    let routes = |release: usize| {
        let target = || peers(&[apps[release % 2].address]);
        let domains: [&[&str]; 2] = [&["www.test"], &["api.test"]];
        let nodes = [("web", domains[release % 2], target()), ("api", domains[(release + 1) % 2], target())];
        table("blog", release as u64, &nodes)
    };
    lab.nginx.set(&routes(0)).await.unwrap();
    let mut clients = [lab.client().await, lab.client().await, lab.client().await, lab.client().await];
    for release in 1..100 {
        let routes = routes(release);
        let nginx = lab.nginx.clone();
        let switch = tokio::spawn(async move { nginx.set(&routes).await.unwrap() });
        let (mut new, mut asked) = (false, 0);
        while !new || asked < 8 {
            let host = ["www.test", "api.test"][asked % 2];
            let body = clients[asked % 4].get(host, "/").await.body;
            let is_new = body == format!("{} 0", release % 2);
            assert!(is_new || !new, "the old release answered after the new one");
            new = is_new;
            asked += 1;
        }
        switch.await.unwrap();
    }
}

#[tokio::test]
async fn a_websocket_passes_both_ways_and_counts_while_it_is_open() {
    let lab = Lab::start().await;
    let app = App::start("app").await;
    lab.nginx.set(&table("blog", 1, &[("web", &["blog.test"], peers(&[app.address]))])).await.unwrap();
    let mut client = lab.client().await;
    let headers = ["Connection: keep-alive, Upgrade", "Upgrade: WebSocket", "Sec-WebSocket-Version: 13"];
    client.send_head("GET", "blog.test", "/socket", &headers, 0).await.unwrap();
    assert_eq!(client.read_head().await.unwrap().status, 101);
    for message in ["one", "two", "three"] {
        client.stream.write_all(message.as_bytes()).await.unwrap();
        let mut back = vec![0; message.len()];
        client.stream.read_exact(&mut back).await.unwrap();
        assert_eq!(back, message.as_bytes());
    }
    lab.in_flight(app.address, 1).await;
    drop(client);
    lab.in_flight(app.address, 0).await;
}

#[tokio::test]
async fn events_arrive_one_by_one() {
    let lab = Lab::start().await;
    let app = App::start("app").await;
    lab.nginx.set(&table("blog", 1, &[("web", &["blog.test"], peers(&[app.address]))])).await.unwrap();
    let mut client = lab.client().await;
    client.send_head("GET", "blog.test", "/events", &[], 0).await.unwrap();
    assert_eq!(client.read_head().await.unwrap().status, 200, "the head comes before the first event");
    for event in ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"] {
        app.go();
        assert_eq!(client.read_chunk().await.unwrap(), event.as_bytes());
    }
    assert_eq!(client.read_chunk().await.unwrap(), b"");
}

#[tokio::test]
async fn a_large_upload_reaches_the_app_while_it_is_being_sent() {
    let lab = Lab::start().await;
    let app = App::start("app").await;
    lab.nginx.set(&table("blog", 1, &[("web", &["blog.test"], peers(&[app.address]))])).await.unwrap();
    let piece = "x".repeat(1024 * 1024);
    let mut client = lab.client().await;
    client.send_head("POST", "blog.test", "/", &[], 100 * piece.len()).await.unwrap();
    for sent in 1..=100 {
        client.stream.write_all(piece.as_bytes()).await.unwrap();
        until("the piece at the app", async || app.bytes() == sent * piece.len()).await;
    }
    assert_eq!(client.read_reply("POST").await.unwrap().body, format!("app {}", 100 * piece.len()));

    let mut client = lab.client().await;
    client.send_head("PUT", "blog.test", "/", &["Transfer-Encoding: chunked"], 0).await.unwrap();
    client.stream.write_all(b"3\r\nabc\r\n0\r\n\r\n").await.unwrap();
    assert_eq!(client.read_reply("PUT").await.unwrap().body, "app 3");
}

#[tokio::test]
async fn a_download_goes_on_at_the_old_container_after_the_switch() {
    let lab = Lab::start().await;
    let apps = [App::start("old").await, App::start("new").await];
    lab.nginx.set(&table("blog", 1, &[("web", &["blog.test"], peers(&[apps[0].address]))])).await.unwrap();
    let (mut download, mut waiting) = (lab.client().await, lab.client().await);
    download.send_head("GET", "blog.test", "/big", &[], 0).await.unwrap();
    waiting.send_head("GET", "blog.test", "/wait", &[], 0).await.unwrap();
    lab.in_flight(apps[0].address, 2).await;
    lab.nginx.set(&table("blog", 2, &[("web", &["blog.test"], peers(&[apps[1].address]))])).await.unwrap();
    assert_eq!(lab.get("blog.test", "/").await.body, "new 0");
    assert_eq!(download.read_reply("GET").await.unwrap().body.len(), 8 * 1024 * 1024);
    lab.in_flight(apps[0].address, 1).await;
    apps[0].go();
    assert_eq!(waiting.read_reply("GET").await.unwrap().body, "old 0");
    lab.in_flight(apps[0].address, 0).await;
}

#[tokio::test]
async fn requests_whose_client_went_away_count_no_longer() {
    let lab = Lab::start().await;
    let app = App::start("app").await;
    lab.nginx.set(&table("blog", 1, &[("web", &["blog.test"], peers(&[app.address]))])).await.unwrap();
    let mut clients = Vec::new();
    for (path, length) in [("/wait", 0), ("/wait", 100), ("/events", 0), ("/big", 0)] {
        let mut client = lab.client().await;
        client.send_head("GET", "blog.test", path, &[], length).await.unwrap();
        clients.push(client);
    }
    lab.in_flight(app.address, 4).await;
    drop(clients);
    lab.in_flight(app.address, 0).await;
}

#[tokio::test]
async fn what_a_crashed_worker_counted_counts_no_longer() {
    let lab = Lab::start().await;
    let app = App::start("app").await;
    lab.nginx.set(&table("blog", 1, &[("web", &["blog.test"], peers(&[app.address]))])).await.unwrap();
    let mut client = lab.client().await;
    client.send_head("GET", "blog.test", "/wait", &[], 0).await.unwrap();
    lab.in_flight(app.address, 1).await;
    for worker in &lab.pids()[1..] {
        kill(*worker);
    }
    until("the workers to be back", async || {
        matches!(lab.nginx.in_flight(app.address).await, Ok(0)) && lab.nginx.tables().await.is_ok()
    })
    .await;
    assert_eq!(lab.get("blog.test", "/").await.status, 200);
}

#[tokio::test]
async fn the_access_log_is_json_whatever_comes() {
    let lab = Lab::start().await;
    let app = App::start("app").await;
    lab.nginx.set(&table("blog", 1, &[("web", &["blog.test"], peers(&[app.address]))])).await.unwrap();
    let odd = ["User-Agent: \"quoted\" \\ and \u{1}", "X-Request-Id: my-own-id"];
    lab.client().await.ask("POST", "blog.test", "/a\"b?c=\\", &odd, "body").await;
    access_log(&lab, 1).await;
    lab.client().await.raw("nonsense\r\n\r\n").await;
    let log = access_log(&lab, 2).await;
    let line = &log[0];
    assert_eq!(line["id"], "my-own-id");
    assert_eq!((&line["method"], &line["host"]), (&"POST".into(), &"blog.test".into()));
    assert_eq!((&line["stack"], &line["node"]), (&"blog".into(), &"web".into()));
    assert_eq!((&line["path"], &line["status"]), (&"/a\"b?c=\\".into(), &200.into()));
    assert_eq!(line["upstream"], app.address.to_string());
    assert!(line["upstream_seconds"].as_str().unwrap().parse::<f64>().is_ok(), "{line}");
    assert!(line["seconds"].is_number() && line["bytes"].as_u64() > Some(4));
    assert_eq!(log[1]["status"], 400);
}

#[tokio::test]
async fn a_domain_moves_between_stacks_without_ever_answering_wrongly() {
    let lab = Lab::start().await;
    let apps = [App::start("a").await, App::start("b").await];
    let with = |stack, app: &App| table(stack, 1, &[("web", &["moving.test"], peers(&[app.address]))]);
    let without = |stack| table(stack, 2, &[("web", &[], peers(&[]))]);
    lab.nginx.set(&with("a", &apps[0])).await.unwrap();
    for _ in 0..20 {
        lab.nginx.set(&without("a")).await.unwrap();
        assert_eq!(lab.get("moving.test", "/").await.status, 404);
        lab.nginx.set(&with("b", &apps[1])).await.unwrap();
        assert_eq!(lab.get("moving.test", "/").await.body, "b 0");
        lab.nginx.remove(&"b".parse().unwrap()).await.unwrap();
        assert_eq!(lab.get("moving.test", "/").await.status, 404);
        lab.nginx.set(&with("a", &apps[0])).await.unwrap();
        assert_eq!(lab.get("moving.test", "/").await.body, "a 0");
    }
}

#[tokio::test]
async fn many_domains_each_answer_from_their_own_stack_also_after_a_restart() {
    let lab = Lab::start().await;
    let apps = [App::start("even").await, App::start("odd").await];
    for number in 0..1000 {
        let domains: Vec<String> = (0..10).map(|place| format!("d{place}.s{number}.test")).collect();
        let domains: Vec<&str> = domains.iter().map(String::as_str).collect();
        let target = peers(&[apps[number % 2].address]);
        lab.nginx.set(&table(&format!("s{number}"), 1, &[("web", &domains, target)])).await.unwrap();
    }
    for restarted in [false, true] {
        if restarted {
            lab.nginx.stop(Duration::ZERO).await.unwrap();
            assert_eq!(lab.nginx.start_or_adopt().await.unwrap(), Came::Started);
        }
        assert_eq!(lab.nginx.tables().await.unwrap().len(), 1000);
        let mut client = lab.client().await;
        for number in 0..1000 {
            let body = client.get(&format!("d{}.s{number}.test", number % 10), "/").await.body;
            assert_eq!(body, ["even 0", "odd 0"][number % 2], "{number}");
        }
    }
}

#[tokio::test]
async fn a_table_larger_than_a_buffer_is_taken_whole() {
    let lab = Lab::start().await;
    let app = App::start("app").await;
    let domains: Vec<String> = (0..20_000).map(|number| format!("d{number}.large.test")).collect();
    let domains: Vec<&str> = domains.iter().map(String::as_str).collect();
    let routes = table("large", 1, &[("web", &domains, peers(&[app.address]))]);
    lab.nginx.set(&routes).await.unwrap();
    assert_eq!(lab.nginx.tables().await.unwrap(), vec![routes]);
    assert_eq!(lab.get("d19999.large.test", "/").await.body, "app 0");
}

#[tokio::test]
async fn an_nginx_that_is_not_there_is_an_error_that_names_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let nginx = Nginx::new(folder.path(), vec![free_address(0)]);
    let Err(EdgeError::Down { log, .. }) = nginx.tables().await else { panic!("it cannot answer") };
    assert!(log.ends_with("router/log/error.log"), "{log}");
}
