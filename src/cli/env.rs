//! `env STACK`, `env list|get|set|unset|import STACK …`

use super::context::{Context, Target};
use super::failure::{Exit, Failure};
use crate::env::{BadEnv, Env, from_arguments, from_text};
use crate::hq::HqError;
use crate::hq::door::Stdin;
use crate::hq::progress::phase;
use crate::hq::rights::Right;
use crate::names::printable::is_harmless;
use crate::names::{EnvName, StackName};

/// Show and change a stack's variables
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct EnvCommand {
    /// List the variables of this stack
    stack: Option<String>,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Seal everybody's variables with a new key
    Rotate,
    /// List all variables, as a .env file (or --json)
    #[command(visible_alias = "show")]
    List {
        /// Which stack
        stack: Option<String>,
    },
    /// Print one variable's value
    Get {
        /// [STACK] NAME
        #[arg(required = true)]
        words: Vec<String>,
    },
    /// Set variables and launch the stack with them
    Set {
        /// [STACK] NAME=value …
        #[arg(required = true, allow_hyphen_values = false)]
        words: Vec<String>,
        /// Keep them for the next release
        #[arg(long)]
        no_restart: bool,
    },
    /// Take variables away and launch the stack without them
    #[command(visible_alias = "remove")]
    Unset {
        /// [STACK] NAME …
        #[arg(required = true)]
        words: Vec<String>,
        /// Keep the change for the next release
        #[arg(long)]
        no_restart: bool,
    },
    /// Set the variables of a .env file or JSON object on standard input
    Import {
        /// Which stack
        stack: Option<String>,
        /// Keep them for the next release
        #[arg(long)]
        no_restart: bool,
        /// Take all others away
        #[arg(long)]
        replace: bool,
    },
}

/// Largest `.env` or JSON on standard input, in bytes.
const IMPORT_LIMIT: usize = 1_000_000;

impl From<BadEnv> for Failure {
    fn from(error: BadEnv) -> Self {
        Self::of(Exit::Mistake, &error)
    }
}

impl EnvCommand {
    /// Whether it changes something.
    pub fn changes(&self) -> bool {
        !matches!(self.verb, None | Some(Verb::List { .. } | Verb::Get { .. }))
    }

    /// Runs the command.
    ///
    /// # Errors
    /// When a name or value is none, or the launch with them fails; then nothing has changed.
    pub async fn run(self, cx: &Context, stdin: Stdin) -> Result<(), Failure> {
        match self.verb {
            None => list(cx, &self.stack.into_iter().collect::<Vec<_>>()).await,
            Some(Verb::List { stack }) => list(cx, &stack.into_iter().collect::<Vec<_>>()).await,
            Some(Verb::Rotate) => rotate(cx).await,
            Some(Verb::Get { words }) => get(cx, &words).await,
            Some(Verb::Set { words, no_restart }) => {
                let pairs = words.iter().position(|word| word.contains('=')).unwrap_or(words.len());
                let (Target { stack, .. }, strange) = cx.target(&words[..pairs], Right::Deploy).await?;
                from_arguments(strange.iter().map(String::as_str))?;
                let set = from_arguments(words[pairs..].iter().map(String::as_str))?;
                if set.is_empty() {
                    return Err(Failure::new(Exit::Usage, "name what to set: env set STACK NAME=value"));
                }
                refuse_own(&set)?;
                change(cx, stack, Change { set, ..Change::default() }, no_restart).await
            }
            Some(Verb::Unset { words, no_restart }) => {
                let (Target { stack, .. }, names) = cx.target(&words, Right::Deploy).await?;
                let unset: Vec<EnvName> = names.iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
                let env = cx.hq.env(&stack).await?;
                let missing: Vec<&str> =
                    unset.iter().filter(|name| env.value(name).is_none()).map(EnvName::as_str).collect();
                if unset.is_empty() || !missing.is_empty() {
                    let names = if unset.is_empty() { "NAME …".to_owned() } else { missing.join(" ") };
                    return Err(match unset.is_empty() {
                        true => {
                            Failure::new(Exit::Mistake, format!("name what to take away: env unset {stack} {names}"))
                        }
                        false => Failure::missing(format!("{stack} has no variable {names}; nothing was changed")),
                    });
                }
                change(cx, stack, Change { unset, ..Change::default() }, no_restart).await
            }
            Some(Verb::Import { stack, no_restart, replace }) => {
                let stack = cx.only_stack(&stack.into_iter().collect::<Vec<_>>(), Right::Deploy).await?;
                let set = from_text(&read(stdin).await?)?;
                refuse_own(&set)?;
                change(cx, stack, Change { set, replace, ..Change::default() }, no_restart).await
            }
        }
    }
}

