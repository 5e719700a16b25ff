//! HTTPS: who is shown which certificate, and when that changes.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use quarry::certs::ocsp;
use quarry::router::edge::{Edge, EdgeError};
use quarry::router::fake::FakeEdge;
use quarry::router::tls::{Certificate, Challenge, PrivateKey, Staple, TlsChange, TlsState};
use quarry::units::Protocol;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::lab::{App, Client, Lab, free_address, kill, peers, table, until};
use crate::harness::authority::{Given, TestAuthority};

fn certificate(domain: &str, given: &Given) -> Certificate {
    let (domain, key) = (domain.parse().unwrap(), PrivateKey(given.key.clone()));
    Certificate { domain, chain: given.chain(), key, staple: None }
}

fn set(domain: &str, given: &Given) -> TlsChange {
    TlsChange::Set(certificate(domain, given))
}

fn answer(token: &str, answer: &str) -> TlsChange {
    TlsChange::Answer(Challenge { token: token.parse().unwrap(), answer: answer.to_owned() })
}

fn der(given: &Given) -> Vec<u8> {
    CertificateDer::from_pem_slice(given.leaf.as_bytes()).unwrap().to_vec()
}

async fn contract(edge: &dyn Edge) {
    let authority = TestAuthority::new();
    let (one, other) = (authority.issue(&["b.test", "*.a.test"]), authority.issue(&["b.test"]));
    assert_eq!(edge.secured().await.unwrap(), TlsState::default());
    edge.secure(&set("b.test", &one)).await.unwrap();
    edge.secure(&set("*.a.test", &one)).await.unwrap();
    edge.secure(&set("b.test", &other)).await.unwrap();
    edge.secure(&answer("t-2_x", "t-2_x.aB")).await.unwrap();
    edge.secure(&answer("t1", "one")).await.unwrap();
    let now = edge.secured().await.unwrap();
    assert_eq!(now.certificates, [certificate("*.a.test", &one), certificate("b.test", &other)]);
    let tokens: Vec<&str> = now.challenges.iter().map(|challenge| challenge.token.as_str()).collect();
    assert_eq!(tokens, ["t-2_x", "t1"]);
    for _ in 0..2 {
        edge.secure(&TlsChange::Remove("b.test".parse().unwrap())).await.unwrap();
        edge.secure(&TlsChange::Forget("t1".parse().unwrap())).await.unwrap();
    }
    assert_eq!(edge.secured().await.unwrap().certificates.len(), 1);
    let state = TlsState { certificates: vec![certificate("c.test", &one)], challenges: Vec::new() };
    edge.secure(&TlsChange::All(state.clone())).await.unwrap();
    assert_eq!(edge.secured().await.unwrap(), state);
}

#[tokio::test]
async fn the_fake_keeps_the_promises_of_an_edge_for_https() {
    contract(&FakeEdge::new()).await;
}

#[tokio::test]
async fn nginx_keeps_the_promises_of_an_edge_for_https() {
    contract(&*Lab::start().await.nginx).await;
}

#[tokio::test]
async fn a_host_is_shown_its_own_certificate_before_a_wildcards_and_others_are_shown_none() {
    let (lab, authority) = (Lab::start().await, TestAuthority::new());
    let (exact, wild) = (authority.issue(&["www.a.test"]), authority.issue(&["*.a.test"]));
    lab.nginx.secure(&set("*.a.test", &wild)).await.unwrap();
    lab.nginx.secure(&set("www.a.test", &exact)).await.unwrap();
    let visitor = authority.visitor();
    for (host, expected) in [("www.a.test", &exact), ("WWW.a.test", &exact), ("api.a.test", &wild)] {
        assert_eq!(visitor.shown(lab.https, host).await.unwrap(), der(expected), "{host}");
    }
    for host in ["a.test", "x.www.a.test", "b.test", "127.0.0.1"] {
        let refused = visitor.shown(lab.https, host).await.unwrap_err();
        assert!(refused.to_string().contains("HandshakeFailure"), "{host}: {refused}");
    }
    lab.nginx.secure(&TlsChange::Remove("www.a.test".parse().unwrap())).await.unwrap();
    assert_eq!(visitor.shown(lab.https, "www.a.test").await.unwrap(), der(&wild), "the wildcard's is left");
    // Strangers who knock at any hour leave nothing to look into.
    let errors = std::fs::read_to_string(lab.path("log/error.log")).unwrap_or_default();
    assert_eq!(errors, "");
}

