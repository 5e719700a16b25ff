//! `run STACK[/NODE] CMD …`

use futures_util::StreamExt;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::failure::{Exit, Failure};
use crate::docker::{Attached, Engine, Output};
use crate::hq::door::{IoEvent, Stdin, Terminal};
use crate::hq::oneoff::OneOff;
use crate::hq::rights::Right;
use crate::names::ContainerName;
use crate::units::Millis;

/// Run a command once in a new container of a stack
#[derive(Debug, clap::Args)]
pub struct Run {
    /// [STACK[/NODE]] CMD …; a shell without CMD
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// The caller's streams.
pub struct Streams {
    /// Standard input.
    pub stdin: Stdin,
    /// Its terminal.
    pub terminal: Option<Terminal>,
    /// Window sizes and signals.
    pub events: mpsc::Receiver<IoEvent>,
    /// Cancelled when the caller hangs up.
    pub hung_up: CancellationToken,
}

/// What a shell is where none is named: bash where the image has it.
const SHELL: &str = "if command -v bash >/dev/null; then exec bash; else exec sh; fi";
/// What Ctrl-D types.
const END: u8 = 4;
/// How long a command whose caller is gone may finish.
const GRACE: Millis = Millis::seconds(5);

impl Run {
    /// Runs the command and gives its exit code.
    ///
    /// # Errors
    /// When the stack was never deployed or the container cannot be made.
    pub async fn run(self, cx: &Context, streams: Streams) -> Result<u8, Failure> {
        let (target, rest) = cx.target(&self.words, Right::Deploy).await?;
        let rest = rest.strip_prefix(&["--".to_owned()][..]).unwrap_or(rest);
        let words = match rest {
            [] => vec!["/bin/sh".to_owned(), "-c".to_owned(), SHELL.to_owned()],
            [text] if text.contains(char::is_whitespace) => {
                vec!["/bin/sh".to_owned(), "-c".to_owned(), text.clone()]
            }
            words => words.to_vec(),
        };
        let tty = streams.terminal.is_some();
        let one_off = OneOff { stack: target.stack, node: target.node, words: Some(words), tty };
        let (server, name) = cx.hq.prepare_one_off(one_off).await?;
        let engine = cx.hq.engines().of(&server)?;
        let ended = attached(cx, &*engine, &name, streams).await;
        // The container goes whatever became of the caller.
        let removed = engine.remove(&name).await;
        let code = ended?;
        removed?;
        Ok(code)
    }
}

/// Starts a container and hands its streams to the caller, until it has ended; its exit code.
///
/// # Errors
/// When docker fails, or the caller hangs up, which ends it.
pub(super) async fn attached(
    cx: &Context,
    engine: &dyn Engine,
    name: &ContainerName,
    streams: Streams,
) -> Result<u8, Failure> {
    let Streams { stdin, terminal, mut events, hung_up } = streams;
    let Attached { mut output, input } = engine.attach(name).await?;
    engine.start(name).await?;
    let tty = terminal.is_some();
    if let Some(terminal) = terminal.filter(|terminal| terminal.columns > 0) {
        // A terminal of unknown size is better than no command.
        let _ = engine.resize(name, terminal.columns, terminal.rows).await;
    }
    let mut feeding = JoinSet::new();
    feeding.spawn(feed(stdin, input, tty));
    let (mut printing, mut listening) = (true, true);
    let code = loop {
        tokio::select! {
            chunk = output.next(), if printing => match chunk {
                Some(Ok(Output::Stdout(bytes))) => cx.out.data(bytes).await?,
                Some(Ok(Output::Stderr(bytes))) => cx.out.aside(bytes).await?,
                Some(Err(error)) => return Err(error.into()),
                None => printing = false,
            },
            // Who has closed its output may read on.
            code = engine.wait(name), if !printing => break code?,
            event = events.recv(), if listening => match event {
                Some(IoEvent::Resize { columns, rows }) => drop(engine.resize(name, columns, rows).await),
                // The terminal inside the container sees the key itself.
                Some(IoEvent::Interrupt) if tty => {}
                Some(IoEvent::Interrupt) => engine.signal(name, "SIGINT").await?,
                Some(IoEvent::Signal(signal)) => engine.signal(name, &format!("SIG{signal}")).await?,
                None => listening = false,
            },
            () = hung_up.cancelled() => {
                engine.stop(name, GRACE).await?;
                return Err(super::failure::hung_up());
            }
        }
    };
    u8::try_from(code).map_err(|_| Failure::new(Exit::Bug, format!("the exit code {code} is none")))
}

/// Hands standard input on, and its end. A terminal is told of the end by the key for it, twice where a line is open:
/// to close its input would take its output along.
async fn feed(mut stdin: Stdin, mut input: std::pin::Pin<Box<dyn AsyncWrite + Send>>, tty: bool) {
    let mut open = false;
    while let Some(chunk) = stdin.chunk().await {
        if input.write_all(&chunk).await.is_err() {
            return;
        }
        open = chunk.last().is_some_and(|last| !b"\n\r\x04".contains(last));
    }
    // A command that has ended already needs no end of input.
    if tty {
        let keys: &[u8] = if open { &[END, END] } else { &[END] };
        let _ = input.write_all(keys).await;
        std::future::pending::<()>().await;
    }
    let _ = input.shutdown().await;
}
