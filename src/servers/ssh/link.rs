//! One SSH connection to a server.

use std::borrow::Cow;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse, Msg, connect_stream};
use russh::keys::{Algorithm, PrivateKeyWithHashAlg};
use russh::{Channel, Preferred};
use rustix::net::sockopt;
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::guest::{Fate, Guest, Trust};
use super::{ANY_KEY, Address, CONNECT, HostKey, LinkError, Login, OPEN, Tunnel};

/// How soon a dead connection is noticed.
#[derive(Debug, Clone, Copy)]
struct Vigil {
    /// After so long without a word from the server it is asked for one; the third time without an answer is the end.
    keepalive: Duration,
    /// Sent data that stays unacknowledged for so long is the end, too: while the library waits to send, it looks at no
    /// clock.
    unacknowledged: Duration,
}

/// For the connection by which a server counts as up.
const CLOSE: Vigil = Vigil { keepalive: Duration::from_secs(1), unacknowledged: Duration::from_secs(4) };

/// For those that fall with another one: on a slow cable, images may keep an answer back for long.
const LOOSE: Vigil = Vigil { keepalive: Duration::from_secs(15), unacknowledged: Duration::from_secs(60) };

/// Commands at once on one connection. Sshd has ten places, and may still count the one that has just ended.
const COMMANDS: usize = 5;

/// Messages of a channel that may wait for their reader. Where they do not fit, the library stops the connection, and
/// with it all other channels; that many only wait for a reader that has gone astray.
const WAITING: usize = 8192;

/// Bytes read from the network at once.
const BUFFER: usize = 128 * 1024;

/// A connection that is logged in. It ends when the last that uses it is dropped.
pub struct Link {
    address: Address,
    session: Handle<Guest>,
    fate: Arc<Fate>,
    pub(super) commands: Semaphore,
}

impl Link {
    /// Connects and logs in to a server that is known by `host_key`.
    ///
    /// # Errors
    /// Within 10 s; [`LinkError::HostKey`] before any secret has been sent when the server shows another key.
    pub async fn connect(address: &Address, login: &Login, host_key: &HostKey) -> Result<Link, LinkError> {
        Self::enter(&Fate::new(&CancellationToken::new()), CLOSE, address, login, host_key).await
    }

    /// A connection beside this one, to the same server; it ends with this one, too.
    pub(super) async fn twin(&self, login: &Login, host_key: &HostKey) -> Result<Link, LinkError> {
        let fate = Fate::new(&self.fate.ended);
        tokio::select! {
            entered = Self::enter(&fate, LOOSE, &self.address, login, host_key) => entered,
            () = self.fate.ended.cancelled() => Err(self.lost()),
        }
    }

    async fn enter(
        fate: &Arc<Fate>,
        vigil: Vigil,
        address: &Address,
        login: &Login,
        host_key: &HostKey,
    ) -> Result<Link, LinkError> {
        let opening = async {
            let trust = Trust::Pinned(host_key.clone());
            let mut session = open(address, vigil, trust, host_key.algorithms(), fate).await?;
            log_in(&mut session, address, login).await?;
            Ok(session)
        };
        let session = in_time(address, CONNECT, "let HQ in", opening).await?;
        Ok(Link { address: address.clone(), session, fate: fate.clone(), commands: Semaphore::new(COMMANDS) })
    }

    /// The key that the server shows, for a person to compare and to pin. Nobody logs in.
    ///
    /// # Errors
    /// When there is no SSH server, within 10 s.
    pub async fn host_key(address: &Address) -> Result<HostKey, LinkError> {
        let fate = Fate::new(&CancellationToken::new());
        let opening = open(address, CLOSE, Trust::Look, Cow::Borrowed(ANY_KEY), &fate);
        match in_time(address, CONNECT, "show its host key", opening).await {
            Ok(_) => {}
            Err(error) if fate.shown.get().is_none() => return Err(error),
            Err(_) => {}
        }
        let shown = fate.shown.get().cloned();
        shown.ok_or_else(|| LinkError::Denied { address: address.clone(), doing: "show a plain host key".to_owned() })
    }

