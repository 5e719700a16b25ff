//! `tokens [list|add|remove]`

use jiff::Timestamp;
use serde::Serialize;

use super::context::Context;
use super::failure::{Exit, Failure};
use crate::db::{DbError, Guard, layout};
use crate::dock::bundle::{digest_of_text, tar};
use crate::dock::files::authority;
use crate::hq::HqError;
use crate::hq::door::Origin;
use crate::hq::tokens::{Record, digest, end, token};
use crate::names::{TokenName, UserName};
use crate::servers::authority::Whom;
use crate::units::random::hex;

/// List, make and remove the tokens with which programs come to the HTTP api, and docker's clients by TCP
#[derive(Debug, clap::Args)]
pub struct Tokens {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List tokens, which cannot be shown again themselves
    List,
    /// Make a token and print it, this once: whoever has it may do over HTTP what its user may
    Add {
        /// What to call it, such as the program it is for
        name: TokenName,
        /// Whose; your own without
        #[arg(long)]
        user: Option<UserName>,
        /// After which time it opens nothing any more, such as 90d, or when; never without
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
        /// A certificate for docker's client instead: ca.pem, cert.pem and key.pem as a tar archive
        #[arg(long)]
        certificate: bool,
    },
    /// Remove a token: it opens nothing any more
    Remove {
        /// Which
        name: TokenName,
        /// Whose; your own without
        #[arg(long)]
        user: Option<UserName>,
    },
}

/// A token as listings show it.
#[derive(Debug, Serialize)]
struct Row {
    user: UserName,
    name: TokenName,
    created: Timestamp,
    expires: Option<Timestamp>,
    /// Whether it still opens something.
    valid: bool,
}

impl Tokens {
    /// Whether it changes something.
    pub fn changes(&self) -> bool {
        matches!(self.verb, Some(Verb::Add { .. } | Verb::Remove { .. }))
    }

    /// Runs the command.
    ///
    /// # Errors
    /// When the name is taken, there is no such token, or it is somebody else's.
    pub async fn run(self, cx: &Context) -> Result<(), Failure> {
        match self.verb {
            None | Some(Verb::List) => list(cx).await,
            Some(Verb::Add { name, user, expires, certificate }) => {
                let user = owner(cx, user)?;
                match certificate {
                    true => certify(cx, name, user, expires).await,
                    false => add(cx, name, user, expires).await,
                }
            }
            Some(Verb::Remove { name, user }) => remove(cx, &name, &owner(cx, user)?).await,
        }
    }
}

/// How many tokens somebody has.
///
/// # Errors
/// When the tree cannot be read.
pub async fn count(cx: &Context, user: &UserName) -> Result<usize, Failure> {
    let entries = layout::all(&*cx.hq.db, layout::TOKENS).await?;
    Ok(entries.iter().filter(|entry| entry.key.segments().nth(1) == Some(user.as_str())).count())
}

/// Whose token is meant. Root on HQ's machine is nobody over HTTP, and has to say.
fn owner(cx: &Context, user: Option<UserName>) -> Result<UserName, Failure> {
    match user {
        Some(user) if user != cx.access.user => cx.check_operator().map(|()| user),
        Some(user) => Ok(user),
        None if cx.caller.from == Origin::Socket => {
            Err(Failure::new(Exit::Usage, "name whose token it is: --user USER"))
        }
        None => Ok(cx.access.user.clone()),
    }
}

