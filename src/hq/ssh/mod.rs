//! The SSH server: who may come in, and channels that become commands and git's services.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use russh::keys::{Algorithm, EcdsaCurve, HashAlg};
use russh::server::RunningSession;
use russh::{MethodKind, MethodSet};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::hq::door::Door;
use crate::hq::guard::{self, Ending, Guard, Verdict, Visit};
use crate::hq::push::{Paths, Pushes};
use crate::hq::ssh::guest::Guest;
use crate::hq::ssh::keys::PublicKey;
use crate::hq::ssh::tcp::{Control, Line, WINDOW};
use crate::hq::upgrade::State;
use crate::hq::upgrade::act::HASTE;
use crate::names::UserName;
use crate::servers::ssh::KeyPair;

mod guest;
pub mod keys;
mod lane;
mod offer;
mod tcp;

/// Keys a client may offer on one connection. Agents hold many, and offering one reveals nothing.
const OFFERS: usize = 12;

/// What HQ says first.
const GREETING: &str = concat!("SSH-2.0-quarry_", env!("CARGO_PKG_VERSION"), "\r\n");

/// How long clients may do nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Until they have logged in.
    pub login: Duration,
    /// Logged in, without a channel.
    pub idle: Duration,
    /// Before they have named their ciphers: who has named the fastest by then is offered nothing else. Whoever is close
    /// does so in time, and nobody else's packets come so fast that the cipher matters.
    pub offer: Duration,
    /// Those who are not let in yet.
    pub guard: guard::Limits,
}

impl Default for Limits {
    fn default() -> Self {
        let (login, idle) = (Duration::from_secs(20), Duration::from_secs(600));
        Self { login, idle, offer: Duration::from_millis(10), guard: guard::Limits::default() }
    }
}

impl Limits {
    /// While the doors are closed: who is inside and does nothing holds up others.
    fn in_haste(self) -> Self {
        Self { login: self.login.min(3 * HASTE), idle: self.idle.min(HASTE), ..self }
    }
}

/// Waits until the doors are no longer as they were.
async fn turned(traffic: &mut watch::Receiver<State>, held: bool) {
    if traffic.wait_for(|state| state.held != held).await.is_err() {
        std::future::pending().await
    }
}

/// The SSH server. One for all its connections.
pub struct Server {
    pub(crate) door: Arc<dyn Door>,
    pub(crate) pushes: Arc<Pushes>,
    pub(crate) paths: Paths,
    limits: Limits,
    config: Arc<russh::server::Config>,
    /// For those who have AES-GCM, when this machine has instructions for it.
    swift: Option<Arc<russh::server::Config>>,
    porch: Mutex<Porch>,
}

/// Those who are connected, with what is needed to send them away.
struct Porch {
    guard: Guard,
    strangers: BTreeMap<Visit, Arc<Control>>,
    guests: BTreeMap<Visit, Known>,
}

/// Somebody who has logged in.
struct Known {
    user: UserName,
    key: PublicKey,
    control: Arc<Control>,
    phase: watch::Receiver<Phase>,
}

/// How long whoever takes their own key away may still hear that it is gone.
const FAREWELL: Duration = Duration::from_secs(1);

impl Server {
    /// A server with this host key for what is behind `door`.
    pub fn new(host_key: KeyPair, limits: Limits, paths: Paths, door: Arc<dyn Door>, pushes: Arc<Pushes>) -> Self {
        let porch = Porch { guard: Guard::new(limits.guard), strangers: BTreeMap::new(), guests: BTreeMap::new() };
        let swift = offer::is_gcm_fast().then(|| Arc::new(config(host_key.clone(), offer::GCM)));
        let config = Arc::new(config(host_key, offer::ALL));
        Self { door, pushes, paths, limits, config, swift, porch: Mutex::new(porch) }
    }

