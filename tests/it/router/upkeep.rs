//! What the router promises to those who operate it: it outlives HQ, comes back when killed, and says why when it cannot.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use quarry::router::edge::{Edge, EdgeError};
use quarry::router::nginx::{Came, Listen, Nginx};

use super::lab::{App, Lab, free_address, kill, peers, table, until};
use super::{Load, access_log};

async fn lab_with_app() -> (Lab, App) {
    let (lab, app) = (Lab::start().await, App::start("app").await);
    lab.nginx.set(&table("blog", 1, &[("web", &["blog.test"], peers(&[app.address]))])).await.unwrap();
    (lab, app)
}

/// Whether the site answers, over a new connection.
async fn answers(lab: &Lab) -> bool {
    let Ok(stream) = tokio::net::TcpStream::connect(lab.listen).await else { return false };
    let mut client = super::Client { stream: tokio::io::BufReader::new(stream) };
    client.try_ask("GET", "blog.test", "/", &[], "").await.is_ok_and(|reply| reply.status == 200)
}

#[tokio::test]
async fn what_each_stack_was_answered_is_counted_over_all_workers() {
    let (lab, _app) = lab_with_app().await;
    for _ in 0..7 {
        assert_eq!(lab.get("blog.test", "/").await.status, 200);
    }
    assert_eq!(lab.get("nobody.test", "/").await.status, 404);
    lab.nginx.set(&table("blog", 2, &[("web", &["blog.test"], peers(&[free_address(2000)]))])).await.unwrap();
    assert_eq!(lab.get("blog.test", "/").await.status, 502);
    let mut last = Vec::new();
    until("the workers to have added up", async || {
        last = lab.nginx.tallies().await.unwrap();
        last.iter().map(|tally| tally.requests).sum::<u64>() == 8
    })
    .await;
    let counted: Vec<(&str, u8, u64)> =
        last.iter().map(|tally| (tally.stack.as_str(), tally.class, tally.requests)).collect();
    assert_eq!(counted, [("blog", 2, 7), ("blog", 5, 1)]);
}

#[tokio::test]
async fn a_restarted_hq_finds_its_nginx_and_no_connection_ends() {
    let (lab, _app) = lab_with_app().await;
    let mut client = lab.client().await;
    assert_eq!(client.get("blog.test", "/").await.status, 200);
    let pids = lab.pids();
    let second = Nginx::listening(lab.folder.path(), lab.both());
    assert_eq!(second.start_or_adopt().await.unwrap(), Came::Adopted);
    assert_eq!(second.tables().await.unwrap().len(), 1);
    assert_eq!(client.get("blog.test", "/").await.status, 200);
    assert_eq!(lab.pids(), pids);
}

#[tokio::test]
async fn a_new_address_comes_without_a_restart_and_keeps_the_tables() {
    let (lab, _app) = lab_with_app().await;
    let master = lab.pids()[0];
    let more = free_address(50);
    let second = Nginx::listening(lab.folder.path(), Listen { http: vec![lab.listen, more], ..lab.both() });
    assert_eq!(second.start_or_adopt().await.unwrap(), Came::Reloaded);
    // A worker of before that has not heard of the reload yet may be the one that answers; then all are told again.
    while second.start_or_adopt().await.unwrap() != Came::Adopted {}
    assert_eq!(super::Client::connect(more).await.get("blog.test", "/").await.status, 200);
    assert!(answers(&lab).await);
    assert_eq!(lab.pids()[0], master);
}

#[tokio::test]
async fn it_moves_to_addresses_that_those_it_has_are_in_the_way_of() {
    let (lab, _app) = lab_with_app().await;
    let everywhere = std::net::SocketAddr::from(([0, 0, 0, 0], lab.listen.port()));
    for listen in [everywhere, lab.listen] {
        let nginx = Nginx::listening(lab.folder.path(), Listen { http: vec![listen], ..lab.both() });
        assert_eq!(nginx.start_or_adopt().await.unwrap(), Came::Started, "{listen}");
        assert!(answers(&lab).await);
    }
}