    /// Where it leads.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Whether it still stands, as far as is known.
    pub fn stands(&self) -> bool {
        !self.fate.ended.is_cancelled() && !self.session.is_closed()
    }

    /// Waits until it has ended and tells how.
    pub async fn ended(&self) -> String {
        self.fate.ended.cancelled().await;
        self.fate.why()
    }

    /// Ends it and everything that goes through it.
    pub fn end(&self, why: &str) {
        self.fate.end(why);
    }

    /// Connects to a unix socket on the server.
    ///
    /// # Errors
    /// Within 5 s; [`LinkError::Denied`] when nothing listens there or sshd's settings forbid it.
    pub async fn open_socket(self: &Arc<Self>, path: &str) -> Result<Tunnel, LinkError> {
        let doing = format!("open {path}");
        let channel = self.ask(&doing, self.session.channel_open_direct_streamlocal(path)).await?;
        Ok(Tunnel::new(channel.into_stream(), self.fate.clone(), self.clone()))
    }

    /// Hands connections to a port of the server's own loopback to `target`, which HQ reaches, as long as this
    /// connection stands. Port 0 lets the server choose; the answer is the port.
    ///
    /// # Errors
    /// Within 5 s; [`LinkError::Denied`] when the port is taken or sshd's settings forbid it.
    pub async fn forward(&self, port: u16, target: SocketAddr) -> Result<u16, LinkError> {
        let doing = format!("forward port {port}");
        let chosen = self.ask(&doing, self.session.tcpip_forward("127.0.0.1", port.into())).await?;
        let bound = if chosen == 0 { u32::from(port) } else { chosen };
        self.fate.forwards.lock().unwrap_or_else(PoisonError::into_inner).insert(bound, target);
        u16::try_from(bound).map_err(|_| LinkError::Denied { address: self.address.clone(), doing })
    }

    /// Connects to a port of the server's own loopback and hangs up. Where an earlier connection of HQ's still holds it,
    /// the server's sshd has to tell HQ of the visitor, and learns that the connection is no more.
    pub(super) async fn stir(&self, port: u16) {
        let opening = self.session.channel_open_direct_tcpip("127.0.0.1", port.into(), "127.0.0.1", 0);
        if let Ok(channel) = self.ask("look at a port", opening).await {
            let _ = channel.close().await;
        }
    }

    pub(super) async fn open_session(&self) -> Result<Channel<Msg>, LinkError> {
        self.ask("run a command", self.session.channel_open_session()).await
    }

    /// Waits for the server's answer to a request, as long as the connection stands.
    async fn ask<T>(
        &self,
        doing: &str,
        request: impl Future<Output = Result<T, russh::Error>>,
    ) -> Result<T, LinkError> {
        let answer = async {
            tokio::select! {
                answer = request => answer.map_err(|error| self.explain(doing, error)),
                () = self.fate.ended.cancelled() => Err(self.lost()),
            }
        };
        in_time(&self.address, OPEN, doing, answer).await
    }

    pub(super) fn explain(&self, doing: &str, error: russh::Error) -> LinkError {
        let (address, doing) = (self.address.clone(), doing.to_owned());
        match error {
            russh::Error::ChannelOpenFailure(_) | russh::Error::RequestDenied => LinkError::Denied { address, doing },
            _ if !self.stands() => self.lost(),
            source => LinkError::Protocol { address, doing, source: source.into() },
        }
    }

    pub(super) fn lost(&self) -> LinkError {
        LinkError::Lost { address: self.address.clone(), why: self.fate.why() }
    }
}

/// Waits for something no longer than `limit`.
pub(super) async fn in_time<T>(
    address: &Address,
    limit: Duration,
    doing: &str,
    what: impl Future<Output = Result<T, LinkError>>,
) -> Result<T, LinkError> {
    let late = || LinkError::Late { address: address.clone(), doing: doing.to_owned(), limit };
    timeout(limit, what).await.unwrap_or_else(|_| Err(late()))
}

