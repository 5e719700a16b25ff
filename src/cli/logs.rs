//! `logs STACK[/NODE]`

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use futures_util::stream::{self, BoxStream, SelectAll};
use futures_util::{FutureExt, StreamExt};

use super::context::{Context, Target};
use super::failure::{Exit, Failure};
use super::print::colour;
use crate::build::output::clean;
use crate::docker::lines::Lines;
use crate::docker::{EngineError, Event, LogRequest, Output};
use crate::hq::fleet::Seen;
use crate::hq::rights::Right;
use crate::launch::label;
use crate::names::{ContainerName, ServerName};

/// Show what a stack's containers print
#[derive(Debug, clap::Args)]
pub struct Logs {
    /// STACK or STACK/NODE
    target: Option<String>,
    /// Go on with what comes, also from containers that start later
    #[arg(short, long, visible_short_alias = 't', alias = "tail")]
    follow: bool,
    /// Last lines of each container to begin with
    #[arg(short = 'n', long, default_value_t = 100, value_name = "N")]
    lines: u32,
    /// The time before each line
    #[arg(long)]
    timestamps: bool,
}

impl Logs {
    /// Those of a node: its last lines, and what comes.
    pub(super) fn of(target: String, follow: bool, lines: u32) -> Self {
        Self { target: Some(target), follow, lines, timestamps: false }
    }

    /// Runs the command.
    ///
    /// # Errors
    /// When nothing runs that could have a log.
    pub async fn run(self, cx: &Context) -> Result<(), Failure> {
        let words: Vec<String> = self.target.clone().into_iter().collect();
        let (target, _) = cx.target(&words, Right::View).await?;
        // Before the list: what starts in between is in both, and nothing in neither.
        let events = if self.follow { events(cx).await? } else { SelectAll::new() };
        let (sources, silent, streams) = Default::default();
        let mut reader = Reader { cx, wanted: &self, sources, silent, streams };
        let (survey, mut attached) = (cx.hq.survey().await?, false);
        for Seen { server, container } in survey.containers {
            if !is_of(cx, &target, &container.labels) {
                continue;
            }
            if container.labels.contains_key(label::UNKEPT) {
                attached = true;
                continue;
            }
            match survey.silent.get(&server) {
                Some(why) => reader.leave_out(&server, why).await?,
                None => reader.add(server, container.name, &container.labels, Some(self.lines)).await?,
            }
        }
        if reader.sources.is_empty() {
            let asked = words.first().map_or(target.stack.as_str(), String::as_str);
            return Err(match reader.silent.is_empty() {
                true if attached => Failure::new(
                    Exit::Mistake,
                    format!("what {asked} prints goes to whoever is attached to it, and is kept nowhere"),
                ),
                true => Failure::missing(format!("nothing of {asked} runs")),
                false => Failure::new(Exit::Refused, format!("nothing of {asked} runs on servers that answer")),
            });
        }
        tokio::select! {
            done = reader.read(&target, events) => done,
            gone = cx.revoked(&target.stack, Right::View) => Err(gone),
        }
    }
}

/// What happens on every server that answers.
async fn events(cx: &Context) -> Result<Events, Failure> {
    let mut all = SelectAll::new();
    for (server, engine) in cx.hq.engines().all() {
        match engine.events().await {
            Ok(events) => all.push(events.map(move |event| (server.clone(), event)).boxed()),
            Err(error) if server == *cx.hq.engines().here() => return Err(error.into()),
            Err(error) => cx.out.note(&format!("{server} is left out: {error}")).await?,
        }
    }
    Ok(all)
}

/// Whether labels are those of a container that was asked for.
fn is_of(cx: &Context, target: &Target, labels: &BTreeMap<String, String>) -> bool {
    let is = |name: &str, value: &str| labels.get(name).is_some_and(|label| label == value);
    is(label::HQ, &cx.hq.launcher.identity.id)
        && is(label::STACK, target.stack.as_str())
        && target.node.as_ref().is_none_or(|node| is(label::NODE, node.as_str()))
}

