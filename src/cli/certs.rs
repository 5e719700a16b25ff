//! `certs [list|add|remove|renew]`

use super::context::Context;
use super::failure::{Exit, Failure};
use crate::certs::Kind;
use crate::hq::certs::{Row, owners};
use crate::hq::door::Stdin;
use crate::hq::rights::Right;
use crate::names::{Domain, StackName};

/// List, add, remove and renew the certificates of domains
#[derive(Debug, clap::Args)]
pub struct Certs {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the domains that have a certificate or wait for one
    List,
    /// Give domains the certificate on standard input, with its chain and key: cat chain.pem key.pem | certs add DOMAIN…
    Add {
        /// Whose, such as example.com or '*.example.com'
        #[arg(required = true)]
        domains: Vec<Domain>,
    },
    /// Take a domain's certificate away; where certificates come by themselves it gets another one
    Remove {
        /// Whose
        domain: Domain,
    },
    /// Order a new certificate now
    Renew {
        /// Whose
        domain: Domain,
    },
}

/// Longest input: a chain and its key have some ten kilobytes.
const LIMIT: usize = 256 * 1024;

impl Certs {
    /// Whether it changes something.
    pub fn changes(&self) -> bool {
        matches!(self.verb, Some(Verb::Add { .. } | Verb::Remove { .. } | Verb::Renew { .. }))
    }

    /// Runs the command.
    ///
    /// # Errors
    /// When the certificate cannot be used, there is none, or none is had.
    pub async fn run(self, cx: &Context, stdin: Stdin) -> Result<(), Failure> {
        match self.verb {
            None | Some(Verb::List) => list(cx).await,
            Some(Verb::Add { domains }) => add(cx, &domains, stdin).await,
            Some(Verb::Remove { domain }) => remove(cx, &domain).await,
            Some(Verb::Renew { domain }) => renew(cx, &domain).await,
        }
    }
}

/// The stack that has a domain, for a caller who may change its certificate; `None` where it is nobody's, and an operator
/// asks. A domain of a stack that the caller does not see is nobody's to them.
async fn owner(cx: &Context, domain: &Domain) -> Result<Option<StackName>, Failure> {
    let seen = cx.stacks().await?;
    match owners(&cx.hq.tables().await?).remove(domain).filter(|stack| seen.contains(stack)) {
        Some(stack) => {
            cx.target(&[stack.to_string()], Right::Deploy).await?;
            Ok(Some(stack))
        }
        None => {
            cx.check_operator()?;
            cx.begin().await;
            Ok(None)
        }
    }
}

async fn list(cx: &Context) -> Result<(), Failure> {
    let seen = cx.stacks().await?;
    let may_see = |row: &Row| cx.access.is_operator() || row.stack.as_ref().is_some_and(|stack| seen.contains(stack));
    let rows: Vec<Row> = cx.hq.certificate_rows().await?.into_iter().filter(may_see).collect();
    if cx.out.json {
        return cx.out.value(&rows).await;
    }
    let cells: Vec<Vec<String>> = rows.iter().map(cells).collect();
    cx.out.table(&["DOMAIN", "STACK", "KIND", "ISSUER", "EXPIRES", "NEXT", "PROBLEM"], &cells).await
}

fn cells(row: &Row) -> Vec<String> {
    let time = |time: Option<jiff::Timestamp>| time.map_or_else(none, |time| time.strftime("%F %R").to_string());
    vec![
        row.domain.to_string(),
        row.stack.as_ref().map_or_else(none, StackName::to_string),
        row.kind.as_ref().map_or_else(none, Kind::to_string),
        row.issuer.clone().unwrap_or_else(none),
        time(row.expires),
        time(row.next),
        row.problem.as_deref().map_or_else(String::new, crate::names::printable::printable),
    ]
}

fn none() -> String {
    "-".to_owned()
}

async fn add(cx: &Context, domains: &[Domain], stdin: Stdin) -> Result<(), Failure> {
    let mut unrouted = Vec::new();
    for domain in domains {
        if owner(cx, domain).await?.is_none() && !domain.is_wildcard() {
            unrouted.push(domain.to_string());
        }
    }
    let too_long = || Failure::new(Exit::Mistake, "this is longer than any certificate with its chain and key");
    let bytes = stdin.at_most(LIMIT).await.ok_or_else(too_long)?;
    let text = String::from_utf8(bytes).map_err(|_| {
        Failure::new(Exit::Mistake, "give chain and key as PEM text: openssl x509 -inform der -in FILE")
    })?;
    let checked = cx.hq.add_certificate(domains, &text).await?;
    if !unrouted.is_empty() {
        cx.out.note(&format!("no stack has {} yet", unrouted.join(", "))).await?;
    }
    if checked.is_private {
        let issuer = &checked.facts.issuer;
        cx.out.note(&format!("this machine does not know the authority behind `{issuer}`; visitors have to")).await?;
    }
    let names: Vec<String> = domains.iter().map(Domain::to_string).collect();
    cx.out.note(&format!("{} served with it until {}", names.join(", "), checked.facts.until)).await
}

async fn remove(cx: &Context, domain: &Domain) -> Result<(), Failure> {
    owner(cx, domain).await?;
    cx.hq.remove_certificate(domain).await?;
    cx.out.note(&format!("removed the certificate of {domain}")).await
}

async fn renew(cx: &Context, domain: &Domain) -> Result<(), Failure> {
    owner(cx, domain).await?;
    let (hq, ordered) = (cx.hq.clone(), domain.clone());
    let checked = cx.beside(move |_| async move { hq.renew_certificate(&ordered).await }).await??;
    cx.out.note(&format!("{domain} has a new certificate until {}", checked.facts.until)).await
}
