//! The few requests HQ makes of its registry itself. Their answers are read off status and headers.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::client::conn::http1;
use hyper::header::{ACCEPT, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::RegistryError;

/// A registry on loopback answers these from its disk.
const LIMIT: Duration = Duration::from_secs(10);

/// Without it the registry would answer in a form that the engine does not store.
const MANIFEST: &str =
    "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json";

/// Where a manifest's digest is told.
const DIGEST: &str = "docker-content-digest";

/// Whether a registry answers there.
pub(super) async fn answers(address: SocketAddr) -> bool {
    ask(address, Method::GET, "/v2/".to_owned()).await.is_ok_and(|answer| answer.status == StatusCode::OK)
}

/// The digest of an image's manifest; `None` when it is not there.
pub(super) async fn digest(address: SocketAddr, repository: &str, tag: &str) -> Result<Option<String>, RegistryError> {
    let answer = ask(address, Method::HEAD, format!("/v2/{repository}/manifests/{tag}")).await?;
    match (answer.status, answer.digest) {
        (StatusCode::OK, Some(digest)) => Ok(Some(digest)),
        (StatusCode::NOT_FOUND, _) => Ok(None),
        (status, _) => Err(odd(format!("look for {repository}"), status)),
    }
}

fn odd(doing: String, status: StatusCode) -> RegistryError {
    RegistryError::Answer { doing, status: status.as_u16() }
}

struct Answer {
    status: StatusCode,
    digest: Option<String>,
}

async fn ask(address: SocketAddr, method: Method, path: String) -> Result<Answer, RegistryError> {
    let silent = |source| RegistryError::Silent { source };
    let asked = timeout(LIMIT, send(address, method, path)).await;
    asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(silent)
}

async fn send(address: SocketAddr, method: Method, path: String) -> io::Result<Answer> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // It ends when the answer is dropped.
    tokio::spawn(connection);
    let request =
        Request::builder().method(method).uri(path).header(HOST, address.to_string()).header(ACCEPT, MANIFEST);
    let request = request.body(String::new()).map_err(io::Error::other)?;
    let answer = sender.send_request(request).await.map_err(io::Error::other)?;
    let digest = answer.headers().get(DIGEST).and_then(|value| value.to_str().ok()).map(str::to_owned);
    Ok(Answer { status: answer.status(), digest })
}
