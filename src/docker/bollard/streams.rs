//! Output that comes over time: logs, commands run inside, events.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::models::EventMessage;
use bollard::query_parameters::{EventsOptions, LogsOptions};
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};

use super::{CALL, Docker, QUIET, Subject};
use crate::docker::lines::Lines;
use crate::docker::{EngineError, Event, Lane, LogRequest, Output, Say};
use crate::names::ContainerName;

/// Between two looks for an exit code that the engine is still writing down.
const SETTLE: Duration = Duration::from_millis(5);

impl Docker {
    pub(super) async fn read_logs(
        &self,
        name: &ContainerName,
        request: &LogRequest,
    ) -> Result<BoxStream<'static, Result<Output, EngineError>>, EngineError> {
        let options = LogsOptions {
            follow: request.follow,
            stdout: true,
            stderr: true,
            timestamps: request.timestamps,
            tail: request.tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string()),
            ..Default::default()
        };
        // A missing container is said now and not by the stream's first item, for which a follower may wait for long.
        if self.find_container(name).await?.is_none() {
            return Err(EngineError::NotFound { what: format!("container `{name}`") });
        }
        let stream = self.client_on(Lane::Reader).logs(name.as_str(), Some(options)).boxed();
        let from = (self.clone(), name.clone(), stream);
        let watched = futures_util::stream::try_unfold(from, |(docker, name, mut stream)| async {
            let subject = Subject::container("read the log of", &name);
            let chunk = docker.watched_next(&subject, &mut stream).await?;
            Ok(chunk.map(|chunk| (output(chunk), (docker, name, stream))))
        });
        Ok(watched.boxed())
    }

    pub(super) async fn run_inside(
        &self,
        name: &ContainerName,
        words: &[String],
        say: Say<'_>,
    ) -> Result<i64, EngineError> {
        let subject = Subject::container("run a command in", name);
        let client = self.client();
        let options = CreateExecOptions {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(words.to_vec()),
            ..Default::default()
        };
        let exec = self.call(&subject, client.create_exec(name.as_str(), options)).await?.id;
        let started = self.call(&subject, client.start_exec(&exec, None::<StartExecOptions>)).await?;
        if let StartExecResults::Attached { mut output, .. } = started {
            let mut lines = [Lines::default(), Lines::default()];
            while let Some(chunk) = self.watched_next(&subject, &mut output).await? {
                let stream = usize::from(matches!(chunk, LogOutput::StdErr { .. }));
                lines[stream].add(chunk.as_ref(), say);
            }
            for rest in lines {
                rest.end(say);
            }
        }
        loop {
            let state = self.call(&subject, client.inspect_exec(&exec)).await?;
            match (state.running, state.exit_code) {
                (Some(false) | None, Some(code)) => return Ok(code),
                _ => tokio::time::sleep(SETTLE).await,
            }
        }
    }

    pub(super) async fn watch_events(&self) -> Result<BoxStream<'static, Result<Event, EngineError>>, EngineError> {
        // Bollard asks only when the stream is first polled. With `since` the engine replays what came in between.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let options = EventsOptions {
            since: Some(format!("{}.{:09}", now.as_secs(), now.subsec_nanos())),
            until: None,
            filters: Some(HashMap::from([("type".to_owned(), vec!["container".to_owned()])])),
        };
        self.ping(CALL.ping).await?;
        let from = (self.clone(), self.client().events(Some(options)).boxed());
        let watched = futures_util::stream::try_unfold(from, |(docker, mut stream)| async {
            let subject = Subject { verb: "tell its events", kind: "", name: "" };
            while let Some(message) = docker.watched_next(&subject, &mut stream).await? {
                if let Some(event) = event(message) {
                    return Ok(Some((event, (docker, stream))));
                }
            }
            Ok(None)
        });
        Ok(watched.boxed())
    }

    /// The next item of a stream that may be silent for days, while the engine answers pings.
    async fn watched_next<T>(
        &self,
        subject: &Subject<'_>,
        stream: &mut (impl Stream<Item = Result<T, Error>> + Unpin),
    ) -> Result<Option<T>, EngineError> {
        self.patient(subject, QUIET, async { stream.next().await.transpose() }).await
    }
}

fn output(chunk: LogOutput) -> Output {
    match chunk {
        LogOutput::StdErr { message } => Output::Stderr(message.into()),
        LogOutput::StdOut { message } | LogOutput::StdIn { message } | LogOutput::Console { message } => {
            Output::Stdout(message.into())
        }
    }
}

fn event(message: EventMessage) -> Option<Event> {
    let mut attributes = message.actor?.attributes.unwrap_or_default();
    let container = attributes.remove("name")?;
    // The engine mixes labels with its own attributes; its own are few and known.
    for own in ["image", "exitCode", "signal", "execID", "execDuration"] {
        attributes.remove(own);
    }
    // `exec_create: /bin/sh -c …` carries the command: the verb is what counts.
    let action = message.action?;
    let action = action.split(':').next().unwrap_or_default().to_owned();
    Some(Event { container, labels: attributes.into_iter().collect(), action })
}
