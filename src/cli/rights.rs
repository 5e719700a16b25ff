//! `rights [list|grant|revoke]`

use serde::Serialize;

use super::context::Context;
use super::failure::{Exit, Failure};
use crate::hq::rights::Right;
use crate::names::{StackName, UserName};

/// List, give and take away what people may do
#[derive(Debug, clap::Args)]
pub struct Rights {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List who may do what
    List {
        /// Whose; everybody's without
        user: Option<UserName>,
    },
    /// Give somebody a right: rights grant USER [STACK] view|deploy|admin
    Grant {
        /// To whom
        user: UserName,
        /// [STACK] view|deploy|admin
        words: Vec<String>,
        /// Everything, on every stack and server
        #[arg(long)]
        operator: bool,
    },
    /// Take somebody's right away: rights revoke USER [STACK]
    Revoke {
        /// From whom
        user: UserName,
        /// [STACK]
        words: Vec<String>,
        /// They are no operator any more
        #[arg(long)]
        operator: bool,
    },
}

/// A right as listings show it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Row {
    user: UserName,
    /// All without.
    stack: Option<StackName>,
    right: String,
}

impl Rights {
    /// Whether it changes something.
    pub fn changes(&self) -> bool {
        matches!(self.verb, Some(Verb::Grant { .. } | Verb::Revoke { .. }))
    }

    /// Runs the command.
    ///
    /// # Errors
    /// When a stack or right is none, or the caller may not.
    pub async fn run(self, cx: &Context) -> Result<(), Failure> {
        match self.verb {
            None => list(cx, None).await,
            Some(Verb::List { user }) => list(cx, user.as_ref()).await,
            Some(Verb::Grant { user, words, operator: true }) => set_operator(cx, &user, &words, true).await,
            Some(Verb::Revoke { user, words, operator: true }) => set_operator(cx, &user, &words, false).await,
            Some(Verb::Grant { user, words, operator: false }) => grant(cx, &user, &words).await,
            Some(Verb::Revoke { user, words, operator: false }) => {
                let stack = cx.only_stack(&words, Right::Admin).await?;
                let right = cx.hq.revoke(&user, &stack).await?;
                cx.out.note(&format!("{user} may not {right} {stack} any more")).await
            }
        }
    }
}

async fn grant(cx: &Context, user: &UserName, words: &[String]) -> Result<(), Failure> {
    let Some((right, stack)) = words.split_last() else {
        return Err(Failure::new(Exit::Usage, "name the right: rights grant USER [STACK] view|deploy|admin"));
    };
    let right: Right = right.parse()?;
    let stack = cx.only_stack(stack, Right::Admin).await?;
    let before = cx.hq.grant(user, &stack, right).await?;
    let before = before.filter(|before| *before != right).map(|before| format!(" (so far: {before})"));
    cx.out.note(&format!("{user} may {right} {stack}{}", before.unwrap_or_default())).await?;
    note_stranger(cx, user).await
}

async fn set_operator(cx: &Context, user: &UserName, words: &[String], operator: bool) -> Result<(), Failure> {
    cx.check_operator()?;
    if let Some(extra) = words.first() {
        return Err(Failure::new(Exit::Usage, format!("`{extra}` is one word too many: operators may do everything")));
    }
    cx.begin().await;
    let was = cx.hq.set_operator(user, operator).await?;
    match operator {
        true => {
            cx.out.note(&format!("{user} is an operator")).await?;
            note_stranger(cx, user).await
        }
        false if was => cx.out.note(&format!("{user} is no operator any more")).await,
        false => Err(Failure::new(Exit::Mistake, format!("{user} is no operator; `rights` lists them"))),
    }
}

/// A right of somebody without a key is no use yet, or a slip of the pen.
async fn note_stranger(cx: &Context, user: &UserName) -> Result<(), Failure> {
    match super::keys::has_key(cx, user).await? {
        true => Ok(()),
        false => cx.out.note(&format!("{user} has no key yet: keys add {user} < key.pub")).await,
    }
}

/// Operators see everybody's, others their own and those on stacks they administer.
async fn list(cx: &Context, user: Option<&UserName>) -> Result<(), Failure> {
    let owners = cx.hq.owners().await?;
    let mut rows = Vec::new();
    for (user, rights) in cx.hq.all_rights().await? {
        if rights.operator {
            rows.push(Row { user: user.clone(), stack: None, right: "operator".to_owned() });
        }
        let row = |(stack, right): (StackName, Right)| Row {
            user: user.clone(),
            stack: Some(stack),
            right: right.word().to_owned(),
        };
        rows.extend(rights.stacks.into_iter().map(row));
    }
    for (stack, owner) in &owners {
        let owned =
            |user: &UserName| Row { user: user.clone(), stack: Some(stack.clone()), right: "admin (owner)".to_owned() };
        rows.extend(owner.iter().map(owned));
    }
    let administers = |stack: &StackName| {
        let owner = owners.get(stack).cloned().flatten();
        owner.is_some_and(|owner| cx.access.on(stack, &owner) == Some(Right::Admin))
    };
    let may_see = |row: &Row| {
        row.user == cx.access.user || cx.access.is_operator() || row.stack.as_ref().is_some_and(administers)
    };
    rows.retain(|row| may_see(row) && user.is_none_or(|user| row.user == *user));
    rows.retain(|row| cx.stack.is_none() || row.stack.is_none() || row.stack == cx.stack);
    rows.sort();
    if cx.out.json {
        return cx.out.value(&rows).await;
    }
    let cells: Vec<Vec<String>> = rows
        .into_iter()
        .map(|row| vec![row.user.to_string(), row.stack.map_or("*".to_owned(), |stack| stack.to_string()), row.right])
        .collect();
    cx.out.table(&["USER", "STACK", "RIGHT"], &cells).await
}
