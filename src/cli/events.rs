//! `events [STACK]`

use std::collections::BTreeSet;

use tokio::sync::broadcast::error::RecvError;

use super::context::{Context, LOOK};
use super::failure::{Exit, Failure};
use crate::hq::HqError;
use crate::hq::events::{Event, Outcome};
use crate::hq::rights::{Access, Right};
use crate::names::{StackName, UserName};

/// Show what people have done, or were refused
#[derive(Debug, clap::Args)]
pub struct Events {
    /// One stack's; all without
    stack: Option<String>,
    /// Go on with what comes
    #[arg(short, long, visible_short_alias = 't', alias = "tail")]
    follow: bool,
    /// How many to begin with
    #[arg(short = 'n', long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u16).range(..=10_000))]
    lines: u16,
}

/// What the caller may see of them.
#[derive(Debug, Clone)]
enum View {
    All,
    /// Their own, and those of these stacks.
    Some(UserName, BTreeSet<StackName>),
    One(StackName),
}

impl View {
    /// What somebody may see who names no stack.
    async fn of(access: &Access, cx: &Context) -> Result<Self, Failure> {
        match access.is_operator() {
            true => Ok(View::All),
            false => Ok(View::Some(access.user.clone(), cx.stacks_of(access).await?)),
        }
    }

    /// What the caller may see of it now. While the tree cannot be read, nothing is taken away.
    async fn renewed(self, cx: &Context) -> Result<Self, Failure> {
        let Ok(access) = cx.hq.access(&cx.caller).await else { return Ok(self) };
        match &self {
            View::All | View::Some(..) => Ok(Self::of(&access, cx).await.unwrap_or(self)),
            View::One(stack) => match cx.hq.check_right(&access, stack, Right::View).await {
                Err(error @ (HqError::Rights(_) | HqError::NoStack(_))) => Err(error.into()),
                Ok(_) | Err(_) => Ok(self),
            },
        }
    }

    fn shows(&self, event: &Event) -> bool {
        match self {
            View::All => true,
            View::Some(user, stacks) => {
                event.user == *user || event.stack.as_ref().is_some_and(|stack| stacks.contains(stack))
            }
            View::One(stack) => event.stack.as_ref() == Some(stack),
        }
    }
}

impl Events {
    /// Runs the command.
    ///
    /// # Errors
    /// When there is no such stack, or the record cannot be read.
    pub async fn run(self, cx: &Context) -> Result<(), Failure> {
        if self.follow && cx.hq.check_awake().is_err() {
            return Err(Failure::new(Exit::Refused, "no HQ serves on this machine whose events could be followed"));
        }
        // Before the list: what happens in between is in both, and nothing in neither.
        let mut coming = cx.hq.follow_events();
        let mut view = self.view(cx).await?;
        let wanted = view.clone();
        let events = cx.hq.last_events(self.lines.into(), move |event| wanted.shows(event)).await?;
        let shown: BTreeSet<(u64, Outcome)> = events.iter().map(|event| (event.id, event.result)).collect();
        match (cx.out.json, self.follow) {
            (true, false) => return cx.out.value(&events).await,
            (_, true) => {
                for event in &events {
                    print(cx, event).await?;
                }
            }
            (false, false) => return cx.out.table(&HEADER, &events.iter().map(cells).collect::<Vec<_>>()).await,
        }
        loop {
            let come = tokio::time::timeout(LOOK, coming.recv()).await;
            // What may be seen may have become less.
            view = view.renewed(cx).await?;
            match come {
                Ok(Ok(event)) if view.shows(&event) && !shown.contains(&(event.id, event.result)) => {
                    print(cx, &event).await?;
                }
                Ok(Ok(_)) | Err(_) => {}
                Ok(Err(RecvError::Lagged(count))) => cx.out.note(&format!("{count} events were left out")).await?,
                Ok(Err(RecvError::Closed)) => return Ok(()),
            }
        }
    }

    async fn view(&self, cx: &Context) -> Result<View, Failure> {
        let words: Vec<String> = self.stack.iter().cloned().collect();
        if !words.is_empty() || cx.stack.is_some() {
            return Ok(View::One(cx.only_stack(&words, Right::View).await?));
        }
        View::of(&cx.access, cx).await
    }
}

const HEADER: [&str; 6] = ["TIME", "USER", "FROM", "STACK", "RESULT", "WHAT"];

/// One line of a listing that goes on.
async fn print(cx: &Context, event: &Event) -> Result<(), Failure> {
    match cx.out.json {
        true => cx.out.compact(event).await,
        false => cx.out.line(&cells(event).join("  ")).await,
    }
}

fn cells(event: &Event) -> Vec<String> {
    let why = event.why.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
    vec![
        event.at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        event.user.to_string(),
        event.from.clone(),
        event.stack.as_ref().map_or_else(|| "-".to_owned(), StackName::to_string),
        event.result.word().to_owned(),
        format!("{}{why}", event.what),
    ]
}
