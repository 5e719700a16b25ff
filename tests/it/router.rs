//! The router against a real nginx: what it promises to those who visit, deploy and operate.

use std::net::SocketAddr;
use std::path::Path;

use quarry::router::StackRoutes;
use quarry::router::edge::Edge;
use quarry::router::nginx::{Came, Nginx};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test(flavor = "multi_thread")]
async fn smoke() {
    let root = tempfile::tempdir().unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let listen: SocketAddr = "127.0.0.1:18080".parse().unwrap();
    let nginx = Nginx::new(root.path(), vec![listen]);
    assert_eq!(nginx.start_or_adopt().await.unwrap(), Came::Started);
    assert_eq!(nginx.start_or_adopt().await.unwrap(), Came::Adopted);
    let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = backend.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut s, _) = backend.accept().await.unwrap();
            tokio::spawn(async move {
                let mut b = vec![0; 4096];
                while let Ok(n) = s.read(&mut b).await {
                    if n == 0 {
                        break;
                    }
                    eprintln!("{}", String::from_utf8_lossy(&b[..n]));
                    s.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await.unwrap();
                }
            });
        }
    });
    let t: StackRoutes = serde_json::from_value(serde_json::json!({"stack":"blog","release":1,"nodes":{"web":{"domains":["blog.test"],"target":{"peers":[{"container":"blog.web.1.1","address":peer}]}}}})).unwrap();
    nginx.set(&t).await.unwrap();
    assert_eq!(nginx.tables().await.unwrap(), vec![t]);
    for host in ["blog.test", "other.test"] {
        for m in ["GET", "POST"] {
            let mut c = TcpStream::connect(listen).await.unwrap();
            c.write_all(
                format!("{m} /a%2Fb//c?x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx")
                    .as_bytes(),
            )
            .await
            .unwrap();
            let mut text = String::new();
            c.read_to_string(&mut text).await.unwrap();
            eprintln!("{text}");
        }
    }
    eprintln!("{}", nginx.in_flight(peer).await.unwrap());
    let started = std::time::Instant::now();
    for i in 0..1000 {
        let t: StackRoutes = serde_json::from_value(serde_json::json!({"stack":format!("s{i}"),"release":1,"nodes":{"web":{"domains":[format!("s{i}.test")],"target":{"peers":[{"container":"blog.web.1.1","address":peer}]}}}})).unwrap();
        nginx.set(&t).await.unwrap();
    }
    eprintln!("{:?}", started.elapsed());
    eprintln!("{}", std::fs::read_to_string(root.path().join("router/log/access.log")).unwrap());
    eprintln!("{}", std::fs::read_to_string(root.path().join("router/log/error.log")).unwrap());
    nginx.stop(std::time::Duration::from_secs(1)).await.unwrap();
    let _: &Path = root.path();
}
