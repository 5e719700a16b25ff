//! The members of a cluster: which one is asked, how long, and what an answer means.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Error, Identity, TlsOptions};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use crate::db::DbError;

/// How long a call may take in all. A cluster that lost its leader has a new one in less.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// How long one member may take when there are others to ask.
const ONE_MEMBER: Duration = Duration::from_secs(2);
/// How long to open a connection.
const CONNECT: Duration = Duration::from_secs(2);
/// Pause after all members were asked in vain.
const ROUND: Duration = Duration::from_millis(100);
/// With less time left no member is asked any more.
const LAST: Duration = Duration::from_millis(400);
/// A member that is silent for as long while it is asked for something gets a ping; etcd forbids more than one in 5 s.
const PING: Duration = Duration::from_secs(10);
/// How long the answer to a ping may take.
const PONG: Duration = Duration::from_secs(3);

/// Where a cluster is and how to be let in.
#[derive(Clone, Default)]
pub struct Cluster {
    /// `http://` or `https://` addresses of its members.
    pub endpoints: Vec<String>,
    /// What all keys of the tree begin with: `/quarry`.
    pub prefix: String,
    /// The authority that signed the members' certificates as PEM text; the machine's own ones when there is none.
    pub ca: Option<String>,
    /// This machine's certificate and key as PEM text.
    pub identity: Option<(String, String)>,
    /// User and password.
    pub login: Option<(String, String)>,
}

/// One connection a member, made when it is first needed. The one that answered last is asked first.
pub struct Members {
    circle: RwLock<Arc<Circle>>,
    options: ConnectOptions,
    /// TLS is spoken without a certificate of our own.
    anonymous: bool,
}

/// The members there are at a time; at least one.
struct Circle {
    endpoints: Vec<String>,
    clients: Vec<Mutex<Option<Client>>>,
    preferred: AtomicUsize,
}

/// An answer, and whether an earlier try may have done the work already.
pub struct Answer<T> {
    /// What the member said.
    pub value: T,
    /// An earlier try was sent and its answer lost.
    pub repeated: bool,
}

/// Why there is no answer.
pub enum NoAnswer {
    /// A member said no.
    Refused(Refusal),
    /// None answered in time; `sent` says whether one may have done the work nevertheless.
    Away { sent: bool, what: String },
}

/// A no that another member would repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The lease is over.
    NoLease,
    /// The revision is too old.
    Compacted,
    /// Its space is used up.
    Full,
    /// Anything else, in its words.
    Other,
}

/// A no with its words.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub why: Why,
    pub text: String,
}

impl Members {
    /// Members that nobody has spoken to yet.
    pub fn new(cluster: &Cluster) -> Self {
        Self {
            circle: RwLock::new(Arc::new(Circle::new(&cluster.endpoints))),
            options: options(cluster),
            anonymous: speaks_tls(cluster) && cluster.identity.is_none(),
        }
    }

    /// Their addresses for messages.
    pub fn place(&self) -> String {
        self.circle().endpoints.join(", ")
    }

    /// The members are at these addresses from now on. Questions under way are still put to those before.
    pub fn relocate(&self, endpoints: &[String]) {
        let mut circle = self.circle.write().unwrap_or_else(PoisonError::into_inner);
        if !endpoints.is_empty() && circle.endpoints != endpoints {
            *circle = Arc::new(Circle::new(endpoints));
        }
    }

