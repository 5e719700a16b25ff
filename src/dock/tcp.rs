//! Docker's clients that come by TCP with a certificate, which says who they are.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub use self::tls::Tls;
use super::act::attend;
use super::http::{Call, Reply, Service, serve as speak};
use super::trouble::Trouble;
use crate::hq::Hq;
use crate::hq::door::{Caller, Door, Origin};
use crate::hq::tcp::let_in;
use crate::names::UserName;

mod tls;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(20);

/// How long somebody is listened to whose certificate opens nothing.
const REFUSAL: Duration = Duration::from_secs(10);

/// Between two looks whether a certificate has come to its end.
const LOOK: Duration = Duration::from_secs(5);

/// Lets in whoever comes with a certificate until `stop`.
pub async fn serve(listener: TcpListener, tls: Tls, (hq, door): (Arc<Hq>, Arc<dyn Door>), stop: CancellationToken) {
    let parts = (hq, door);
    let_in(listener, "docker's clients", stop, |stream, from| welcome(stream, from, tls.clone(), parts.clone())).await;
}

async fn welcome(stream: TcpStream, from: IpAddr, tls: Tls, (hq, door): (Arc<Hq>, Arc<dyn Door>)) -> io::Result<()> {
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
