//! Passes on what is looked at, attached to and run inside of containers.

use std::future::Future;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, select_all};
use futures_util::{FutureExt, StreamExt};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{ExecId, Lines, exec};
use crate::dock::act::{Desk, Found};
use crate::dock::http::{Call, Content, Reply};
use crate::dock::query::{Query, asked, written};
use crate::dock::routes::{ExecVerb, Verb};
use crate::dock::shown;
use crate::dock::trouble::Trouble;
use crate::docker::{Answered, Asked, passing};
use crate::hq::rights::Right;
use crate::launch::label;
use crate::names::ServerName;

/// Lines of events that wait for a client who does not read.
const BACKLOG: usize = 1000;

impl Desk {
    /// Logs, processes, figures, and the end of a container.
    pub(in crate::dock) async fn look(&self, name: &str, verb: Verb, query: &Query) -> Result<Reply, Trouble> {
        let (word, parameters): (&str, &[&str]) = match verb {
            Verb::Logs => ("logs", &["follow", "stdout", "stderr", "since", "until", "timestamps", "tail", "details"]),
            Verb::Top => ("top", &["ps_args"]),
            Verb::Stats => ("stats", &["stream", "one-shot"]),
            _ => ("wait", &["condition"]),
        };
        // With words of its own, ps shows what variables a process has.
        let asks_more = verb == Verb::Top && query.text("ps_args").is_some_and(|words| !words.is_empty());
        let needed = if asks_more { Right::Deploy } else { Right::View };
        let Found { seen, stack, .. } = self.found(name, needed, &format!("docker {word}")).await?;
        let target = format!("/containers/{}/{word}{}", seen.container.id, query.only(parameters));
        let asked = if verb == Verb::Wait { Asked::post(target, Bytes::new()) } else { Asked::get(target) };
        let answered = self.pass(&seen.server, asked).await?;
        Ok(reply(answered, self.revoked(&stack, needed)))
    }

    /// `docker attach`, and what `docker run` does before it starts a job.
    pub(in crate::dock) async fn attach(&self, name: &str, query: &Query, streams: bool) -> Result<Reply, Trouble> {
        check_streams(streams)?;
        let Found { seen, stack, .. } = self.found(name, Right::Deploy, "docker attach").await?;
        if seen.container.labels.get(label::UNKEPT).is_some_and(|what| what == label::STREAMS) {
            return Err(Trouble::conflict(format!(
                "the streams of {name} are those of whoever runs it, and nobody else's"
            )));
        }
        let parameters = query.only(&["stream", "stdin", "stdout", "stderr", "logs", "detachKeys"]);
        let target = format!("/containers/{}/attach{parameters}", seen.container.id);
        let answered = self.pass(&seen.server, Asked { streams, ..Asked::post(target, Bytes::new()) }).await?;
        Ok(reply(answered, self.revoked(&stack, Right::Deploy)))
    }

    /// The size of a container's terminal.
    pub(in crate::dock) async fn resize(&self, name: &str, query: &Query) -> Result<Reply, Trouble> {
        let Found { seen, stack, .. } = self.found(name, Right::Deploy, "docker attach").await?;
        let target = format!("/containers/{}/resize{}", seen.container.id, query.only(&["h", "w"]));
        let answered = self.pass(&seen.server, Asked::post(target, Bytes::new())).await?;
        Ok(reply(answered, self.revoked(&stack, Right::Deploy)))
    }

    /// A command that is to run inside a container.
    pub(in crate::dock) async fn new_exec(&self, name: &str, body: Value) -> Result<Reply, Trouble> {
        let words =
            body["Cmd"].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(" ");
        let what = format!("docker exec {name} {words}");
        let Found { seen, stack, .. } = self.found(name, Right::Deploy, &what).await?;
        let body = match exec(&body) {
            Ok(body) => body,
            Err(trouble) => {
                self.note_refusal(&stack, &what, &trouble).await;
                return Err(trouble);
            }
        };
        let (desk, server) = (self.clone(), seen.server.clone());
        let target = format!("/containers/{}/exec", seen.container.id);
        let made = async move { desk.value(&server, Asked::post(target, body.to_string())).await };
        let made = self.noted(&stack, what, made).await?;
        let id = made["Id"].as_str().unwrap_or_default().to_owned();
        Ok(Reply::json(201, &json!({ "Id": ExecId { server: seen.server, id }.to_string() })))
    }

    /// Something about such a command: its container says who may.
    pub(in crate::dock) async fn exec(
        &self,
        id: &str,
        verb: ExecVerb,
        query: &Query,
        call: Call,
    ) -> Result<Reply, Trouble> {
        let exec: ExecId = id.parse()?;
        let missing = || Trouble::missing("exec instance", id);
        let looked = self.value(&exec.server, Asked::get(format!("/exec/{}/json", exec.id))).await;
        let mut told = looked.map_err(|trouble| if trouble.status == 404 { missing() } else { trouble })?;
        let container = told["ContainerID"].as_str().ok_or_else(missing)?.to_owned();
        let Found { stack, .. } =
            self.found(&container, Right::Deploy, "docker exec").await.map_err(|trouble| match trouble.status {
                404 => missing(),
                _ => trouble,
            })?;
        let place = format!("/exec/{}", exec.id);
        let answered = match verb {
            ExecVerb::Inspect => {
                told["ID"] = json!(id);
                return Ok(Reply::json(200, &told));
            }
            ExecVerb::Resize => {
                let target = format!("{place}/resize{}", query.only(&["h", "w"]));
                self.pass(&exec.server, Asked::post(target, Bytes::new())).await?
            }
            ExecVerb::Start => {
                let streams = call.streams;
                let body =
                    call.body().await.map_err(|error| Trouble::bad(format!("the body cannot be read: {error}")))?;
                self.pass(&exec.server, Asked { streams, ..Asked::post(format!("{place}/start"), body) }).await?
            }
        };
        Ok(reply(answered, self.revoked(&stack, Right::Deploy)))
    }

