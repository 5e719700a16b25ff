//! `ps [STACK]`

use std::collections::BTreeMap;

use serde::Serialize;

use super::context::Context;
use super::failure::Failure;
use crate::docker::State;
use crate::hq::fleet::Seen;
use crate::hq::reconcile::falls::Falls;
use crate::hq::rights::Right;
use crate::launch::label;
use crate::names::StackName;
use crate::names::printable::printable;

/// List what runs
#[derive(Debug, clap::Args)]
pub struct Ps {
    /// One stack; all without
    stack: Option<String>,
}

/// A container as listings show it.
#[derive(Debug, Serialize)]
struct Row {
    stack: String,
    node: String,
    container: String,
    server: String,
    release: String,
    state: &'static str,
    code: Option<i64>,
    address: Option<String>,
    seconds: i64,
    /// Seconds until one that has fallen too often is started again.
    again_in: Option<i64>,
}

impl Ps {
    /// Runs the command.
    ///
    /// # Errors
    /// When the stack does not exist or docker does not answer.
    pub async fn run(self, cx: &Context) -> Result<(), Failure> {
        let words: Vec<String> = self.stack.into_iter().collect();
        let stack = match (&words[..], &cx.stack) {
            ([], None) => None,
            _ => Some(cx.only_stack(&words, Right::View).await?),
        };
        let mut rows = rows(cx, stack.as_ref()).await?;
        if stack.is_none() && !cx.access.is_operator() {
            let seen = cx.stacks().await?;
            rows.retain(|row| seen.iter().any(|stack| stack.as_str() == row.stack));
        }
        if cx.out.json {
            return cx.out.value(&rows).await;
        }
        if let (Some(stack), []) = (&stack, &rows[..]) {
            cx.hq.current(stack).await?;
        }
        let coloured = cx.out.coloured();
        // With one server there is nothing to tell apart.
        let several = cx.hq.members().len() > 1;
        let mut last = String::new();
        let cells: Vec<Vec<String>> = rows
            .into_iter()
            .map(|row| {
                let first = if row.stack == last { String::new() } else { row.stack.clone() };
                last = row.stack;
                let state = row.code.map_or_else(|| row.state.to_owned(), |code| format!("{} ({code})", row.state));
                let state = row.again_in.map_or(state.clone(), |wait| format!("{state}, again in {}", age(wait)));
                let dot = dot(row.state, coloured);
                let mut cells =
                    vec![first, row.node, row.release, format!("{dot}{state}"), age(row.seconds), row.container];
                cells.extend(several.then_some(row.server));
                cells
            })
            .collect();
        let header = ["STACK", "NODE", "RELEASE", "STATE", "AGE", "CONTAINER", "SERVER"];
        cx.out.table(&header[..if several { 7 } else { 6 }], &cells).await?;
        match several && cx.hq.check_awake().is_err() {
            true => {
                cx.out
                    .note("no HQ serves that would be connected to the other servers: what runs there runs on unseen")
                    .await
            }
            false => Ok(()),
        }
    }
}

async fn rows(cx: &Context, stack: Option<&StackName>) -> Result<Vec<Row>, Failure> {
    let now = cx.hq.clock.now().as_second();
    let survey = cx.hq.survey().await?;
    let own = |seen: &&Seen| seen.container.labels.get(label::HQ) == Some(&cx.hq.launcher.identity.id);
    let silent = |seen: &Seen| survey.silent.contains_key(&seen.server);
    let mut rows: Vec<Row> = survey
        .containers
        .iter()
        .filter(own)
        .map(|seen| row(seen, now, silent(seen)))
        .filter(|row| stack.is_none_or(|stack| row.stack == stack.as_str()))
        .collect();
    show_sick(cx, &mut rows);
    show_falls(cx, &mut rows).await?;
    rows.sort_by_cached_key(|row| (row.stack.clone(), row.node.clone(), by_number(&row.container)));
    Ok(rows)
}

/// `web.1.9` comes before `web.1.10`.
fn by_number(container: &str) -> Vec<(u64, String)> {
    container
        .split('.')
        .map(|part| part.parse().map_or((0, part.to_owned()), |number| (number, String::new())))
        .collect()
}

/// Containers that run, and fail their health check.
fn show_sick(cx: &Context, rows: &mut [Row]) {
    for (server, container) in cx.hq.sick() {
        let is = |row: &&mut Row| row.container == container.as_str() && row.server == server.as_str();
        rows.iter_mut().filter(is).filter(|row| row.state == "running").for_each(|row| row.state = "unhealthy");
    }
}

/// Containers that have fallen so often that HQ waits before it starts them again.
async fn show_falls(cx: &Context, rows: &mut [Row]) -> Result<(), Failure> {
    let now = cx.hq.clock.now();
    let mut known: BTreeMap<String, Falls> = BTreeMap::new();
    for row in rows.iter_mut().filter(|row| row.state == "exited") {
        let Ok(stack) = row.stack.parse() else { continue };
        if !known.contains_key(&row.stack) {
            known.insert(row.stack.clone(), cx.hq.falls(&stack).await?);
        }
        let due = row.container.parse().ok().and_then(|container| known[&row.stack].due(&container));
        if let Some(due) = due.filter(|due| *due > now) {
            row.state = "backoff";
            row.again_in = Some(due.as_second() - now.as_second());
        }
    }
    Ok(())
}

/// What a server does not say now is unknown, whatever it said last.
fn row(Seen { server, container }: &Seen, now: i64, silent: bool) -> Row {
    let text = |name: &str| container.labels.get(name).map(|text| printable(text));
    let label = |name: &str| text(name).unwrap_or_default();
    let (state, code) = match container.state {
        _ if silent => ("unknown", None),
        State::Created => ("created", None),
        State::Running => ("running", None),
        State::Restarting => ("restarting", None),
        State::Paused => ("paused", None),
        State::Exited(code) => ("exited", Some(code)),
        State::Dead => ("dead", None),
    };
    Row {
        stack: label(label::STACK),
        node: label(label::NODE),
        container: container.name.to_string(),
        server: server.to_string(),
        release: label(label::RELEASE),
        state,
        code,
        address: text(label::ADDRESS),
        seconds: now - container.created,
        again_in: None,
    }
}

/// A mark before the state; its shape says the same as its colour.
fn dot(state: &str, coloured: bool) -> &'static str {
    match (state == "running", coloured) {
        (true, true) => "\x1b[32m●\x1b[0m ",
        (false, true) => "\x1b[31m○\x1b[0m ",
        (_, false) => "",
    }
}

/// How long ago, in one unit.
pub fn age(seconds: i64) -> String {
    match seconds.max(0) {
        s @ 0..60 => format!("{s}s"),
        s @ 60..3600 => format!("{}m", s / 60),
        s @ 3600..86_400 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}
