//! One SSH client: its login, and its channels.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use russh::keys::Algorithm;
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Response, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelOpenFailure, MethodKind, MethodSet, Pty, Sig};
use tokio::sync::watch;
use tracing::info;

use crate::hq::door::{Caller, IoEvent, Origin, Terminal};
use crate::hq::guard::{Ending, Visit};
use crate::hq::ssh::keys::PublicKey;
use crate::hq::ssh::lane::Lane;
use crate::hq::ssh::tcp::Control;
use crate::hq::ssh::{Known, Phase, Server};
use crate::names::UserName;

/// The names clients may log in with; who they are, their key tells.
const LOGINS: [&str; 2] = ["quarry", "git"];

/// Channels of one connection at once.
const CHANNELS: usize = 10;

/// One client.
pub(crate) struct Guest {
    server: Arc<Server>,
    visit: Visit,
    address: IpAddr,
    control: Arc<Control>,
    phase: watch::Sender<Phase>,
    /// Who logged in, and with which key: it may be taken away while they are here.
    user: Option<(UserName, PublicKey)>,
    refused: bool,
    lanes: BTreeMap<u32, Lane>,
}

impl Drop for Guest {
    fn drop(&mut self) {
        let ending = if self.refused && self.user.is_none() { Ending::Failed } else { Ending::Fair };
        self.server.leave(self.visit, ending);
    }
}

impl Guest {
    /// Somebody who has not logged in yet.
    pub(crate) fn new(
        server: Arc<Server>,
        visit: Visit,
        address: IpAddr,
        control: Arc<Control>,
        phase: watch::Sender<Phase>,
    ) -> Self {
        Self { server, visit, address, control, phase, user: None, refused: false, lanes: BTreeMap::new() }
    }

    async fn known(
        &mut self,
        login: &str,
        key: &russh::keys::PublicKey,
        algorithm: &Algorithm,
    ) -> Option<(UserName, PublicKey)> {
        let sha1 = *algorithm == Algorithm::Rsa { hash: None };
        let user = match PublicKey::offered(key) {
            Some(key) if LOGINS.contains(&login) && !sha1 => self.server.door.who(&key).await.map(|user| (user, key)),
            Some(_) | None => None,
        };
        self.refused |= user.is_none();
        user
    }

    fn lane(&mut self, channel: ChannelId) -> Option<&mut Lane> {
        self.lanes.get_mut(&channel.into())
    }

    /// Starts what was asked for on a channel; `false` when the channel runs something already. Whose key is another's or
    /// nobody's by now has nothing to ask for.
    async fn start(&mut self, channel: ChannelId, exec: &[u8]) -> bool {
        let Some((user, key)) = self.user.clone() else { return false };
        if self.server.door.who(&key).await.as_ref() != Some(&user) {
            info!(%user, address = %self.address, "the key of a connection is gone");
            self.control.cut();
            return false;
        }
        let Some(lane) = self.lanes.get_mut(&channel.into()) else { return false };
        let caller = Caller { user, from: Origin::Address(self.address) };
        lane.start(self.server.clone(), caller, exec.to_vec(), self.control.clone())
    }

    fn answer(&self, done: bool, channel: ChannelId, session: &mut Session) -> Result<(), russh::Error> {
        if done { session.channel_success(channel) } else { session.channel_failure(channel) }
    }
}

impl Handler for Guest {
    type Error = russh::Error;