/// A container whose log is read.
struct Source {
    server: ServerName,
    title: String,
    /// Which colour it has.
    place: usize,
    /// Its open lines: standard output's and standard error's.
    open: [Lines; 2],
    /// The engine's time of the last chunk.
    last: String,
    /// A log that is read again goes on after this.
    after: String,
    state: State,
}

/// Where the reading of a container's log is.
#[derive(PartialEq, Eq)]
enum State {
    Read,
    /// The container was started again before its log had come to the end.
    ReadAndStarted,
    Ended,
}

type Events = SelectAll<BoxStream<'static, (ServerName, Result<Event, EngineError>)>>;

type Chunk = (ContainerName, Option<Result<Output, EngineError>>);

struct Reader<'a> {
    cx: &'a Context,
    wanted: &'a Logs,
    sources: BTreeMap<ContainerName, Source>,
    /// Servers that do not answer, as the person has been told.
    silent: BTreeSet<ServerName>,
    streams: SelectAll<BoxStream<'static, Chunk>>,
}

impl Reader<'_> {
    /// Reads a container's log from its last lines, or whole.
    async fn add(
        &mut self,
        server: ServerName,
        name: ContainerName,
        labels: &BTreeMap<String, String>,
        tail: Option<u32>,
    ) -> Result<(), Failure> {
        let place = self.sources.len();
        let (last, after) = Default::default();
        let engine = self.cx.hq.engines().of(&server)?;
        let (title, open) = (title(labels), Default::default());
        let source = Source { server, title, place, open, last, after, state: State::Read };
        let source = self.sources.entry(name.clone()).or_insert(source);
        source.state = State::Read;
        source.after.clone_from(&source.last);
        // The times are needed to read on where the log of a container that was started again was left.
        let request = LogRequest { tail, follow: self.wanted.follow, timestamps: true };
        let stream = match engine.logs(&name, request).await {
            Ok(stream) => stream,
            // It came and went.
            Err(EngineError::NotFound { .. }) => stream::empty().boxed(),
            Err(error) => {
                let server = source.server.clone();
                self.broke(&server, error).await?;
                stream::empty().boxed()
            }
        };
        let end = stream::once(std::future::ready(None));
        self.streams.push(stream.map(Some).chain(end).map(move |chunk| (name.clone(), chunk)).boxed());
        Ok(())
    }

    /// Tells once that what is on a server is not shown.
    async fn leave_out(&mut self, server: &ServerName, why: &str) -> Result<(), Failure> {
        match self.silent.insert(server.clone()) {
            true => self.cx.out.note(&format!("what is on {server} is left out: {why}")).await,
            false => Ok(()),
        }
    }

    /// An engine fails. HQ's own ends the command; another leaves the rest to be read.
    async fn broke(&mut self, server: &ServerName, error: EngineError) -> Result<(), Failure> {
        if server == self.cx.hq.engines().here() {
            return Err(error.into());
        }
        self.leave_out(server, &error.to_string()).await
    }

    async fn read(&mut self, target: &Target, mut events: Events) -> Result<(), Failure> {
        loop {
            // An empty set of streams ends at once and is asked again when one has joined.
            let chunk = match self.streams.is_empty() {
                true => std::future::pending().left_future(),
                false => self.streams.next().right_future(),
            };
            tokio::select! {
                chunk = chunk => match chunk {
                    Some((name, Some(Ok(chunk)))) => self.print(&name, chunk).await?,
                    Some((name, Some(Err(error)))) => {
                        let server = self.sources.get(&name).map(|source| source.server.clone());
                        if let Some(server) = server {
                            self.broke(&server, error).await?;
                        }
                    }
                    Some((name, None)) => self.ended(name).await?,
                    None => {}
                },
                event = events.next(), if self.wanted.follow => match event {
                    Some((server, Ok(event))) => self.started(target, server, event).await?,
                    Some((server, Err(error))) => self.broke(&server, error).await?,
                    None => return Ok(()),
                },
            }
            if !self.wanted.follow && self.streams.is_empty() {
                return Ok(());
            }
        }
    }

    /// Follows what starts of the stack.
    async fn started(&mut self, target: &Target, server: ServerName, event: Event) -> Result<(), Failure> {
        let unkept = event.labels.contains_key(label::UNKEPT);
        if event.action != "start" || unkept || !is_of(self.cx, target, &event.labels) {
            return Ok(());
        }
        let Ok(name) = event.container.parse::<ContainerName>() else { return Ok(()) };
        match self.sources.get_mut(&name) {
            Some(source) if source.state != State::Ended => {
                source.state = State::ReadAndStarted;
                Ok(())
            }
            _ => self.add(server, name, &event.labels, None).await,
        }
    }

    /// A log came to its end: the container has ended, or is gone.
    async fn ended(&mut self, name: ContainerName) -> Result<(), Failure> {
        let Some(source) = self.sources.get_mut(&name) else { return Ok(()) };
        let open = std::mem::take(&mut source.open);
        let again = std::mem::replace(&mut source.state, State::Ended) == State::ReadAndStarted;
        let server = source.server.clone();
        let lines = gathered(|say| open.into_iter().for_each(|lines| lines.end(say)));
        self.lines(&name, lines).await?;
        if again { self.add(server, name, &BTreeMap::new(), None).await } else { Ok(()) }
    }

    async fn print(&mut self, name: &ContainerName, chunk: Output) -> Result<(), Failure> {
        let Some(source) = self.sources.get_mut(name) else { return Ok(()) };
        let (which, bytes) = match chunk {
            Output::Stdout(bytes) => (0, bytes),
            Output::Stderr(bytes) => (1, bytes),
        };
        let (time, text) = timed(&bytes);
        if let Some(time) = time {
            if time <= source.after.as_str() {
                return Ok(());
            }
            source.last = time.to_owned();
        }
        let open = &mut source.open[which];
        let lines = gathered(|say| {
            if let Some(time) = time.filter(|_| self.wanted.timestamps && open.is_empty()) {
                open.add(time.as_bytes(), say);
                open.add(b" ", say);
            }
            open.add(text, say);
        });
        self.lines(name, lines).await
    }

    async fn lines(&mut self, name: &ContainerName, lines: Vec<String>) -> Result<(), Failure> {
        let Some(source) = self.sources.get(name) else { return Ok(()) };
        let width = self.sources.values().map(|source| source.title.chars().count()).max().unwrap_or(0);
        let title = format!("{:<width$} |", source.title);
        for line in lines {
            let line = clean(&line);
            let text = match self.cx.out.coloured() {
                true => {
                    let (on, off) = colour(source.place);
                    format!("{on}{title}{off} {line}")
                }
                false => format!("{title} {line}"),
            };
            self.cx.out.drawn(&text).await?;
        }
        Ok(())
    }
}