    fn circle(&self) -> Arc<Circle> {
        self.circle.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks one member after the other until one answers. The question may be heard more than once: whoever asks for a
    /// change makes sure that it happens once.
    pub async fn ask<T, F>(&self, question: impl Fn(Client) -> F) -> Result<Answer<T>, NoAnswer>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let until = Instant::now() + DEADLINE;
        let (mut sent, mut told) = (false, None);
        let circle = self.circle();
        let mut place = circle.preferred.load(Ordering::Relaxed);
        let mut asked = 0;
        loop {
            match self.ask_one(&circle, place, until, &question).await {
                Ok(value) => {
                    circle.preferred.store(place, Ordering::Relaxed);
                    return Ok(Answer { value, repeated: sent });
                }
                Err(NoAnswer::Refused(refusal)) => return Err(NoAnswer::Refused(refusal)),
                Err(NoAnswer::Away { sent: this_one, what }) => {
                    sent |= this_one;
                    // A try in the last instant would only end in doubt whether it was heard, and that the time is over
                    // says less than what went wrong before.
                    if Instant::now() + LAST >= until {
                        return Err(NoAnswer::Away { sent, what: told.unwrap_or(what) });
                    }
                    told = Some(what);
                }
            }
            place = (place + 1) % circle.clients.len();
            asked += 1;
            if asked % circle.clients.len() == 0 {
                sleep(ROUND).await;
            }
        }
    }

    async fn ask_one<T, F>(
        &self,
        circle: &Circle,
        place: usize,
        until: Instant,
        question: &impl Fn(Client) -> F,
    ) -> Result<T, NoAnswer>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let left = until.saturating_duration_since(Instant::now());
        let time = if circle.clients.len() == 1 { left } else { left.min(ONE_MEMBER) };
        let late = |sent| NoAnswer::Away { sent, what: format!("no answer within {DEADLINE:?}") };
        let client = match timeout(time, self.client(circle, place)).await {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => return Err(verdict(&error, false)),
            Err(_) => return Err(late(false)),
        };
        match timeout(time, question(client)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(verdict(&error, !is_unreachable(&error))),
            Err(_) => {
                // What hangs now hangs for the next one too: it gets a fresh connection.
                *circle.clients[place].lock().await = None;
                Err(late(true))
            }
        }
    }

    /// The connection to one member; with a password it is asked to let us in first.
    async fn client(&self, circle: &Circle, place: usize) -> Result<Client, Error> {
        let mut held = circle.clients[place].lock().await;
        if let Some(client) = &*held {
            return Ok(client.clone());
        }
        let options = Some(self.options.clone());
        let client = Client::connect([&circle.endpoints[place]], options).await?;
        Ok(held.insert(client).clone())
    }

    /// A connection for a stream.
    pub async fn any(&self) -> Result<Client, Error> {
        let circle = self.circle();
        let place = circle.preferred.load(Ordering::Relaxed);
        let client = timeout(CONNECT, self.client(&circle, place)).await;
        client.unwrap_or_else(|_| Err(Error::EndpointError("no answer".into())))
    }

    /// The stream broke: the next one comes from another member.
    pub fn turn(&self) {
        let circle = self.circle();
        let place = circle.preferred.load(Ordering::Relaxed);
        circle.preferred.store((place + 1) % circle.clients.len(), Ordering::Relaxed);
    }

    /// The error of a read.
    pub fn read_error(&self, no: NoAnswer) -> DbError {
        match no {
            // With TLS 1.3 a member that wants a certificate often only hangs up.
            NoAnswer::Away { what, .. } if self.anonymous && !what.contains("onnection refused") => DbError::Away {
                place: self.place(),
                what: format!("{what}; if it wants a certificate: etcd/cert and etcd/key"),
            },
            NoAnswer::Away { what, .. } => DbError::Away { place: self.place(), what },
            NoAnswer::Refused(refusal) => DbError::Refused { place: self.place(), what: advice(&refusal.text) },
        }
    }

    /// The error of a write of `key`.
    pub fn write_error(&self, key: &str, no: NoAnswer) -> DbError {
        match no {
            NoAnswer::Away { sent: true, what } => DbError::Unclear { key: key.to_owned(), place: self.place(), what },
            other => self.read_error(other),
        }
    }
}

impl Circle {
    fn new(endpoints: &[String]) -> Self {
        let clients = endpoints.iter().map(|_| Mutex::default()).collect();
        Self { endpoints: endpoints.to_vec(), clients, preferred: AtomicUsize::new(0) }
    }
}

