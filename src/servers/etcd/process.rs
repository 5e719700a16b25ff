//! A member on its server: installed, given its settings, started, ended.

use std::collections::BTreeMap;
use std::time::Duration;

use super::script::{CLEAR, INSTALL, LOOK, START, WHY, WRITE};
use crate::servers::authority::Identity;
use crate::servers::member::FOLDER;
use crate::servers::ssh::{Link, LinkError, ScriptError};

/// A short command.
const COMMAND: Duration = Duration::from_secs(60);
/// Packages from slow mirrors.
const INSTALLING: Duration = Duration::from_secs(15 * 60);

/// The oldest that has members without a voice and that HQ's state is kept in.
const OLDEST: (u32, u32) = (3, 4);

/// Whether a server has a member's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// It has.
    There,
    /// It has none.
    Absent,
}

/// What a member starts with.
pub struct Papers<'a> {
    /// Its settings.
    pub settings: &'a str,
    /// Its certificate and key.
    pub identity: &'a Identity,
    /// The certificate of the authority that signs all.
    pub authority: &'a str,
}

/// Why a server does not do a member's work.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// The way to it.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// HQ comes as somebody who may not.
    #[error("etcd is installed and started by root, so HQ must come as root; add the server as root@…")]
    NotRoot,
    /// What the distribution has is too old.
    #[error("its etcd is version {0}, and 3.4 or later is needed; install one there")]
    Old(String),
    /// A script there failed.
    #[error(transparent)]
    Script(#[from] ScriptError),
}

/// Whether the server has a member's data. Nothing is changed.
///
/// # Errors
/// When it cannot be reached, or HQ may do nothing there.
pub async fn data(link: &Link) -> Result<Data, MemberError> {
    Ok(if look(link).await?.contains_key("data") { Data::There } else { Data::Absent })
}

/// Sees to it that etcd is there.
///
/// # Errors
/// When it cannot be installed, or is too old.
pub async fn supply(link: &Link, say: impl Fn()) -> Result<(), MemberError> {
    let mut version = look(link).await?.remove("version").unwrap_or_default();
    if version.is_empty() {
        say();
        link.script("install etcd", INSTALL, &[], tokio::io::empty(), INSTALLING).await?;
        version = look(link).await?.remove("version").unwrap_or_default();
    }
    if is_recent(&version) { Ok(()) } else { Err(MemberError::Old(version)) }
}

/// Gives the member what it starts with, and starts it, again if it runs.
///
/// # Errors
/// When a file cannot be written, or it cannot be started.
pub async fn start(link: &Link, papers: &Papers<'_>) -> Result<(), MemberError> {
    let files = [
        ("ca.pem", "644", papers.authority),
        ("cert.pem", "644", &papers.identity.certificate),
        ("key.pem", "600", &papers.identity.key),
        ("etcd.yml", "644", papers.settings),
    ];
    for (name, mode, text) in files {
        let path = format!("{FOLDER}/{name}");
        link.script("write etcd's settings", WRITE, &[&path, mode], text.as_bytes(), COMMAND).await?;
    }
    link.script("start etcd", START, &[FOLDER], tokio::io::empty(), COMMAND).await?;
    Ok(())
}

/// Ends the member, and takes its data away.
///
/// # Errors
/// When it does not end.
pub async fn clear(link: &Link) -> Result<(), MemberError> {
    link.script("end etcd", CLEAR, &[FOLDER], tokio::io::empty(), COMMAND).await?;
    Ok(())
}

/// What the member last complained about, if anything.
pub async fn why(link: &Link) -> Option<String> {
    let done = link.script("read etcd's log", WHY, &[FOLDER], tokio::io::empty(), COMMAND).await.ok()?;
    let line = String::from_utf8_lossy(&done.stdout).trim().to_owned();
    // A line of its log is JSON with more than anybody wants to read.
    let told = serde_json::from_str::<BTreeMap<String, serde_json::Value>>(&line).ok().map(|fields| {
        let text = |name: &str| fields.get(name).and_then(|value| value.as_str()).map(str::to_owned);
        [text("msg"), text("error")].into_iter().flatten().collect::<Vec<_>>().join(": ")
    });
    told.or(Some(line)).filter(|line| !line.is_empty())
}

async fn look(link: &Link) -> Result<BTreeMap<String, String>, MemberError> {
    let done = link.script("look at the server", LOOK, &[FOLDER], tokio::io::empty(), COMMAND).await?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    let facts: BTreeMap<String, String> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    if facts.get("user").is_some_and(|user| user == "0") { Ok(facts) } else { Err(MemberError::NotRoot) }
}

fn is_recent(version: &str) -> bool {
    let mut numbers = version.split('.').map_while(|part| part.parse::<u32>().ok());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default()) >= OLDEST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_etcd_that_has_learners_will_do() {
        for (version, expected) in
            [("3.4.23", true), ("3.5.0-rc.1", true), ("4.0", true), ("3.3.25", false), ("", false), ("2.9", false)]
        {
            assert_eq!(is_recent(version), expected, "{version}");
        }
    }
}