#[tokio::test]
async fn a_certificate_changes_without_a_reload_and_open_connections_go_on() {
    let (lab, authority) = (Lab::start().await, TestAuthority::new());
    let app = App::start("app").await;
    lab.nginx.set(&table("blog", 1, &[("web", &["a.test"], peers(&[app.address]))])).await.unwrap();
    let (old, new) = (authority.issue(&["a.test"]), authority.issue(&["a.test"]));
    lab.nginx.secure(&set("a.test", &old)).await.unwrap();
    let (visitor, pids) = (authority.visitor(), lab.pids());
    let mut stream = visitor.connect(lab.https, "a.test").await.unwrap();
    lab.nginx.secure(&set("a.test", &new)).await.unwrap();
    for _ in 0..8 {
        assert_eq!(visitor.shown(lab.https, "a.test").await.unwrap(), der(&new));
    }
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 200 ") && reply.ends_with("app 0"), "{reply}");
    assert_eq!(lab.pids(), pids, "the same workers");
}

#[tokio::test]
async fn certificates_outlive_nginx_and_only_root_reads_their_keys() {
    let (lab, authority) = (Lab::start().await, TestAuthority::new());
    let given = authority.issue(&["a.test"]);
    lab.nginx.secure(&set("a.test", &authority.issue(&["a.test"]))).await.unwrap();
    lab.nginx.secure(&set("a.test", &given)).await.unwrap();
    lab.nginx.secure(&set("b.test", &authority.issue(&["b.test"]))).await.unwrap();
    lab.nginx.secure(&TlsChange::Remove("b.test".parse().unwrap())).await.unwrap();
    lab.pids().into_iter().for_each(kill);
    until("the end of nginx", async || lab.nginx.secured().await.is_err()).await;
    lab.nginx.start_or_adopt().await.unwrap();
    let now = lab.nginx.secured().await.unwrap();
    assert_eq!(now.certificates, [certificate("a.test", &given)]);
    assert_eq!(authority.visitor().shown(lab.https, "a.test").await.unwrap(), der(&given));
    for name in ["certificates.jsonl", "placeholder.pem"] {
        let mode = std::fs::metadata(lab.path(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn what_nginx_cannot_read_is_refused_and_changes_nothing() {
    let (lab, authority) = (Lab::start().await, TestAuthority::new());
    let given = authority.issue(&["a.test"]);
    lab.nginx.secure(&set("a.test", &given)).await.unwrap();
    let broken = Certificate { chain: "no PEM".to_owned(), ..certificate("a.test", &given) };
    let refused = lab.nginx.secure(&TlsChange::Set(broken)).await;
    assert!(matches!(refused, Err(EdgeError::Tls { .. })), "{refused:?}");
    assert_eq!(authority.visitor().shown(lab.https, "a.test").await.unwrap(), der(&given));
}

/// Whether `openssl s_client` comes through with these words.
fn handshake(to: SocketAddr, words: &[&str]) -> bool {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &to.to_string(), "-servername", "a.test"]).args(words);
    let done = command.stdin(Stdio::null()).output().expect("openssl is missing: run bin/test");
    done.status.success()
}

#[tokio::test]
async fn what_an_authority_says_of_a_certificate_comes_along_with_it_if_it_is_its_word() {
    let (lab, authority) = (Lab::start().await, TestAuthority::new());
    let given = authority.issue(&["a.test"]);
    let question = ocsp::question(&given.chain()).unwrap();
    let answer = authority.vouch(lab.folder.path(), &given, &question);
    let staple = ocsp::staple(&answer, jiff::Timestamp::now()).unwrap();
    let week = jiff::Timestamp::now().as_second() + 7 * 86_400;
    assert!((week - 60..week + 60).contains(&staple.until), "{staple:?}");
    let shown = |staple: Option<Staple>| TlsChange::Set(Certificate { staple, ..certificate("a.test", &given) });
    let said = || {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &lab.https.to_string(), "-servername", "a.test", "-status"]);
        let done = command.stdin(Stdio::null()).output().unwrap();
        String::from_utf8_lossy(&done.stdout).contains("OCSP Response Status: successful")
    };
    lab.nginx.secure(&shown(None)).await.unwrap();
    assert!(!said());
    lab.nginx.secure(&shown(Some(staple.clone()))).await.unwrap();
    assert!(said());
    lab.nginx.secure(&shown(Some(Staple { until: 1, ..staple }))).await.unwrap();
    assert!(!said(), "nobody believes it any more");
    let strangers = TestAuthority::new().vouch(lab.folder.path(), &given, &question);
    let strangers = ocsp::staple(&strangers, jiff::Timestamp::now());
    lab.nginx.secure(&shown(strangers)).await.unwrap();
    assert!(!said() && handshake(lab.https, &["-tls1_3"]), "a stranger's word is not passed on, the certificate is");
}