    async fn auth_publickey_offered(&mut self, login: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, russh::Error> {
        let known = self.known(login, offer.public_key, offer.algorithm).await;
        Ok(if known.is_some() { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_publickey(&mut self, login: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        self.user = self.known(login, key.public_key, key.algorithm).await;
        Ok(if self.user.is_some() { Auth::Accept } else { Auth::reject() })
    }

    /// Nobody logs in this way. It is what clients try when they have no more keys, and the only moment at which they
    /// show a line of ours.
    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        login: &str,
        _: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, russh::Error> {
        self.refused = true;
        if response.is_some() {
            let proceed_with_methods = Some(MethodSet::from(&[MethodKind::PublicKey][..]));
            return Ok(Auth::Reject { proceed_with_methods, partial_success: false });
        }
        let line = if LOGINS.contains(&login) {
            "quarry: this key is unknown here; ask the admin to run: quarry keys add NAME < key.pub"
        } else {
            "quarry: the user name is always `quarry`; the key tells who you are"
        };
        Ok(Auth::Partial { name: "".into(), instructions: line.into(), prompts: (&[]).into() })
    }

    async fn auth_succeeded(&mut self, _: &mut Session) -> Result<(), russh::Error> {
        self.phase.send_replace(Phase::In { channels: 0, since: Instant::now() });
        if let Some((user, key)) = &self.user {
            let known = Known {
                user: user.clone(),
                key: key.clone(),
                control: self.control.clone(),
                phase: self.phase.subscribe(),
            };
            self.server.welcome(self.visit, known);
            info!(%user, address = %self.address, "logged in");
        }
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        // russh says nothing of channels that end from our side.
        self.lanes.retain(|_, lane| !lane.is_over());
        if self.lanes.len() >= CHANNELS {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        // Input comes by `data` below. The reading half is dropped: it would stop the whole connection when full.
        let (_, output) = channel.split();
        self.lanes.insert(output.id().into(), Lane::new(output, self.phase.clone()));
        reply.accept().await;
        Ok(())
    }

    async fn channel_close(&mut self, channel: ChannelId, _: &mut Session) -> Result<(), russh::Error> {
        self.lanes.remove(&channel.into());
        Ok(())
    }

    async fn channel_eof(&mut self, channel: ChannelId, _: &mut Session) -> Result<(), russh::Error> {
        if let Some(lane) = self.lane(channel) {
            lane.end_input();
        }
        Ok(())
    }

    async fn data(&mut self, channel: ChannelId, data: &[u8], session: &mut Session) -> Result<(), russh::Error> {
        let control = self.control.clone();
        let Some(lane) = self.lane(channel) else { return Ok(()) };
        if !lane.input(data, &control) {
            let line = "quarry: the client sends input and does not read the output\n";
            session.extended_data(channel, 1, Bytes::from_static(line.as_bytes()))?;
            session.close(channel)?;
            self.lanes.remove(&channel.into());
        }
        Ok(())
    }

    fn adjust_window(&mut self, _: ChannelId, _: u32) -> u32 {
        self.control.granting()
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        _: u32,
        _: u32,
        _: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let fits = term.len() <= 64 && !term.chars().any(char::is_control);
        let lane = self.lane(channel).filter(|lane| fits && !lane.is_running());
        let done = lane.is_some();
        if let Some(lane) = lane {
            lane.terminal = Some(Terminal { term: term.to_owned(), columns: narrow(columns), rows: narrow(rows) });
        }
        self.answer(done, channel, session)
    }

    async fn window_change_request(
        &mut self,
        channel: ChannelId,
        columns: u32,
        rows: u32,
        _: u32,
        _: u32,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        let (columns, rows) = (narrow(columns), narrow(rows));
        if let Some(lane) = self.lane(channel) {
            if let Some(terminal) = &mut lane.terminal {
                (terminal.columns, terminal.rows) = (columns, rows);
            }
            lane.event(IoEvent::Resize { columns, rows });
        }
        Ok(())
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let lane = self.lane(channel).filter(|_| name == "GIT_PROTOCOL" && value.len() <= 100);
        let done = lane.is_some();
        if let Some(lane) = lane {
            lane.env.insert(name.to_owned(), value.to_owned());
        }
        self.answer(done, channel, session)
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), russh::Error> {
        let done = self.start(channel, b"").await;
        self.answer(done, channel, session)
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        exec: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let done = self.start(channel, exec).await;
        self.answer(done, channel, session)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_failure(channel)
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _: bool,
        _: &str,
        _: &str,
        _: u32,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_failure(channel)
    }

    async fn agent_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<bool, russh::Error> {
        session.channel_failure(channel)?;
        Ok(false)
    }

    async fn signal(&mut self, channel: ChannelId, signal: Sig, _: &mut Session) -> Result<(), russh::Error> {
        if let (Some(lane), Some(name)) = (self.lane(channel), name(signal)) {
            lane.event(IoEvent::Signal(name));
        }
        Ok(())
    }
}

fn narrow(size: u32) -> u16 {
    u16::try_from(size).unwrap_or(u16::MAX)
}

fn name(signal: Sig) -> Option<String> {
    match signal {
        Sig::Custom(name) => {
            Some(name).filter(|name| name.len() <= 20 && name.bytes().all(|b| b.is_ascii_alphanumeric()))
        }
        known => Some(format!("{known:?}")),
    }
}
