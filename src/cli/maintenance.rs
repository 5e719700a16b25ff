//! `maintenance [on|off]`

use super::context::Context;
use super::failure::{Exit, Failure};
use crate::front::{LONGEST_PAGE, Mode};
use crate::hq::door::Stdin;
use crate::hq::progress::phase;
use crate::hq::rights::Right;

/// Close a stack to its visitors, with a page that says so, and open it again
#[derive(Debug, clap::Args)]
pub struct Maintenance {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Show whether a stack is open: maintenance show [STACK]
    Show {
        /// [STACK]
        words: Vec<String>,
    },
    /// Answer every request with 503 and a page: maintenance on [STACK]
    On {
        /// [STACK]
        words: Vec<String>,
        /// Show the HTML page on standard input instead of the usual one
        #[arg(long)]
        page: bool,
    },
    /// Pass requests on again: maintenance off [STACK]
    Off {
        /// [STACK]
        words: Vec<String>,
    },
}

impl Maintenance {
    /// Whether it changes something.
    pub fn changes(&self) -> bool {
        matches!(self.verb, Some(Verb::On { .. } | Verb::Off { .. }))
    }

    /// Runs the command.
    ///
    /// # Errors
    /// When the page is too long, or the router does not take it.
    pub async fn run(self, cx: &Context, stdin: Stdin) -> Result<(), Failure> {
        match self.verb {
            None => show(cx, &[]).await,
            Some(Verb::Show { words }) => show(cx, &words).await,
            Some(Verb::On { words, page }) => on(cx, &words, page.then_some(stdin)).await,
            Some(Verb::Off { words }) => set(cx, &words, Mode::Open, "maintenance is over").await,
        }
    }
}

/// The word for what visitors of a stack find.
pub fn word(mode: &Mode) -> &'static str {
    match mode {
        Mode::Open => "open",
        Mode::Maintenance { .. } => "maintenance",
        Mode::Paused { .. } => "paused",
    }
}

async fn show(cx: &Context, words: &[String]) -> Result<(), Failure> {
    let stack = cx.only_stack(words, Right::View).await?;
    let mode = cx.hq.front(&stack).await?.mode;
    if cx.out.json { cx.out.value(&mode).await } else { cx.out.line(word(&mode)).await }
}

async fn on(cx: &Context, words: &[String], page: Option<Stdin>) -> Result<(), Failure> {
    let page = match page {
        None => None,
        Some(stdin) => {
            let long = || Failure::new(Exit::Mistake, format!("a page has {LONGEST_PAGE} bytes at most"));
            let bytes = stdin.at_most(LONGEST_PAGE).await.ok_or_else(long)?;
            let text = String::from_utf8(bytes).map_err(|_| Failure::new(Exit::Mistake, "the page is not UTF-8"))?;
            let empty = || Failure::new(Exit::Mistake, "give the page on standard input: maintenance on --page < FILE");
            Some(text).filter(|text| !text.trim().is_empty()).ok_or_else(empty).map(Some)?
        }
    };
    set(cx, words, Mode::Maintenance { page }, "visitors find the maintenance page").await
}

/// Sets what visitors of a stack find.
///
/// # Errors
/// When the caller may not, or the router does not take it.
pub async fn set(cx: &Context, words: &[String], mode: Mode, told: &str) -> Result<(), Failure> {
    let stack = cx.only_stack(words, Right::Deploy).await?;
    let (hq, name) = (cx.hq.clone(), stack.clone());
    cx.beside(async move |_| hq.set_mode(&name, mode).await).await??;
    cx.out.note(&phase(&format!("{stack}: {told}"))).await
}