#[tokio::test]
async fn nothing_older_than_tls_1_2_is_spoken() {
    let (lab, authority) = (Lab::start().await, TestAuthority::new());
    lab.nginx.secure(&set("a.test", &authority.issue(&["a.test"]))).await.unwrap();
    assert!(handshake(lab.https, &["-tls1_2"]) && handshake(lab.https, &["-tls1_3"]));
    for old in ["-tls1", "-tls1_1"] {
        assert!(!handshake(lab.https, &[old, "-cipher", "DEFAULT@SECLEVEL=0"]), "{old}");
    }
    assert!(!handshake(lab.https, &["-tls1_2", "-cipher", "AES128-SHA"]), "without forward secrecy");
}

// The app answers while `curl` is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn browsers_speak_http_2_and_the_app_learns_that_they_came_by_https() {
    let (lab, authority) = (Lab::start().await, TestAuthority::new());
    let app = App::start("app").await;
    lab.nginx.set(&table("blog", 1, &[("web", &["a.test"], peers(&[app.address]))])).await.unwrap();
    lab.nginx.secure(&set("a.test", &authority.issue(&["a.test"]))).await.unwrap();
    let url = format!("https://a.test:{}", lab.https.port());
    let curl = |words: &[&str]| authority.curl(lab.folder.path(), lab.https, "a.test", words).succeeded().text();
    for version in ["--http2", "--http1.1"] {
        let text = curl(&[version, "-w", "|%{http_version}", &format!("{url}/head")]);
        let expected = if version == "--http2" { "|2" } else { "|1.1" };
        assert!(text.trim_end().ends_with(expected), "{text}");
        assert_eq!(Client::header_of(&text, "x-forwarded-proto").as_deref(), Some("https"), "{text}");
        assert_eq!(Client::header_of(&text, "host"), Some(format!("a.test:{}", lab.https.port())), "{text}");
    }
    let posted = curl(&["--http2", "-d", &"x".repeat(100_000), &format!("{url}/post")]);
    assert_eq!(posted.trim_end(), "app 100000");
}

/// An nginx that speaks HTTP/2 without TLS and says what it was asked.
struct Speaker {
    _folder: tempfile::TempDir,
    child: std::process::Child,
    address: SocketAddr,
}

