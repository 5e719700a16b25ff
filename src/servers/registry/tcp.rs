//! The gate: a port of HQ's loopback through which one server reads one repository of HQ's registry.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tracing::debug;

use super::process::Keeper;
use super::request::{LONGEST, is_allowed};

/// Bytes handed on at once.
const CHUNK: usize = 64 * 1024;

/// Open until it is dropped, with all connections through it.
pub(super) struct Gate {
    address: SocketAddr,
    passed: Arc<AtomicU64>,
    accepting: AbortHandle,
}

impl Gate {
    pub(super) async fn open(keeper: Arc<Keeper>, repository: String) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let passed = Arc::new(AtomicU64::new(0));
        let accepting = tokio::spawn(accept(listener, keeper, repository.into(), passed.clone())).abort_handle();
        Ok(Self { address, passed, accepting })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that went to the server so far.
    pub(super) fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, keeper: Arc<Keeper>, repository: Arc<str>, passed: Arc<AtomicU64>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((server, _)) = accepted else { continue };
                connections.spawn(connect(server, keeper.clone(), repository.clone(), passed.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connect(server: TcpStream, keeper: Arc<Keeper>, repository: Arc<str>, passed: Arc<AtomicU64>) {
    let registry = match keeper.address().await {
        Ok(address) => TcpStream::connect(address).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let registry = match registry {
        Ok(registry) => registry,
        Err(error) => return debug!(error, "a server was let in and the registry is not there"),
    };
    let ((server_reads, server_writes), (registry_reads, registry_writes)) =
        (server.into_split(), registry.into_split());
    // The server's side hangs up when it has all it wants.
    let ended = tokio::select! {
        ended = ask(server_reads, registry_writes, &repository) => ended,
        ended = answer(registry_reads, server_writes, &passed) => ended,
    };
    if let Err(error) = ended {
        debug!(%error, "a server's connection to the registry broke");
    }
}

/// Hands on requests that only read; the first other one is the end.
async fn ask(
    server: impl AsyncRead + Unpin,
    mut registry: impl AsyncWrite + Unpin,
    repository: &str,
) -> io::Result<()> {
    let mut server = BufReader::new(server);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let left = LONGEST.saturating_sub(head.len()) as u64;
            if (&mut server).take(left).read_line(&mut head).await? == 0 {
                return Ok(());
            }
        }
        if !is_allowed(&head, repository) {
            let first: String = head.lines().next().unwrap_or_default().chars().take(200).collect();
            return Err(io::Error::other(format!("refused: {}", first.escape_debug())));
        }
        registry.write_all(head.as_bytes()).await?;
    }
}

async fn answer(
    mut registry: impl AsyncRead + Unpin,
    mut server: impl AsyncWrite + Unpin,
    passed: &AtomicU64,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = registry.read(&mut chunk).await?;
        if read == 0 {
            return Ok(());
        }
        server.write_all(&chunk[..read]).await?;
        passed.fetch_add(read as u64, Ordering::Relaxed);
    }
}
