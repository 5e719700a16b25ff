//! `stacks [list|create|show|destroy]`

use serde::Serialize;

use super::context::Context;
use super::destroy::Destroy;
use super::failure::{Exit, Failure};
use super::maintenance::word;
use crate::hq::rights::Right;
use crate::names::{ReleaseNumber, StackName, UserName};

/// List, make and show stacks
#[derive(Debug, clap::Args)]
pub struct Stacks {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List all stacks
    List,
    /// Make a stack before its first push, so that variables can be set
    Create {
        /// Its name
        stack: StackName,
    },
    /// Show one stack
    Show {
        /// Which
        stack: Option<String>,
    },
    /// Give a stack to another owner: stacks transfer [STACK] USER
    Transfer {
        /// [STACK] USER
        words: Vec<String>,
    },
    /// Remove a stack
    Destroy(Destroy),
}

/// A stack as listings show it.
#[derive(Debug, Serialize)]
struct Row {
    stack: StackName,
    owner: String,
    branch: Option<String>,
    release: Option<ReleaseNumber>,
    commit: Option<String>,
    created: jiff::Timestamp,
    deployed: Option<jiff::Timestamp>,
    mode: &'static str,
    urls: Vec<String>,
}

impl Stacks {
    /// Whether it changes something.
    pub fn changes(&self) -> bool {
        matches!(self.verb, Some(Verb::Create { .. } | Verb::Transfer { .. } | Verb::Destroy(_)))
    }

    /// Runs the command.
    ///
    /// # Errors
    /// When a named stack does not exist, or exists already.
    pub async fn run(self, cx: &Context) -> Result<(), Failure> {
        match self.verb {
            None | Some(Verb::List) => list(cx).await,
            Some(Verb::Create { stack }) => create(cx, stack).await,
            Some(Verb::Transfer { words }) => transfer(cx, &words).await,
            Some(Verb::Show { stack }) => {
                let words: Vec<String> = stack.into_iter().collect();
                show(cx, &cx.only_stack(&words, Right::View).await?).await
            }
            Some(Verb::Destroy(destroy)) => destroy.run(cx).await,
        }
    }
}

async fn create(cx: &Context, stack: StackName) -> Result<(), Failure> {
    cx.trace.about(&stack);
    if let Err(error) = cx.access.check_creation(cx.hq.settings.creators, &stack) {
        cx.trace.refused();
        return Err(error.into());
    }
    cx.begin().await;
    cx.hq.create_stack(&stack, &cx.caller.user).await?;
    cx.out.note(&format!("made {stack}; next: git push <remote> master")).await
}

async fn transfer(cx: &Context, words: &[String]) -> Result<(), Failure> {
    let Some((user, words)) = words.split_last() else {
        return Err(Failure::new(Exit::Usage, "name the new owner: stacks transfer [STACK] USER"));
    };
    let user: UserName = user.parse()?;
    let stack = cx.only_stack(words, Right::Admin).await?;
    let hq = cx.hq.clone();
    let (name, owner) = (stack.clone(), user.clone());
    cx.in_turn(&stack, "transfer", |_| async move { hq.transfer(&name, &owner).await }).await?;
    cx.out.note(&format!("{stack} belongs to {user}")).await
}

async fn row(cx: &Context, stack: &StackName) -> Result<Row, Failure> {
    let status = cx.hq.status(stack).await?;
    let release = cx.hq.releases(stack).await?.pop();
    let tables = cx.hq.tables().await?;
    let urls = match tables.iter().find(|table| table.stack == *stack) {
        Some(table) => cx.hq.urls(table).await,
        None => Vec::new(),
    };
    Ok(Row {
        stack: stack.clone(),
        owner: status.owner.to_string(),
        branch: status.branch,
        release: release.as_ref().map(|release| release.number),
        commit: release.as_ref().and_then(|release| release.commit.as_ref()).map(|commit| commit.short().to_owned()),
        created: status.created,
        deployed: release.map(|release| release.created),
        mode: word(&cx.hq.front(stack).await?.mode),
        urls,
    })
}

async fn list(cx: &Context) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for stack in cx.stacks().await? {
        rows.push(row(cx, &stack).await?);
    }
    if cx.out.json {
        return cx.out.value(&rows).await;
    }
    let now = cx.hq.clock.now();
    let cells: Vec<Vec<String>> = rows
        .into_iter()
        .map(|row| {
            vec![
                row.stack.to_string(),
                row.release.map_or_else(|| "-".to_owned(), |release| release.to_string()),
                row.commit.unwrap_or_else(|| "-".to_owned()),
                row.deployed.map_or_else(|| "-".to_owned(), |at| super::ps::age(now.as_second() - at.as_second())),
                row.owner,
                row.urls.first().cloned().unwrap_or_default(),
            ]
        })
        .collect();
    cx.out.table(&["STACK", "RELEASE", "COMMIT", "DEPLOYED", "OWNER", "URL"], &cells).await
}

async fn show(cx: &Context, stack: &StackName) -> Result<(), Failure> {
    let row = row(cx, stack).await?;
    if cx.out.json {
        return cx.out.value(&row).await;
    }
    let line = |name: &str, value: String| format!("{name:<9} {value}");
    let mut lines = vec![
        line("stack", row.stack.to_string()),
        line("owner", row.owner),
        line("branch", row.branch.unwrap_or_else(|| "(master or main, whichever is pushed first)".to_owned())),
        line("release", row.release.map_or_else(|| "none yet".to_owned(), |release| release.to_string())),
        line("created", row.created.to_string()),
        line("mode", row.mode.to_owned()),
    ];
    lines.extend(row.urls.into_iter().map(|url| line("url", url)));
    cx.out.line(&lines.join("\n")).await
}