/// The lines that are said meanwhile.
fn gathered(work: impl FnOnce(crate::docker::Say<'_>)) -> Vec<String> {
    let said = Mutex::new(Vec::new());
    work(&|line| said.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(line.to_owned()));
    said.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The engine's time before a chunk, and the chunk. A long line comes in several chunks with a time each.
fn timed(bytes: &[u8]) -> (Option<&str>, &[u8]) {
    let split = || {
        let end = bytes.iter().take(40).position(|byte| *byte == b' ')?;
        let time = std::str::from_utf8(&bytes[..end]).ok()?;
        time.parse::<jiff::Timestamp>().ok()?;
        Some((time, &bytes[end + 1..]))
    };
    split().map_or((None, bytes), |(time, text)| (Some(time), text))
}

/// `web.2`: what a person calls a container.
fn title(labels: &BTreeMap<String, String>) -> String {
    let label = |name: &str| labels.get(name).map_or("", String::as_str);
    format!("{}.{}", label(label::NODE), label(label::INDEX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_taken_off_a_chunk_that_has_one() {
        let time = "2026-11-21T12:00:00.123456789Z";
        let check = |text: &str, expected: (Option<&str>, &str)| {
            let (time, rest) = timed(text.as_bytes());
            assert_eq!((time, rest), (expected.0, expected.1.as_bytes()), "{text}");
        };
        check(&format!("{time} hello world\n"), (Some(time), "hello world\n"));
        check(&format!("{time} \n"), (Some(time), "\n"));
        check("hello world\n", (None, "hello world\n"));
        check("", (None, ""));
    }
}
