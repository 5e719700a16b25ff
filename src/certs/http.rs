//! HQ's own look whether a domain leads here, before an authority looks.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::CONTENT_TYPE;
use hyper::{Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::names::Domain;
use crate::router::tls::Challenge;
use crate::units::random;

/// Most addresses of a domain that are asked.
const ADDRESSES: usize = 8;

/// How long one address may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// No answer to a challenge is longer.
const LONGEST: u64 = 16 * 1024;

/// Where a domain leads instead.
#[derive(Debug)]
pub enum Elsewhere {
    /// Nowhere.
    NoAddress(std::io::Error),
    /// To where nobody answers.
    Silent(SocketAddr, std::io::Error),
    /// To somebody else.
    Other(SocketAddr),
}

impl fmt::Display for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAddress(error) => write!(f, "DNS has no address for it: {error}"),
            Self::Silent(address, error) => write!(f, "it leads to {address}, where nobody answers: {error}"),
            Self::Other(address) => write!(f, "it leads to {address}, where another server answers"),
        }
    }
}

/// A new challenge of HQ's own.
pub fn challenge() -> Challenge {
    let token = format!("quarry-{}", random::hex::<16>()).parse().expect("letters and digits are a token");
    Challenge { token, answer: random::hex::<16>() }
}

/// Whether whoever answers at this port of the domain knows the answer, at every address DNS has: an authority takes
/// whichever it likes.
///
/// # Errors
/// Where it leads instead.
pub async fn look(domain: &Domain, port: u16, challenge: &Challenge) -> Result<(), Elsewhere> {
    let resolved = timeout(PATIENCE, lookup_host((domain.as_str(), port))).await;
    let resolved = resolved.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
    for address in resolved.map_err(Elsewhere::NoAddress)?.take(ADDRESSES) {
        let asked = timeout(PATIENCE, ask(domain, address, challenge)).await;
        match asked.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())) {
            Ok(answer) if answers(&answer, &challenge.answer) => {}
            Ok(_) => return Err(Elsewhere::Other(address)),
            Err(error) => return Err(Elsewhere::Silent(address, error)),
        }
    }
    Ok(())
}

/// What a responder answers to a question about a certificate.
///
/// # Errors
/// It does not answer, or not with success.
pub async fn ask_responder(url: &str, question: Vec<u8>) -> std::io::Result<Vec<u8>> {
    let request = Request::post(url)
        .header(CONTENT_TYPE, "application/ocsp-request")
        .body(Full::new(Bytes::from(question)))
        .map_err(std::io::Error::other)?;
    let asked = async {
        let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let response = client.request(request).await.map_err(std::io::Error::other)?;
        if response.status() != StatusCode::OK {
            return Err(std::io::Error::other(format!("it answers {}", response.status())));
        }
        let body = Limited::new(response.into_body(), LONGEST as usize).collect().await;
        Ok(body.map_err(std::io::Error::other)?.to_bytes().to_vec())
    };
    timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}

async fn ask(domain: &Domain, address: SocketAddr, challenge: &Challenge) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    // HTTP/1.0: the answer ends with the connection.
    let head = format!(
        "GET /.well-known/acme-challenge/{} HTTP/1.0\r\nHost: {domain}\r\nUser-Agent: quarry\r\n\r\n",
        challenge.token
    );
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer).await?;
    Ok(answer)
}

fn answers(response: &[u8], expected: &str) -> bool {
    let text = String::from_utf8_lossy(response);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    head.split(' ').nth(1) == Some("200") && body.trim_end() == expected
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_answer_counts() {
        assert!(answers(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nsecret\n", "secret"));
        for other in
            ["HTTP/1.1 404 Not Found\r\n\r\nsecret", "HTTP/1.1 200 OK\r\n\r\nsecrets", "HTTP/1.1 200 OK\r\n", ""]
        {
            assert!(!answers(other.as_bytes(), "secret"), "{other}");
        }
    }
}
