//! `servers [list|show|add|tag|drain|resume|remove]`

use std::collections::BTreeSet;
use std::str::FromStr;

use super::context::Context;
use super::failure::{Exit, Failure};
use crate::grid::Standing;
use crate::grid::filter::tag;
use crate::hq::HqError;
use crate::hq::door::Stdin;
use crate::hq::servers::leave::Force;
use crate::hq::servers::{Listed, ServerError, Wanted};
use crate::names::ServerName;
use crate::names::printable::printable;
use crate::servers::Record;
use crate::servers::ssh::{Address, KeyPair, Login};
use crate::units::Megabytes;

/// List, add, tag, drain and remove the servers that containers run on
#[derive(Debug, clap::Args)]
pub struct Servers {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List all servers
    List,
    /// Show everything known of a server
    Show {
        /// Which
        server: ServerName,
    },
    /// Add a server, or mend one that was added by half: servers add root@10.0.0.7 < its-password-or-a-private-key
    Add {
        /// Where its sshd listens, and as whom to come: USER@ADDRESS[:PORT]
        address: Address,
        /// What it is good for, such as db,ssd
        #[arg(long, value_delimiter = ',', value_name = "TAGS")]
        tags: Vec<String>,
        /// Memory for containers, such as 4g; without, all it has, or what it was when it was added before
        #[arg(long)]
        size: Option<Megabytes>,
        /// What to call it; its own name without
        #[arg(long)]
        name: Option<ServerName>,
        /// The fingerprint its host key must have, as `ssh-keygen -lf` shows it there; also that of a server that was
        /// installed anew
        #[arg(long, value_parser = fingerprint)]
        fingerprint: Option<String>,
    },
    /// Say what a server is good for: servers tag s1 ssd db --remove old
    Tag {
        /// Which
        server: ServerName,
        /// Tags it gets
        tags: Vec<String>,
        /// Tags it loses
        #[arg(long, value_delimiter = ',', value_name = "TAGS")]
        remove: Vec<String>,
    },
    /// Move everything that can move off a server, and keep new containers away
    Drain {
        /// Which
        server: ServerName,
    },
    /// Let new containers come to a drained server again
    Resume {
        /// Which
        server: ServerName,
    },
    /// Take a server out
    Remove {
        /// Which
        server: ServerName,
        /// Also when something runs there, or it does not answer: what it has is given up
        #[arg(long)]
        force: bool,
    },
}

/// How a private key begins.
const BEGIN: &str = "-----BEGIN ";

/// Longest password or private key, in bytes.
const SECRET_LIMIT: usize = 65_536;

impl Servers {
    /// Whether it changes something.
    pub fn changes(&self) -> bool {
        !matches!(self.verb, None | Some(Verb::List | Verb::Show { .. }))
    }

    /// Runs the command.
    ///
    /// # Errors
    /// When there is no such server, or it cannot be reached, entered or changed.
    pub async fn run(self, cx: &Context, stdin: Stdin) -> Result<(), Failure> {
        match self.verb {
            None | Some(Verb::List) => list(cx).await,
            Some(Verb::Show { server }) => show(cx, &server).await,
            Some(Verb::Add { address, tags, size, name, fingerprint }) => {
                let wanted = Wanted { address, name, tags: checked(tags)?, size, fingerprint, order: None };
                add(cx, wanted, stdin).await
            }
            Some(Verb::Tag { server, tags, remove }) => retag(cx, &server, checked(tags)?, checked(remove)?).await,
            Some(Verb::Drain { server }) => drain(cx, server).await,
            Some(Verb::Resume { server }) => resume(cx, &server).await,
            Some(Verb::Remove { server, force }) => remove(cx, server, force).await,
        }
    }
}

/// Tags as people write them, with commas or without; all mistakes at once would say the same thing several times.
fn checked(words: Vec<String>) -> Result<BTreeSet<String>, Failure> {
    let words = words.iter().flat_map(|word| word.split(',')).filter(|word| !word.is_empty());
    let checked = |word: &str| match tag(word) {
        Err(_) if word.starts_with('!') => {
            let text = "a server has a tag or has it not; `!` is for the `filter` of a node, which then keeps off it";
            Err(Failure::new(Exit::Mistake, format!("`{}` is not a tag: {text}", word.escape_debug())))
        }
        tag => tag.map_err(|error| Failure::of(Exit::Mistake, &error)),
    };
    words.map(checked).collect()
}