    /// Accepts connections until `stop`; those that are open then go on.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        let traffic = &self.pushes.traffic;
        let mut keys = self.door.keys();
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Ok(()) = keys.changed() => {
                    self.part().await;
                    continue;
                }
                () = traffic.until(|state| state.held) => {
                    let _closed = traffic.close();
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = traffic.until(|state| !state.held) => continue,
                    }
                }
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (server, guest) = (self.clone(), traffic.guest());
                    tokio::spawn(async move {
                        server.visit(stream).await;
                        drop(guest);
                    });
                }
                Err(error) => {
                    // Out of file descriptors: accepting at once again would only burn the processor.
                    warn!(%error, "cannot accept an SSH connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn visit(self: Arc<Self>, stream: TcpStream) {
        let Ok((line, address)) = Line::new(stream) else { return };
        let control = line.control();
        let Some((visit, after)) = self.admit(address, &control) else {
            debug!(%address, "too many failed logins, not let in");
            return;
        };
        if !after.is_zero() {
            debug!(%address, ?after, "many failed logins, let in later");
            tokio::time::sleep(after).await;
        }
        let (phase, phases) = watch::channel(Phase::Login(Instant::now()));
        let guest = Guest::new(self.clone(), visit, address, control.clone(), phase);
        let opening = self.open(line, guest);
        let opened = tokio::select! {
            opened = tokio::time::timeout(self.limits.login, opening) => Some(opened),
            () = self.pushes.traffic.haste() => None,
        };
        let ending = match opened {
            Some(Ok(Ok(session))) => self.supervise(session, phases, &control).await,
            Some(Ok(Err(error))) => {
                debug!(%address, %error, "no SSH client");
                Ending::Fair
            }
            Some(Err(_)) => {
                debug!(%address, "no SSH greeting in time");
                Ending::Failed
            }
            None => {
                debug!(%address, "no SSH greeting before the doors were closed");
                Ending::Fair
            }
        };
        // Nothing is left to do for those who were welcomed, or refused: the guest has seen to it.
        self.leave(visit, ending);
    }

    /// Agrees with a client on how to speak.
    async fn open(&self, mut line: Line, guest: Guest) -> Result<RunningSession<Guest>, russh::Error> {
        let mut config = &self.config;
        if let Some(swift) = &self.swift {
            line.say(GREETING.as_bytes()).await?;
            // Who has not named them by then is offered all.
            if let Ok(heard) = tokio::time::timeout(self.limits.offer, line.listen(offer::has_gcm)).await
                && heard? == Some(true)
            {
                config = swift;
            }
        }
        russh::server::run_stream(config.clone(), line, guest).await
    }

    /// Waits for the end of a connection, and brings it about when its client does nothing for too long.
    async fn supervise(
        &self,
        mut session: RunningSession<Guest>,
        mut phases: watch::Receiver<Phase>,
        control: &Control,
    ) -> Ending {
        let mut traffic = self.pushes.traffic.watch();
        loop {
            let phase = *phases.borrow_and_update();
            let held = traffic.borrow_and_update().held;
            let limits = if held { self.limits.in_haste() } else { self.limits };
            let deadline = match phase {
                Phase::Login(since) => Some(since + limits.login),
                Phase::In { channels: 0, since } => Some(since + limits.idle),
                Phase::In { .. } => None,
            };
            let limit = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                ended = &mut session => {
                    if let Err(error) = ended {
                        debug!(%error, "SSH connection ended");
                    }
                    return Ending::Fair;
                }
                changed = phases.changed() => {
                    if changed.is_err() {
                        control.cut();
                    }
                }
                // The server counts everybody for as long as it lives.
                _ = turned(&mut traffic, held) => {}
                () = limit => {
                    debug!(?phase, "SSH client did nothing for too long");
                    control.cut();
                    return match phase {
                        Phase::Login(_) => Ending::Failed,
                        Phase::In { .. } => Ending::Fair,
                    };
                }
            }
        }
    }

    fn admit(&self, address: IpAddr, control: &Arc<Control>) -> Option<(Visit, Duration)> {
        let mut porch = self.porch();
        match porch.guard.arrive(address, Instant::now()) {
            Verdict::Enter { visit, after, gone } => {
                porch.strangers.insert(visit, control.clone());
                if let Some(gone) = gone
                    && let Some(control) = porch.strangers.remove(&gone)
                {
                    porch.guard.leave(gone, Ending::Fair, Instant::now());
                    control.cut();
                }
                Some((visit, after))
            }
            Verdict::Refuse => None,
        }
    }

    /// A visitor is known now. One connection too many of theirs ends.
    fn welcome(&self, visit: Visit, known: Known) {
        let user = known.user.clone();
        let mut porch = self.porch();
        porch.guard.welcome(visit);
        porch.strangers.remove(&visit);
        porch.guests.insert(visit, known);
        let own = porch.guests.iter().filter(|(_, known)| known.user == user);
        let own = own.map(|(visit, known)| (*visit, known.phase.borrow().idle())).collect();
        if let Some(known) = guard::crowded(&own, &self.limits.guard).and_then(|visit| porch.guests.get(&visit)) {
            debug!(%user, "a connection too many of this user ends");
            known.control.cut();
        }
    }

    /// Ends the connections of those whose keys are gone. Until then they begin nothing more.
    async fn part(&self) {
        let guests: Vec<_> = {
            let porch = self.porch();
            let guest = |known: &Known| (known.user.clone(), known.key.clone(), known.control.clone());
            porch.guests.values().map(guest).collect()
        };
        let mut gone = Vec::new();
        for (user, key, control) in guests {
            if self.door.who(&key).await.as_ref() != Some(&user) {
                info!(%user, "a connection ends, its key is gone");
                gone.push(control);
            }
        }
        if !gone.is_empty() {
            tokio::spawn(async move {
                tokio::time::sleep(FAREWELL).await;
                gone.iter().for_each(|control| control.cut());
            });
        }
    }

    pub(crate) fn leave(&self, visit: Visit, ending: Ending) {
        let mut porch = self.porch();
        porch.guard.leave(visit, ending, Instant::now());
        porch.strangers.remove(&visit);
        porch.guests.remove(&visit);
    }

    fn porch(&self) -> MutexGuard<'_, Porch> {
        self.porch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not logged in, since this instant.
    Login(Instant),
    /// Logged in, with so many channels since this instant.
    In {
        /// Channels on which something was started, until they are closed and it has ended.
        channels: usize,
        /// When their number last changed.
        since: Instant,
    },
}

