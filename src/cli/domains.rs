//! `domains [list|add|remove|redirect]`

use super::context::{Context, Target};
use super::failure::{Exit, Failure};
use crate::hq::HqError;
use crate::hq::front::{Origin, Row, rows, without_domains, without_redirect};
use crate::hq::rights::Right;
use crate::names::{Domain, StackName};

/// List, add and remove the domains of a stack, and lead one to another
#[derive(Debug, clap::Args)]
pub struct Domains {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List a stack's domains: domains list [STACK]
    List {
        /// [STACK]
        words: Vec<String>,
    },
    /// Add domains to a stack, or to one node of it: domains add [STACK[/NODE]] DOMAIN…
    Add {
        /// [STACK[/NODE]] DOMAIN…
        #[arg(required = true)]
        words: Vec<String>,
    },
    /// Take domains away that were added: domains remove [STACK] DOMAIN…
    Remove {
        /// [STACK] DOMAIN…
        #[arg(required = true)]
        words: Vec<String>,
    },
    /// Lead the visitors of one domain to another: domains redirect [STACK] FROM TO
    Redirect {
        /// [STACK] FROM TO; FROM is added to the stack if it does not have it
        #[arg(required = true)]
        words: Vec<String>,
        /// Lead nowhere any more: domains redirect --off [STACK] FROM
        #[arg(long)]
        off: bool,
    },
}

impl Domains {
    /// Whether it changes something.
    pub fn changes(&self) -> bool {
        matches!(self.verb, Some(Verb::Add { .. } | Verb::Remove { .. } | Verb::Redirect { .. }))
    }

    /// Runs the command.
    ///
    /// # Errors
    /// When a domain is another's, or the stack does not have it.
    pub async fn run(self, cx: &Context) -> Result<(), Failure> {
        match self.verb {
            None => list(cx, &[]).await,
            Some(Verb::List { words }) => list(cx, &words).await,
            Some(Verb::Add { words }) => add(cx, &words).await,
            Some(Verb::Remove { words }) => remove(cx, &words).await,
            Some(Verb::Redirect { words, off: false }) => redirect(cx, &words).await,
            Some(Verb::Redirect { words, off: true }) => no_redirect(cx, &words).await,
        }
    }
}

async fn list(cx: &Context, words: &[String]) -> Result<(), Failure> {
    let stack = cx.only_stack(words, Right::View).await?;
    let rows = rows(&cx.hq.front(&stack).await?, cx.hq.routes(&stack).await?.as_ref());
    if cx.out.json {
        return cx.out.value(&rows).await;
    }
    let cells: Vec<Vec<String>> = rows.iter().map(cells).collect();
    cx.out.table(&["DOMAIN", "NODE", "FROM", "LEADS TO"], &cells).await
}

fn cells(row: &Row) -> Vec<String> {
    let origin = match (row.origin, row.live) {
        (Origin::Release, _) => "release",
        (Origin::Command, true) => "command",
        (Origin::Command, false) => "command, waits for its node",
    };
    let to = row.redirect.as_ref().map(Domain::to_string).unwrap_or_default();
    vec![row.domain.to_string(), row.node.to_string(), origin.to_owned(), to]
}

/// The stack, for somebody who may change what it serves, and the domains after it.
async fn named(cx: &Context, words: &[String]) -> Result<(Target, Vec<Domain>), Failure> {
    let (target, rest) = cx.target(words, Right::Deploy).await?;
    if rest.is_empty() {
        return Err(Failure::new(Exit::Usage, "name a domain, such as www.example.com"));
    }
    let domains = rest.iter().map(|word| word.to_lowercase().parse::<Domain>());
    Ok((target, domains.collect::<Result<_, _>>()?))
}

fn all(domains: &[Domain]) -> String {
    domains.iter().map(Domain::to_string).collect::<Vec<_>>().join(", ")
}

async fn add(cx: &Context, words: &[String]) -> Result<(), Failure> {
    let (Target { stack, node }, domains) = named(cx, words).await?;
    let (hq, name, wanted) = (cx.hq.clone(), stack.clone(), domains.clone());
    let work = async move |_| hq.add_domains(&name, node.as_ref(), &wanted).await;
    let node = cx.in_turn(&stack, "change of domains", work).await?;
    let when = if cx.hq.releases(&stack).await?.is_empty() { "will lead" } else { "leads" };
    cx.out.note(&format!("{} {when} to {stack}/{node}", all(&domains))).await
}

async fn remove(cx: &Context, words: &[String]) -> Result<(), Failure> {
    let (Target { stack, .. }, domains) = named(cx, words).await?;
    let (hq, name, gone) = (cx.hq.clone(), stack.clone(), domains.clone());
    let work = async move |_| {
        let (front, routes) = (hq.front(&name).await?, hq.routes(&name).await?);
        hq.direct(&name, without_domains(&name, &front, routes.as_ref(), &gone)?).await
    };
    cx.in_turn::<_, HqError, _>(&stack, "change of domains", work).await?;
    cx.out.note(&format!("{stack} no longer has {}", all(&domains))).await
}

async fn redirect(cx: &Context, words: &[String]) -> Result<(), Failure> {
    let (Target { stack, node }, domains) = named(cx, words).await?;
    let [from, to] = <[Domain; 2]>::try_from(domains)
        .map_err(|_| Failure::new(Exit::Usage, "name two domains: domains redirect [STACK] FROM TO"))?;
    let (hq, name, ends) = (cx.hq.clone(), stack.clone(), (from.clone(), to.clone()));
    let work = async move |_| hq.redirect_domain(&name, node.as_ref(), &ends.0, &ends.1).await;
    cx.in_turn::<_, HqError, _>(&stack, "change of domains", work).await?;
    cx.out.note(&format!("{from} leads to {to}")).await
}

async fn no_redirect(cx: &Context, words: &[String]) -> Result<(), Failure> {
    let (Target { stack, .. }, domains) = named(cx, words).await?;
    let [from]: [Domain; 1] = domains.try_into().map_err(|_| Failure::new(Exit::Usage, "name one domain"))?;
    let (hq, name, end): (_, StackName, _) = (cx.hq.clone(), stack.clone(), from.clone());
    let work = async move |_| hq.direct(&name, without_redirect(&hq.front(&name).await?, &end)?).await;
    cx.in_turn::<_, HqError, _>(&stack, "change of domains", work).await?;
    cx.out.note(&format!("{from} answers itself")).await
}