/// TCP and the key exchange.
async fn open(
    address: &Address,
    vigil: Vigil,
    trust: Trust,
    host_keys: Cow<'static, [Algorithm]>,
    fate: &Arc<Fate>,
) -> Result<Handle<Guest>, LinkError> {
    let unreachable = |source| LinkError::Unreachable { address: address.clone(), source };
    let tcp = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(unreachable)?;
    prepare(&tcp, vigil).map_err(unreachable)?;
    let pinned = match &trust {
        Trust::Pinned(key) => Some(key.fingerprint()),
        Trust::Look => None,
    };
    let guest = Guest { trust, fate: fate.clone() };
    let stream = BufReader::with_capacity(BUFFER, tcp);
    connect_stream(Arc::new(config(vigil, host_keys)), stream, guest).await.map_err(|source| {
        match (source, pinned, fate.shown.get()) {
            (russh::Error::UnknownKey, Some(pinned), Some(shown)) => {
                LinkError::HostKey { address: address.clone(), pinned, shown: shown.fingerprint() }
            }
            (source, _, _) => LinkError::Protocol {
                address: address.clone(),
                doing: "agree on SSH".to_owned(),
                source: source.into(),
            },
        }
    })
}

/// Small packets leave at once, and what nobody acknowledges ends the connection.
fn prepare(tcp: &TcpStream, vigil: Vigil) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let millis = u32::try_from(vigil.unacknowledged.as_millis()).unwrap_or(u32::MAX);
    Ok(sockopt::set_tcp_user_timeout(tcp, millis)?)
}

fn config(vigil: Vigil, host_keys: Cow<'static, [Algorithm]>) -> russh::client::Config {
    let preferred = Preferred {
        kex: Cow::Borrowed(&[
            russh::kex::MLKEM768X25519_SHA256,
            russh::kex::CURVE25519,
            russh::kex::CURVE25519_PRE_RFC_8731,
            russh::kex::ECDH_SHA2_NISTP256,
            russh::kex::EXTENSION_SUPPORT_AS_CLIENT,
            russh::kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
        ]),
        key: host_keys,
        host_key_certificates: Cow::Borrowed(&[]),
        cipher: Cow::Borrowed(&[
            russh::cipher::AES_128_GCM,
            russh::cipher::AES_256_GCM,
            russh::cipher::CHACHA20_POLY1305,
            russh::cipher::AES_256_CTR,
        ]),
        mac: Preferred::DEFAULT.mac,
        compression: Cow::Borrowed(&[russh::compression::NONE]),
    };
    russh::client::Config {
        client_id: russh::SshId::Standard(concat!("SSH-2.0-quarry_", env!("CARGO_PKG_VERSION")).into()),
        channel_buffer_size: WAITING,
        preferred,
        // The third that would follow two unanswered ones ends it.
        keepalive_interval: Some(vigil.keepalive),
        keepalive_max: 2,
        ..russh::client::Config::default()
    }
}

async fn log_in(session: &mut Handle<Guest>, address: &Address, login: &Login) -> Result<(), LinkError> {
    let failed = |source: russh::Error| LinkError::Protocol {
        address: address.clone(),
        doing: "log in".to_owned(),
        source: source.into(),
    };
    let user = &address.user;
    let welcome = match login {
        Login::Key(key) => {
            let key = PrivateKeyWithHashAlg::new(key.0.clone(), None);
            session.authenticate_publickey(user, key).await.map_err(failed)?.success()
        }
        Login::Password(password) => match session.authenticate_password(user, password).await.map_err(failed)? {
            AuthResult::Success => true,
            // Some servers ask for it in a dialogue.
            AuthResult::Failure { .. } => answer_prompts(session, user, password).await.map_err(failed)?,
        },
    };
    if welcome {
        return Ok(());
    }
    Err(LinkError::Refused { address: address.clone(), login: login.name() })
}

/// Answers every question with the password.
async fn answer_prompts(session: &mut Handle<Guest>, user: &str, password: &str) -> Result<bool, russh::Error> {
    let mut answer = session.authenticate_keyboard_interactive_start(user, None).await?;
    loop {
        let prompts = match answer {
            KeyboardInteractiveAuthResponse::Success => return Ok(true),
            KeyboardInteractiveAuthResponse::Failure { .. } => return Ok(false),
            KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } => prompts.len(),
        };
        answer = session.authenticate_keyboard_interactive_respond(vec![password.to_owned(); prompts]).await?;
    }
}