impl Phase {
    /// Since when nothing runs.
    fn idle(self) -> Option<Instant> {
        match self {
            Phase::Login(since) | Phase::In { channels: 0, since } => Some(since),
            Phase::In { .. } => None,
        }
    }
}

/// Key exchange: mlkem768x25519 where the client has it, else curve25519. sntrup761x25519, which OpenSSH 8.5 to 9.8
/// would prefer, is left out: it costs those clients 70 ms on every connection, and they lose by it the protection of
/// recorded traffic against a quantum computer of the future, which newer clients keep.
fn config(KeyPair(host_key): KeyPair, ciphers: &'static [russh::cipher::Name]) -> russh::server::Config {
    let rsa = |hash| Algorithm::Rsa { hash: Some(hash) };
    let ecdsa = |curve| Algorithm::Ecdsa { curve };
    let preferred = russh::Preferred {
        kex: Cow::Borrowed(&[
            russh::kex::MLKEM768X25519_SHA256,
            russh::kex::CURVE25519,
            russh::kex::CURVE25519_PRE_RFC_8731,
            russh::kex::ECDH_SHA2_NISTP256,
            russh::kex::EXTENSION_SUPPORT_AS_SERVER,
            russh::kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
        ]),
        key: Cow::Owned(vec![
            Algorithm::Ed25519,
            ecdsa(EcdsaCurve::NistP256),
            ecdsa(EcdsaCurve::NistP384),
            ecdsa(EcdsaCurve::NistP521),
            rsa(HashAlg::Sha512),
            rsa(HashAlg::Sha256),
        ]),
        host_key_certificates: Cow::Borrowed(&[]),
        cipher: Cow::Borrowed(ciphers),
        mac: russh::Preferred::DEFAULT.mac,
        compression: Cow::Borrowed(&[russh::compression::NONE]),
    };
    russh::server::Config {
        server_id: russh::SshId::Raw(GREETING.into()),
        methods: MethodSet::from(&[MethodKind::PublicKey, MethodKind::KeyboardInteractive][..]),
        // Public keys cannot be guessed; the guard looks after those who try.
        auth_rejection_time: Duration::ZERO,
        auth_rejection_time_initial: Some(Duration::ZERO),
        max_auth_attempts: OFFERS,
        keys: vec![Arc::unwrap_or_clone(host_key)],
        preferred,
        window_size: WINDOW,
        maximum_packet_size: 1 << 15,
        event_buffer_size: 16,
        inactivity_timeout: None,
        keepalive_interval: None,
        ..russh::server::Config::default()
    }
}
