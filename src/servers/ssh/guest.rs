//! HQ's side of the SSH protocol: which host key is taken, what comes back through forwards, how a connection ended.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use russh::client::{ChannelOpenHandle, DisconnectReason, Handler, Msg, Session};
use russh::keys::PublicKeyOrCertificate;
use russh::{Channel, ChannelOpenFailure};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::HostKey;

/// Which host key is taken.
#[derive(Debug)]
pub(super) enum Trust {
    /// This one.
    Pinned(HostKey),
    /// None: the key is only looked at.
    Look,
}

/// What is known of a connection outside of it.
#[derive(Debug)]
pub(super) struct Fate {
    /// Cancelled when the connection has ended.
    pub(super) ended: CancellationToken,
    /// How it ended; set before that.
    why: OnceLock<String>,
    /// The host key that was shown.
    pub(super) shown: OnceLock<HostKey>,
    /// Where connections to a port of the server's loopback go.
    pub(super) forwards: Mutex<BTreeMap<u32, SocketAddr>>,
    /// Places for such connections.
    places: Arc<Semaphore>,
}

/// Connections through forwards at once: an engine that fetches several images has a few each. Whoever is on the server
/// can open them, and each costs HQ descriptors.
const FORWARDED: usize = 64;

impl Fate {
    /// Ends with `parent`, too.
    pub(super) fn new(parent: &CancellationToken) -> Arc<Self> {
        let (why, shown, forwards) = Default::default();
        let places = Arc::new(Semaphore::new(FORWARDED));
        Arc::new(Self { ended: parent.child_token(), why, shown, forwards, places })
    }

    pub(super) fn end(&self, why: impl Into<String>) {
        let _ = self.why.set(why.into());
        self.ended.cancel();
    }

    pub(super) fn why(&self) -> String {
        self.why.get().cloned().unwrap_or_else(|| "the server's other connection has ended".to_owned())
    }
}

/// Russh calls it.
pub(super) struct Guest {
    pub(super) trust: Trust,
    pub(super) fate: Arc<Fate>,
}

impl Drop for Guest {
    /// However the session ends, those who wait for it hear of it: after a bug in the library, too.
    fn drop(&mut self) {
        self.fate.end("it has ended");
    }
}

impl Handler for Guest {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = shown else { return Ok(false) };
        let _ = self.fate.shown.set(HostKey(key.clone()));
        Ok(match &self.trust {
            Trust::Pinned(pinned) => pinned.0.key_data() == key.key_data(),
            Trust::Look => false,
        })
    }

    async fn disconnected(&mut self, reason: DisconnectReason<russh::Error>) -> Result<(), russh::Error> {
        match reason {
            DisconnectReason::ReceivedDisconnect(info) => {
                self.fate.end(format!("the server ended it ({})", info.message.escape_debug()));
                Ok(())
            }
            DisconnectReason::Error(error) => {
                self.fate.end(match &error {
                    russh::Error::KeepaliveTimeout => "the server has fallen silent".to_owned(),
                    russh::Error::Disconnect => "the server ended it".to_owned(),
                    russh::Error::IO(error) => error.to_string(),
                    other => other.to_string(),
                });
                Err(error)
            }
        }
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<Msg>,
        _: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        let target = self.fate.forwards.lock().unwrap_or_else(PoisonError::into_inner).get(&port).copied();
        let Some(target) = target else {
            return prohibit(reply).await;
        };
        let Ok(place) = self.fate.places.clone().try_acquire_owned() else {
            debug!(port, "too many connections are forwarded already");
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        };
        // On its own: this is the connection's only task, and it must go on.
        tokio::spawn(async move {
            let _place = place;
            match TcpStream::connect(target).await {
                Ok(mut near) => {
                    reply.accept().await;
                    let mut far = channel.into_stream();
                    if let Err(error) = tokio::io::copy_bidirectional(&mut near, &mut far).await {
                        debug!(port, %error, "a forwarded connection broke");
                    }
                }
                Err(error) => {
                    debug!(port, %target, %error, "nothing answers a forwarded connection");
                    reply.reject(ChannelOpenFailure::ConnectFailed).await;
                }
            }
        });
        Ok(())
    }

    // What the server has no business to open; left to itself the library would let most of it in.

    async fn server_channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        prohibit(reply).await
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        prohibit(reply).await
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        prohibit(reply).await
    }

    async fn server_channel_open_x11(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        prohibit(reply).await
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        prohibit(reply).await
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        prohibit(reply).await
    }
}

async fn prohibit(reply: ChannelOpenHandle) -> Result<(), russh::Error> {
    reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
    Ok(())
}
