//! nftables, through its program: transactions in, listings out.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::rules::{TRIAL, Table};

/// Where distributions put it.
const PROGRAMS: [&str; 3] = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft"];

/// Far more than ten thousand peers take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why nftables did not do it.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The program is not there.
    #[error("nft is not installed: apt-get install nftables")]
    Missing,
    /// It cannot be run, or does not come to an end.
    #[error("cannot run nft")]
    Run(#[source] io::Error),
    /// It says no; nothing has changed.
    #[error("nft refuses: {0}{hint}", hint = hint(.0))]
    Refused(String),
}

fn hint(said: &str) -> &'static str {
    if said.contains("Operation not permitted") {
        "; only root changes a machine's rules"
    } else if said.contains("Operation not supported") || said.contains("cache initialization failed") {
        "; the kernel needs nf_tables, from 4.18 on with `iifkind`: modprobe nf_tables"
    } else {
        ""
    }
}

/// Carries out a transaction, whole or not at all.
///
/// # Errors
/// Then nothing has changed.
pub async fn load(text: &str) -> Result<(), NftError> {
    if text.is_empty() {
        return Ok(());
    }
    run(&["-f", "-"], text).await.map(drop)
}

/// Whether there is a table of this name.
///
/// # Errors
/// It cannot be asked.
pub async fn stands(table: &str) -> Result<bool, NftError> {
    list(&["list", "table", "inet", table]).await.map(|listing| listing.is_some())
}

/// Quarry's tables, in order.
///
/// # Errors
/// They cannot be listed.
pub async fn tables() -> Result<BTreeSet<Table>, NftError> {
    let tables = run(&["list", "tables", "inet"], "").await?;
    Ok(tables.lines().filter_map(|line| Table::named(line.strip_prefix("table inet ")?)).collect())
}

/// A table as the kernel has it, without what counts and passes by itself, in a form that only changes when the table
/// does; `None` when there is none.
///
/// # Errors
/// It cannot be listed.
pub async fn listing(table: Table) -> Result<Option<String>, NftError> {
    let listing = list(&["-s", "list", "table", "inet", &table.to_string()]).await?;
    Ok(listing.map(|text| settled(&text)))
}

/// Whether the time of the trial in this table has not run out.
///
/// # Errors
/// The set cannot be listed.
pub async fn on_trial(table: Table) -> Result<bool, NftError> {
    let set = list(&["list", "set", "inet", &table.to_string(), TRIAL]).await?;
    Ok(set.is_some_and(|set| set.contains("elements")))
}

/// Packets that were refused since the rules came.
///
/// # Errors
/// The tables cannot be listed.
pub async fn refused() -> Result<u64, NftError> {
    let counted =
        |line: &str| -> Option<u64> { line.trim().strip_prefix("counter packets ")?.split(' ').next()?.parse().ok() };
    let mut refused = 0;
    for table in tables().await? {
        let text = list(&["list", "table", "inet", &table.to_string()]).await?.unwrap_or_default();
        refused += text.lines().filter_map(counted).sum::<u64>();
    }
    Ok(refused)
}

async fn list(arguments: &[&str]) -> Result<Option<String>, NftError> {
    match run(arguments, "").await {
        Ok(text) => Ok(Some(text)),
        Err(NftError::Refused(said)) if said.contains("No such file or directory") => Ok(None),
        Err(error) => Err(error),
    }
}

async fn run(arguments: &[&str], input: &str) -> Result<String, NftError> {
    let program = PROGRAMS.into_iter().find(|program| Path::new(program).exists()).ok_or(NftError::Missing)?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = tokio::time::timeout(PATIENCE, talk(command, input)).await;
    let output = output.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(NftError::Run)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(NftError::Refused(words(&output.stderr)))
}

async fn talk(mut command: Command, input: &str) -> io::Result<Output> {
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let write = async {
        // One that has stopped reading says why on its standard error.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), write);
    output
}

/// What nft complains of: its first complaints, without the lines that repeat ours with marks under them.
fn words(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let complaints = text.lines().filter_map(|line| line.split_once("Error: ").map(|(_, complaint)| complaint));
    let mut words: Vec<&str> = complaints.take(3).collect();
    words.dedup();
    if words.is_empty() { text.trim().chars().take(500).collect() } else { words.join("; ") }
}

/// A listing with the elements of each set in order: the kernel gives them in that of its hash table.
fn settled(listing: &str) -> String {
    const BEGIN: &str = "elements = {";
    let mut settled = String::with_capacity(listing.len());
    let mut rest = listing;
    while let Some((before, elements)) = rest.split_once(BEGIN) {
        let Some((elements, after)) = elements.split_once('}') else { break };
        let mut elements: Vec<&str> = elements.split(',').map(str::trim).collect();
        elements.sort_unstable();
        settled.push_str(before);
        settled.push_str(BEGIN);
        settled.push_str(&elements.join(","));
        settled.push('}');
        rest = after;
    }
    settled.push_str(rest);
    settled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_elements_is_no_difference_and_the_order_of_rules_is() {
        let table = "set a {\n elements = { 2, 1,\n 3 }\n}\nchain b {\n x\n y\n}\n";
        assert_eq!(settled(table), settled("set a {\n elements = { 3, 2, 1 }\n}\nchain b {\n x\n y\n}\n"));
        assert_ne!(settled(table), settled("set a {\n elements = { 1, 2, 3 }\n}\nchain b {\n y\n x\n}\n"));
        assert_ne!(settled(table), settled("set a {\n elements = { 1, 2 }\n}\nchain b {\n x\n y\n}\n"));
    }

    #[test]
    fn complaints_come_without_the_text_they_are_about() {
        let said = b"/dev/stdin:3:1-4: Error: syntax error, unexpected drop\n    drop\n    ^^^^\n";
        assert_eq!(words(said), "syntax error, unexpected drop");
        assert_eq!(words(b"netlink: something else\n"), "netlink: something else");
    }
}
