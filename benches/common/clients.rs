//! Clients that notice every request that is not served whole: POST bodies in flight, slow downloads, WebSockets.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// What was asked and what went wrong, by kind of client.
#[derive(Clone, Default)]
pub struct Tally(Arc<Mutex<Vec<Kind>>>);

/// One kind's count.
#[derive(Clone, Default)]
pub struct Kind {
    pub name: &'static str,
    pub served: usize,
    pub failures: Vec<String>,
}

impl Tally {
    fn count(&self, name: &'static str, result: Result<(), String>) {
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !kinds.iter().any(|kind| kind.name == name) {
            kinds.push(Kind { name, ..Kind::default() });
        }
        let kind = kinds.iter_mut().find(|kind| kind.name == name).unwrap();
        match result {
            Ok(()) => kind.served += 1,
            Err(failure) => kind.failures.push(failure),
        }
    }

    /// By name.
    pub fn kinds(&self) -> Vec<Kind> {
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        kinds.sort_by_key(|kind| kind.name);
        kinds
    }
}

/// Nothing a client of this benchmark does takes so long.
const LIMIT: Duration = Duration::from_secs(60);

/// Keeps asking until told to stop; what is under way then is still finished.
pub struct Clients {
    runtime: tokio::runtime::Runtime,
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    pub tally: Tally,
}

/// Where the clients go.
#[derive(Clone)]
struct Site {
    address: SocketAddr,
    host: String,
}

impl Clients {
    /// Eight that post, four that load slowly what comes fast, four that load what comes slowly, eight WebSockets.
    pub fn start(address: SocketAddr, host: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let site = Site { address, host: host.to_owned() };
        let mut clients =
            Self { runtime, stop: Arc::new(AtomicBool::new(false)), tasks: Vec::new(), tally: Tally::default() };
        for number in 0..24 {
            let site = site.clone();
            match number {
                0..8 => clients.add("POST bodies in pieces", move || post(site.clone())),
                8..12 => clients.add("downloads by slow clients", move || load(site.clone(), "/bulk", Some(PAUSE))),
                12..16 => clients.add("downloads from a slow app", move || load(site.clone(), "/slow", None)),
                _ => clients.add("WebSockets", move || web_socket(site.clone())),
            }
        }
        clients
    }

    fn add<F: Future<Output = Result<(), String>> + Send>(
        &mut self,
        name: &'static str,
        ask: impl Fn() -> F + Send + Sync + 'static,
    ) {
        let (stop, tally) = (self.stop.clone(), self.tally.clone());
        self.tasks.push(self.runtime.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let result = timeout(LIMIT, ask()).await.unwrap_or_else(|_| Err("it does not end".to_owned()));
                let failed = result.is_err();
                tally.count(name, result);
                if failed {
                    // A site that is down would else fail thousands of times.
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }));
    }

    /// Waits for what is under way.
    pub fn end(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            self.runtime.block_on(task).unwrap();
        }
        self.tally
    }
}

/// A slow client takes 64 KB and then rests so long: a megabyte in about two seconds.
const PAUSE: Duration = Duration::from_millis(125);

const MEGABYTE: usize = 1 << 20;

type Stream = BufReader<TcpStream>;

/// Connects and sends a head.
async fn begin(site: &Site, method: &str, path: &str, lines: &str) -> Result<Stream, String> {
    let mut stream = TcpStream::connect(site.address).await.map_err(|error| format!("connect: {error}"))?;
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n{lines}\r\n", site.host);
    stream.write_all(head.as_bytes()).await.map_err(|error| format!("send: {error}"))?;
    Ok(BufReader::with_capacity(64 << 10, stream))
}

/// Reads an answer's head: it must have this status. The length of the body.
async fn answered(stream: &mut Stream, expected: &str) -> Result<usize, String> {
    let (mut length, mut line, mut first) = (0, String::new(), true);
    loop {
        line.clear();
        stream.read_line(&mut line).await.map_err(|error| format!("read: {error}"))?;
        let text = line.trim_end();
        if first && text.split(' ').nth(1) != Some(expected) {
            return Err(format!("answered {text:?}"));
        }
        if text.is_empty() {
            return Ok(length);
        }
        let name = "content-length:";
        if text.len() > name.len() && text[..name.len()].eq_ignore_ascii_case(name) {
            length = text[name.len()..].trim().parse().map_err(|_| format!("answered {text:?}"))?;
        }
        first = false;
    }
}

/// A body of 40 KB that takes half a second to send; the app's sum of it must be right.
async fn post(site: Site) -> Result<(), String> {
    let pieces: Vec<Vec<u8>> = (0_u8..10).map(|number| vec![b'a' + number; 4096]).collect();
    let sum: u64 = pieces.iter().flatten().map(|byte| u64::from(*byte)).sum();
    let mut stream = begin(&site, "POST", "/echo", "Content-Length: 40960\r\n").await?;
    for piece in &pieces {
        stream.write_all(piece).await.map_err(|error| format!("send a body: {error}"))?;
        sleep(Duration::from_millis(50)).await;
    }
    let length = answered(&mut stream, "200").await?;
    let mut text = vec![0; length];
    stream.read_exact(&mut text).await.map_err(|error| format!("read: {error}"))?;
    let expected = format!("40960 {sum}\n");
    if text == expected.as_bytes() { Ok(()) } else { Err(format!("answered {:?}", String::from_utf8_lossy(&text))) }
}

/// A download that must be whole.
async fn load(site: Site, path: &str, pause: Option<Duration>) -> Result<(), String> {
    let mut stream = begin(&site, "GET", path, "").await?;
    let length = answered(&mut stream, "200").await?;
    if length != MEGABYTE {
        return Err(format!("announced {length} bytes"));
    }
    let mut chunk = vec![0; 64 << 10];
    let mut left = length;
    while left > 0 {
        let most = chunk.len().min(left);
        match stream.read(&mut chunk[..most]).await {
            Ok(0) => return Err(format!("cut off {left} bytes before its end")),
            Ok(count) => left -= count,
            Err(error) => return Err(format!("{error}, {left} bytes before its end")),
        }
        if let Some(pause) = pause {
            sleep(pause).await;
        }
    }
    Ok(())
}

/// Twenty messages in order and a close in order.
async fn web_socket(site: Site) -> Result<(), String> {
    let lines = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let mut stream = begin(&site, "GET", "/ws", lines).await?;
    answered(&mut stream, "101").await?;
    let mut messages = 0;
    loop {
        let mut head = [0; 2];
        let read = stream.read_exact(&mut head).await;
        read.map_err(|error| format!("{error} after {messages} messages"))?;
        let mut payload = vec![0; usize::from(head[1])];
        stream.read_exact(&mut payload).await.map_err(|error| format!("{error} in a message"))?;
        match head[0] {
            0x81 => {
                messages += 1;
                if payload != messages.to_string().as_bytes() {
                    return Err(format!("message {messages} is {:?}", String::from_utf8_lossy(&payload)));
                }
            }
            0x88 if messages == 20 && payload == [0x03, 0xe8] => return Ok(()),
            kind => return Err(format!("a frame of kind {kind:#x} after {messages} messages")),
        }
    }
}
