//! Lets TCP connections in: so many at once, and peers that are gone without a word are found out.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Connections at once; one more is closed at once.
const CONNECTIONS: usize = 512;

/// How long a peer may be silent before it is asked whether it is there.
const QUIET: Duration = Duration::from_secs(20);

/// After the system has no more descriptors, say.
const AGAIN: Duration = Duration::from_millis(100);

/// Attends to whoever comes until `stop`; those who are inside then go on. `what` is said of them in the log.
pub async fn let_in<F>(
    listener: TcpListener,
    what: &'static str,
    stop: CancellationToken,
    attend: impl Fn(TcpStream, IpAddr) -> F,
) where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, from) = match accepted.and_then(watched) {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(what, %error, "nobody can be let in");
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::debug!(what, %from, "too many connections");
            continue;
        };
        let attended = attend(stream, from);
        tokio::spawn(async move {
            if let Err(error) = attended.await {
                tracing::debug!(what, %from, %error, "a connection broke");
            }
            drop(place);
        });
    }
}

fn watched((stream, from): (TcpStream, std::net::SocketAddr)) -> io::Result<(TcpStream, IpAddr)> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(&stream, true)?;
    sockopt::set_tcp_keepidle(&stream, QUIET)?;
    Ok((stream, from.ip()))
}
