//! HTTP between HQ and an agent: HQ's side.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, unfold};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{TURN, json};
use crate::agent::{Agent, AgentError, Applied, Config, Routing, Turn, Vitals, files};
use crate::docker::{Lane, Pipe};
use crate::embassy::{PortCounts, Table};
use crate::router::StackRoutes;
use crate::router::edge::Tally;
use crate::servers::ssh::Line;

/// Rules, files, and an nginx that starts for the first time on a busy machine.
const CONFIGURE: Duration = Duration::from_secs(60);

/// Everything else.
const ASK: Duration = Duration::from_secs(10);

/// No answer is longer: the tables of ten thousand domains are some megabytes. A server that was taken over must not fill
/// HQ's memory.
const LONGEST: usize = 64 << 20;

/// No line of vitals is: each container of a server has some hundred bytes in it.
const LONGEST_LINE: usize = 16 << 20;

/// An agent speaks each second; after so many without a word it is lost.
const SILENCE: Duration = Duration::from_secs(5);

/// How HQ comes to an agent.
#[derive(Debug, Clone)]
pub enum Way {
    /// It is on HQ's own server.
    Here,
    /// Over SSH.
    Line(Arc<Line>),
}

/// The agent at the end of a way.
#[derive(Debug, Clone)]
pub struct Client {
    way: Way,
    socket: PathBuf,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here => f.write_str("this server"),
            Self::Line(line) => write!(f, "`{}`", line.server()),
        }
    }
}

impl Client {
    /// The agent that lives in this folder of the server.
    pub fn new(way: Way, folder: &Path) -> Self {
        Self { way, socket: files::socket(folder) }
    }

    async fn open(&self, lane: Lane) -> Result<Box<dyn Pipe>, AgentError> {
        match &self.way {
            Way::Here => match UnixStream::connect(&self.socket).await {
                Ok(stream) => Ok(Box::new(stream)),
                Err(error) => Err(self.away(&error)),
            },
            Way::Line(line) => {
                let path = self.socket.to_str().ok_or_else(|| self.foreign("its folder has no plain name"))?;
                match line.socket(path, lane).await {
                    Ok(tunnel) => Ok(Box::new(tunnel)),
                    Err(error) => Err(self.away(&error)),
                }
            }
        }
    }

    /// Sends a request and gives the answer's head, of which the body may still be coming.
    async fn send(&self, lane: Lane, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, AgentError> {
        let pipe = self.open(lane).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(pipe)).await.map_err(|error| self.away(&error))?;
        // It ends with the answer, or when nobody waits for that any more.
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(|error| self.away(&error))?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let body = self.whole(response).await?;
        Err(match serde_json::from_slice(&body) {
            // It calls itself by no name.
            Ok(AgentError::Foreign { why, .. }) => self.foreign(why),
            Ok(error) => error,
            Err(_) => self.foreign("its answer cannot be read"),
        })
    }

    async fn ask(&self, lane: Lane, limit: Duration, request: Request<Full<Bytes>>) -> Result<Bytes, AgentError> {
        let asked = async {
            let response = self.send(lane, request).await?;
            self.whole(response).await
        };
        let late = || AgentError::Away {
            place: self.way.to_string(),
            why: format!("it took longer than {} seconds", limit.as_secs()),
        };
        timeout(limit, asked).await.unwrap_or_else(|_| Err(late()))
    }

    async fn whole(&self, response: Response<Incoming>) -> Result<Bytes, AgentError> {
        let body = Limited::new(response.into_body(), LONGEST).collect().await;
        Ok(body.map_err(|error| self.away(&*error))?.to_bytes())
    }

    fn read<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, AgentError> {
        serde_json::from_slice(bytes).map_err(|error| self.foreign(error.to_string()))
    }

    fn away(&self, error: &(dyn std::error::Error + 'static)) -> AgentError {
        let causes = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string);
        AgentError::Away { place: self.way.to_string(), why: causes.collect::<Vec<_>>().join(": ") }
    }

    fn foreign(&self, why: impl Into<String>) -> AgentError {
        AgentError::Foreign { place: self.way.to_string(), why: why.into() }
    }
}

fn request(method: Method, path: &str, body: Bytes) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri(path).header(HOST, "agent");
    request.body(Full::new(body)).expect("a request made of checked words is well formed")
}