/// A SHA-256 in base64, as OpenSSH writes it; `SHA256:` and what fills it up may be left out.
fn fingerprint(text: &str) -> Result<String, String> {
    let bare = text.strip_prefix("SHA256:").unwrap_or(text).trim_end_matches('=');
    if bare.len() == 43 && bare.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/".contains(&b)) {
        return Ok(text.to_owned());
    }
    Err("a fingerprint is `SHA256:` and 43 characters, as `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` shows it"
        .to_owned())
}

async fn list(cx: &Context) -> Result<(), Failure> {
    let servers = cx.hq.list_servers().await?;
    if cx.out.json {
        return cx.out.value(&servers).await;
    }
    let cells: Vec<Vec<String>> = servers
        .iter()
        .map(|server| {
            let address = server.address.clone().unwrap_or_else(|| nowhere(server).to_owned());
            let memory = format!("{} of {}", server.used, server.size);
            let count = server.containers.len().to_string();
            let from = server.from.to_owned();
            vec![server.name.to_string(), server.state.to_owned(), address, from, memory, count, tags(server)]
        })
        .collect();
    cx.out.table(&["SERVER", "STATE", "ADDRESS", "FROM", "MEMORY", "CONTAINERS", "TAGS"], &cells).await?;
    for server in &servers {
        if let Some(why) = &server.why {
            let state = if server.state == "up" { "down" } else { server.state };
            cx.out.note(&format!("{} is {state}: {why}", server.name)).await?;
        }
    }
    for machine in cx.hq.sizing.strangers() {
        let line = "the cloud has a machine of this HQ that it knows nothing of; look at it, and destroy it there:";
        cx.out.note(&format!("{line} {} ({})", machine.id, machine.token)).await?;
    }
    Ok(())
}

/// What stands for the address of a server that has none.
fn nowhere(server: &Listed) -> &'static str {
    if server.from == "here" { "(HQ's own)" } else { "(none yet)" }
}

fn tags(server: &Listed) -> String {
    server.tags.iter().map(String::as_str).collect::<Vec<_>>().join(",")
}

async fn show(cx: &Context, name: &ServerName) -> Result<(), Failure> {
    let servers = cx.hq.list_servers().await?;
    let found = servers.into_iter().find(|server| server.name == *name);
    let server = found.ok_or_else(|| HqError::from(ServerError::NoServer(name.clone())))?;
    if cx.out.json {
        return cx.out.value(&server).await;
    }
    let state = match &server.why {
        Some(why) => format!("{}: {why}", server.state),
        None => server.state.to_owned(),
    };
    let or_none = |text: String| if text.is_empty() { "none".to_owned() } else { text };
    let containers: Vec<String> = server.containers.iter().map(ToString::to_string).collect();
    let lines = [
        ("name", server.name.to_string()),
        ("state", state),
        ("address", server.address.clone().unwrap_or_else(|| nowhere(&server).to_owned())),
        ("from", server.from.to_owned()),
        ("hostname", server.hostname.clone()),
        ("host key", server.host_key.clone().unwrap_or_else(|| "none needed".to_owned())),
        ("memory", format!("{}, {} promised, {} free", server.size, server.used, server.free)),
        ("processors", format!("{} × {}", server.processors, server.architecture)),
        ("tags", or_none(tags(&server))),
        ("containers", or_none(containers.join("\n            "))),
    ];
    for (name, text) in lines {
        cx.out.line(&format!("{name:<10}  {}", printable(&text))).await?;
    }
    Ok(())
}

