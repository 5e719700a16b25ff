//! `keys [list|add|remove]`

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::context::Context;
use super::failure::{Exit, Failure};
use crate::db::{Guard, layout};
use crate::hq::door::{Caller, Origin, Stdin};
use crate::hq::keys::PublicKey;
use crate::names::{KeyName, UserName};

/// List, add and remove the SSH keys that may push
#[derive(Debug, clap::Args)]
pub struct Keys {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List all keys
    List,
    /// Add the public key on standard input: keys add USER [NAME] < id_ed25519.pub
    Add {
        /// Whose
        user: UserName,
        /// What to call it; the comment in the key without
        name: Option<KeyName>,
        /// Where the key is; standard input without
        #[arg(long)]
        file: Option<PathBuf>,
    },
    /// Remove a user's key, or all of them
    Remove {
        /// Whose
        user: UserName,
        /// Which; all without
        name: Option<KeyName>,
        /// Also when nobody, or you no more, can come in afterwards
        #[arg(long)]
        confirm: bool,
    },
}

#[derive(Debug, Serialize)]
struct Row {
    user: String,
    name: String,
    fingerprint: String,
}

/// Whether somebody can come in.
///
/// # Errors
/// When the tree cannot be read.
pub async fn has_key(cx: &Context, user: &UserName) -> Result<bool, Failure> {
    Ok(rows(cx).await?.iter().any(|row| row.user == user.as_str()))
}

/// Other people's keys are for operators.
fn check_own(cx: &Context, user: &UserName) -> Result<(), Failure> {
    if cx.access.user == *user { Ok(()) } else { cx.check_operator() }
}

/// Longest public key line, in bytes.
const KEY_LIMIT: usize = 16_384;

impl Keys {
    /// Whether it changes something.
    pub fn changes(&self) -> bool {
        matches!(self.verb, Some(Verb::Add { .. } | Verb::Remove { .. }))
    }

    /// A file of the machine it is typed on that stands in for standard input.
    pub fn file(&self) -> Option<&Path> {
        match &self.verb {
            Some(Verb::Add { file, .. }) => file.as_deref(),
            _ => None,
        }
    }

    /// Runs the command.
    ///
    /// # Errors
    /// When the key is none, or is known already.
    pub async fn run(self, cx: &Context, stdin: Stdin) -> Result<(), Failure> {
        match self.verb {
            None | Some(Verb::List) => list(cx).await,
            Some(Verb::Add { user, name, file: _ }) => add(cx, user, name, stdin).await,
            Some(Verb::Remove { user, name, confirm }) => remove(cx, &user, name, confirm).await,
        }
    }
}

async fn rows(cx: &Context) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for entry in layout::all(&*cx.hq.db, layout::KEYS).await? {
        let segments: Vec<&str> = entry.key.segments().collect();
        let [_, user, file] = segments[..] else { continue };
        let text = String::from_utf8_lossy(&entry.value).into_owned();
        let fingerprint = match text.parse::<PublicKey>() {
            Ok(key) => key.fingerprint().to_owned(),
            Err(error) => format!("(damaged: {error})"),
        };
        let name = file.trim_end_matches(".pub").to_owned();
        rows.push(Row { user: user.to_owned(), name, fingerprint });
    }
    Ok(rows)
}

async fn list(cx: &Context) -> Result<(), Failure> {
    let mut rows = rows(cx).await?;
    rows.retain(|row| cx.access.is_operator() || row.user == cx.access.user.as_str());
    if cx.out.json {
        return cx.out.value(&rows).await;
    }
    let cells: Vec<Vec<String>> = rows.into_iter().map(|row| vec![row.user, row.name, row.fingerprint]).collect();
    cx.out.table(&["USER", "KEY", "FINGERPRINT"], &cells).await
}