/// How a member of the cluster is spoken to.
pub fn options(cluster: &Cluster) -> ConnectOptions {
    let mut options = ConnectOptions::new()
        .with_connect_timeout(CONNECT)
        .with_keep_alive(PING, PONG)
        .with_keep_alive_while_idle(false)
        .with_require_leader(true)
        .with_auto_token_refresh(true);
    if let Some((user, password)) = &cluster.login {
        options = options.with_user(user, password);
    }
    if speaks_tls(cluster) {
        options = options.with_tls(tls(cluster));
    }
    options
}

fn speaks_tls(cluster: &Cluster) -> bool {
    cluster.endpoints.iter().any(|endpoint| endpoint.starts_with("https://"))
}

fn tls(cluster: &Cluster) -> TlsOptions {
    let mut tls = TlsOptions::new();
    tls = match &cluster.ca {
        Some(ca) => tls.ca_certificate(Certificate::from_pem(ca)),
        None => tls.with_native_roots(),
    };
    if let Some((certificate, key)) = &cluster.identity {
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    tls
}

/// etcd's gRPC codes that another member, or the same one a moment later, may answer differently.
const PASSING: [i32; 8] = [CANCELLED, UNKNOWN, DEADLINE_EXCEEDED, ABORTED, INTERNAL, UNAVAILABLE, DATA_LOSS, EXHAUSTED];
const CANCELLED: i32 = 1;
const UNKNOWN: i32 = 2;
const DEADLINE_EXCEEDED: i32 = 4;
const EXHAUSTED: i32 = 8;
const ABORTED: i32 = 10;
const INTERNAL: i32 = 13;
const UNAVAILABLE: i32 = 14;
const DATA_LOSS: i32 = 15;

fn verdict(error: &Error, sent: bool) -> NoAnswer {
    let mut text = plain(error);
    // The words of the library whose patience is at an end.
    if text == "deadline has elapsed" {
        text = format!("no answer within {CONNECT:?}");
    }
    let why = match error {
        Error::LeaseKeepAliveError(_) => Why::NoLease,
        Error::GRpcStatus(_) if text.contains("lease not found") => Why::NoLease,
        Error::GRpcStatus(_) if text.contains("has been compacted") => Why::Compacted,
        Error::GRpcStatus(_) if text.contains("database space exceeded") => Why::Full,
        Error::GRpcStatus(status) if PASSING.contains(&i32::from(status.code())) => {
            return NoAnswer::Away { sent, what: text };
        }
        Error::TransportError(_) | Error::IoError(_) | Error::EndpointError(_) | Error::WatchError(_) => {
            return NoAnswer::Away { sent, what: text };
        }
        _ => Why::Other,
    };
    NoAnswer::Refused(Refusal { why, text })
}

/// Whether there was no connection at all, so that nothing was sent.
fn is_unreachable(error: &Error) -> bool {
    let mut cause = match error {
        Error::GRpcStatus(status) => std::error::Error::source(status),
        _ => None,
    };
    while let Some(error) = cause {
        if error.to_string().contains("connect error") {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The innermost cause of an error: "connection refused" says more than "transport error".
pub fn plain(error: &Error) -> String {
    let Error::GRpcStatus(status) = error else { return error.to_string() };
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    text.strip_prefix("etcdserver: ").map(str::to_owned).unwrap_or(text)
}

/// Words of etcd's with what a person can do.
fn advice(text: &str) -> String {
    let what = match text {
        text if text.contains("authentication failed") => "correct etcd/user and etcd/password in quarry's settings",
        text if text.contains("user name is empty") => "it wants a login: etcd/user and etcd/password",
        text if text.contains("permission denied") => "give the user's role read and write under the prefix",
        text if text.contains("space exceeded") => "compact, defragment and disarm its alarm",
        text if text.contains("too large") => "start it without a --max-request-bytes below its default of 1.5 MB",
        _ => return text.to_owned(),
    };
    format!("{text}; {what}")
}
