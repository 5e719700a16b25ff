//! A router of its own for each test, apps behind it and a client before it.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quarry::etc::Balancers;
use quarry::router::nginx::{Came, Listen, Nginx};
use quarry::router::{NodeRoutes, Peer, StackRoutes, Target};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// A running router; ends with the test.
pub struct Lab {
    pub folder: tempfile::TempDir,
    pub listen: SocketAddr,
    pub https: SocketAddr,
    pub nginx: Arc<Nginx>,
}

impl Lab {
    pub async fn start() -> Self {
        Self::behind(Balancers::default()).await
    }

    pub async fn behind(front: Balancers) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let listen = free_address(0);
        let https = free_address(1000);
        let both = Listen { http: vec![listen], https: vec![https], front };
        let nginx = Arc::new(Nginx::listening(folder.path(), both));
        assert_eq!(nginx.start_or_adopt().await.unwrap(), Came::Started);
        Self { folder, listen, https, nginx }
    }

    /// Where it listens.
    pub fn both(&self) -> Listen {
        Listen { http: vec![self.listen], https: vec![self.https], ..Listen::default() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("router").join(name)
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.listen).await
    }

    /// One request over a connection of its own.
    pub async fn get(&self, host: &str, path: &str) -> Reply {
        self.client().await.get(host, path).await
    }

    /// Waits until as many requests are under way there.
    pub async fn in_flight(&self, peer: SocketAddr, expected: u64) {
        use quarry::router::edge::Edge;
        until(&format!("{expected} requests under way"), async || {
            self.nginx.in_flight(peer).await.unwrap() == expected
        })
        .await;
    }

    /// Pids of nginx, master first; none while there is no master.
    pub fn pids(&self) -> Vec<i32> {
        let read = || -> Option<Vec<i32>> {
            let master: i32 = std::fs::read_to_string(self.path("nginx.pid")).ok()?.trim().parse().ok()?;
            let children = std::fs::read_to_string(format!("/proc/{master}/task/{master}/children")).ok()?;
            Some(std::iter::once(master).chain(children.split_whitespace().flat_map(str::parse)).collect())
        };
        read().unwrap_or_default()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let nginx = self.nginx.clone();
        let stop = move || tokio::runtime::Runtime::new().unwrap().block_on(nginx.stop(Duration::ZERO));
        let stopped = std::thread::spawn(stop).join();
        if !std::thread::panicking() {
            stopped.unwrap().unwrap();
        }
    }
}

/// An address nobody listens at. Below the range the kernel gives to clients, and another one in each test process.
pub fn free_address(offset: u16) -> SocketAddr {
    let first = std::process::id() as u16 % 10_000 + offset;
    (0..10_000)
        .map(|step| SocketAddr::from(([127, 0, 0, 1], 10_000 + (first + step) % 10_000)))
        .find(|address| std::net::TcpListener::bind(address).is_ok())
        .unwrap()
}

pub fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// Polls until the condition holds.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// One stack's table of (node, domains, target).
pub fn table(stack: &str, release: u64, nodes: &[(&str, &[&str], Target)]) -> StackRoutes {
    let nodes = nodes.iter().map(|(node, domains, target)| {
        let domains = domains.iter().map(|domain| domain.parse().unwrap()).collect();
        (node.parse().unwrap(), NodeRoutes::new(domains, target.clone()))
    });
    StackRoutes::new(stack.parse().unwrap(), quarry::names::ReleaseNumber(release), nodes)
}

pub fn peers(addresses: &[SocketAddr]) -> Target {
    let peer = |address: &SocketAddr| Peer { container: "blog.web.1.1".parse().unwrap(), address: *address };
    Target::Peers(addresses.iter().map(peer).collect())
}

pub fn site(path: &Path) -> Target {
    Target::Site(path.to_owned())
}

/// An app. It answers by path:
///
/// `/wait` when told to `go`; `/events` three events, each when told to; `/close` and hangs up without having said so;
/// `/socket` as a WebSocket that sends back what it gets; `/accel` with headers meant for nginx; `/big` with 8 MB;
/// `/head` with the request's head; everything else with its name and the length of the body.
pub struct App {
    pub address: SocketAddr,
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    requests: AtomicUsize,
    bytes: AtomicUsize,
    go: Notify,
}

impl App {
    pub async fn start(name: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Inner {
            name: name.to_owned(),
            requests: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            go: Notify::new(),
        };
        let inner = Arc::new(inner);
        let own = inner.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let own = own.clone();
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    while let Ok(true) = own.serve(&mut stream).await {}
                });
            }
        });
        Self { address, inner }
    }

    /// Requests that have reached it.
    pub fn requests(&self) -> usize {
        self.inner.requests.load(Ordering::SeqCst)
    }

    /// Bytes of bodies that have reached it.
    pub fn bytes(&self) -> usize {
        self.inner.bytes.load(Ordering::SeqCst)
    }

    /// Lets one waiting answer go on.
    pub fn go(&self) {
        self.inner.go.notify_one();
    }
}

