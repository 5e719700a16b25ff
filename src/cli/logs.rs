//! `logs STACK[/NODE]`

use std::collections::BTreeMap;

use futures_util::StreamExt;
use futures_util::stream::select_all;

use super::context::Context;
use super::failure::{Exit, Failure};
use super::print::colour;
use crate::docker::{Container, LogRequest, Output};
use crate::hq::fleet::Seen;
use crate::launch::label;

/// Show what a stack's containers print
#[derive(Debug, clap::Args)]
pub struct Logs {
    /// STACK or STACK/NODE
    target: Option<String>,
    /// Go on with what comes
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
    /// Runs the command.
    ///
    /// # Errors
    /// When nothing runs that could have a log.
    pub async fn run(self, cx: &Context) -> Result<(), Failure> {
        let words: Vec<String> = self.target.clone().into_iter().collect();
        let (target, _) = cx.target(&words).await?;
        let id = &cx.hq.launcher.identity.id;
        let mut containers = cx.hq.containers().await?;
        containers.retain(|seen| {
            let is = |name: &str, value: &str| seen.container.labels.get(name).is_some_and(|label| label == value);
            let own = is(label::HQ, id) && is(label::STACK, target.stack.as_str());
            own && target.node.as_ref().is_none_or(|node| is(label::NODE, node.as_str()))
        });
        if containers.is_empty() {
            return Err(Failure::new(Exit::Mistake, format!("nothing of {} runs", words.join(" "))));
        }
        self.print(cx, &containers).await
    }

    async fn print(&self, cx: &Context, containers: &[Seen]) -> Result<(), Failure> {
        let titles: Vec<String> = containers.iter().map(|seen| title(&seen.container)).collect();
        let width = titles.iter().map(|title| title.chars().count()).max().unwrap_or(0);
        let mut streams = Vec::new();
        for (place, Seen { server, container }) in containers.iter().enumerate() {
            let request = LogRequest { tail: Some(self.lines), follow: self.follow, timestamps: self.timestamps };
            let stream = cx.hq.engines().of(server)?.logs(&container.name, request).await?;
            streams.push(stream.map(move |chunk| (place, chunk)).boxed());
        }
        let prefix = |place: usize| match (cx.out.coloured(), &titles[place]) {
            (true, title) => {
                let (on, off) = colour(place);
                format!("{on}{title:<width$} |{off} ")
            }
            (false, title) => format!("{title:<width$} | "),
        };
        let mut pending: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
        let mut all = select_all(streams);
        while let Some((place, chunk)) = all.next().await {
            let (Output::Stdout(bytes) | Output::Stderr(bytes)) = chunk?;
            let rest = pending.entry(place).or_default();
            rest.extend_from_slice(&bytes);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                let text = String::from_utf8_lossy(&line);
                cx.out.line(&format!("{}{}", prefix(place), text.trim_end_matches(['\r', '\n']))).await?;
            }
        }
        for (place, rest) in pending.into_iter().filter(|(_, rest)| !rest.is_empty()) {
            cx.out.line(&format!("{}{}", prefix(place), String::from_utf8_lossy(&rest))).await?;
        }
        Ok(())
    }
}

/// `web.2`: what a person calls a container.
fn title(container: &Container) -> String {
    let label = |name: &str| container.labels.get(name).map_or("", String::as_str);
    format!("{}.{}", label(label::NODE), label(label::INDEX))
}