fn in_turn(turn: Turn, mut request: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
    let value = format!("{}.{}", turn.epoch, turn.generation).parse().expect("digits and a dot make a header");
    request.headers_mut().insert(TURN, value);
    request
}

#[async_trait]
impl Agent for Client {
    async fn configure(&self, config: &Config) -> Result<Applied, AgentError> {
        // Config files may be large, and must not hold up what else goes to the server.
        let asked = self.ask(Lane::Bulk, CONFIGURE, request(Method::PUT, "/v1/config", json(config)));
        self.read(&asked.await?)
    }

    async fn confirm(&self, trial: &str) -> Result<(), AgentError> {
        // A reader's connection is a new one.
        let asked = self.ask(Lane::Reader, ASK, request(Method::POST, "/v1/locknet/confirm", json(&trial)));
        asked.await.map(drop)
    }

    async fn route(&self, turn: Turn, routing: &Routing) -> Result<(), AgentError> {
        let request = match routing {
            Routing::Set(routes) => request(Method::PUT, &format!("/v1/routes/{}", routes.stack), json(routes)),
            Routing::Remove(stack) => request(Method::DELETE, &format!("/v1/routes/{stack}"), Bytes::new()),
            Routing::All(tables) => request(Method::PUT, "/v1/routes", json(tables)),
            Routing::Tls(change) => request(Method::PUT, "/v1/tls", json(change)),
        };
        self.ask(Lane::Call, ASK, in_turn(turn, request)).await.map(drop)
    }

    async fn expose(&self, turn: Turn, table: &Table) -> Result<(), AgentError> {
        let request = request(Method::PUT, "/v1/embassy", json(table));
        self.ask(Lane::Call, ASK, in_turn(turn, request)).await.map(drop)
    }

    async fn ports(&self) -> Result<Vec<PortCounts>, AgentError> {
        self.read(&self.ask(Lane::Call, ASK, request(Method::GET, "/v1/embassy", Bytes::new())).await?)
    }

    async fn tables(&self) -> Result<Vec<StackRoutes>, AgentError> {
        self.read(&self.ask(Lane::Call, ASK, request(Method::GET, "/v1/routes", Bytes::new())).await?)
    }

    async fn in_flight(&self, peer: SocketAddr) -> Result<u64, AgentError> {
        let path = format!("/v1/in-flight?peer={peer}");
        self.read(&self.ask(Lane::Call, ASK, request(Method::GET, &path, Bytes::new())).await?)
    }

    async fn tallies(&self) -> Result<Vec<Tally>, AgentError> {
        self.read(&self.ask(Lane::Call, ASK, request(Method::GET, "/v1/tallies", Bytes::new())).await?)
    }

    async fn vitals(&self) -> Result<BoxStream<'static, Result<Vitals, AgentError>>, AgentError> {
        let opening = self.send(Lane::Call, request(Method::GET, "/v1/vitals", Bytes::new()));
        let silent = |client: &Self| AgentError::Away {
            place: client.way.to_string(),
            why: format!("it has been silent for {} seconds", SILENCE.as_secs()),
        };
        let response = timeout(SILENCE, opening).await.unwrap_or_else(|_| Err(silent(self)))?;
        let lines = Lines { client: self.clone(), body: response.into_body(), begun: Vec::new() };
        let told = unfold(Some(lines), move |lines| async move {
            let mut lines = lines?;
            match timeout(SILENCE, lines.next()).await.unwrap_or_else(|_| Err(silent(&lines.client))) {
                Ok(vitals) => Some((Ok(vitals), Some(lines))),
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(told.boxed())
    }
}

/// Vitals as they come.
struct Lines {
    client: Client,
    body: Incoming,
    begun: Vec<u8>,
}

impl Lines {
    async fn next(&mut self) -> Result<Vitals, AgentError> {
        loop {
            if let Some(end) = self.begun.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.begun.drain(..=end).collect();
                return self.client.read(&line);
            }
            if self.begun.len() > LONGEST_LINE {
                return Err(self.client.foreign(format!("a line of its vitals is longer than {LONGEST_LINE} bytes")));
            }
            let frame = match self.body.frame().await {
                Some(frame) => frame.map_err(|error| self.client.away(&error))?,
                None => {
                    let ended = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                    return Err(self.client.away(&ended));
                }
            };
            if let Ok(bytes) = frame.into_data() {
                self.begun.extend_from_slice(&bytes);
            }
        }
    }
}
