//! HTTP/1.1 for docker's client, on any connection; some of which become a process's streams.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, UPGRADE};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy, split};
use tokio::sync::mpsc;

use super::routes::API;
use crate::docker::Pipe;

pub use self::channel::Channel;

mod channel;

/// The longest description of anything, in bytes.
const LONGEST: usize = 1 << 20;

/// What answers requests.
#[async_trait]
pub trait Service: Send + Sync + 'static {
    /// The answer to one request. Dropped when the client has gone.
    async fn answer(&self, call: Call) -> Reply;
}

/// A request.
pub struct Call {
    /// The word for its method.
    pub method: String,
    /// Its path as it came.
    pub path: String,
    /// Its query as it came.
    pub query: String,
    /// Whether its connection is to become streams.
    pub streams: bool,
    body: Incoming,
}

impl Call {
    /// Its body.
    ///
    /// # Errors
    /// When it is longer than a description may be, or not whole.
    pub async fn body(self) -> io::Result<Bytes> {
        let body = Limited::new(self.body, LONGEST).collect().await.map_err(io::Error::other)?;
        Ok(body.to_bytes())
    }
}

/// An answer.
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// What kind of content it has.
    pub kind: String,
    /// That.
    pub content: Content,
}

/// What an answer says.
pub enum Content {
    /// All at once.
    Whole(Bytes),
    /// As it comes; an error breaks the connection off.
    Body(BoxStream<'static, io::Result<Bytes>>),
    /// A process's streams, until it ends or that does.
    Streams(Box<dyn Pipe>, BoxFuture<'static, ()>),
}

impl Reply {
    /// A value as JSON.
    pub fn json(status: u16, value: &serde_json::Value) -> Self {
        let kind = "application/json".to_owned();
        Self { status, kind, content: Content::Whole(format!("{value}\n").into()) }
    }

    /// Nothing but a status.
    pub fn empty(status: u16) -> Self {
        Self { status, kind: String::new(), content: Content::Whole(Bytes::new()) }
    }
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Answers what comes on a connection until its end, that of the streams it has become included.
pub async fn serve<S>(stream: S, service: Arc<dyn Service>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Everybody who has the sender is waited for.
    let (inside, mut outside) = mpsc::channel::<Infallible>(1);
    let answer = service_fn(move |request| {
        let (service, inside) = (service.clone(), inside.clone());
        async move { Ok::<_, Infallible>(answer(&*service, request, inside).await) }
    });
    let http = hyper::server::conn::http1::Builder::new();
    if let Err(error) = http.serve_connection(TokioIo::new(stream), answer).with_upgrades().await {
        tracing::debug!(%error, "a docker client's connection broke");
    }
    while outside.recv().await.is_some() {}
}

async fn answer(
    service: &dyn Service,
    mut request: Request<Incoming>,
    inside: mpsc::Sender<Infallible>,
) -> Response<Body> {
    let streams = request.headers().contains_key(UPGRADE);
    let upgrade = hyper::upgrade::on(&mut request);
    let (method, uri) = (request.method().to_string(), request.uri());
    let (path, query) = (uri.path().to_owned(), uri.query().unwrap_or_default().to_owned());
    let call = Call { method, path, query, streams, body: request.into_body() };
    let Reply { status, kind, content } = service.answer(call).await;
    let (status, body) = match content {
        Content::Whole(bytes) => (status, Full::new(bytes).map_err(|never| match never {}).boxed_unsync()),
        Content::Body(chunks) => (status, StreamBody::new(chunks.map(|chunk| chunk.map(Frame::data))).boxed_unsync()),
        Content::Streams(pipe, end) => {
            tokio::spawn(async move {
                if let Err(error) = join(upgrade, pipe, end).await {
                    tracing::debug!(%error, "streams of a docker client broke");
                }
                drop(inside);
            });
            (101, Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync())
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(HeaderName::from_static("api-version"), HeaderValue::from_static(API.0));
    headers.insert(HeaderName::from_static("docker-experimental"), HeaderValue::from_static("false"));
    headers.insert(HeaderName::from_static("ostype"), HeaderValue::from_static("linux"));
    if let Ok(kind) = HeaderValue::from_str(&kind)
        && !kind.is_empty()
    {
        headers.insert(CONTENT_TYPE, kind);
    }
    if status == 101 {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("tcp"));
    }
    response
}

/// Joins a client with a process until that has said its last word: the end of what the client types is not the end.
async fn join(upgrade: OnUpgrade, pipe: Box<dyn Pipe>, end: BoxFuture<'static, ()>) -> io::Result<()> {
    let client = TokioIo::new(upgrade.await.map_err(io::Error::other)?);
    let ((mut typed, mut shown), (mut said, mut heard)) = (split(client), split(pipe));
    let inward = async {
        if copy(&mut typed, &mut heard).await.is_ok() {
            // A process that has ended needs no end of input.
            let _ = heard.shutdown().await;
        }
        std::future::pending::<()>().await;
    };
    let outward = async {
        copy(&mut said, &mut shown).await?;
        shown.shutdown().await
    };
    tokio::select! {
        done = outward => done,
        () = inward => Ok(()),
        () = end => Ok(()),
    }
}