async fn add(cx: &Context, user: UserName, name: Option<KeyName>, stdin: Stdin) -> Result<(), Failure> {
    check_own(cx, &user)?;
    cx.begin().await;
    let too_long = || Failure::new(Exit::Mistake, "this is longer than any public key");
    let bytes = stdin.at_most(KEY_LIMIT).await.ok_or_else(too_long)?;
    let text = String::from_utf8(bytes).map_err(|_| Failure::new(Exit::Mistake, "a public key is one line of text"))?;
    let key: PublicKey = text.trim().parse().map_err(|error| Failure::of(Exit::Mistake, &error))?;
    let fingerprint = key.fingerprint().to_owned();
    if let Some(row) = rows(cx).await?.into_iter().find(|row| row.fingerprint == fingerprint) {
        let message = format!("this key is known already: {} of {}", row.name, row.user);
        return match row.user == user.as_str() {
            true => cx.out.note(&message).await,
            false if cx.access.is_operator() => Err(Failure::new(Exit::Refused, message)),
            // Whose it is, is nobody's business.
            false => Err(Failure::new(Exit::Refused, "this key is known already, as somebody else's")),
        };
    }
    let name = match name {
        Some(name) => name,
        None => key_name(&text),
    };
    let path = layout::public_key(&user, &name);
    let line = format!("{}\n", key.as_str());
    match cx.hq.db.put(&path, line.as_bytes(), Guard::Absent, None).await {
        Err(crate::db::DbError::Changed { .. }) => {
            let message = format!("{user} has another key called `{name}`; give this one a name: keys add {user} NAME");
            return Err(Failure::new(Exit::Refused, message));
        }
        other => other.map(drop)?,
    }
    cx.out.note(&format!("added {name} of {user}: {fingerprint}")).await?;
    make_first_operator(cx, &user).await
}

/// Whoever comes first looks after the rest: with the only key there is, and while nothing is known of anybody's rights.
/// A record that is damaged, or an operator that was taken away, makes nobody else one by the way.
async fn make_first_operator(cx: &Context, user: &UserName) -> Result<(), Failure> {
    let is_first = rows(cx).await?.len() == 1 && layout::all(&*cx.hq.db, layout::RIGHTS).await?.is_empty();
    if is_first && cx.access.is_operator() {
        cx.hq.set_operator(user, true).await?;
        cx.out
            .note(&format!("{user} is an operator now, as the first; for others: rights grant USER --operator"))
            .await?;
    }
    Ok(())
}

/// The key's comment as a name, or `key`.
fn key_name(text: &str) -> KeyName {
    let comment = text.split_whitespace().nth(2).unwrap_or("key");
    comment.parse().unwrap_or_else(|_| "key".parse().expect("`key` is a key name"))
}

/// Who could not come in any more with only these keys left.
fn locked_out(caller: &Caller, user: &UserName, left: &[&Row]) -> Option<&'static str> {
    let by_ssh = matches!(caller.from, Origin::Address(_));
    if left.is_empty() {
        Some("nobody can push or give commands by SSH")
    } else if by_ssh && caller.user == *user && !left.iter().any(|row| row.user == user.as_str()) {
        Some("you have no key left and cannot come back by SSH")
    } else {
        None
    }
}

async fn remove(cx: &Context, user: &UserName, name: Option<KeyName>, confirm: bool) -> Result<(), Failure> {
    check_own(cx, user)?;
    cx.begin().await;
    let known = rows(cx).await?;
    let goes = |row: &&Row| row.user == user.as_str() && name.as_ref().is_none_or(|name| row.name == name.as_str());
    let (gone, left): (Vec<&Row>, Vec<&Row>) = known.iter().partition(goes);
    if gone.is_empty() {
        return Err(Failure::new(Exit::Mistake, format!("{user} has no such key; `keys` lists them")));
    }
    if let Some(who) = locked_out(&cx.caller, user, &left).filter(|_| !confirm) {
        let words = name.map_or_else(|| user.to_string(), |name| format!("{user} {name}"));
        let message = format!("{who} after that; to do it all the same: keys remove {words} --confirm");
        return Err(Failure::new(Exit::Refused, message));
    }
    for row in gone {
        let name: KeyName = row.name.parse()?;
        cx.hq.db.delete(&layout::public_key(user, &name), Guard::Any).await?;
        cx.out.note(&format!("removed {name} of {user}")).await?;
    }
    let comes_back = left.iter().any(|row| row.user == user.as_str());
    match super::tokens::count(cx, user).await? {
        tokens @ 1.. if !comes_back => {
            let text =
                format!("{user} still has tokens of the api ({tokens}); `tokens remove NAME --user {user}` ends them");
            cx.out.note(&text).await
        }
        _ => Ok(()),
    }
}