async fn add(cx: &Context, wanted: Wanted, stdin: Stdin) -> Result<(), Failure> {
    let hq = cx.hq.clone();
    let first = wanted.clone();
    let added = cx.beside(move |say| async move { hq.add_server(first, None, &|line| say.line(line)).await }).await?;
    let shown = match added {
        Err(HqError::Server(ServerError::Closed { shown, key, address })) => {
            cx.out
                .note(&format!(
                    "{address} does not know HQ's key yet; reading its password or a private key it knows from standard \
                     input"
                ))
                .await?;
            let Some(login) = login(stdin).await? else {
                return Err(HqError::from(ServerError::Closed { shown, key, address }).into());
            };
            (shown, login)
        }
        other => return ready(cx, other?).await,
    };
    // The server that gets the secret is the one that has just shown its key.
    let (fingerprint, login) = (Some(shown.0), shown.1);
    let (hq, wanted) = (cx.hq.clone(), Wanted { fingerprint, ..wanted });
    let add = move |say: crate::hq::door::Say| async move {
        hq.add_server(wanted, Some(login), &|line| say.line(line)).await
    };
    ready(cx, cx.beside(add).await??).await
}

async fn ready(cx: &Context, name: ServerName) -> Result<(), Failure> {
    if cx.out.json { show(cx, &name).await } else { cx.out.note(&format!("added {name}")).await }
}

/// The secret on standard input: a private key, or the one line of a password. Nothing at all is none.
async fn login(mut stdin: Stdin) -> Result<Option<Login>, Failure> {
    let mut bytes = Vec::new();
    while let Some(chunk) = stdin.chunk().await {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > SECRET_LIMIT {
            return Err(Failure::new(Exit::Mistake, "this is longer than any password or private key"));
        }
        if is_whole(&bytes) {
            break;
        }
    }
    secret(&bytes)
}

/// Whether a secret has come to its end: whoever types a password or pastes a key does not end the input, too.
fn is_whole(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    if text.starts_with(BEGIN) {
        return text.split_once("-----END ").is_some_and(|(_, rest)| rest.contains("-----"));
    }
    !BEGIN.starts_with(&*text) && text.contains('\n')
}

fn secret(bytes: &[u8]) -> Result<Option<Login>, Failure> {
    let mistake = |text: &str| Failure::new(Exit::Mistake, text);
    let text = std::str::from_utf8(bytes).map_err(|_| mistake("a password or private key is text"))?;
    if text.starts_with(BEGIN) {
        let key = KeyPair::parse(text).ok_or_else(|| {
            mistake("this private key cannot be used: it is damaged, not in OpenSSH's form, or under a passphrase")
        })?;
        return Ok(Some(Login::Key(key)));
    }
    let line = text.lines().next().unwrap_or_default();
    if crate::servers::ssh::HostKey::from_str(line).is_ok() {
        return Err(mistake("this is a public key; what opens a door is the private one, in the file without `.pub`"));
    }
    Ok((!line.is_empty()).then(|| Login::Password(line.to_owned())))
}

async fn retag(
    cx: &Context,
    server: &ServerName,
    more: BTreeSet<String>,
    less: BTreeSet<String>,
) -> Result<(), Failure> {
    if let Some(both) = more.intersection(&less).next() {
        return Err(Failure::new(Exit::Mistake, format!("`{both}` cannot come and go at once")));
    }
    if more.is_empty() && less.is_empty() {
        return Err(Failure::new(Exit::Usage, format!("name tags: servers tag {server} ssd db --remove old")));
    }
    let change = move |record: &mut Record| {
        record.tags.extend(more);
        record.tags.retain(|tag| !less.contains(tag));
    };
    let record = cx.hq.change_server(server, change).await?;
    let tags: Vec<&str> = record.tags.iter().map(String::as_str).collect();
    let text = if tags.is_empty() { "no tags".to_owned() } else { format!("the tags {}", tags.join(", ")) };
    cx.out.note(&format!("{server} has {text}; what runs stays where it is until its next deploy")).await
}

