//! HTTP between HQ and an agent: the agent's side.
//!
//! ```text
//! PUT    /v1/config             a Config, answered when it is applied: Applied
//! POST   /v1/locknet/confirm    the trial's id as a JSON string
//! GET    /v1/routes             all tables
//! PUT    /v1/routes             all tables; with the header Quarry-Turn: EPOCH.GENERATION, as the next two
//! PUT    /v1/routes/STACK       one table
//! DELETE /v1/routes/STACK
//! PUT    /v1/tls                a change of certificates and challenges, with that header too
//! PUT    /v1/embassy            the embassy's ports, with that header too
//! GET    /v1/embassy            what they have counted
//! GET    /v1/in-flight?peer=    a number
//! GET    /v1/vitals             one JSON line now, at each change and at least each second
//! ```
//!
//! An error is an [`AgentError`] as JSON.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::unfold;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixListener;
use tokio::sync::watch;

pub use self::client::{Client, Way};
use super::config::{Applied, Config, Turn};
use super::vitals::Vitals;
use super::{AgentError, Routing};
use crate::embassy::{PortCounts, Table};
use crate::names::StackName;
use crate::router::StackRoutes;
use crate::router::edge::Tally;

mod client;

/// By which the order of changes is told.
const TURN: &str = "quarry-turn";

/// No request is longer: a configuration with many large files.
const LIMIT: usize = 256 << 20;

/// How long the head of a request may take.
const HEAD: Duration = Duration::from_secs(10);

/// After the system has no more descriptors, say.
const AGAIN: Duration = Duration::from_millis(100);

/// What answers the requests.
#[async_trait]
pub trait Service: Send + Sync + 'static {
    /// As [`super::Agent::configure`].
    async fn configure(&self, config: Config) -> Result<Applied, AgentError>;
    /// As [`super::Agent::route`].
    async fn route(&self, turn: Turn, routing: Routing) -> Result<(), AgentError>;
    /// As [`super::Agent::expose`].
    async fn expose(&self, turn: Turn, table: Table) -> Result<(), AgentError>;
    /// As [`super::Agent::ports`].
    async fn ports(&self) -> Result<Vec<PortCounts>, AgentError>;
    /// As [`super::Agent::confirm`].
    async fn confirm(&self, trial: &str) -> Result<(), AgentError>;
    /// As [`super::Agent::tables`].
    async fn tables(&self) -> Result<Vec<StackRoutes>, AgentError>;
    /// As [`super::Agent::in_flight`].
    async fn in_flight(&self, peer: SocketAddr) -> Result<u64, AgentError>;
    /// As [`super::Agent::tallies`].
    async fn tallies(&self) -> Result<Vec<Tally>, AgentError>;
    /// Changes with each of them; nothing until the first.
    fn vitals(&self) -> watch::Receiver<Option<Vitals>>;
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Answers whoever may open the socket, until it is dropped.
pub async fn serve(listener: UnixListener, service: Arc<impl Service>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "nobody can be let in");
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        };
        let service = service.clone();
        let answer = service_fn(move |request| {
            let service = service.clone();
            async move { Ok::<_, Infallible>(answer(&*service, request).await) }
        });
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD);
        tokio::spawn(async move {
            if let Err(error) = http.serve_connection(TokioIo::new(stream), answer).await {
                tracing::debug!(%error, "a connection broke");
            }
        });
    }
}

async fn answer(service: &impl Service, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let words: Vec<&str> = path.split('/').skip(1).collect();
    let answered = match (request.method(), &words[..]) {
        (&Method::GET, ["v1", "vitals"]) => return stream(service.vitals()),
        (&Method::GET, ["v1", "routes"]) => service.tables().await.map(|tables| json(&tables)),
        (&Method::GET, ["v1", "embassy"]) => service.ports().await.map(|counts| json(&counts)),
        (&Method::PUT, ["v1", "embassy"]) => expose(service, request).await,
        (&Method::GET, ["v1", "tallies"]) => service.tallies().await.map(|tallies| json(&tallies)),
        (&Method::GET, ["v1", "in-flight"]) => in_flight(service, &request).await,
        (&Method::PUT, ["v1", "config"]) => configure(service, request).await,
        (&Method::POST, ["v1", "locknet", "confirm"]) => confirm(service, request).await,
        (&Method::PUT, ["v1", "tls"]) => secure(service, request).await,
        (&Method::PUT, ["v1", "routes"]) => set_all(service, request).await,
        (&Method::PUT, ["v1", "routes", stack]) => set(service, stack, request).await,
        (&Method::DELETE, ["v1", "routes", stack]) => remove(service, stack, &request).await,
        (method, _) => Err(foreign(format!("it knows no {method} {path}"))),
    };
    match answered {
        Ok(bytes) => whole(StatusCode::OK, bytes),
        Err(error) => whole(status(&error), json(&error)),
    }
}

