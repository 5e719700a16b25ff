//! Asking a container over HTTP or TCP whether it is up.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::stack::Page;

/// The longest status line that is read.
const STATUS_LIMIT: usize = 4096;

/// The status code of `GET path`, within `limit`.
///
/// # Errors
/// No connection, no answer in time, or one that is not HTTP.
pub async fn status(address: SocketAddr, path: &str, limit: Duration) -> io::Result<u16> {
    timeout(limit, ask(address, path)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn ask(address: SocketAddr, path: &str) -> io::Result<u16> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: quarry-health\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    let mut buffer = [0; 512];
    while !head.contains(&b'\n') && head.len() < STATUS_LIMIT {
        match stream.read(&mut buffer).await? {
            0 => break,
            n => head.extend_from_slice(&buffer[..n]),
        }
    }
    code(&String::from_utf8_lossy(&head))
}

/// The longest page that is looked through.
const PAGE_LIMIT: usize = 1024 * 1024;

/// The status code of a page, and whether it contains the text that is looked for, within `limit`.
///
/// # Errors
/// No connection, no answer in time, or one that is not HTTP.
pub async fn page(address: SocketAddr, page: &Page, limit: Duration) -> io::Result<(u16, bool)> {
    timeout(limit, read(address, page)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn read(address: SocketAddr, page: &Page) -> io::Result<(u16, bool)> {
    let mut stream = TcpStream::connect(address).await?;
    // HTTP/1.0: the text comes in one piece, and the connection ends with it.
    let host = page.host.as_deref().unwrap_or("localhost");
    let mut request =
        format!("GET {} HTTP/1.0\r\nHost: {host}\r\nUser-Agent: quarry-health\r\nAccept: */*\r\n", page.path);
    for (name, value) in &page.headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(PAGE_LIMIT as u64).read_to_end(&mut answer).await?;
    let text = String::from_utf8_lossy(&answer);
    let body = text.split_once("\r\n\r\n").or_else(|| text.split_once("\n\n")).map_or("", |(_, body)| body);
    let found = page.content.as_deref().is_none_or(|content| body.contains(content));
    Ok((code(&text)?, found))
}

/// The code of the status line an answer begins with.
fn code(answer: &str) -> io::Result<u16> {
    let mut words = answer.split_whitespace();
    let http = words.next().is_some_and(|word| word.starts_with("HTTP/"));
    let code = words.next().and_then(|word| word.parse().ok());
    code.filter(|_| http).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
}

/// Whether the address takes a connection within `limit`.
pub async fn listens(address: SocketAddr, limit: Duration) -> bool {
    matches!(timeout(limit, TcpStream::connect(address)).await, Ok(Ok(_)))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_page_is_asked_for_by_its_host_and_headers_and_looked_through() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Page {
            host: Some("admin.example".into()),
            headers: [("X-A".to_owned(), "b".to_owned())].into(),
            content: Some("My App".into()),
            ..Page::of("/x")
        };
        for (body, found) in [("<h1>My App</h1>", true), ("nothing", false)] {
            let serve = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let length = stream.read(&mut request).await.unwrap();
                // The text comes in two pieces.
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                stream.write_all(body.as_bytes()).await.unwrap();
                String::from_utf8_lossy(&request[..length]).into_owned()
            };
            let (request, answer) = tokio::join!(serve, page(address, &asked, Duration::from_secs(10)));
            assert_eq!(answer.unwrap(), (200, found));
            assert!(request.starts_with("GET /x HTTP/1.0\r\nHost: admin.example\r\n"), "{request}");
            assert!(request.contains("\r\nX-A: b\r\n"), "{request}");
        }
    }
}
