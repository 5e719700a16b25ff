//! The gate: a port of HQ's loopback through which one server reads of HQ's registry what is just on its way there.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use tracing::debug;

use super::process::Keeper;
use super::request::{LONGEST, is_allowed};

/// Bytes handed on at once.
const CHUNK: usize = 64 * 1024;

/// Whoever connects asks for something within this time: there are only so many places.
const FIRST: Duration = Duration::from_secs(30);

/// Open until it is dropped, with all connections through it. Without a ticket nobody gets anything.
pub(super) struct Gate {
    address: SocketAddr,
    tickets: Tickets,
    accepting: AbortHandle,
}

/// Lets the server read one repository as long as somebody holds it.
pub(super) struct Ticket {
    repository: String,
    passed: AtomicU64,
}

impl Ticket {
    /// Bytes that went to the server so far.
    pub(super) fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }
}

#[derive(Clone, Default)]
struct Tickets(Arc<Mutex<Vec<Weak<Ticket>>>>);

impl Tickets {
    /// Those that let this request through.
    fn for_request(&self, head: &str) -> Vec<Arc<Ticket>> {
        let tickets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tickets.iter().filter_map(Weak::upgrade).filter(|ticket| is_allowed(head, &ticket.repository)).collect()
    }

    fn add(&self, ticket: &Arc<Ticket>) {
        let mut tickets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tickets.retain(|ticket| ticket.strong_count() > 0);
        tickets.push(Arc::downgrade(ticket));
    }
}

impl Gate {
    pub(super) async fn open(keeper: Arc<Keeper>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let tickets = Tickets::default();
        let accepting = tokio::spawn(accept(listener, keeper, tickets.clone())).abort_handle();
        Ok(Self { address, tickets, accepting })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn ticket(&self, repository: String) -> Arc<Ticket> {
        let ticket = Arc::new(Ticket { repository, passed: AtomicU64::new(0) });
        self.tickets.add(&ticket);
        ticket
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, keeper: Arc<Keeper>, tickets: Tickets) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((server, _)) = accepted else { continue };
                connections.spawn(connect(server, keeper.clone(), tickets.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// For whom the answers on a connection are.
type Readers = Mutex<Vec<Arc<Ticket>>>;

async fn connect(server: TcpStream, keeper: Arc<Keeper>, tickets: Tickets) {
    let (server_reads, server_writes) = server.into_split();
    let mut server_reads = BufReader::new(server_reads);
    // The registry is not even started for who has no business here.
    let readers = Readers::default();
    let ended = async {
        let asked = timeout(FIRST, permitted(&mut server_reads, &tickets, &readers)).await;
        let Some(first) = asked.map_err(io::Error::from)?? else { return Ok(()) };
        let address = keeper.address().await.map_err(io::Error::other)?;
        let (registry_reads, mut registry_writes) = TcpStream::connect(address).await?.into_split();
        registry_writes.write_all(first.as_bytes()).await?;
        // The server's side hangs up when it has all it wants.
        tokio::select! {
            ended = ask(server_reads, registry_writes, &tickets, &readers) => ended,
            ended = answer(registry_reads, server_writes, &readers) => ended,
        }
    };
    if let Err(error) = ended.await {
        debug!(%error, "a server's connection to the registry broke");
    }
}

/// The next request's head; `None` at the end. The first that does more than read what is on its way is an error.
async fn permitted(
    server: &mut (impl AsyncBufReadExt + Unpin),
    tickets: &Tickets,
    readers: &Readers,
) -> io::Result<Option<String>> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let left = LONGEST.saturating_sub(head.len()) as u64;
        if (&mut *server).take(left).read_line(&mut head).await? == 0 {
            return Ok(None);
        }
    }
    let found = tickets.for_request(&head);
    if found.is_empty() {
        let first: String = head.lines().next().unwrap_or_default().chars().take(200).collect();
        return Err(io::Error::other(format!("refused: {}", first.escape_debug())));
    }
    *readers.lock().unwrap_or_else(PoisonError::into_inner) = found;
    Ok(Some(head))
}

async fn ask(
    mut server: impl AsyncBufReadExt + Unpin,
    mut registry: impl AsyncWrite + Unpin,
    tickets: &Tickets,
    readers: &Readers,
) -> io::Result<()> {
    while let Some(head) = permitted(&mut server, tickets, readers).await? {
        registry.write_all(head.as_bytes()).await?;
    }
    Ok(())
}

async fn answer(
    mut registry: impl AsyncRead + Unpin,
    mut server: impl AsyncWrite + Unpin,
    readers: &Readers,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = registry.read(&mut chunk).await?;
        if read == 0 {
            return Ok(());
        }
        server.write_all(&chunk[..read]).await?;
        for ticket in readers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            ticket.passed.fetch_add(read as u64, Ordering::Relaxed);
        }
    }
}