async fn configure(service: &impl Service, request: Request<Incoming>) -> Result<Bytes, AgentError> {
    let config = read(request).await?;
    service.configure(config).await.map(|applied| json(&applied))
}

async fn confirm(service: &impl Service, request: Request<Incoming>) -> Result<Bytes, AgentError> {
    let trial: String = read(request).await?;
    service.confirm(&trial).await.map(|()| Bytes::new())
}

async fn in_flight(service: &impl Service, request: &Request<Incoming>) -> Result<Bytes, AgentError> {
    let peer = request.uri().query().and_then(|query| query.strip_prefix("peer=")?.parse().ok());
    let peer = peer.ok_or_else(|| foreign("no address is asked for"))?;
    service.in_flight(peer).await.map(|count| json(&count))
}

async fn set_all(service: &impl Service, request: Request<Incoming>) -> Result<Bytes, AgentError> {
    let turn = turn(&request)?;
    let tables = read(request).await?;
    service.route(turn, Routing::All(tables)).await.map(|()| Bytes::new())
}

async fn secure(service: &impl Service, request: Request<Incoming>) -> Result<Bytes, AgentError> {
    let turn = turn(&request)?;
    let change = read(request).await?;
    service.route(turn, Routing::Tls(change)).await.map(|()| Bytes::new())
}

async fn expose(service: &impl Service, request: Request<Incoming>) -> Result<Bytes, AgentError> {
    let turn = turn(&request)?;
    let table = read(request).await?;
    service.expose(turn, table).await.map(|()| Bytes::new())
}

async fn set(service: &impl Service, stack: &str, request: Request<Incoming>) -> Result<Bytes, AgentError> {
    let turn = turn(&request)?;
    let routes: StackRoutes = read(request).await?;
    if routes.stack.as_str() != stack {
        return Err(foreign(format!("the table of `{}` is no table of `{stack}`", routes.stack)));
    }
    service.route(turn, Routing::Set(routes)).await.map(|()| Bytes::new())
}

async fn remove(service: &impl Service, stack: &str, request: &Request<Incoming>) -> Result<Bytes, AgentError> {
    let stack: StackName = stack.parse().map_err(|error| foreign(format!("{error}")))?;
    service.route(turn(request)?, Routing::Remove(stack)).await.map(|()| Bytes::new())
}

/// The turn a request has in its header.
fn turn(request: &Request<Incoming>) -> Result<Turn, AgentError> {
    let text = request.headers().get(TURN).and_then(|value| value.to_str().ok());
    let read = |text: &str| {
        let (epoch, generation) = text.split_once('.')?;
        Some(Turn { epoch: epoch.parse().ok()?, generation: generation.parse().ok()? })
    };
    text.and_then(read).ok_or_else(|| foreign("the change has no turn"))
}

async fn read<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, AgentError> {
    let body = Limited::new(request.into_body(), LIMIT).collect().await;
    let body = body.map_err(|error| foreign(format!("the request is not whole: {error}")))?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| foreign(format!("it does not understand: {error}")))
}

/// One line for each of them. Who does not read gets the latest when they do.
fn stream(mut vitals: watch::Receiver<Option<Vitals>>) -> Response<Body> {
    vitals.mark_changed();
    let lines = unfold(vitals, |mut vitals| async {
        loop {
            vitals.changed().await.ok()?;
            let line = vitals.borrow_and_update().as_ref().map(line);
            if let Some(line) = line {
                return Some((Ok(Frame::data(line)), vitals));
            }
        }
    });
    Response::new(StreamBody::new(lines).boxed_unsync())
}

fn line(vitals: &Vitals) -> Bytes {
    let mut line = serde_json::to_vec(vitals).expect("vitals have string keys and serialise");
    line.push(b'\n');
    line.into()
}

fn whole(status: StatusCode, bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(bytes).boxed_unsync());
    *response.status_mut() = status;
    response
}

fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("what an agent says has string keys and serialises").into()
}

fn status(error: &AgentError) -> StatusCode {
    match error {
        AgentError::Stale { .. } | AgentError::NoRouter | AgentError::Trial(_) => StatusCode::CONFLICT,
        AgentError::Router(_) | AgentError::Embassy(_) | AgentError::Disk(_) => StatusCode::INTERNAL_SERVER_ERROR,
        AgentError::Away { .. } => StatusCode::BAD_GATEWAY,
        AgentError::Foreign { .. } => StatusCode::BAD_REQUEST,
    }
}

fn foreign(why: impl Into<String>) -> AgentError {
    AgentError::Foreign { place: "this server".to_owned(), why: why.into() }
}