impl Inner {
    /// Answers one request; whether the connection goes on.
    async fn serve(&self, stream: &mut BufReader<TcpStream>) -> std::io::Result<bool> {
        let Some(head) = read_head(stream).await? else { return Ok(false) };
        self.requests.fetch_add(1, Ordering::SeqCst);
        let length = self.body(stream, &head).await?;
        let path = head.split(' ').nth(1).unwrap_or("").to_owned();
        match path.as_str() {
            "/wait" => self.go.notified().await,
            "/events" => return self.events(stream).await,
            "/socket" => {
                let accept = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
                stream.write_all(accept.as_bytes()).await?;
                let mut bytes = [0; 4096];
                loop {
                    let count = stream.read(&mut bytes).await?;
                    if count == 0 {
                        return Ok(false);
                    }
                    stream.write_all(&bytes[..count]).await?;
                }
            }
            _ => {}
        }
        let body = match path.as_str() {
            "/head" => head,
            "/big" => "x".repeat(8 * 1024 * 1024),
            _ => format!("{} {length}", self.name),
        };
        let more = if path == "/accel" { "X-Accel-Redirect: @site\r\nX-Accel-Limit-Rate: 1\r\n" } else { "" };
        let answer = format!("HTTP/1.1 200 OK\r\nServer: app\r\n{more}Content-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await?;
        Ok(path != "/close")
    }

    async fn body(&self, stream: &mut BufReader<TcpStream>, head: &str) -> std::io::Result<usize> {
        let mut total = 0;
        let mut left = header(head, "content-length").map_or(0, |length| length.parse().unwrap());
        let chunked = header(head, "transfer-encoding").is_some();
        loop {
            if chunked && left == 0 {
                let mut line = String::new();
                stream.read_line(&mut line).await?;
                left = usize::from_str_radix(line.trim(), 16).unwrap();
                if left == 0 {
                    stream.read_line(&mut line).await?;
                }
            }
            if left == 0 {
                return Ok(total);
            }
            while left > 0 {
                let mut bytes = vec![0; left.min(1 << 16)];
                let count = stream.read(&mut bytes).await?;
                if count == 0 {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
                left -= count;
                total += count;
                self.bytes.fetch_add(count, Ordering::SeqCst);
            }
            if chunked {
                stream.read_line(&mut String::new()).await?;
            }
        }
    }

    async fn events(&self, stream: &mut BufReader<TcpStream>) -> std::io::Result<bool> {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await?;
        for event in ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"] {
            self.go.notified().await;
            stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await?;
        }
        stream.write_all(b"0\r\n\r\n").await?;
        Ok(true)
    }
}

/// A visitor with one connection.
pub struct Client {
    pub stream: BufReader<TcpStream>,
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<String> {
        header(&self.head, name)
    }
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    pub async fn get(&mut self, host: &str, path: &str) -> Reply {
        self.ask("GET", host, path, &[], "").await
    }

    /// Sends the text as it is and reads until the router hangs up.
    pub async fn raw(&mut self, text: &str) -> String {
        self.stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        self.stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// One header of a head in text.
    pub fn header_of(head: &str, name: &str) -> Option<String> {
        header(head, name)
    }

    pub async fn ask(&mut self, method: &str, host: &str, path: &str, headers: &[&str], body: &str) -> Reply {
        self.try_ask(method, host, path, headers, body).await.unwrap()
    }

    pub async fn try_ask(
        &mut self,
        method: &str,
        host: &str,
        path: &str,
        headers: &[&str],
        body: &str,
    ) -> std::io::Result<Reply> {
        self.send_head(method, host, path, headers, body.len()).await?;
        self.stream.write_all(body.as_bytes()).await?;
        self.read_reply(method).await
    }

    pub async fn send_head(
        &mut self,
        method: &str,
        host: &str,
        path: &str,
        headers: &[&str],
        length: usize,
    ) -> std::io::Result<()> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
        for header in headers {
            head.push_str(&format!("{header}\r\n"));
        }
        if length > 0 || method == "POST" {
            head.push_str(&format!("Content-Length: {length}\r\n"));
        }
        self.stream.write_all(format!("{head}\r\n").as_bytes()).await
    }

    /// The head of an answer alone.
    pub async fn read_head(&mut self) -> std::io::Result<Reply> {
        let head = read_head(&mut self.stream).await?.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Ok(Reply { status, head, body: String::new() })
    }

    /// One chunk of a chunked body; empty at its end.
    pub async fn read_chunk(&mut self) -> std::io::Result<Vec<u8>> {
        let mut line = String::new();
        self.stream.read_line(&mut line).await?;
        let length = usize::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
        let mut chunk = vec![0; length + 2];
        self.stream.read_exact(&mut chunk).await?;
        chunk.truncate(length);
        Ok(chunk)
    }

    pub async fn read_reply(&mut self, method: &str) -> std::io::Result<Reply> {
        let mut reply = self.read_head().await?;
        let mut body = Vec::new();
        if let Some(length) = reply.header("content-length").filter(|_| method != "HEAD") {
            body.resize(length.parse().unwrap(), 0);
            self.stream.read_exact(&mut body).await?;
        } else if reply.header("transfer-encoding").is_some() {
            loop {
                let chunk = self.read_chunk().await?;
                if chunk.is_empty() {
                    break;
                }
                body.extend(chunk);
            }
        }
        reply.body = String::from_utf8_lossy(&body).into_owned();
        Ok(reply)
    }
}

async fn read_head(stream: &mut BufReader<TcpStream>) -> std::io::Result<Option<String>> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await? == 0 {
            return if head.is_empty() { Ok(None) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) };
        }
    }
    Ok(Some(head))
}

fn header(head: &str, name: &str) -> Option<String> {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.into_iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
}