#[tokio::test]
async fn an_address_that_is_taken_is_an_error_and_what_ran_runs_on() {
    let (lab, _app) = lab_with_app().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let holder = format!("(process {})", std::process::id());

    let second = Nginx::listening(lab.folder.path(), Listen { http: vec![lab.listen, address], ..lab.both() });
    let Err(EdgeError::Start { message }) = second.start_or_adopt().await else { panic!("the address is taken") };
    assert!(message.contains(&address.to_string()) && message.contains(&holder), "{message}");
    assert!(answers(&lab).await);
    assert_eq!(lab.nginx.start_or_adopt().await.unwrap(), Came::Adopted);

    let folder = tempfile::tempdir().unwrap();
    let fresh = Nginx::new(folder.path(), vec![address]);
    let Err(EdgeError::Start { message }) = fresh.start_or_adopt().await else { panic!("the address is taken") };
    assert!(message.contains(&address.to_string()) && message.contains(&holder), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_nginx_is_back_with_its_tables() {
    let (lab, app) = lab_with_app().await;
    let nginx = lab.nginx.clone();
    let watch = tokio::spawn(async move { nginx.watch().await });
    // All of it; the master alone, whose workers live on; its workers alone.
    for who in [0..usize::MAX, 0..1, 1..usize::MAX] {
        let pids = lab.pids();
        let doomed: Vec<i32> =
            pids.iter().copied().enumerate().filter(|(n, _)| who.contains(n)).map(|(_, p)| p).collect();
        doomed.iter().copied().for_each(kill);
        until("another nginx", async || {
            let now = lab.pids();
            now.len() == pids.len() && now.iter().all(|pid| !doomed.contains(pid))
        })
        .await;
        until("an answer", async || answers(&lab).await).await;
        until("the control socket", async || lab.nginx.tables().await.is_ok_and(|tables| tables.len() == 1)).await;
    }
    lab.in_flight(app.address, 0).await;
    watch.abort();
}

#[tokio::test]
async fn setting_a_table_brings_a_dead_nginx_back() {
    let (lab, app) = lab_with_app().await;
    lab.pids().into_iter().for_each(kill);
    lab.nginx.set(&table("shop", 1, &[("web", &["shop.test"], peers(&[app.address]))])).await.unwrap();
    assert_eq!(lab.get("shop.test", "/").await.status, 200);
    assert_eq!(lab.get("blog.test", "/").await.status, 200);
}

#[tokio::test]
async fn nginx_serves_after_a_restart_with_hq_off() {
    let (lab, _app) = lab_with_app().await;
    lab.nginx.stop(Duration::ZERO).await.unwrap();
    assert!(!answers(&lab).await);
    // A line cut off by a crash, and one that was broken by hand, spoil nothing.
    let mut tables = fs::read_to_string(lab.path("routes.jsonl")).unwrap();
    tables.push_str("{\"stack\":\"hand\",\"nodes\":broken}\n{\"stack\":\"blog\",\"release\":2,\"no");
    fs::write(lab.path("routes.jsonl"), tables).unwrap();
    let command = tokio::process::Command::new("/usr/sbin/nginx")
        .arg("-p")
        .arg(lab.path(""))
        .args(["-c", "current/nginx.conf"])
        .current_dir(lab.path(""))
        .status();
    assert!(command.await.unwrap().success());
    until("an answer", async || answers(&lab).await).await;
    let log = fs::read_to_string(lab.path("log/error.log")).unwrap();
    assert!(log.contains("routes of hand left out: not JSON"), "{log}");
    assert_eq!(lab.nginx.start_or_adopt().await.unwrap(), Came::Adopted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_requests_under_way_finish() {
    let (lab, app) = lab_with_app().await;
    let mut client = lab.client().await;
    client.send_head("GET", "blog.test", "/wait", &[], 0).await.unwrap();
    lab.in_flight(app.address, 1).await;
    let nginx = lab.nginx.clone();
    let stop = tokio::spawn(async move { nginx.stop(Duration::from_secs(20)).await });
    until("the door to be closed", async || !answers(&lab).await).await;
    app.go();
    assert_eq!(client.read_reply("GET").await.unwrap().status, 200);
    stop.await.unwrap().unwrap();
}

#[tokio::test]
async fn logs_go_on_in_a_new_file_when_they_are_moved() {
    let (lab, _app) = lab_with_app().await;
    assert!(answers(&lab).await);
    access_log(&lab, 1).await;
    fs::rename(lab.path("log/access.log"), lab.path("log/access.log.1")).unwrap();
    lab.nginx.reopen_logs().await.unwrap();
    until("a new log", async || {
        answers(&lab).await && { fs::metadata(lab.path("log/access.log")).is_ok_and(|log| log.len() > 0) }
    })
    .await;
}

#[tokio::test]
async fn only_root_speaks_to_the_control_socket_and_reads_the_tables() {
    let (lab, _app) = lab_with_app().await;
    let mode = |name: &str| fs::metadata(lab.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("control"), mode("routes.jsonl")), (0o700, 0o600));
    let reply = lab.get("control", "/stacks").await;
    assert_eq!(reply.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_domains_and_scaling_drop_nothing() {
    let (lab, app) = lab_with_app().await;
    let second = App::start("second").await;
    let load = Load::start(lab.listen, "blog.test", 6);
    for round in 0..50 {
        let extra = format!("extra{round}.test");
        let addresses = [app.address, second.address];
        let target = peers(&addresses[..1 + round % 2]);
        lab.nginx.set(&table("blog", 1, &[("web", &["blog.test", &extra], target)])).await.unwrap();
        assert_eq!(lab.get(&extra, "/").await.status, 200);
    }
    assert!(load.end().await > 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_at_the_same_time_are_all_kept() {
    let (lab, app) = lab_with_app().await;
    let lab = Arc::new(lab);
    let changes = (0..50).map(|number| {
        let (lab, address) = (lab.clone(), app.address);
        tokio::spawn(async move {
            let domain = format!("s{number}.test");
            lab.nginx.set(&table(&format!("s{number}"), 1, &[("web", &[&domain], peers(&[address]))])).await.unwrap();
        })
    });
    for change in changes.collect::<Vec<_>>() {
        change.await.unwrap();
    }
    let before = lab.nginx.tables().await.unwrap();
    lab.nginx.stop(Duration::ZERO).await.unwrap();
    lab.nginx.start_or_adopt().await.unwrap();
    assert_eq!(lab.nginx.tables().await.unwrap(), before);
    assert_eq!(before.len(), 51);
}
