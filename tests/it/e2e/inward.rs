//! Submodules, images and files whose addresses lead where HQ stands and the pusher does not.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::app;
use crate::harness::{Hq, Repository, docker};

/// A program of HQ's own server, and how often somebody has spoken to it.
fn neighbour() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("[::]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let visits: Arc<AtomicUsize> = Arc::default();
    let count = visits.clone();
    std::thread::spawn(move || {
        for mut visitor in listener.incoming().flatten() {
            let mut said = [0; 1];
            // One that is only knocked at has not been spoken to.
            if visitor.read(&mut said).is_ok_and(|length| length > 0) {
                count.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    (SocketAddr::from(([127, 0, 0, 1], port)), visits)
}

/// A web server at `host` that leads everybody on to `to`.
fn redirecting(host: &str, to: String) -> SocketAddr {
    let listener = TcpListener::bind((host, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut visitor in listener.incoming().flatten() {
            let _ = visitor.read(&mut [0; 4096]);
            let answer =
                format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let _ = visitor.write_all(answer.as_bytes());
        }
    });
    address
}

/// The app with a submodule from this address.
fn with_submodule(url: &str) -> Repository {
    let repository = app(&[(".gitmodules", &format!("[submodule \"lib\"]\n\tpath = lib\n\turl = \"{url}\"\n"))]);
    let link = format!("160000,{},lib", "1".repeat(40));
    repository.git(&["update-index", "--add", "--cacheinfo", &link]).succeeded();
    repository.git(&["commit", "-q", "-m", "with lib"]).succeeded();
    repository
}

#[test]
fn a_submodule_leads_hq_to_nobody_inside_its_own_network() {
    let (own, visits) = neighbour();
    let port = own.port();
    let hq = Hq::start_with(&[("submodule-hosts", "127.0.0.9\n")]);
    let inside = ["leads inside the network of this HQ", "/etc/quarry/submodule-hosts"];
    let check = |url: &str, said: &[&str]| {
        hq.push(&with_submodule(url), "eve").failed().said(said).said(&["cannot fetch the submodule `lib`"]);
        assert_eq!(visits.load(Ordering::SeqCst), 0, "{url} was spoken to");
    };
    for host in [
        "127.0.0.1",
        "localhost",
        "LOCALHOST",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0",
    ] {
        check(&format!("http://{host}:{port}/lib"), &inside);
    }
    for url in [
        format!("git://localhost:{port}/lib"),
        format!("ssh://git@localhost:{port}/lib"),
        format!("https://me:secret@localhost:{port}/lib"),
        "git@localhost:lib".to_owned(),
        "http://169.254.169.254/latest/meta-data/iam".to_owned(),
        "http://[fd00:ec2::254]/latest".to_owned(),
        "git://10.0.0.1/lib".to_owned(),
    ] {
        check(&url, &inside);
    }
    for url in ["ssh://-oProxyCommand=id/x", "-oProxyCommand=id:x", "ext::sh -c id", "file:///etc", "/etc", "fd::17"] {
        check(url, &["this is no address of a git server"]);
    }
    // A server that HQ's owner has named leads it no further than that.
    for to in [format!("http://127.0.0.1:{port}/lib"), format!("http://localhost:{port}/lib")] {
        let from = redirecting("127.0.0.9", to);
        check(&format!("http://{from}/lib"), &inside);
    }
    assert!(hq.containers(&["stack=eve"]).is_empty());
}

#[test]
fn a_build_has_docker_ask_nobody_inside_hq_s_network() {
    let (own, visits) = neighbour();
    let port = own.port();
    let hq = Hq::start();
    let base = format!("quarry-it-onbuild:{}", hq.id());
    docker::image(&base, &format!("FROM debian:bookworm-slim\nONBUILD ADD http://127.0.0.1:{port}/x /x\n"));
    let check = |files: &[(&str, &str)], said: &str| {
        hq.push(&Repository::with(files), "eve").failed().said(&[said]);
        assert_eq!(visits.load(Ordering::SeqCst), 0, "{files:?} was spoken to");
    };
    for add in [
        format!("ADD http://127.0.0.1:{port}/x /x"),
        format!("ADD http://169.254.169.254:{port}/latest /x"),
        format!("ADD http:\\\n//127.0.0.1:{port}/x /x"),
        format!("ADD [\"http:\\u002f\\u002f127.0.0.1:{port}/x\", \"/x\"]"),
        format!("ARG U=http://127.0.0.1:{port}/x\nADD $U /x"),
        format!("ADD http://127.0.0.1:{port}/lib.git /x"),
        "ADD git@localhost:lib /x".to_owned(),
    ] {
        check(&[("Dockerfile", &format!("FROM debian:bookworm-slim\n{add}\nEXPOSE 80\n"))], "fetch it with RUN");
    }
    check(&[("Dockerfile", &format!("FROM {base}\nEXPOSE 80\n"))], "ONBUILD of quarry-it-onbuild");
    for host in ["127.0.0.1", "localhost", "10.0.0.5", "169.254.169.254"] {
        let inside = "/etc/quarry/build/registries";
        check(&[("quarry.yml", &format!("web:\n  container: {host}:{port}/x\n  expose: 80\n"))], inside);
        check(&[("Dockerfile", &format!("FROM {host}:{port}/x\nEXPOSE 80\n"))], inside);
        let copy = format!("FROM debian:bookworm-slim\nCOPY --from={host}:{port}/x /x /x\nEXPOSE 80\n");
        check(&[("Dockerfile", &copy)], inside);
    }
    // What is not a text, or is found another way by docker, is not what has been looked at.
    let hidden = Repository::with(&[("safe", "FROM debian:bookworm-slim\n")]);
    std::os::unix::fs::symlink("/evil", hidden.file("Dockerfile")).unwrap();
    hidden.write("evil", &format!("FROM debian:bookworm-slim\nADD http://127.0.0.1:{port}/x /x\n"));
    hidden.write("quarry.yml", "web:\n  dockerfile: Dockerfile\n  expose: 80\n");
    hidden.commit("a link");
    hq.push(&hidden, "eve").failed();
    assert_eq!(visits.load(Ordering::SeqCst), 0);
    docker::docker(&["rmi", &base]).succeeded();
}
