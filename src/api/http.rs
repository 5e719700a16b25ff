//! HTTP/1.1 for the api: connections, with TLS or without, and their limits.
//!
//! Whoever sends a request slowly, or does not read its answer, is let go; a request that is no HTTP gets its status from
//! hyper, without a body. Everything else is [`Service`]'s to answer.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{ACCEPT, AUTHORIZATION, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::patient::Patient;
pub use self::tls::Tls;
use crate::hq::tcp::let_in;
use crate::units::random::hex;

mod patient;
mod tls;

/// How long the head of a request may take, a handshake before it, and the silence between two requests.
const HEAD: Duration = Duration::from_secs(20);

/// How long a body may take.
const BODY: Duration = Duration::from_secs(30);

/// For how long a client may take nothing of its answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// The head of a request and what comes with it, in bytes.
const BUFFER: usize = 64 << 10;

/// The longest body of a request, in bytes.
const LONGEST: usize = 1 << 20;

/// By which a request is told from others, there and back.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What answers requests.
#[async_trait]
pub trait Service: Send + Sync + 'static {
    /// The answer to one request. Dropped when the client has gone.
    async fn answer(&self, call: Call) -> Reply;
}

/// A request.
pub struct Call {
    /// By which it is told from others.
    pub id: String,
    /// The word for its method.
    pub method: String,
    /// Its path as it came.
    pub path: String,
    /// Its query as it came.
    pub query: String,
    /// What it says of who it is from, behind `Bearer`.
    pub token: Option<String>,
    /// Whether it wants a stream of events.
    pub events: bool,
    /// From where it came.
    pub from: IpAddr,
    body: Incoming,
}

/// Why a body is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// It is too long.
    #[error("the body is longer than {LONGEST} bytes")]
    Long,
    /// It takes too long.
    #[error("the body did not come within {} s", BODY.as_secs())]
    Slow,
    /// It broke off.
    #[error("the body is not whole")]
    Broken,
}

impl Call {
    /// Its body.
    ///
    /// # Errors
    /// When it is too long, too slow or not whole.
    pub async fn body(self) -> Result<Bytes, Unread> {
        match timeout(BODY, Limited::new(self.body, LONGEST).collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Unread::Long),
            Ok(Err(_)) => Err(Unread::Broken),
            Err(_) => Err(Unread::Slow),
        }
    }
}

/// An answer.
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Its headers, besides those that every answer has.
    pub headers: Vec<(&'static str, String)>,
    /// What kind of content it has.
    pub kind: &'static str,
    /// That.
    pub content: Content,
}

/// What an answer says.
pub enum Content {
    /// All at once.
    Whole(Bytes),
    /// As it comes; an error breaks the connection off.
    Stream(BoxStream<'static, io::Result<Bytes>>),
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Answers whoever comes until `stop`; those who are inside then go on.
pub async fn serve(listener: TcpListener, tls: Option<Tls>, service: Arc<dyn Service>, stop: CancellationToken) {
    let_in(listener, "the api", stop, |stream, from| attend(stream, from, tls.clone(), service.clone())).await;
}

/// Looks after one connection.
async fn attend(stream: TcpStream, from: IpAddr, tls: Option<Tls>, service: Arc<dyn Service>) -> io::Result<()> {
    let stream = Patient::new(stream, PATIENCE);
    match tls {
        None => converse(stream, from, service).await,
        Some(tls) => {
            let stream = timeout(HEAD, tls.accept(stream)).await;
            let stream = stream.map_err(|_| io::Error::other("the handshake takes too long"))??;
            converse(stream, from, service).await
        }
    }
}

async fn converse<S>(stream: S, from: IpAddr, service: Arc<dyn Service>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answer = service_fn(move |request| {
        let service = service.clone();
        async move { Ok::<_, Infallible>(answer(&*service, request, from).await) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(BUFFER);
    http.serve_connection(TokioIo::new(stream), answer).await.map_err(io::Error::other)
}

async fn answer(service: &dyn Service, request: Request<Incoming>, from: IpAddr) -> Response<Body> {
    let text = |name: HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
    let id = text(REQUEST_ID).filter(|id| is_id(id)).map_or_else(hex::<8>, str::to_owned);
    let token = text(AUTHORIZATION).and_then(bearer).map(str::to_owned);
    let events = text(ACCEPT).is_some_and(|kinds| kinds.contains("text/event-stream"));
    let (method, uri) = (request.method().to_string(), request.uri());
    let (path, query) = (uri.path().to_owned(), uri.query().unwrap_or_default().to_owned());
    let call = Call { id: id.clone(), method, path, query, token, events, from, body: request.into_body() };
    response(service.answer(call).await, &id)
}

/// The token in a header, whose first word is as people write it.
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Whether a request may be called that: it shows in logs and headers.
fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

fn response(reply: Reply, id: &str) -> Response<Body> {
    let body = match reply.content {
        Content::Whole(bytes) => Full::new(bytes).map_err(|never| match never {}).boxed_unsync(),
        Content::Stream(chunks) => StreamBody::new(chunks.map(|chunk| chunk.map(Frame::data))).boxed_unsync(),
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let fixed = [("content-type", reply.kind), ("cache-control", "no-store"), ("x-content-type-options", "nosniff")];
    let fixed = fixed.into_iter().map(|(name, value)| (name, value.to_owned()));
    let all = fixed.chain([("x-request-id", id.to_owned())]).chain(reply.headers);
    for (name, value) in all {
        // What cannot stand in a header is left out of it.
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_stands_behind_bearer() {
        assert_eq!(bearer("Bearer qry_1"), Some("qry_1"));
        assert_eq!(bearer("bearer  qry_1 "), Some("qry_1"));
        for wrong in ["", "qry_1", "Basic qry_1", "Bearer"] {
            assert_eq!(bearer(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_request_is_called_what_logs_and_headers_bear() {
        assert!(is_id("0b2f-1.x_Y"));
        for wrong in ["", "a b", "a\nb", "é", &"x".repeat(65)] {
            assert!(!is_id(wrong), "{wrong}");
        }
    }
}