impl Speaker {
    async fn start() -> Self {
        let (folder, address) = (tempfile::tempdir().unwrap(), free_address(2000));
        let text = format!(
            "daemon off; worker_processes 1; pid nginx.pid; error_log error.log; events {{}} http {{ access_log off; \
             client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; scgi_temp_path scgi; \
             uwsgi_temp_path uwsgi; server {{ listen {address} http2; location / {{ \
             return 200 \"$server_protocol $request_method $http_host $http_te $http_x_forwarded_proto\"; }} }} }}"
        );
        std::fs::write(folder.path().join("nginx.conf"), text).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-p").arg(folder.path()).arg("-c").arg(folder.path().join("nginx.conf"));
        let child = command.stderr(Stdio::null()).spawn().unwrap();
        until("a speaker", async || tokio::net::TcpStream::connect(address).await.is_ok()).await;
        Self { _folder: folder, child, address }
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_speaks_grpc_is_spoken_to_by_http_2() {
    let (lab, authority) = (Lab::start().await, TestAuthority::new());
    let (first, second) = (Speaker::start().await, Speaker::start().await);
    let mut routes = table("rpc", 1, &[("web", &["a.test"], peers(&[first.address]))]);
    let web = "web".parse().unwrap();
    routes.nodes.get_mut(&web).unwrap().protocol = Protocol::Grpc;
    lab.nginx.set(&routes).await.unwrap();
    lab.nginx.secure(&set("a.test", &authority.issue(&["a.test"]))).await.unwrap();
    let url = format!("https://a.test:{}/pack.Service/Method", lab.https.port());
    let ask = |words: &[&str]| {
        let words = [words, &["--http2", "-H", "te: trailers", "-w", " %{http_code}", url.as_str()]].concat();
        authority.curl(lab.folder.path(), lab.https, "a.test", &words).succeeded().text()
    };
    let host = format!("a.test:{}", lab.https.port());
    let expected = |method: &str| format!("HTTP/2.0 {method} {host} trailers https 200");
    assert_eq!(ask(&[]).trim_end(), expected("GET"));
    assert_eq!(ask(&["-d", "body", "-H", "content-type: application/grpc"]).trim_end(), expected("POST"));
    lab.in_flight(first.address, 0).await;
    // The switch is one of data, as for everybody else.
    routes.nodes.get_mut(&web).unwrap().target = peers(&[second.address]);
    lab.nginx.set(&routes).await.unwrap();
    drop(first);
    assert_eq!(ask(&["-d", "body"]).trim_end(), expected("POST"));
}

#[tokio::test]
async fn whoever_has_a_certificate_is_led_to_https_and_nobody_before() {
    let (lab, authority) = (Lab::start().await, TestAuthority::new());
    let app = App::start("app").await;
    lab.nginx.set(&table("blog", 1, &[("web", &["a.test", "*.a.test"], peers(&[app.address]))])).await.unwrap();
    let mut client = lab.client().await;
    assert_eq!(client.get("a.test", "/").await.status, 200);
    lab.nginx.secure(&set("a.test", &authority.issue(&["a.test"]))).await.unwrap();
    for (method, status) in [("GET", 301), ("HEAD", 301), ("POST", 308), ("DELETE", 308)] {
        let reply = lab.client().await.ask(method, "A.test:80", "/a%20b?c=d", &[], "").await;
        let location = format!("https://a.test:{}/a%20b?c=d", lab.https.port());
        assert_eq!((reply.status, reply.header("location")), (status, Some(location)), "{method}");
        assert_eq!(reply.header("strict-transport-security"), None, "it means nothing by HTTP");
    }
    assert_eq!(lab.get("x.a.test", "/").await.status, 200, "it has none");
    let beside = lab.client().await.ask("GET", "a.test", "/", &["Quarry-Router: 1"], "").await;
    assert_eq!(beside.status, 301, "whoever calls itself a router is none for that");
    let reply = authority.visitor().get(lab.https, "a.test", "/").await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
    assert_eq!(Client::header_of(&reply, "strict-transport-security").as_deref(), Some("max-age=604800"));
    lab.nginx.secure(&TlsChange::Remove("a.test".parse().unwrap())).await.unwrap();
    assert_eq!(lab.get("a.test", "/").await.status, 200);
}

#[tokio::test]
async fn an_authority_is_answered_before_everything_else_and_the_app_answers_the_rest() {
    let (lab, authority) = (Lab::start().await, TestAuthority::new());
    let app = App::start("app").await;
    lab.nginx.set(&table("blog", 1, &[("web", &["a.test"], peers(&[app.address]))])).await.unwrap();
    let path = |token: &str| format!("/.well-known/acme-challenge/{token}");
    assert_eq!(lab.get("a.test", &path("token")).await.body, "app 0", "it may have an authority of its own");
    lab.nginx.secure(&answer("token", "token.print")).await.unwrap();
    lab.nginx.secure(&set("a.test", &authority.issue(&["a.test"]))).await.unwrap();
    for host in ["a.test", "nobody.test"] {
        let reply = lab.get(host, &path("token")).await;
        assert_eq!((reply.status, reply.body.as_str()), (200, "token.print"), "{host}");
    }
    assert_eq!(lab.get("a.test", &path("other")).await.status, 301);
    assert_eq!(lab.get("nobody.test", &path("token/x")).await.status, 404);
    lab.nginx.secure(&TlsChange::Forget("token".parse().unwrap())).await.unwrap();
    assert_eq!(lab.get("nobody.test", &path("token")).await.status, 404);
}