/// Operators see everybody's, others their own.
async fn list(cx: &Context) -> Result<(), Failure> {
    let now = cx.hq.clock.now();
    let mut rows = Vec::new();
    for entry in layout::all(&*cx.hq.db, layout::TOKENS).await? {
        let segments: Vec<&str> = entry.key.segments().collect();
        let [_, user, file] = segments[..] else { continue };
        let names = (user.parse::<UserName>(), file.strip_suffix(".json").unwrap_or(file).parse::<TokenName>());
        let (Ok(user), Ok(name)) = names else { continue };
        if !cx.access.is_operator() && user != cx.access.user {
            continue;
        }
        let record: Record = layout::parse_json(&*cx.hq.db, &entry)?;
        rows.push(Row { user, name, created: record.created, expires: record.expires, valid: record.holds(now) });
    }
    if cx.out.json {
        return cx.out.value(&rows).await;
    }
    let day = |time: Timestamp| time.strftime("%Y-%m-%d %H:%M").to_string();
    let cells: Vec<Vec<String>> = rows
        .into_iter()
        .map(|row| {
            let ended = if row.valid { "" } else { " (over)" };
            let expires = row.expires.map_or_else(|| "never".to_owned(), |at| format!("{}{ended}", day(at)));
            vec![row.user.to_string(), row.name.to_string(), day(row.created), expires]
        })
        .collect();
    cx.out.table(&["USER", "TOKEN", "CREATED", "EXPIRES"], &cells).await
}

async fn add(cx: &Context, name: TokenName, user: UserName, expires: Option<String>) -> Result<(), Failure> {
    let secret = token(&hex::<32>());
    let known = digest(&secret).expect("a token that was just made is well formed");
    keep(cx, &name, &user, known, expires).await?;
    cx.out
        .note(&format!("this token of {user} is not shown again; it goes into the header `Authorization: Bearer …`"))
        .await?;
    cx.out.line(&secret).await
}

/// Notes by which digest a token of somebody's is known.
async fn keep(
    cx: &Context,
    name: &TokenName,
    user: &UserName,
    digest: String,
    expires: Option<String>,
) -> Result<(), Failure> {
    let now = cx.hq.clock.now();
    let expires = expires.map(|text| end(&text, now).map_err(|why| Failure::new(Exit::Mistake, why))).transpose()?;
    cx.begin().await;
    let record = Record { digest, created: now, expires };
    match layout::put_json(&*cx.hq.db, &layout::token(user, name), &record, Guard::Absent).await {
        Err(DbError::Changed { .. }) => {
            let message = format!("{user} has a token `{name}` already; remove it first, or choose another name");
            Err(Failure::new(Exit::Refused, message))
        }
        other => Ok(other.map(drop)?),
    }
}

/// A token that is a certificate.
async fn certify(cx: &Context, name: TokenName, user: UserName, expires: Option<String>) -> Result<(), Failure> {
    if cx.hq.settings.docker.is_none() {
        let message = "docker's clients come in by SSH alone; write an address such as 0.0.0.0:2376 to the setting \
                       docker-listen, and start HQ again";
        return Err(Failure::new(Exit::Refused, message));
    }
    cx.hq.check_awake()?;
    let etc = cx.hq.house().map(|house| house.etc.clone()).ok_or(HqError::Asleep)?;
    let refused = |error: &dyn std::error::Error| Failure::of(Exit::Refused, error);
    let now = cx.hq.clock.now();
    let authority = authority(&etc, now).map_err(|error| refused(&error))?;
    let identity = authority.issue(&Whom::Client(user.clone()), now).map_err(|error| refused(&error))?;
    let known = digest_of_text(&identity.certificate).expect("a certificate that was just made is well formed");
    keep(cx, &name, &user, known, expires).await?;
    cx.out
        .note(&format!("the key of {user} is not shown again: tar x in the folder that DOCKER_CERT_PATH names"))
        .await?;
    cx.out.data(tar(&authority, &identity)).await
}

async fn remove(cx: &Context, name: &TokenName, user: &UserName) -> Result<(), Failure> {
    cx.begin().await;
    let key = layout::token(user, name);
    if cx.hq.db.read(&key).await?.is_none() {
        return Err(Failure::missing(format!("{user} has no token `{name}`; `tokens` lists them")));
    }
    cx.hq.db.delete(&key, Guard::Any).await?;
    cx.out.note(&format!("removed the token {name} of {user}")).await
}
