//! Commands on a server.

use std::time::Duration;

use russh::client::Msg;
use russh::{Channel, ChannelMsg, Sig};
use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::time::timeout;

use super::link::{Link, in_time};
use super::shell::quote;
use super::{LinkError, OPEN};
use crate::docker::Output;

/// More than this many bytes of output are not kept.
const LONGEST: usize = 16 << 20;

/// A command that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// Its exit code; 128 and the signal's number when one ended it, as shells have it.
    pub code: i32,
    /// What it printed; the first 16 MB.
    pub stdout: Vec<u8>,
    /// What it complained about; the first 16 MB.
    pub stderr: Vec<u8>,
}

/// Why a script on a server did not do what it is for.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// The way to the server.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// It ended with another code than 0.
    #[error("cannot {doing}: {why}")]
    Failed {
        /// What it is for.
        doing: &'static str,
        /// Its last words.
        why: String,
    },
}

/// Why a script failed, as far as it says.
pub fn last_words(stderr: &[u8]) -> String {
    let said = String::from_utf8_lossy(stderr);
    said.trim().lines().next_back().unwrap_or("it gives no reason").to_owned()
}

impl Link {
    /// Runs a shell script with these words as its arguments; `doing` says what it is for.
    ///
    /// # Errors
    /// When it fails, and as [`Link::exec`].
    pub async fn script(
        &self,
        doing: &'static str,
        script: &str,
        words: &[&str],
        input: impl AsyncRead + Send + Unpin,
        limit: Duration,
    ) -> Result<Done, ScriptError> {
        let done = self.exec(&[&["sh", "-c", script, "sh"], words].concat(), input, limit).await?;
        if done.code == 0 { Ok(done) } else { Err(ScriptError::Failed { doing, why: last_words(&done.stderr) }) }
    }

    /// Runs `words` on the server, which reads `input`, and keeps what it prints.
    ///
    /// # Errors
    /// When the connection is lost, or it has not ended by `limit`; it may then still run.
    pub async fn exec(
        &self,
        words: &[&str],
        input: impl AsyncRead + Send + Unpin,
        limit: Duration,
    ) -> Result<Done, LinkError> {
        let mut done = Done { code: 0, stdout: Vec::new(), stderr: Vec::new() };
        let keep = |output: Output| {
            let (kept, bytes) = match output {
                Output::Stdout(bytes) => (&mut done.stdout, bytes),
                Output::Stderr(bytes) => (&mut done.stderr, bytes),
            };
            kept.extend_from_slice(&bytes[..bytes.len().min(LONGEST - kept.len())]);
        };
        let code = self.run(words, input, limit, keep).await?;
        Ok(Done { code, ..done })
    }

    /// Runs `words` on the server, which reads `input`; what it prints goes to `take` as it comes. The answer is its
    /// exit code.
    ///
    /// # Errors
    /// When the connection is lost, or it has not ended by `limit`; it may then still run.
    pub async fn run(
        &self,
        words: &[&str],
        input: impl AsyncRead + Send + Unpin,
        limit: Duration,
        take: impl FnMut(Output) + Send,
    ) -> Result<i32, LinkError> {
        if words.iter().any(|word| word.contains('\0')) {
            return Err(LinkError::Word);
        }
        let program = words.first().copied().unwrap_or_default();
        let command = quote(words.iter().copied());
        let running = async {
            let _turn = self.commands.acquire().await.map_err(|_| self.lost())?;
            let channel = self.open_session().await?;
            let started = channel.exec(true, command).await;
            started.map_err(|error| self.explain("run a command", error))?;
            tokio::select! {
                code = converse(channel, input, take) => code.ok_or_else(|| self.untold(program)),
                why = self.ended() => Err(LinkError::Lost { address: self.address().clone(), why }),
            }
        };
        in_time(self.address(), limit, &format!("end `{program}`"), running).await
    }

    /// The server closed the channel and said nothing of the command's end.
    fn untold(&self, program: &str) -> LinkError {
        if !self.stands() {
            return self.lost();
        }
        LinkError::Denied { address: self.address().clone(), doing: format!("tell how `{program}` ended") }
    }
}

/// Both directions of a command until it has ended; `None` when that is not heard of.
async fn converse(
    channel: Channel<Msg>,
    mut input: impl AsyncRead + Send + Unpin,
    mut take: impl FnMut(Output) + Send,
) -> Option<i32> {
    let (mut reader, writer) = channel.split();
    let feed = async {
        let mut into = writer.make_writer();
        // A command that does not read is no failure: its exit code tells.
        let _ = tokio::io::copy(&mut input, &mut into).await;
        let _ = timeout(OPEN, into.shutdown()).await;
        std::future::pending::<()>().await;
    };
    let listen = async {
        let mut code = None;
        while let Some(message) = reader.wait().await {
            match message {
                ChannelMsg::Data { data } => take(Output::Stdout(data.to_vec())),
                ChannelMsg::ExtendedData { data, .. } => take(Output::Stderr(data.to_vec())),
                ChannelMsg::ExitStatus { exit_status } => code = Some(i32::try_from(exit_status).unwrap_or(255)),
                ChannelMsg::ExitSignal { signal_name, .. } => code = Some(128 + number(&signal_name)),
                // Refused to run at all, as a shell would say it.
                ChannelMsg::Failure => code = Some(126),
                ChannelMsg::Close => break,
                _ => {}
            }
        }
        code
    };
    tokio::select! {
        () = feed => None,
        code = listen => code,
    }
}

fn number(signal: &Sig) -> i32 {
    match signal {
        Sig::HUP => 1,
        Sig::INT => 2,
        Sig::QUIT => 3,
        Sig::ILL => 4,
        Sig::ABRT => 6,
        Sig::FPE => 8,
        Sig::KILL => 9,
        Sig::USR1 => 10,
        Sig::SEGV => 11,
        Sig::PIPE => 13,
        Sig::ALRM => 14,
        Sig::TERM => 15,
        Sig::Custom(_) => 127,
    }
}