    /// `docker events`: those of every server that speaks, as they come.
    pub(in crate::dock) async fn events(&self, query: &Query) -> Result<Reply, Trouble> {
        let mut filters = query.filters()?;
        let only = shown::server_filter(&mut filters);
        filters.entry("label".to_owned()).or_default().push(format!("{}={}", label::HQ, self.hq.launcher.identity.id));
        let text =
            |name: &'static str| query.text(name).filter(|text| !text.is_empty()).map(|text| (name, text.to_owned()));
        // Without a beginning the engine tells of what comes after it was asked, which is later on one than on another.
        let since = text("since").unwrap_or_else(|| ("since", now()));
        let pairs = [Some(since), text("until"), Some(("filters", written(&filters)))];
        let target = format!("/events{}", asked(pairs.into_iter().flatten()));
        let survey = self.sight().await?.survey;
        let mut lines = Vec::new();
        for (server, _) in self.hq.engines().all() {
            if survey.silent.contains_key(&server) || only.as_ref().is_some_and(|only| server.as_str() != only) {
                continue;
            }
            match self.pass(&server, Asked::get(&target)).await {
                Ok(Answered { status: 200, content: passing::Content::Body(chunks), .. }) => {
                    lines.push(of_server(server, chunks));
                }
                Ok(Answered { status, .. }) => {
                    return Err(Trouble::new(status, "docker does not take these filters or times"));
                }
                Err(trouble) => {
                    tracing::warn!(%server, why = trouble.message, "a docker client hears nothing of a server")
                }
            }
        }
        let seen = select_all(lines).filter_map({
            let desk = self.clone();
            move |(server, line)| desk.clone().event(server, line)
        });
        let kind = "application/json".to_owned();
        Ok(Reply { status: 200, kind, content: Content::Body(seen.map(Ok).boxed()) })
    }

    /// An event, if the caller may see it at this moment.
    async fn event(self, server: ServerName, line: Vec<u8>) -> Option<Bytes> {
        let (stack, event) = shown::event(&line, &server)?;
        let access = self.hq.access(&self.caller).await.ok()?;
        self.hq.check_right(&access, &stack, Right::View).await.ok()?;
        Some(Bytes::from(format!("{event}\n")))
    }

    /// `docker pull`, onto HQ's own server, from where the others get what they run.
    pub(in crate::dock) async fn pull(&self, query: &Query) -> Result<Reply, Trouble> {
        if query.text("fromSrc").is_some_and(|source| !source.is_empty()) {
            return Err(Trouble::absent("Quarry does not do that: images come from git push and from registries"));
        }
        if !self.hq.access(&self.caller).await?.is_operator() {
            let why = "images are fetched by themselves when something runs; only operators fetch them before";
            return Err(Trouble::forbidden(why));
        }
        let (image, tag) = (query.text("fromImage").unwrap_or_default(), query.text("tag").unwrap_or_default());
        let reference = match tag {
            "" => image.to_owned(),
            digest if digest.contains(':') => format!("{image}@{digest}"),
            tag => format!("{image}:{tag}"),
        };
        let (engine, (told, lines)) = (self.hq.engines().shared(), mpsc::channel::<Bytes>(BACKLOG));
        tokio::spawn(async move {
            let line = |value: Value| Bytes::from(format!("{value}\n"));
            // Of lines that nobody reads the surplus is left out.
            let say = |text: &str| drop(told.try_send(line(json!({ "status": text }))));
            if let Err(error) = engine.pull(&reference, &say).await {
                let message = Trouble::from(error).message;
                let _ = told.send(line(json!({ "errorDetail": { "message": message }, "error": message }))).await;
            }
        });
        let lines = stream::unfold(lines, |mut lines| async { lines.recv().await.map(|line| (Ok(line), lines)) });
        Ok(Reply { status: 200, kind: "application/json".to_owned(), content: Content::Body(lines.boxed()) })
    }
}

/// A client that expects streams on a plain connection has no use for what it would get.
fn check_streams(streams: bool) -> Result<(), Trouble> {
    match streams {
        true => Ok(()),
        false => Err(Trouble::bad("streams take a connection of their own; send `Upgrade: tcp`")),
    }
}

/// The lines of an engine's answer, each with its server; they end where it breaks off.
fn of_server(
    server: ServerName,
    chunks: BoxStream<'static, std::io::Result<Bytes>>,
) -> BoxStream<'static, (ServerName, Vec<u8>)> {
    let chunks = chunks.take_while(|chunk| std::future::ready(chunk.is_ok())).filter_map(|chunk| async { chunk.ok() });
    let lines = chunks.scan(Lines::default(), |lines, chunk| std::future::ready(Some(lines.add(&chunk))));
    lines.flat_map(stream::iter).map(move |line| (server.clone(), line)).boxed()
}

/// The time as an engine reads it.
fn now() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    format!("{}.{:09}", now.as_secs(), now.subsec_nanos())
}

/// An engine's answer as the client's, until `end`.
fn reply(answered: Answered, end: impl Future<Output = ()> + Send + 'static) -> Reply {
    let Answered { status, kind, content } = answered;
    let content = match content {
        passing::Content::Body(chunks) => Content::Body(chunks.take_until(Box::pin(end)).boxed()),
        passing::Content::Streams(pipe) => Content::Streams(pipe, end.boxed()),
    };
    Reply { status, kind, content }
}