async fn drain(cx: &Context, server: ServerName) -> Result<(), Failure> {
    let (hq, name) = (cx.hq.clone(), server.clone());
    let drain = move |say: crate::hq::door::Say| async move { hq.drain_server(&name, &|line| say.line(line)).await };
    let left = cx.beside(drain).await??;
    if cx.out.json {
        return cx.out.value(&left).await;
    }
    if left.is_empty() {
        return cx
            .out
            .note(&format!("{server} is empty; `servers resume {server}` or `servers remove {server}`"))
            .await;
    }
    let stays = format!("on {server} stays what keeps its data there or runs once; what has no room yet leaves later:");
    cx.out.note(&stays).await?;
    for container in left {
        cx.out.note(&format!("       {container}")).await?;
    }
    Ok(())
}

async fn resume(cx: &Context, server: &ServerName) -> Result<(), Failure> {
    cx.hq.change_server(server, |record| record.standing = Standing::Up).await?;
    cx.out.note(&format!("{server} takes new containers")).await
}

async fn remove(cx: &Context, server: ServerName, force: bool) -> Result<(), Failure> {
    let force = if force { Force::Yes } else { Force::No };
    let (hq, name) = (cx.hq.clone(), server.clone());
    let remove =
        move |say: crate::hq::door::Say| async move { hq.remove_server(&name, force, &|line| say.line(line)).await };
    cx.beside(remove).await??;
    cx.out.note(&format!("removed {server}")).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_password_s_first_line_or_a_whole_private_key() {
        assert!(secret(b"").unwrap().is_none());
        assert!(secret(b"\n").unwrap().is_none());
        let check = |text: &str| match secret(text.as_bytes()).unwrap() {
            Some(Login::Password(password)) => password,
            other => panic!("{other:?}"),
        };
        assert_eq!(check("hunter2\n"), "hunter2");
        assert_eq!(check("hunter2\r\n"), "hunter2");
        assert_eq!(check("-dash and blanks "), "-dash and blanks ");
        let damaged = secret(b"-----BEGIN OPENSSH PRIVATE KEY-----\nx\n-----END OPENSSH PRIVATE KEY-----\n");
        assert!(damaged.unwrap_err().message.contains("passphrase"));
        assert!(secret(&[0xff]).is_err());
        let public = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHB25dnSZgQSYu2k4WzAqH6AQUgJDTWReNEnFEBsx44Y ada@home\n";
        assert!(secret(public.as_bytes()).unwrap_err().message.contains("without `.pub`"));
    }

    #[test]
    fn a_secret_ends_where_it_is_whole_and_not_with_the_input() {
        for (text, expected) in [
            ("", false),
            ("-----", false),
            ("hunter2", false),
            ("hunter2\n", true),
            ("-dash\n", true),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n", false),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----", true),
        ] {
            assert_eq!(is_whole(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn tags_come_with_commas_or_blanks_and_none_is_taken_that_no_filter_could_name() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect();
        let tags = checked(words("db,ssd fast")).unwrap();
        assert_eq!(tags.into_iter().collect::<Vec<_>>(), ["db", "fast", "ssd"]);
        assert!(checked(words("db !ssd")).unwrap_err().message.contains("`!ssd` is not a tag"));
    }

    #[test]
    fn a_fingerprint_is_as_openssh_shows_it() {
        let check = |text: &str, good: bool| assert_eq!(fingerprint(text).is_ok(), good, "{text}");
        check("SHA256:mN9lM6deWKP9t5uX8KWGMwjuVMUnxhVxlp9WcWDyPtY", true);
        check("mN9lM6deWKP9t5uX8KWGMwjuVMUnxhVxlp9WcWDyPtY=", true);
        check("SHA256:short", false);
        check("MD5:16:27:ac:a5:76:28:2d:36:63:1b:56:4d:eb:df:a6:48", false);
        check("", false);
    }

    #[test]
    fn what_keeps_nodes_off_a_server_is_no_tag_of_it() {
        let check = |words: &[&str]| checked(words.iter().map(|word| (*word).to_owned()).collect());
        assert_eq!(check(&["db,ssd", "ssd"]).unwrap(), ["db", "ssd"].map(str::to_owned).into());
        assert!(check(&["!db"]).unwrap_err().message.contains("`filter`"));
        assert!(check(&["Db"]).unwrap_err().message.contains("lowercase"));
    }
}