async fn rotate(cx: &Context) -> Result<(), Failure> {
    cx.check_operator()?;
    cx.begin().await;
    let hq = cx.hq.clone();
    let sealed = cx.beside(move |_| async move { hq.rotate_env_key().await.map_err(HqError::from) }).await??;
    let file = cx.hq.launcher.seal.file().map(|file| file.display().to_string()).unwrap_or_default();
    cx.out.note(&format!("{sealed} values are sealed with a new key; keep a copy of {file}")).await
}

/// Quarry sets some variables itself; a value for one of them would be taken and never seen.
fn refuse_own(set: &Env) -> Result<(), Failure> {
    let own: Vec<&str> = set.iter().map(|(name, _)| name.as_str()).filter(|name| is_own(name)).collect();
    if own.is_empty() {
        return Ok(());
    }
    let message = format!("quarry sets {} itself; nothing was changed", own.join(" "));
    Err(Failure::new(Exit::Mistake, message))
}

fn is_own(name: &str) -> bool {
    name == "PORT" || (name.starts_with("QUARRY_") && name != crate::hq::deploy::source::BUILD_DIR)
}

/// What is to become of a stack's variables.
#[derive(Default)]
struct Change {
    set: Env,
    unset: Vec<EnvName>,
    replace: bool,
}

async fn read(stdin: Stdin) -> Result<String, Failure> {
    let too_long = || Failure::new(Exit::Mistake, format!("standard input is longer than {IMPORT_LIMIT} bytes"));
    let bytes = stdin.at_most(IMPORT_LIMIT).await.ok_or_else(too_long)?;
    String::from_utf8(bytes).map_err(|_| Failure::new(Exit::Mistake, "standard input is not UTF-8 text"))
}

async fn list(cx: &Context, words: &[String]) -> Result<(), Failure> {
    let stack = cx.only_stack(words, Right::Deploy).await?;
    let env = cx.hq.env(&stack).await?;
    if cx.out.json {
        return cx.out.value(&env).await;
    }
    if env.is_empty() {
        return cx.out.note(&format!("{stack} has no variables; set one: env set {stack} NAME=value")).await;
    }
    let lines: Vec<String> = env.iter().map(|(name, value)| format!("{name}={}", quoted(value))).collect();
    cx.out.line(&lines.join("\n")).await
}

/// A value as `.env` files write it, so that the listing can be imported again.
fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+,=".contains(c);
    if value.chars().all(plain) {
        return value.to_owned();
    }
    let mut escaped = String::new();
    for c in value.chars() {
        match c {
            '\\' | '"' | '$' => escaped.extend(['\\', c]),
            '\n' => escaped.push(c),
            c if is_harmless(c) => escaped.push(c),
            c => escaped.extend(c.escape_default()),
        }
    }
    format!("\"{escaped}\"")
}

async fn get(cx: &Context, words: &[String]) -> Result<(), Failure> {
    let (Target { stack, .. }, rest) = cx.target(words, Right::Deploy).await?;
    let [name] = rest else { return Err(Failure::new(Exit::Usage, "name one variable: env get STACK NAME")) };
    let name: EnvName = name.parse()?;
    match cx.hq.env(&stack).await?.value(&name) {
        Some(value) => cx.out.exact(value).await,
        None => Err(Failure::new(Exit::Mistake, format!("{stack} has no variable `{name}`"))),
    }
}

async fn change(cx: &Context, stack: StackName, change: Change, no_restart: bool) -> Result<(), Failure> {
    let (hq, caller) = (cx.hq.clone(), cx.caller.clone());
    cx.in_turn(&stack.clone(), "change of variables", |say| async move {
        let old = hq.env(&stack).await?;
        let mut env = if change.replace { Env::new() } else { old.clone() };
        env.cover(&change.set);
        for name in &change.unset {
            env.remove(name);
        }
        let names = changed(&old, &env);
        if names.is_empty() {
            say.line("nothing to change");
            return Ok(());
        }
        let deployed = !hq.releases(&stack).await?.is_empty();
        if no_restart || !deployed {
            hq.put_env(&stack, &env).await?;
            say.line(phase(&format!("Kept {} for the next release of {stack}", names.join(" "))));
            return Ok(());
        }
        hq.release_env(&stack, &env, names, &caller.user, &|line| say.line(line)).await?;
        Ok::<_, HqError>(())
    })
    .await
}

/// Names whose values differ; values themselves are never shown.
fn changed(old: &Env, new: &Env) -> Vec<String> {
    let come = new.iter().filter(|(name, value)| old.value(name) != Some(value)).map(|(name, _)| name.to_string());
    let go = old.iter().filter(|(name, _)| new.value(name).is_none()).map(|(name, _)| name.to_string());
    come.chain(go).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_can_be_imported_again() {
        for value in ["plain", "two words", "a\nb\r\n", "q\"uote $HOME \\x \\u{1b}", "\x1b[2J\u{202e}\t", ""] {
            let env = from_text(&format!("A={}", quoted(value))).unwrap();
            assert_eq!(env.value(&"A".parse().unwrap()), Some(value));
        }
    }
}
