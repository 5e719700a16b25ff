//! Docker's clients that come by TCP with a certificate, which says who they are.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub use self::tls::Tls;
use super::act::attend;
use super::http::{Call, Reply, Service, serve as speak};
use super::trouble::Trouble;
use crate::hq::Hq;
use crate::hq::door::{Caller, Door, Origin};
use crate::names::UserName;

mod tls;

/// Connections at once; one more is closed at once.
const CONNECTIONS: usize = 512;

/// How long a handshake may take, and how long a peer may be silent before it is asked whether it is there.
const HANDSHAKE: Duration = Duration::from_secs(20);

/// How long somebody is listened to whose certificate opens nothing.
const REFUSAL: Duration = Duration::from_secs(10);

/// Between two looks whether a certificate has come to its end.
const LOOK: Duration = Duration::from_secs(5);

/// After the system has no more descriptors, say.
const AGAIN: Duration = Duration::from_millis(100);

/// Lets in whoever comes with a certificate until `stop`.
pub async fn serve(listener: TcpListener, tls: Tls, (hq, door): (Arc<Hq>, Arc<dyn Door>), stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, from) = match accepted {
            Ok((stream, from)) => (stream, from.ip()),
            Err(error) => {
                tracing::warn!(%error, "none of docker's clients can be let in");
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::debug!(%from, "too many connections of docker's clients");
            continue;
        };
        let (tls, hq, door) = (tls.clone(), hq.clone(), door.clone());
        tokio::spawn(async move {
            if let Err(error) = welcome(stream, from, tls, (hq, door)).await {
                tracing::debug!(%from, %error, "one of docker's clients is not let in");
            }
            drop(place);
        });
    }
}

async fn welcome(stream: TcpStream, from: IpAddr, tls: Tls, (hq, door): (Arc<Hq>, Arc<dyn Door>)) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(&stream, true)?;
    sockopt::set_tcp_keepidle(&stream, HANDSHAKE)?;
    let late = |_| io::Error::other("the handshake takes too long");
    let (stream, shown) = timeout(HANDSHAKE, tls.accept(stream)).await.map_err(late)??;
    let Some(user) = door.bearer(&shown).await.filter(|_| !hq.traffic.watch().borrow().held) else {
        tracing::info!(%from, "a certificate opens nothing");
        // It may not read the answer.
        let _ = timeout(REFUSAL, speak(stream, Arc::new(Stranger))).await;
        return Ok(());
    };
    let (caller, hung_up) = (Caller { user: user.clone(), from: Origin::Address(from) }, CancellationToken::new());
    // Whatever it has begun to follow ends with it.
    let _gone = hung_up.clone().drop_guard();
    tokio::select! {
        () = attend(hq.clone(), caller, stream, hung_up) => {}
        () = over(&*door, &shown, &user) => tracing::info!(%user, "a certificate opens nothing any more"),
        () = hq.traffic.haste() => {}
    }
    Ok(())
}

/// Ends when a certificate is no longer a user's.
async fn over(door: &dyn Door, shown: &str, user: &UserName) {
    let (mut keys, mut look) = (door.keys(), tokio::time::interval(LOOK));
    loop {
        tokio::select! {
            Ok(()) = keys.changed() => {}
            _ = look.tick() => {}
        }
        if door.bearer(shown).await.as_ref() != Some(user) {
            return;
        }
    }
}

/// Answers those whose certificate is the authority's and nobody's.
struct Stranger;

#[async_trait]
impl Service for Stranger {
    async fn answer(&self, _: Call) -> Reply {
        let trouble = Trouble::forbidden("this certificate opens nothing (any more); `tokens` lists those there are");
        Reply::json(trouble.status, &trouble.body())
    }
}
