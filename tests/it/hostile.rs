//! What a server that somebody else has taken over can do to HQ.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use quarry::agent::Agent;
use quarry::agent::http::{Client, Way};
use quarry::docker::Engine;
use quarry::docker::bollard::Docker;
use quarry::servers::ssh::{Address, KeyPair, Link, Login};
use russh::keys::PrivateKey;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use russh::server::{Auth, Config, Handler, Session, VerifiedPublicKey, run_stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);

/// Lets everybody in.
struct Taken;

impl Handler for Taken {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, _: &str, _: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        Ok(Auth::Accept)
    }

    async fn tcpip_forward(&mut self, _: &str, port: &mut u32, _: &mut Session) -> Result<bool, russh::Error> {
        *port = 4711;
        Ok(true)
    }
}

/// HQ's connection to a server that has been taken over, and that server's end of it.
async fn taken() -> (Link, russh::server::Handle, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let key = KeyPair::open_or_create(&folder.path().join("key")).unwrap();
    let host = PrivateKey::new(KeypairData::Ed25519(Ed25519Keypair::from_seed(&[7; 32])), "").unwrap();
    let shown = host.public_key().to_openssh().unwrap().parse().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let config = Arc::new(Config { keys: vec![host], ..Config::default() });
        let session = run_stream(config, stream, Taken).await.unwrap();
        let _ = tell.send(session.handle());
        let _ = session.await;
    });
    let address = Address { user: "root".to_owned(), host: "127.0.0.1".to_owned(), port };
    let link = Link::connect(&address, &Login::Key(key), &shown).await.unwrap();
    (link, timeout(PATIENCE, told).await.unwrap().unwrap(), folder)
}

#[tokio::test]
async fn a_server_opens_nothing_at_hq_that_hq_has_not_asked_for() {
    let (link, server, _folder) = taken().await;
    let opened = [
        server.channel_open_session().await.is_ok(),
        server.channel_open_direct_tcpip("127.0.0.1", 22, "127.0.0.1", 1).await.is_ok(),
        server.channel_open_direct_streamlocal("/var/run/docker.sock").await.is_ok(),
        server.channel_open_forwarded_streamlocal("/var/run/docker.sock").await.is_ok(),
        server.channel_open_forwarded_tcpip("127.0.0.1", 22, "127.0.0.1", 1).await.is_ok(),
        server.channel_open_x11("127.0.0.1", 1).await.is_ok(),
        server.channel_open_agent().await.is_ok(),
    ];
    assert_eq!(opened, [false; 7]);
    assert!(link.stands());
}

#[tokio::test]
async fn a_server_takes_only_so_many_of_hqs_descriptors() {
    let (link, server, _folder) = taken().await;
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = link.forward(0, target.local_addr().unwrap()).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut guest, _)) = target.accept().await {
            tokio::spawn(async move { tokio::io::copy(&mut guest, &mut tokio::io::sink()).await });
        }
    });
    let mut held = Vec::new();
    for _ in 0..500 {
        let opening = server.channel_open_forwarded_tcpip("127.0.0.1", port.into(), "127.0.0.1", 1);
        held.extend(timeout(PATIENCE, opening).await.unwrap());
    }
    assert!((16..=100).contains(&held.len()), "{}", held.len());
    // Places that become free are given again.
    for channel in held {
        channel.close().await.unwrap();
    }
    let again = async {
        while server.channel_open_forwarded_tcpip("127.0.0.1", port.into(), "127.0.0.1", 1).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, again).await.unwrap();
}

/// A socket whose answers do not end, and how many megabytes of them were taken.
fn endless(path: &Path) -> Arc<AtomicUsize> {
    let listener = UnixListener::bind(path).unwrap();
    let taken: Arc<AtomicUsize> = Arc::default();
    let count = taken.clone();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").await;
        let megabyte = vec![b' '; 1 << 20];
        while count.load(Ordering::Relaxed) < 400 && stream.write_all(&megabyte).await.is_ok() {
            count.fetch_add(1, Ordering::Relaxed);
        }
        std::future::pending::<()>().await;
    });
    taken
}

/// An agent of that kind.
fn endless_agent() -> (Client, Arc<AtomicUsize>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("control")).unwrap();
    let taken = endless(&folder.path().join("control/agent.sock"));
    (Client::new(Way::Here, folder.path()), taken, folder)
}

#[tokio::test]
async fn an_engine_that_speaks_without_end_is_cut_off_before_it_fills_hqs_memory() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    for list in 0..2 {
        let taken = endless(&socket);
        let engine = Docker::connect(&socket);
        let asked = async {
            match list {
                0 => engine.containers("quarry.hq").await.map(drop),
                _ => engine.networks("quarry.hq").await.map(drop),
            }
        };
        timeout(PATIENCE, asked).await.unwrap().unwrap_err();
        assert!(taken.load(Ordering::Relaxed) < 100, "{taken:?} MB");
        std::fs::remove_file(&socket).unwrap();
    }
}

#[tokio::test]
async fn an_agent_that_speaks_without_end_is_cut_off_before_it_fills_hqs_memory() {
    let (client, taken, _folder) = endless_agent();
    timeout(PATIENCE, client.tables()).await.unwrap().unwrap_err();
    assert!(taken.load(Ordering::Relaxed) < 100, "{taken:?} MB");

    let (client, taken, _folder) = endless_agent();
    let mut vitals = client.vitals().await.unwrap();
    timeout(PATIENCE, vitals.next()).await.unwrap().unwrap().unwrap_err();
    assert!(taken.load(Ordering::Relaxed) < 100, "{taken:?} MB");
}
